import csv
import gzip
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mxa.data.csvfile import parse_ages, parse_labels, pick_valid, read_strict, relative_paths
from mxa.data.problems import Problem, report
from mxa.errors import ConfigError, DataError


def write(path, text):
    path.write_bytes(text.encode())
    return path


class TestReadStrict:
    def test_text_numbers_blanks_and_line_numbers(self, tmp_path):
        frame = read_strict(write(tmp_path / "a.csv", "id,x,y\n007,1.0,\n\nNA,-1.0,b\n"), numbers=["x"])
        assert frame.index.tolist() == [2, 4]
        assert frame["id"].tolist() == ["007", "NA"]
        assert frame["x"].tolist() == [1, -1]
        assert frame["y"].isna().tolist() == [True, False]

    def test_gzip_byte_order_mark_and_windows_line_ends(self, tmp_path):
        (tmp_path / "a.csv.gz").write_bytes(gzip.compress("\ufeffid,x\r\na,1\r\n\r\nb,2\r\n".encode()))
        frame = read_strict(tmp_path / "a.csv.gz")
        assert frame.columns.tolist() == ["id", "x"]
        assert frame["x"].tolist() == ["1", "2"]
        assert frame.index.tolist() == [2, 4]

    def test_quoted_commas(self, tmp_path):
        frame = read_strict(write(tmp_path / "a.csv", 'id,x\n"a,b",1\n'))
        assert frame["id"].tolist() == ["a,b"]

    def test_last_line_without_line_end(self, tmp_path):
        assert read_strict(write(tmp_path / "a.csv", "id,x\na,1"))["x"].tolist() == ["1"]

    def test_unnamed_last_column(self, tmp_path):
        assert read_strict(write(tmp_path / "a.csv", "id,x,\na,1,\n"))["x"].tolist() == ["1"]

    @pytest.mark.parametrize("quote", ["", '"'])
    @pytest.mark.parametrize(("row", "fields"), [("b,2", 2), ("b,2,3,4", 4), ("b", 1)])
    def test_row_of_another_length(self, tmp_path, quote, row, fields):
        path = write(tmp_path / "a.csv", f"id,x,y\n{quote}a{quote},1,2\n{row}\n")
        with pytest.raises(DataError, match=f"a.csv: line 3 has {fields} fields, the header has 3"):
            read_strict(path)

    def test_every_row_longer_than_the_header(self, tmp_path):
        with pytest.raises(DataError, match="line 2 has 3 fields, the header has 2"):
            read_strict(write(tmp_path / "a.csv", "id,x\na,1,2\nb,1,2\n"))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "first line is empty"),
            ("\nid\n", "first line is empty"),
            ("id,x,x\na,1,1\n", "column x is there twice"),
        ],
    )
    def test_bad_header(self, tmp_path, text, message):
        with pytest.raises(DataError, match=f"a.csv: .*{message}"):
            read_strict(write(tmp_path / "a.csv", text))

    def test_not_text(self, tmp_path):
        (tmp_path / "a.csv").write_bytes(b"id,x\n\xff\xfe,1\n")
        with pytest.raises(DataError, match="not a readable CSV"):
            read_strict(tmp_path / "a.csv")
        (tmp_path / "b.csv").write_bytes(b"\xff\xfe\n")
        with pytest.raises(DataError, match="not a UTF-8"):
            read_strict(tmp_path / "b.csv")

    def test_absent_folder_and_broken_gzip(self, tmp_path):
        with pytest.raises(DataError, match="no such file"):
            read_strict(tmp_path / "none.csv")
        with pytest.raises(DataError, match="cannot be read"):
            read_strict(tmp_path)
        (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"id\n" * 1000)[:-12])
        with pytest.raises(DataError, match=r"a\.csv\.gz: cannot be read"):
            read_strict(tmp_path / "a.csv.gz")

    def test_gzip_whose_middle_is_damaged(self, tmp_path):
        text = "id,x\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(500))
        data = bytearray(gzip.compress(text.encode()))
        data[40:60] = b"\xff" * 20
        (tmp_path / "a.csv.gz").write_bytes(data)
        with pytest.raises(DataError, match=r"a\.csv\.gz: cannot be read"):
            read_strict(tmp_path / "a.csv.gz")

    @pytest.mark.parametrize(
        "text", ["id,x\ra,1\rb,2\r", f'id,x\na,"{"x" * 140_000}"\n', 'id,x\n"a,1\n' + "b,2\n" * 40_000]
    )
    def test_what_pythons_csv_refuses(self, tmp_path, text):
        limit = csv.field_size_limit()
        with pytest.raises(DataError, match=rf"a\.csv: not a readable CSV .*end in LF or CR LF.* than {limit} char"):
            read_strict(write(tmp_path / "a.csv", text))
        assert csv.field_size_limit() == limit


