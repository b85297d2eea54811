import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from mxa.errors import DataError
from mxa.evaluation.figures import Chart, training_curves
from mxa.evaluation.metrics import evaluate, evaluate_probability
from mxa.evaluation.report import (
    DISCLAIMER,
    LONGEST_LINE,
    Picture,
    Section,
    Table,
    finding_table,
    summary_table,
    write_page,
    write_report,
)
from mxa.labels import CHEXPERT14, LabelSet

THREE = LabelSet("three", ("A", "B", "C"), ("a", "b", "c"))
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """What a reader of the page gets: tags, attributes, headings, table cells and text; open tags must be closed."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.attributes, self.open = [], [], []
        self.headings, self.tables, self.terms, self.text = [], [], [], []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"th", "td"}:
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text.append(data)
        last = self.open[-1] if self.open else ""
        if last in {"h1", "h2"}:
            self.headings.append(data)
        elif last in {"th", "td"}:
            self.tables[-1][-1][-1] += data
        elif last in {"dt", "dd"}:
            self.terms.append(data)


def evaluations():
    rng = np.random.default_rng(0)
    target = (rng.random((50, 3)) < 0.4).astype(float)
    target[:, 1] = 0
    mask = rng.random((50, 3)) < 0.9
    return {
        name: evaluate(rng.normal(size=(50, 3)) + k * target, target, mask, THREE)
        for name, k in (("plain", 0.5), ("MXA", 2))
    }


def page(tmp_path, *args, **kwargs):
    write_report(tmp_path / "report.html", *args, **kwargs)
    result = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert result.open == []
    return result


def photo():
    stream = io.BytesIO()
    Figure(figsize=(1, 1)).savefig(stream, format="png", dpi=20)
    return stream.getvalue()


def full(tmp_path):
    history = {"plain": [{"epoch": i, "train_loss": 1 / (i + 1)} for i in range(3)]}
    sections = (
        Section("Training", ("How it went.", Picture(Chart.of(training_curves(history)), "Loss per epoch"))),
        Section("Regions", (Picture(photo(), "Box on a radiograph"), Table(("k", "v"), (("x", 1.5),), "Settings"))),
    )
    provenance = {"command": "mxa train --seed 1", "data": "phantom"}
    return page(tmp_path, "Phantom run", evaluations(), THREE, sections, provenance)


def test_the_report_opens_with_the_summary_and_keeps_the_order(tmp_path):
    result = full(tmp_path)
    assert result.headings == ["Phantom run", "Results", "Results per finding", "Training", "Regions", "Provenance"]
    assert [table[0][0] for table in result.tables] == ["Model", "Finding", "k"]
    assert result.terms == ["command", "mxa train --seed 1", "data", "phantom"]
    assert "How it went." in result.text
    assert result.text.count(DISCLAIMER) == 1
    assert DISCLAIMER == "Research software; not for clinical use."


def test_summary_cells_are_the_numbers(tmp_path):
    header, *rows = full(tmp_path).tables[0]
    assert header == [
        "Model",
        "Images",
        "Loss",
        "Accuracy",
        "F1 (micro)",
        "AUROC (micro)",
        "AUROC (macro)",
        "Macro over",
    ]
    assert [row[0] for row in rows] == ["plain", "MXA"]
    for row, one in zip(rows, evaluations().values(), strict=True):
        figures = (one.loss, one.accuracy, one.f1_micro, one.auroc_micro, one.auroc_macro)
        assert row[1:] == ["50", *(f"{value:.3f}" for value in figures), "2 of 3"]


def test_finding_cells_are_the_numbers_and_undefined_ones_say_why(tmp_path):
    header, *rows = full(tmp_path).tables[1]
    assert header == ["Finding", "AUROC, plain", "AUROC, MXA", "Positives", "Negatives", "Ignored"]
    plain, mxa = (one.findings for one in evaluations().values())
    for row, name in zip(rows, THREE, strict=True):
        counts = [str(n) for n in (mxa[name].positives, mxa[name].negatives, mxa[name].ignored)]
        areas = ["no positives"] * 2 if name == "B" else [f"{one[name].auroc:.3f}" for one in (plain, mxa)]
        assert row == [name, *areas, *counts]


def test_different_counts_are_both_given():
    target, yes = np.array([[1, 0, 1], [0, 1, 0.0]]), np.ones((2, 3), bool)
    less = yes.copy()
    less[0, 0] = False
    both = {"a": evaluate(target, target, yes, THREE), "b": evaluate(target, target, less, THREE)}
    row = finding_table(both, THREE).rows[0]
    assert row == ("A", 1.0, "no positives", "1 / 0", 1, "0 / 1")


def test_undefined_overall_figures_say_why():
    wrong = evaluate_probability(np.ones((1, 3)), np.zeros((1, 3)), np.ones((1, 3), bool), THREE)
    row = summary_table({"m": wrong}, THREE).rows[0]
    assert row[2].startswith("infinite: 3 probabilities")
    assert row[5:] == ("no positives", "no finding has both positives and negatives", "0 of 3")


def test_nothing_is_loaded_from_elsewhere(tmp_path):
    result = full(tmp_path)
    addresses = [value for _, name, value in result.attributes if name in {"src", "href", "srcset", "data", "action"}]
    assert len(addresses) == 2
    assert all(value.startswith("data:image/png;base64,") for value in addresses)
    assert not {"script", "link", "iframe", "object", "embed"} & set(result.tags)
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|@import|url\(", source)
    assert ("meta", "content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in result.attributes


def test_pictures_are_embedded_with_their_captions(tmp_path):
    result = full(tmp_path)
    sources = [value for tag, name, value in result.attributes if (tag, name) == ("img", "src")]
    first, second = (base64.b64decode(value.split(",")[1], validate=True) for value in sources)
    assert first.startswith(b"\x89PNG\r\n\x1a\n")
    assert second == photo()
    alts = [value for tag, name, value in result.attributes if (tag, name) == ("img", "alt")]
    assert alts == ["Loss per epoch", "Box on a radiograph"]
    assert {"Loss per epoch", "Box on a radiograph", "Settings"} <= set(result.text)


def test_all_text_is_escaped(tmp_path):
    evil = '<script>alert("x")</script>&amp;\'"'
    one = evaluations()["MXA"]
    result = page(
        tmp_path,
        evil,
        {evil: one},
        THREE,
        (Section(evil, (evil, Table((evil,), ((evil,),), evil), Picture(photo(), evil))),),
        {evil: evil},
    )
    assert "script" not in result.tags
    assert result.headings.count(evil) == 2
    assert result.terms == [evil, evil]
    assert result.tables[0][1][0] == evil
    assert result.tables[1][0][1] == f"AUROC, {evil}"
    assert result.tables[2] == [[evil], [evil]]
    assert ("img", "alt", evil) in result.attributes
    assert result.text.count(evil) == 11


def test_columns_with_numbers_are_aligned_right(tmp_path):
    table = Table(("a", "b", "c"), (("x", 1, "y"), ("z", "undefined", "y")))
    write_report(tmp_path / "r.html", "t", evaluations(), THREE, (Section("s", (table,)),))
    source = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert '<th scope="row">z</th><td class="number">undefined</td><td>y</td>' in source
    assert '<th scope="col">a</th><th scope="col" class="number">b</th><th scope="col">c</th>' in source


def test_a_report_without_extras_has_the_two_tables_only(tmp_path):
    result = page(tmp_path, "t", evaluations(), THREE)
    assert result.headings == ["t", "Results", "Results per finding"]
    assert "dl" not in result.tags


def test_an_empty_table_still_has_its_header(tmp_path):
    result = page(tmp_path, "t", evaluations(), THREE, (Section("s", (Table(("a", "b"), ()),)),))
    assert result.tables[2] == [["a", "b"]]


def test_a_phone_gets_its_own_width(tmp_path):
    result = full(tmp_path)
    assert ("meta", "content", "width=device-width, initial-scale=1") in result.attributes
    # Only inside these boxes may anything be wider than the screen.
    wide = [tag for tag in result.tags if tag in {"table", "img"}]
    assert result.attributes.count(("div", "class", "scroll")) == len(wide)


def test_wrong_parts_are_refused(tmp_path):
    with pytest.raises(ValueError, match="1 cells, but the header has 2"):
        Table(("a", "b"), (("x",),))
    with pytest.raises(ValueError, match="not a PNG"):
        Picture(b"\xff\xd8jpeg", "c")
    with pytest.raises(ValueError, match="needs a caption"):
        Picture(photo(), "")
    with pytest.raises(ValueError, match="not over the findings of chexpert14"):
        summary_table(evaluations(), CHEXPERT14)
    with pytest.raises(ValueError, match="no model"):
        finding_table({}, THREE)
    with pytest.raises(DataError, match="cannot write"):
        write_report(tmp_path / "missing" / "r.html", "t", evaluations(), THREE)


def test_a_page_has_its_sections_and_nothing_more(tmp_path):
    sections = (
        Section("One", ("First.", Table(("a", "b"), (("x", 1),)), "Last.")),
        Section("Two", (Picture(photo(), "A picture"),)),
    )
    write_page(tmp_path / "p.html", "Title", sections)
    result = Page((tmp_path / "p.html").read_text(encoding="utf-8"))
    assert result.open == []
    assert result.headings == ["Title", "One", "Two"]
    assert result.tables == [[["a", "b"], ["x", "1"]]]
    text = [one for one in result.text if one.strip()]
    assert text == ["Title", "Title", "One", "First.", "a", "b", "x", "1", "Last.", "Two", "A picture", DISCLAIMER]
    write_page(tmp_path / "p.html", "Title", sections, {"command": "mxa"})
    assert Page((tmp_path / "p.html").read_text(encoding="utf-8")).terms == ["command", "mxa"]
    assert [file.name for file in tmp_path.iterdir()] == ["p.html"], "nothing half-made is left"
    with pytest.raises(DataError, match=r"cannot write .*missing"):
        write_page(tmp_path / "missing" / "p.html", "Title", sections)


def test_sentences_in_cells_may_break_and_numbers_may_not(tmp_path):
    fits, sentence = "x" * LONGEST_LINE, "no finding has enough cases on both sides"
    assert len(sentence) > LONGEST_LINE
    rows = (("r", 0.5, fits), ("s", sentence, "+0.003 (-0.018 to +0.027)"))
    write_page(tmp_path / "p.html", "t", (Section("s", (Table(("a", "b", "c"), rows),)),))
    source = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert f'<td class="number">0.500</td><td>{fits}</td>' in source
    assert f'<td class="long">{sentence}</td><td>+0.003 (-0.018 to +0.027)</td>' in source
    assert "td { white-space: nowrap; }" in source
    assert "td.long { white-space: normal;" in source


def test_a_chart_is_as_wide_as_it_was_drawn(tmp_path):
    parts = (Picture(Chart.of(Figure(figsize=(7.25, 2))), "A chart"), Picture(photo(), "A photo"))
    write_page(tmp_path / "p.html", "t", (Section("s", parts),))
    result = Page((tmp_path / "p.html").read_text(encoding="utf-8"))
    figures = [(name, value) for tag, name, value in result.attributes if tag == "figure"]
    assert figures == [("class", "chart"), ("style", "--drawn: 7.25in"), ("class", "photo")]
