"""Files that appear whole or not at all."""

import csv
import json
from pathlib import Path

import pytest

from mxa.errors import DataError
from mxa.evaluation.figures import Chart
from mxa.evaluation.files import write_charts, write_json, write_tables, write_text
from mxa.evaluation.tables import Table


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def failing(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_text_is_written_as_it_is(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "Größe\r\n1\n")
    assert (tmp_path / "a.txt").read_bytes() == "Größe\r\n1\n".encode()
    write_text(str(tmp_path / "a.txt"), "new")
    assert (tmp_path / "a.txt").read_bytes() == b"new"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("step", ["replace", "write_bytes"])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "a.txt", "old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, step, failing)
        with pytest.raises(DataError, match=r"cannot write .*a\.txt: No space left"):
            write_text(tmp_path / "a.txt", "new")
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "a.txt", "old")
    original = Path.replace
    seen = []

    def replace(self: Path, target: Path) -> Path:
        seen.append((target.read_text(), self.read_text(), self.parent == target.parent))
        return original(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    write_text(tmp_path / "a.txt", "new")
    assert seen == [("old", "new", True)]


def test_half_a_file_is_taken_away_whatever_fails(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.txt", "x" * 100_000 + "\ud800")
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot write .*missing.a\.txt"):
        write_text(tmp_path / "missing" / "a.txt", "new")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"cannot write .*folder"):
        write_text(tmp_path / "folder", "new")
    assert names(tmp_path) == ["folder"]


def test_json_reads_back(tmp_path: Path) -> None:
    value = {"a": [1, 0.1, None, True], "b": {"c": "ü"}}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert text.endswith("}\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_what_is_no_number(value: float, tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(ValueError, match=r"not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": [value]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert names(tmp_path) == ["a.json"]


def test_tables_are_there_in_three_formats(tmp_path: Path) -> None:
    one = Table(("Finding", "AUROC"), (("Edema", 0.81234), ("Hernia", "no positives")), "First")
    two = Table(("Name",), (("x",),), "Second")
    for _ in range(2):  # a second time over the first
        write_tables(tmp_path, {"one": one, "two": two})
    assert names(tmp_path) == ["tables", "tables.md", "tables.tex"]
    assert names(tmp_path / "tables") == ["one.csv", "two.csv"]
    with (tmp_path / "tables" / "one.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    assert rows[:2] == [["Finding", "AUROC"], ["Edema", "0.81234"]]
    markdown = (tmp_path / "tables.md").read_text(encoding="utf-8")
    assert markdown.index("*First*") < markdown.index("| Edema |") < markdown.index("\n\n*Second*")
    latex = (tmp_path / "tables.tex").read_text(encoding="utf-8")
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2


def test_tables_into_a_missing_folder_or_over_a_file_are_refused(tmp_path: Path) -> None:
    one = Table(("Name",), (("x",),))
    with pytest.raises(DataError, match=r"cannot make .*missing.tables: No such file"):
        write_tables(tmp_path / "missing", {"one": one})
    (tmp_path / "tables").write_text("")
    with pytest.raises(DataError, match=r"cannot make .*tables: File exists"):
        write_tables(tmp_path, {"one": one})


def test_charts_are_written_as_they_were_drawn(tmp_path: Path) -> None:
    write_charts(tmp_path, {"a": Chart(b"first", 2.0), "b": Chart(b"second", 3.0)})
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == {"a.png": b"first", "b.png": b"second"}
    with pytest.raises(DataError, match=r"cannot write .*a\.png"):
        write_charts(tmp_path / "missing", {"a": Chart(b"first", 2.0)})