def column(*cells):
    return pd.Series(list(cells), index=range(2, 2 + len(cells)), dtype=object)


class TestLabels:
    def test_numbers_not_strings(self):
        frame = pd.DataFrame({"a": column("1", "1.0", "-1.0", "0", None), "b": [1.0, -1.0, 0.0, np.nan, 1.0]})
        frame.index = range(2, 7)
        got, legal = parse_labels(frame, ["a", "b"], "t.csv", None)
        assert legal.all()
        np.testing.assert_array_equal(got[:, 0], [1, 1, -1, 0, np.nan])
        np.testing.assert_array_equal(got[:, 1], [1, -1, 0, np.nan, 1])
        assert got.dtype == np.float32

    @pytest.mark.parametrize("cell", ["2.0", "x", "inf", " ", "0.5"])
    def test_illegal_label(self, cell):
        frame = pd.DataFrame({"Edema": column("1", cell, "3")})
        with pytest.raises(DataError, match=rf"t\.csv:3: illegal label: column 'Edema' is {cell}; .*and 1 more"):
            parse_labels(frame, ["Edema"], "t.csv", None)
        problems = []
        got, legal = parse_labels(frame, ["Edema"], "t.csv", problems)
        assert legal.tolist() == [[True], [False], [False]]
        assert [(p.row, p.severity, p.kind) for p in problems] == [
            (3, "error", "illegal label"),
            (4, "error", "illegal label"),
        ]
        np.testing.assert_array_equal(got[:, 0], [1, np.nan, np.nan])


class TestAges:
    def test_numbers_and_dicom_strings(self):
        got = parse_ages(column("58", "57.5", "058Y", "006M", None, "0", "120"), "t.csv", None)
        np.testing.assert_allclose(got, [58, 57.5, 58, 0.5, math.nan, 0, 120])
        days, weeks = parse_ages(column("021D", "003W"), "t.csv", None)
        assert [days, weeks] == pytest.approx([21 / 365.25] * 2)

    def test_impossible_ages_become_unknown_and_are_collected(self):
        problems = []
        got = parse_ages(column("411", "-1", "old", "40", "412Y"), "t.csv", problems)
        np.testing.assert_array_equal(got, [np.nan, np.nan, np.nan, 40, np.nan])
        assert [(p.row, p.severity) for p in problems] == [
            (2, "warning"),
            (3, "warning"),
            (4, "warning"),
            (6, "warning"),
        ]
        assert str(problems[0]) == "t.csv:2: illegal age: 411 is taken for unknown"

    def test_do_not_stop_a_reader(self):
        assert np.isnan(parse_ages(column("411"), "t.csv", None)).all()


