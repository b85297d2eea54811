import csv
import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxa.evaluation import report
from mxa.evaluation.tables import Table, shown, to_csv, to_latex, to_markdown

TABLE = Table(("Model", "Images", "AUROC"), (("plain", 200, 2 / 3), ("MXA", 12, "no positives")), "On the test split.")
# Characters that mean something to one of the formats, and some that do not.
TEXT = st.text(st.sampled_from("\\&%$#_{}~^|<>[]*`\"',;-\n\r ab1é"), max_size=12)

BREAK = re.compile(r"\r\n|\r|\n")


def cells_of_markdown(line):
    """GitHub's rule: a pipe ends a cell unless a backslash escapes it; outside code, \\x is x."""
    cells, i = [""], 1
    while i < len(line):
        if line[i] == "\\":
            cells[-1] += line[i + 1]
            i += 1
        elif line[i] == "|":
            cells.append("")
        else:
            cells[-1] += line[i]
        i += 1
    return [cell[1:-1] for cell in cells[:-1]]


def plain_latex(text):
    """What LaTeX prints for an escaped text; it must hold no command but those known here."""
    words = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^"}
    words |= {"textless": "<", "textgreater": ">", "textbar": "|"}
    prints = {f"\\{word}{{}}": sign for word, sign in words.items()} | {f"\\{sign}": sign for sign in "&%$#_{}"}
    prints |= {"{[}": "[", "{*}": "*", "{}": ""}
    tokens = re.findall(r"\\[a-z]+\{\}|\\[&%$#_{}]|\{[\[*]\}|\{\}|[^\\{}&%$#_~^<>|\[*]", text)
    assert "".join(tokens) == text, "every special character is escaped"
    assert "--" not in text
    return "".join(prints.get(token, token) for token in tokens)


def test_numbers_are_shown_as_on_the_page():
    assert shown(2 / 3) == "0.667"
    assert shown(np.float64(1)) == "1.000"
    assert shown(3) == "3"
    assert shown("no positives") == "no positives"
    assert TABLE.numeric == (False, True, True)


def test_the_report_still_offers_the_table():
    assert report.Table is Table


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="1 cells, but the header has 2"):
        Table(("a", "b"), (("x",),))


@pytest.mark.parametrize(
    ("cells", "numeric"),
    [
        (("0.931 (0.920 to 0.940)", "no positives", "0.910 (0.9 to 1.0)"), True),
        (("+0.114 (+0.099 to +0.136)", "-0.003 (-0.027 to +0.018)"), True),
        (("<0.0001", "0.0198"), True),
        (("<0.0001", "<0.0001", "–"), True),
        (("no positives", "no negatives", "0.931 (0.920 to 0.940)"), False),
        (("0.931 (0.920 to 0.940)", "no positives"), False),
        (("13 of 14", "12 of 14"), False),
        (("20-40", "40-60"), False),
        (("about 0.931", "x"), False),
        (("no positives", 0.5), True),
        (("no positives", 3), True),
        ((), False),
    ],
)
def test_a_column_is_numeric_by_a_number_or_mostly_intervals(cells, numeric):
    assert Table(("a", "b"), tuple(("x", cell) for cell in cells)).numeric == (False, numeric)


# --- CSV


def test_csv_keeps_every_digit_and_every_integer():
    assert to_csv(TABLE) == "Model,Images,AUROC\nplain,200,0.6666666666666666\nMXA,12,no positives\n"
    assert to_csv(Table(("a",), ((np.float64(0.1),),))) == "a\n0.1\n"


@given(st.lists(st.tuples(TEXT, st.floats(allow_nan=False), st.integers()), max_size=4), st.tuples(TEXT, TEXT, TEXT))
def test_csv_comes_back_as_it_was(rows, header):
    read = list(csv.reader(io.StringIO(to_csv(Table(header, tuple(rows))), newline="")))
    assert read[0] == [BREAK.sub("\n", name) for name in header]
    assert [(a, float(b), int(c)) for a, b, c in read[1:]] == [(BREAK.sub("\n", a), b, c) for a, b, c in rows]


# --- Markdown


def test_markdown_is_a_pipe_table_with_its_caption():
    assert to_markdown(TABLE) == (
        "*On the test split.*\n\n"
        "| Model | Images | AUROC |\n"
        "| --- | ---: | ---: |\n"
        "| plain | 200 | 0.667 |\n"
        "| MXA | 12 | no positives |\n"
    )
    assert to_markdown(Table(("a",), ())) == "| a |\n| --- |\n"


def test_markdown_takes_no_text_for_markup():
    table = Table(("a|b", "c\nd"), (("mxa_vit_m0 *", "<b>_x_ [1](y) `z` \\|"),))
    header, _, row = to_markdown(table).splitlines()
    assert header == r"| a\|b | c<br>d |"
    assert row == r"| mxa_vit_m0 \* | \<b\>\_x\_ \[1](y) \`z\` \\\| |"


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3))
def test_markdown_cells_come_back(rows):
    _, _, *lines = to_markdown(Table(("a", "b"), tuple(rows))).split("\n")[:-1]
    # A break within a cell is written as <br>; a "<" of the text itself is escaped.
    found = [tuple(cells_of_markdown(line)) for line in lines]
    assert found == [tuple(BREAK.sub("<br>", cell) for cell in row) for row in rows]


# --- LaTeX


def test_latex_is_a_booktabs_table():
    assert to_latex(TABLE).splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\caption{On the test split.}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"Model & Images & AUROC \\",
        r"\midrule",
        r"plain & 200 & 0.667 \\",
        r"MXA & 12 & no positives \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    assert r"\caption" not in to_latex(Table(("a",), ()))


def test_latex_escapes_each_special_character():
    table = Table(("&%$#_{}",), (("~^\\",), ("[p] *",), ("a < b > c | d",), ("--out\nfile",)), "100%")
    lines = to_latex(table).splitlines()
    assert lines[2] == r"\caption{100\%}"
    assert lines[5] == r"\&\%\$\#\_\{\} \\"
    assert lines[7] == r"\textasciitilde{}\textasciicircum{}\textbackslash{} \\"
    assert lines[8] == r"{[}p] {*} \\", "a line break before it takes neither for its options"
    assert lines[9] == r"a \textless{} b \textgreater{} c \textbar{} d \\"
    assert lines[10] == r"-{}-out file \\"


@given(TEXT)
def test_latex_prints_the_text_again(text):
    line = to_latex(Table((text,), ())).splitlines()[4]
    assert plain_latex(line.removesuffix(r" \\")) == re.sub(r"\s*[\r\n]\s*", " ", text)
