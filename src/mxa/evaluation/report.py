"""The report: one HTML file that needs nothing else, for a screen of any width and for paper."""

import base64
import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mxa.evaluation.figures import Chart, distinct, require_evaluations
from mxa.evaluation.files import write_text
from mxa.evaluation.metrics import Evaluation
from mxa.evaluation.tables import Cell, Table, shown
from mxa.labels import LabelSet

__all__ = [
    "DISCLAIMER",
    "Cell",
    "Picture",
    "Section",
    "Table",
    "finding_table",
    "summary_table",
    "write_page",
    "write_report",
]

DISCLAIMER = "Research software; not for clinical use."

LONGEST_LINE = 32
"""Characters of a cell that is not broken."""

_PNG = b"\x89PNG\r\n\x1a\n"
# Charts keep a readable width on a phone and scroll inside their own box; the page itself never scrolls sideways.
_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 78rem; margin: 0 auto;
  padding: 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { font-size: 1.2rem; margin-top: 2rem; border-bottom: 1px solid #ccc; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin-bottom: 1rem; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: #555; padding-bottom: 0.3rem; max-width: calc(100vw - 2rem); }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid #555; }
.number { text-align: right; }
td { white-space: nowrap; }
tbody th { min-width: 8rem; }
td.long { white-space: normal; min-width: 9rem; }
figure { margin: 1rem 0; }
figcaption { color: #555; font-size: 0.9rem; }
img { max-width: 100%; height: auto; }
.chart img { width: min(100%, var(--drawn)); min-width: min(40rem, var(--drawn)); }
dt { font-weight: 600; margin-top: 0.5rem; }
dd { margin: 0; white-space: pre-wrap; font-family: ui-monospace, monospace; font-size: 0.85rem; }
footer { margin-top: 2rem; border-top: 1px solid #ccc; padding-top: 0.5rem; font-weight: 600; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  .scroll { overflow: visible; }
  td { white-space: normal; }
  caption { max-width: none; }
  .chart img { min-width: 0; }
  img { max-height: 22cm; object-fit: contain; }
  tr, figure { break-inside: avoid; }
  h2, caption { break-after: avoid; }
}
"""


@dataclass(frozen=True)
class Picture:
    """A chart or the bytes of a PNG file, such as a radiograph with boxes, and what it shows.

    Raises:
        ValueError: If bytes are not a PNG file or the caption, which is also the text for who cannot see it, is empty.
    """

    image: Chart | bytes
    caption: str

    def __post_init__(self) -> None:
        if isinstance(self.image, bytes) and not self.image.startswith(_PNG):
            raise ValueError(f"the picture {self.caption!r} is not a PNG file")
        if not self.caption:
            raise ValueError("a picture needs a caption")


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it: tables, pictures and paragraphs of plain text, in order."""

    title: str
    parts: tuple[Table | Picture | str, ...]


def summary_table(evaluations: Mapping[str, Evaluation], labels: LabelSet) -> Table:
    """Return the table that matters: one model per row with its overall figures [paper, Table 3].

    An undefined figure shows its reason. The mean AUROC comes with the number of findings that it is over.

    Raises:
        ValueError: If there is no model, or an evaluation is over other findings.
    """
    require_evaluations(evaluations, labels)
    header = ("Model", "Images", "Loss", "Accuracy", "F1 (micro)", "AUROC (micro)", "AUROC (macro)", "Macro over")
    figures = ("loss", "accuracy", "f1_micro", "auroc_micro", "auroc_macro")
    rows = tuple(
        (
            model,
            one.images,
            *(_value(getattr(one, name), one.reasons.get(name)) for name in figures),
            f"{len(one.auroc_macro_over)} of {len(labels)}",
        )
        for model, one in evaluations.items()
    )
    return Table(header, rows, "Accuracy and F1 at a probability above 0.5. Undefined AUROCs are not averaged in.")


def finding_table(evaluations: Mapping[str, Evaluation], labels: LabelSet) -> Table:
    """Return AUROC per finding and model with the counts behind it [paper, Table 5].

    Where models were scored on different labels, a cell gives each count that occurs, as in "12 / 15".

    Raises:
        ValueError: If there is no model, or an evaluation is over other findings.
    """
    require_evaluations(evaluations, labels)
    header = ("Finding", *(f"AUROC, {model}" for model in evaluations), "Positives", "Negatives", "Ignored")
    rows = []
    for name in labels:
        ones = [evaluation.findings[name] for evaluation in evaluations.values()]
        counts = ([one.positives for one in ones], [one.negatives for one in ones], [one.ignored for one in ones])
        rows.append((name, *(_value(one.auroc, one.reason) for one in ones), *map(_count, counts)))
    return Table(header, tuple(rows))


def write_report(
    file: str | os.PathLike[str],
    title: str,
    evaluations: Mapping[str, Evaluation],
    labels: LabelSet,
    sections: Sequence[Section] = (),
    provenance: Mapping[str, str] | None = None,
) -> None:
    """Write a self-contained HTML page: summary table, AUROC per finding, ``sections``, provenance, disclaimer.

    All pictures are embedded and there is no script. All text is escaped, so none of it is taken for HTML.

    Args:
        file: The .html file to write.
        title: Heading of the page.
        evaluations: Per model name its evaluation over ``labels``; the rows of the tables, in order.
        labels: The findings.
        sections: What follows the two tables, such as ROC curves, training curves and radiographs.
        provenance: What is needed to get the same numbers again (commands, seeds, data, versions), by name.

    Raises:
        ValueError: If there is no model, or an evaluation is over other findings.
        DataError: If the file cannot be written.
    """
    opening = (
        Section("Results", (summary_table(evaluations, labels),)),
        Section("Results per finding", (finding_table(evaluations, labels),)),
    )
    write_page(file, title, (*opening, *sections), provenance)


def write_page(
    file: str | os.PathLike[str], title: str, sections: Sequence[Section], provenance: Mapping[str, str] | None = None
) -> None:
    """Write a self-contained HTML page of any sections, provenance and disclaimer; nothing is fetched, nothing runs.

    The file appears whole or not at all.

    Args:
        file: The .html file to write.
        title: Heading of the page.
        sections: In order; the first table is what a reader sees first.
        provenance: As in :func:`write_report`.

    Raises:
        DataError: If the file cannot be written.
    """
    parts = [_section(section) for section in sections]
    if provenance:
        items = "\n".join(f"<dt>{_text(key)}</dt><dd>{_text(value)}</dd>" for key, value in provenance.items())
        parts.append(f"<section>\n<h2>Provenance</h2>\n<dl>\n{items}\n</dl>\n</section>")
    write_text(file, _page(title, "\n".join(parts)))


def _page(title: str, body: str) -> str:
    # The policy makes a browser refuse anything that is not in the file itself.
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{_text(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{_text(title)}</h1>
{body}
</main>
<footer>{_text(DISCLAIMER)}</footer>
</body>
</html>
"""


def _section(section: Section) -> str:
    parts = "\n".join(_part(part) for part in section.parts)
    return f"<section>\n<h2>{_text(section.title)}</h2>\n{parts}\n</section>"


def _part(part: Table | Picture | str) -> str:
    if isinstance(part, Table):
        return _table(part)
    if isinstance(part, Picture):
        return _picture(part)
    return f"<p>{_text(part)}</p>"


def _table(table: Table) -> str:
    kind = [' class="number"' if number else "" for number in table.numeric]
    head = "".join(f'<th scope="col"{k}>{_text(cell)}</th>' for k, cell in zip(kind, table.header, strict=True))
    body = "\n".join(f"<tr>{_row(row, kind)}</tr>" for row in table.rows)
    caption = f"<caption>{_text(table.caption)}</caption>\n" if table.caption else ""
    return (
        f'<div class="scroll">\n<table>\n{caption}<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def _row(row: tuple[Cell, ...], kind: Sequence[str]) -> str:
    first, *rest = (_text(shown(cell)) for cell in row)
    cells = "".join(f"<td{_class(k, cell)}>{cell}</td>" for k, cell in zip(kind[1:], rest, strict=True))
    return f'<th scope="row"{kind[0]}>{first}</th>{cells}'


def _class(kind: str, cell: str) -> str:
    """Numbers and intervals stay on one line; sentences may break."""
    return kind if len(cell) <= LONGEST_LINE else ' class="long"'


def _picture(picture: Picture) -> str:
    if isinstance(picture.image, Chart):
        # As large as drawn, or as wide as the page; on a phone it keeps a readable width and scrolls in its box.
        kind, png = f'chart" style="--drawn: {picture.image.width:.2f}in', picture.image.png
    else:
        kind, png = "photo", picture.image
    data = base64.b64encode(png).decode("ascii")
    caption = _text(picture.caption)
    return (
        f'<figure class="{kind}">\n<div class="scroll"><img alt="{caption}" src="data:image/png;base64,{data}"></div>\n'
        f"<figcaption>{caption}</figcaption>\n</figure>"
    )


def _value(value: float | None, reason: str | None) -> Cell:
    return value if value is not None else reason or "undefined"


def _count(counts: Sequence[int]) -> Cell:
    return counts[0] if len(set(counts)) == 1 else distinct(counts)


def _text(text: str) -> str:
    return html.escape(text, quote=True)