class TestPaths:
    def test_plain_paths_are_kept(self, tmp_path):
        cells = column("a.png", "x/b.png", "..x/c..png")
        assert relative_paths(cells, tmp_path, "t.csv", None).tolist() == cells.tolist()

    def test_other_spellings_of_paths_inside(self, tmp_path):
        cells = column("./a.png", "x\\b.png", "x/../c.png", f"{tmp_path}/d.png", " e.png ", "x//f.png")
        got = relative_paths(cells, tmp_path, "t.csv", None)
        assert got.tolist() == ["a.png", "x/b.png", "c.png", "d.png", "e.png", "x/f.png"]
        assert got.index.tolist() == list(range(2, 8))

    @pytest.mark.parametrize("bad", ["../a.png", "x/../../a.png", "/etc/passwd", "C:\\a.png", "..\\a.png", "..", "."])
    def test_paths_that_lead_out(self, tmp_path, bad):
        with pytest.raises(DataError, match=r"t\.csv:3: path outside the root"):
            relative_paths(column("a.png", bad), tmp_path / "root", "t.csv", None)
        problems = []
        assert relative_paths(column("a.png", bad), tmp_path / "root", "t.csv", problems).tolist() == ["a.png"]
        assert problems[0].path == bad

    @pytest.mark.parametrize("sibling", ["root2/a.png", "root2a.png"])
    def test_a_sibling_that_starts_like_the_root_is_outside(self, tmp_path, sibling):
        with pytest.raises(DataError, match="outside the root"):
            relative_paths(column(f"{tmp_path}/{sibling}"), tmp_path / "root", "t.csv", None)

    def test_absolute_paths_below_a_root_that_is_spelt_otherwise(self, tmp_path, monkeypatch):
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        cells = column(f"{tmp_path}/data/a.png", f"{tmp_path}/data/x/../b.png")
        assert relative_paths(cells, Path("../data"), "t.csv", None).tolist() == ["a.png", "b.png"]
        assert relative_paths(column("/data/a.png"), Path("/"), "t.csv", None).tolist() == ["data/a.png"]
        with pytest.raises(DataError, match="outside the root"):
            relative_paths(column(f"{tmp_path}/here/a.png"), Path("../data"), "t.csv", None)

    def test_blank(self, tmp_path):
        with pytest.raises(DataError, match=r"t\.csv:3: no path"):
            relative_paths(column("a.png", None), tmp_path, "t.csv", None)


class TestPickValid:
    def patients(self, n=40, images=3):
        return pd.Series([f"p{i}" for i in range(n) for _ in range(images)])

    def test_whole_patients_and_their_fraction(self):
        patients = self.patients()
        rows = pick_valid(patients, 0.25, seed=0)
        assert patients[rows].nunique() == 10
        assert not set(patients[rows]) & set(patients[~rows])

    def test_does_not_depend_on_the_order_of_rows(self):
        patients = self.patients()
        mixed = patients.sample(frac=1, random_state=0)
        assert set(patients[pick_valid(patients, 0.2, 1)]) == set(mixed[pick_valid(mixed, 0.2, 1)])

    def test_depends_on_the_seed(self):
        patients = self.patients()
        assert (pick_valid(patients, 0.2, 1) != pick_valid(patients, 0.2, 2)).any()
        assert (pick_valid(patients, 0.2, 1) == pick_valid(patients, 0.2, 1)).all()

    @pytest.mark.parametrize(("fraction", "chosen"), [(0.0, 0), (0.001, 1), (0.999, 2)])
    def test_leaves_at_least_one_on_each_side(self, fraction, chosen):
        patients = self.patients(n=3)
        assert patients[pick_valid(patients, fraction, 0)].nunique() == chosen

    @pytest.mark.parametrize("fraction", [-0.1, 1.0, math.nan])
    def test_illegal_fraction(self, fraction):
        with pytest.raises(ConfigError, match="valid_fraction is"):
            pick_valid(self.patients(), fraction, 0)

    def test_one_patient_cannot_be_split(self):
        with pytest.raises(DataError, match="1 patient"):
            pick_valid(self.patients(n=1), 0.5, 0)


class TestProblems:
    def test_text(self):
        assert str(Problem("error", "missing image", "t.csv", 17, "a.png", "gone")) == "t.csv:17: missing image: gone"
        assert str(Problem("error", "k", "t.csv", 0, "", "m")) == "t.csv: k: m"
        assert str(Problem("error", "k", "", 0, "", "m")) == "k: m"

    def test_warnings_alone_do_not_raise(self):
        report([Problem("warning", "k", "", 0, "", "m")], None)
        with pytest.raises(DataError, match=r"^bad: first$"):
            report([Problem("warning", "k", "", 0, "", "m"), Problem("error", "bad", "", 0, "", "first")], None)
