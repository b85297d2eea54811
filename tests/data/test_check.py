import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mxa.data import check
from mxa.data.check import Problem, check_dataset, table_problems
from mxa.data.decode import read_picture
from mxa.data.nih import read_nih
from mxa.data.table import Table
from mxa.errors import ConfigError, DataError
from mxa.labels import LabelPolicy, LabelSet

LABELS = LabelSet("two", ("Edema", "Fracture"), ("ED", "FX"))


def make(
    root=Path("data"), rows=(("a.png", "p1", "train"), ("b.png", "p2", "valid")), values=None, ages=50.0, **options
):
    paths, patients, splits = (list(column) for column in zip(*rows, strict=True))
    frame = pd.DataFrame({"path": paths, "patient": patients, "study": patients, "split": splits})
    frame = frame.assign(view="frontal", projection="PA", sex="F", age=ages, source="t.csv")
    frame["row"] = range(2, len(frame) + 2)
    values = np.ones((len(frame), 2)) if values is None else np.array(values, dtype=float)
    annotated = options.get("annotated", np.ones(values.shape, dtype=bool))
    return Table.build(frame, values, annotated, LABELS, LabelPolicy(), root, "demo")


def short(problems):
    return [(p.severity, p.kind, p.source, p.row, p.path) for p in problems]


