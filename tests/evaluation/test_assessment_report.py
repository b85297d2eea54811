"""What is written: a page that needs nothing else, and the same numbers in every format."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from assessed import bare, everything
from PIL import Image

from mxa.errors import DataError
from mxa.evaluation.assessment_figures import draw
from mxa.evaluation.assessment_report import CAPTIONS, numbers, write_assessment
from mxa.evaluation.assessment_tables import tables
from mxa.evaluation.tables import shown, to_latex, to_markdown

NOTES = ("The first <caveat>.", "The second caveat.")


class Page(HTMLParser):
    """Headings, captions, rows, paragraphs and addresses in their order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.parts: list[tuple[str, str]] = []
        self.addresses: list[str] = []
        self.inside = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "data", "action"}]
        if tag in {"h1", "h2", "p", "caption", "th", "td", "figcaption", "dt", "dd"}:
            self.parts.append((tag, ""))
            self.inside = tag

    def handle_data(self, data: str) -> None:
        if self.inside and data.strip():
            tag, text = self.parts[-1]
            self.parts[-1] = tag, text + data

    def handle_endtag(self, tag: str) -> None:
        if tag == self.inside:
            self.inside = ""

    def of(self, *tags: str) -> list[str]:
        return [text for tag, text in self.parts if tag in tags]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    write_assessment(out, everything(), "A title", NOTES, {"command": "mxa evaluate"})
    return out


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_folder_holds_every_format(folder: Path) -> None:
    names = {file.name for file in folder.iterdir()}
    drawn = {f"{name}.png" for name in CAPTIONS}
    assert names == {"report.html", "metrics.json", "tables", "tables.md", "tables.tex"} | drawn
    assert {file.stem for file in (folder / "tables").iterdir()} == set(tables(everything()))
    for name in drawn:
        with Image.open(folder / name) as picture:
            picture.load()
            assert min(picture.size) > 200


def test_caveats_come_before_the_numbers_and_results_first(page: Page) -> None:
    headings = page.of("h1", "h2")
    assert headings[:3] == ["A title", "Results", "AUROC"]
    assert headings[-1] == "Provenance"
    first = [kind for kind, _ in page.parts][:5]
    assert first == ["h1", "h2", "p", "p", "caption"]
    assert page.of("p") == list(NOTES)
    assert page.of("dt", "dd") == ["command", "mxa evaluate"]


def test_every_table_and_figure_is_on_the_page_once(page: Page) -> None:
    assert sorted(page.of("caption")) == sorted(table.caption for table in tables(everything()).values())
    drawn = draw(everything())
    assert sorted(page.of("figcaption")) == sorted(CAPTIONS[name] for name in drawn)
    assert set(CAPTIONS) == set(drawn)


def test_nothing_is_fetched(folder: Path, page: Page) -> None:
    assert len(page.addresses) == len(page.of("figcaption"))
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not re.search(r"https?:|<script|@import|url\(", (folder / "report.html").read_text(encoding="utf-8"))


def test_page_csv_markdown_and_latex_say_the_same(folder: Path, page: Page) -> None:
    cells = page.of("th", "td")
    markdown, latex = ((folder / f"tables.{end}").read_text(encoding="utf-8") for end in ("md", "tex"))
    for name, table in tables(everything()).items():
        wanted = [shown(cell) for row in (table.header, *table.rows) for cell in row]
        starts = [i for i, cell in enumerate(cells) if cell == wanted[0]]
        assert any(cells[i : i + len(wanted)] == wanted for i in starts), name
        with (folder / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
            read = [cell for row in csv.reader(stream) for cell in row]
        for written, cell in zip(read, [c for row in (table.header, *table.rows) for c in row], strict=True):
            assert float(written) == cell if isinstance(cell, float) else written == str(cell)
        assert to_markdown(table).rstrip() in markdown
        assert to_latex(table).rstrip() in latex


def test_the_numbers_are_plain_json_and_agree_with_the_tables(folder: Path) -> None:
    found = everything()
    stored = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert stored["notes"] == list(NOTES)
    assert stored["provenance"] == {"command": "mxa evaluate"}
    assert {key: stored[key] for key in numbers(found)} == json.loads(json.dumps(numbers(found)))
    assert {key: stored[key] for key in found.evaluation.to_dict()} == found.evaluation.to_dict()
    with (folder / "tables" / "measures.csv").open(encoding="utf-8", newline="") as stream:
        rows = {row["Finding"]: row for row in csv.DictReader(stream)}
    for finding, one in stored["measures"]["findings"].items():
        for key, column in (("auroc", "AUROC"), ("f1", "F1"), ("brier", "Brier score"), ("npv", "NPV")):
            cell, figure = rows[finding][column], one[key]
            assert cell == figure["reason"] if figure["value"] is None else float(cell) == figure["value"]
    assert stored["intervals"]["auroc"]["findings"]["Hernia"] is None
    assert stored["measures"]["findings"]["Hernia"]["auroc"] == {"value": None, "reason": "no positives"}
    assert stored["measures"]["macro"]["auroc"]["over"] == ["No Finding", "Cardiomegaly", "Edema", "Support Devices"]
    assert stored["tuning"] == found.tuning.to_dict()
    assert (stored["cases"], stored["patients"], stored["unit"]) == (200, found.patients, "image")


def test_what_there_is_nothing_for_is_left_out(tmp_path: Path) -> None:
    write_assessment(tmp_path, bare(), "t", (), {})
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.of("h2") == [
        "Results",
        "AUROC",
        "ROC curves",
        "Precision and recall",
        "Decisions",
        "What is found together",
    ]
    stored = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert stored["comparison"] is None
    assert stored["subgroups"] == stored["strata"] == []


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        write_assessment(tmp_path / "missing", bare(), "t", (), {})
