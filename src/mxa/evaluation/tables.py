"""Tables of results, and how they are written: CSV for programs, Markdown and LaTeX for people."""

import csv
import io
import re
from dataclasses import dataclass

Cell = str | int | float

_BREAK = r"\r\n|\r|\n"

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    # These print as other signs in LaTeX's default font encoding.
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # At the start of a row these would be taken for options of the line break before it.
    "[": "{[}",
    "*": "{*}",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}


_NUMBER = re.compile(r"[+<-]?\d+\.\d{3}")


@dataclass(frozen=True)
class Table:
    """A table. Floats are shown with three decimals; a column of numbers or intervals is aligned right.

    Raises:
        ValueError: If a row has not as many cells as the header.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"a row has {len(row)} cells, but the header has {len(self.header)}: {row}")

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Per column whether it holds numbers: one at least, or in most rows words that begin with one (intervals)."""
        columns = [[row[j] for row in self.rows] for j in range(len(self.header))]
        return tuple(
            any(isinstance(cell, int | float) for cell in column)
            or 2 * sum(bool(_NUMBER.match(cell)) for cell in column if isinstance(cell, str)) > len(column)
            for column in columns
        )


def shown(cell: Cell) -> str:
    """Return a cell as a reader sees it: a float with three decimals, anything else as it is."""
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)


def to_csv(table: Table) -> str:
    r"""Return the table as CSV, header first, floats with all their digits; the caption is not part of it.

    Lines end with "\n", also those inside a cell.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([_csv(cell) for cell in row] for row in (table.header, *table.rows))
    return stream.getvalue()


def to_markdown(table: Table) -> str:
    """Return the table as GitHub's Markdown, the caption in italics above it; no text is taken for Markdown or HTML."""
    lines = [
        [_markdown(cell) for cell in table.header],
        ["---:" if number else "---" for number in table.numeric],
        *([_markdown(shown(cell)) for cell in row] for row in table.rows),
    ]
    caption = f"*{_markdown(table.caption)}*\n\n" if table.caption else ""
    return caption + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_latex(table: Table) -> str:
    r"""Return the table as a LaTeX ``table``; it needs the package booktabs. No text is taken for LaTeX.

    A line break in a cell becomes a space. Signs beyond ASCII stay as they are (UTF-8).
    """
    columns = "".join("r" if number else "l" for number in table.numeric)
    caption = [rf"\caption{{{_latex(table.caption)}}}"] if table.caption else []
    lines = [
        r"\begin{table}",
        r"\centering",
        *caption,
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _latex_row(table.header),
        r"\midrule",
        *map(_latex_row, table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _csv(cell: Cell) -> Cell:
    if isinstance(cell, str):
        return re.sub(_BREAK, "\n", cell)  # the csv module would leave a lone "\r" unquoted
    return float(cell) if isinstance(cell, float) else cell


def _markdown(text: str) -> str:
    # An underscore inside a word starts nothing, and names of models are full of them.
    text = re.sub(r"([\\`*\[<>~|&$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", text)
    return re.sub(_BREAK, "<br>", text)


def _latex_row(row: tuple[Cell, ...]) -> str:
    return " & ".join(_latex(shown(cell)) for cell in row) + r" \\"


def _latex(text: str) -> str:
    text = "".join(_LATEX.get(sign, sign) for sign in re.sub(r"\s*[\r\n]\s*", " ", text))
    return re.sub("-(?=-)", "-{}", text)  # two hyphens would print as a dash