def noise(path, seed, size=(20, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, size[::-1], dtype=np.uint8)
    Image.fromarray(pixels).save(path)


class TestTable:
    def test_nothing_wrong(self):
        assert table_problems(make()) == []

    def test_required_splits(self):
        table = make(rows=(("a.png", "p1", "test"),))
        assert [str(p) for p in table_problems(table)] == [
            "empty split: demo has no 'train' rows, only ['test']",
            "empty split: demo has no 'valid' rows, only ['test']",
        ]
        assert table_problems(table, required=("test",)) == []

    def test_path_twice(self):
        rows = [("a.png", "p1", "train"), ("b.png", "p2", "valid"), ("a.png", "p1", "train"), ("a.png", "p1", "train")]
        problems = table_problems(make(rows=rows))
        assert short(problems) == [("error", "duplicate path", "t.csv", row, "a.png") for row in (4, 5)]
        assert str(problems[0]) == "t.csv:4: duplicate path: a.png is already a.png (t.csv:2)"

    def test_patient_in_two_splits(self):
        rows = [("a.png", "p1", "train"), ("b.png", "p2", "valid"), ("c.png", "p2", "train"), ("d.png", "p1", "train")]
        problems = table_problems(make(rows=rows))
        assert short(problems) == [("error", "patient in two splits", "t.csv", 4, "c.png")]
        assert problems[0].message == "patient p2 is in valid and train, the first time at b.png (t.csv:3)"

    def test_finding_without_positives_is_a_warning(self):
        """CheXpert's own validation set has no positive Fracture; training must still run."""
        problems = table_problems(make(values=[[1, -1], [1, 0]]))
        assert [(p.severity, str(p)) for p in problems] == [
            ("warning", "no positives: Fracture has no positive among 1 valid rows")
        ]

    def test_finding_annotated_nowhere(self):
        problems = table_problems(make(annotated=np.array([[True, False]] * 2)))
        assert [(p.severity, p.kind) for p in problems] == [("warning", "no labels")]
        assert "Fracture is annotated in no row" in problems[0].message

    def test_impossible_ages(self):
        rows = [(f"{i}.png", f"p{i}", s) for i, s in enumerate(("train", "valid", "train", "train"))]
        problems = table_problems(make(rows=rows, ages=[-1.0, 120.0, 120.5, np.nan]))
        assert short(problems) == [
            ("warning", "illegal age", "t.csv", 2, "0.png"),
            ("warning", "illegal age", "t.csv", 4, "2.png"),
        ]

    def test_touches_no_file(self, tmp_path):
        assert table_problems(make(tmp_path / "nowhere")) == []


class TestFiles:
    def test_good_files(self, tmp_path):
        noise(tmp_path / "a.png", 0)
        noise(tmp_path / "b.png", 1)
        assert check_dataset(make(tmp_path)) == []

    def test_missing_and_unreadable(self, tmp_path):
        names = ["missing.png", "text.png", "cut.png", "pixel.png", "good.png"]
        rows = [(name, f"p{i}", "valid" if i == 4 else "train") for i, name in enumerate(names)]
        for i, name in enumerate(names[2:]):
            noise(tmp_path / name, i)
        noise(tmp_path / "pixel.png", 0, size=(1, 1))
        (tmp_path / "text.png").write_text("hello")
        (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:200])
        problems = check_dataset(make(tmp_path, rows))
        assert short(problems) == [
            ("error", "missing image", "t.csv", 2, "missing.png"),
            ("error", "unreadable image", "t.csv", 3, "text.png"),
            ("error", "unreadable image", "t.csv", 4, "cut.png"),
            ("error", "unreadable image", "t.csv", 5, "pixel.png"),
        ]
        reasons = ["does not exist", "not an image", "cannot be decoded", "only 1 x 1 pixels"]
        assert all(reason in p.message for reason, p in zip(reasons, problems, strict=True))
        assert str(problems[0]).startswith("t.csv:2: missing image: ")
        present = check_dataset(make(tmp_path, rows), pixels=False)
        assert short(present) == short(problems)[:1]

    @pytest.mark.parametrize("name", [f"{'x' * 300}.png", f"{'x' * 300}.dcm", "a\0b.png", "a\0b.dcm"])
    def test_names_that_no_file_can_have(self, tmp_path, name):
        noise(tmp_path / "b.png", 1)
        rows = [(name, "p1", "train"), ("b.png", "p2", "valid")]
        for pixels in (True, False):
            problems = check_dataset(make(tmp_path, rows), pixels=pixels)
            assert short(problems) == [("error", "missing image", "t.csv", 2, name)]
        with pytest.raises(DataError, match=re.escape(name)):
            read_picture(tmp_path / name, wide_range="full")

    @pytest.mark.parametrize(("split", "severity"), [("train", "warning"), ("valid", "error")])
    def test_equal_pixels_are_worse_across_splits(self, tmp_path, split, severity):
        rows = [("a.png", "p1", "train"), ("b.png", "p2", "valid"), ("x/c.png", "p3", split)]
        noise(tmp_path / "a.png", 0)
        noise(tmp_path / "b.png", 1)
        (tmp_path / "x").mkdir()
        Image.open(tmp_path / "a.png").save(tmp_path / "x/c.png", compress_level=0)
        problems = check_dataset(make(tmp_path, rows))
        assert short(problems) == [(severity, "duplicate pixels", "t.csv", 2, "a.png")]
        splits = "train" if split == "train" else "train, valid"
        assert problems[0].message == f"a.png has the same pixels as x/c.png (t.csv:4); splits: {splits}"

    def test_same_bytes_in_another_shape_differ(self, tmp_path):
        for name, size in (("a.png", (20, 16)), ("b.png", (16, 20))):
            Image.new("L", size, 7).save(tmp_path / name)
        assert check_dataset(make(tmp_path)) == []

    def test_a_path_twice_is_one_file(self, tmp_path):
        rows = [("a.png", "p1", "train"), ("b.png", "p2", "valid"), ("a.png", "p1", "train")]
        noise(tmp_path / "a.png", 0)
        noise(tmp_path / "b.png", 1)
        seen = []
        problems = check_dataset(make(tmp_path, rows), progress=lambda done, total: seen.append((done, total)))
        assert [p.kind for p in problems] == ["duplicate path"]
        assert seen == [(1, 2), (2, 2)]

    @pytest.mark.parametrize("workers", [1, 4])
    def test_order_does_not_depend_on_workers_or_batches(self, tmp_path, monkeypatch, workers):
        monkeypatch.setattr(check, "_BATCH", 3)
        rows = [(f"{i}.png", f"p{i}", "train" if i else "valid") for i in range(10)]
        for i in (1, 4, 7):
            noise(tmp_path / f"{i}.png", i)
        problems = check_dataset(make(tmp_path, rows), workers=workers)
        assert [p.row for p in problems] == [2, 4, 5, 7, 8, 10, 11]

    def test_wide_range_is_passed_on(self, tmp_path):
        for i, name in enumerate(("a.png", "b.png")):
            Image.fromarray(np.arange(i, i + 320, dtype=np.uint16).reshape(16, 20)).save(tmp_path / name)
        assert [p.kind for p in check_dataset(make(tmp_path))] == ["unreadable image"] * 2
        # The two differ by a constant only, so stretching makes them equal.
        assert [p.kind for p in check_dataset(make(tmp_path), wide_range="minmax")] == ["duplicate pixels"]

    def test_illegal_options(self, tmp_path):
        with pytest.raises(ConfigError, match="workers is 0"):
            check_dataset(make(tmp_path), workers=0)
        with pytest.raises(ConfigError, match="wide_range is 'auto'"):
            check_dataset(make(tmp_path), wide_range="auto")


def test_problem_is_the_one_that_readers_collect():
    assert Problem("error", "missing image", "train.csv", 17, "a.png", "gone").row == 17


def test_real_copy():
    beside = Path(__file__).resolve().parents[2] / "../shared/data/nih1000"
    root = Path(os.environ.get("MXA_NIH1000", beside))
    if not (root / "Data_Entry_2017_v2020.csv").is_file():
        pytest.skip("no folder shared/data/nih1000 beside the repository, and MXA_NIH1000 names none")
    problems = check_dataset(read_nih(root))
    assert [p for p in problems if p.severity == "error"] == []
    assert {p.kind for p in problems} == {"no positives"}
