import csv
import gzip
import importlib.util
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mxa.data.nih import read_nih
from mxa.errors import ConfigError, DataError
from mxa.labels import CHEXPERT14, NIH14, label_set

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
ROWS = [
    ("00000001_000.png", "Cardiomegaly|Emphysema", 0, 1, "058Y", "M", "PA"),
    ("00000001_001.png", "No Finding", 1, 1, "58", "M", "AP"),
    ("00000002_000.png", "Effusion|Pleural_Thickening", 0, 2, "411", "F", "PA"),
    ("00000003_000.png", "Infiltration", 0, 3, "7", "F", "PA"),
]


def write(folder, rows=ROWS, train_val=None, test=("00000003_000.png",), boxes=None, name="Data_Entry_2017.csv"):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [HEADER, *(",".join(map(str, (*row, 2500, 2048, 0.171, 0.171, ""))) for row in rows)]
    (folder / name).write_text("\n".join(lines) + "\n")
    if train_val is None:
        train_val = [row[0] for row in rows if row[0] not in test]
    (folder / "train_val_list.txt").write_text("\n".join(train_val))
    (folder / "test_list.txt").write_text("\n".join(test) + "\n")
    if boxes is not None:
        (folder / "BBox_List_2017.csv").write_text("\n".join([BOX_HEADER, *boxes]) + "\n")
    return folder


class TestRows:
    def test_metadata(self, tmp_path):
        table = read_nih(write(tmp_path), valid_fraction=0)
        assert table.dataset == "nih"
        assert table.labels is NIH14
        assert table.frame.iloc[0].to_dict() == {
            "path": "images/00000001_000.png",
            "patient": "1",
            "study": "1/0",
            "view": "frontal",
            "projection": "PA",
            "sex": "M",
            "age": 58.0,
            "split": "train",
            "source": "Data_Entry_2017.csv",
            "row": 2,
        }
        assert table.frame["split"].tolist() == ["train", "train", "train", "test"]
        np.testing.assert_array_equal(table.frame["age"], [58, 58, np.nan, 7])

    def test_labels_are_one_or_zero(self, tmp_path):
        table = read_nih(write(tmp_path))
        positive = [{f for f, v in zip(NIH14, row, strict=True) if v} for row in table.target]
        assert positive == [
            {"Cardiomegaly", "Emphysema"},
            set(),
            {"Pleural Effusion", "Pleural Thickening"},
            {"Infiltration"},
        ]
        assert table.mask.all()
        assert set(np.unique(table.values)) == {0.0, 1.0}

    def test_chexpert_findings(self, tmp_path):
        table = read_nih(write(tmp_path), CHEXPERT14)
        annotated = dict(zip(CHEXPERT14, table.annotated.all(axis=0), strict=True))
        assert {f for f, yes in annotated.items() if yes} == {"No Finding", *set(NIH14) & set(CHEXPERT14)}
        assert table.target[:, 0].tolist() == [0, 1, 0, 0]
        assert np.isnan(table.values[:, CHEXPERT14.index("Fracture")]).all()

    def test_no_common_finding(self, tmp_path):
        with pytest.raises(ConfigError, match="NIH has none of the findings of label set 'custom': Fracture"):
            read_nih(write(tmp_path), label_set(["Fracture"]))

    def test_unknown_label(self, tmp_path):
        rows = [*ROWS[:2], ("00000002_000.png", "Edema|Covid", 0, 2, "41", "F", "PA"), ROWS[3]]
        write(tmp_path, rows)
        with pytest.raises(DataError, match=r"Data_Entry_2017\.csv:4: illegal label: 'Finding Labels' has 'Covid'"):
            read_nih(tmp_path)
        problems = []
        table = read_nih(tmp_path, problems=problems)
        assert [(p.row, p.path) for p in problems] == [(4, "00000002_000.png")]
        assert table.mask.all(axis=1).tolist() == [True, True, False, True]
        assert not table.mask[2].any()

    def test_blank_labels_are_unknown_too(self, tmp_path):
        write(tmp_path, [*ROWS[:3], ("00000003_000.png", "", 0, 3, "7", "F", "PA")])
        with pytest.raises(DataError, match=r"csv:5: illegal label"):
            read_nih(tmp_path)

    def test_impossible_age_is_a_warning(self, tmp_path):
        problems = []
        read_nih(write(tmp_path), problems=problems)
        assert [(p.severity, p.kind, p.row) for p in problems] == [("warning", "illegal age", 4)]

    def test_image_name_that_is_a_path(self, tmp_path):
        write(tmp_path, [("../x.png", *ROWS[0][1:])], test=())
        with pytest.raises(DataError, match=r"Data_Entry_2017\.csv:2: '\.\./x\.png' is not the name"):
            read_nih(tmp_path, valid_fraction=0)

    def test_selection(self, tmp_path):
        write(tmp_path)
        assert read_nih(tmp_path, projections=("AP",)).frame["row"].tolist() == [3]
        assert len(read_nih(tmp_path, views=("frontal",))) == 4
        with pytest.raises(DataError, match="no row is left"):
            read_nih(tmp_path, views=("lateral",))
        with pytest.raises(ConfigError, match="views is"):
            read_nih(tmp_path, views=("side",))


class TestImages:
    def test_numbered_folders(self, tmp_path):
        write(tmp_path)
        for number, name in ((1, ROWS[0][0]), (2, ROWS[1][0]), (12, ROWS[2][0])):
            folder = tmp_path / f"images_{number:03d}" / "images"
            folder.mkdir(parents=True)
            (folder / name).touch()
        paths = read_nih(tmp_path).frame["path"].tolist()
        # The last one is on no disk: it gets the plain folder's name.
        assert paths == [
            "images_001/images/00000001_000.png",
            "images_002/images/00000001_001.png",
            "images_012/images/00000002_000.png",
            "images/00000003_000.png",
        ]

    def test_one_folder(self, tmp_path):
        write(tmp_path)
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / ROWS[3][0]).touch()
        assert read_nih(tmp_path).files()[3].is_file()


class TestLists:
    @pytest.mark.parametrize("name", ["train_val_list.txt", "test_list.txt"])
    def test_missing(self, tmp_path, name):
        (write(tmp_path) / name).unlink()
        with pytest.raises(DataError, match=f"{name}: no such file"):
            read_nih(tmp_path)

    def test_row_in_neither(self, tmp_path):
        write(tmp_path, train_val=["00000001_000.png", "00000002_000.png"])
        with pytest.raises(DataError, match=r"1 image\(s\) are in neither list beside it, such as 00000001_001\.png"):
            read_nih(tmp_path)

    def test_listed_image_without_row(self, tmp_path):
        write(tmp_path, test=("00000003_000.png", "00000009_000.png", "00000009_001.png"))
        with pytest.raises(DataError, match=r"2 listed image\(s\) have no row, such as 00000009_000\.png"):
            read_nih(tmp_path)

    def test_byte_order_mark(self, tmp_path):
        write(tmp_path)
        for name in ("train_val_list.txt", "test_list.txt"):
            (tmp_path / name).write_text((tmp_path / name).read_text(), encoding="utf-8-sig")
        assert len(read_nih(tmp_path).split("test")) == 1

    @pytest.mark.parametrize("name", ["train_val_list.txt", "test_list.txt"])
    def test_utf_16(self, tmp_path, name):
        write(tmp_path)
        (tmp_path / name).write_text((tmp_path / name).read_text(), encoding="utf-16")
        with pytest.raises(DataError, match=rf"{name}: not a UTF-8 text file \(.*\); save it as UTF-8"):
            read_nih(tmp_path)

    def test_image_in_both(self, tmp_path):
        write(tmp_path, train_val=[row[0] for row in ROWS])
        with pytest.raises(DataError, match=r"1 image\(s\) are in train_val_list.*such as 00000003_000"):
            read_nih(tmp_path)

    def test_table_missing_or_twice(self, tmp_path):
        with pytest.raises(DataError, match=r"no Data_Entry_2017\*\.csv there\. NIH ChestX-ray14 is published"):
            read_nih(tmp_path)
        write(tmp_path)
        write(tmp_path, name="Data_Entry_2017_v2020.csv")
        with pytest.raises(DataError, match=r"Data_Entry_2017\.csv and Data_Entry_2017_v2020\.csv; keep one"):
            read_nih(tmp_path)

    def test_other_csv(self, tmp_path):
        (tmp_path / "Data_Entry_2017.csv").write_text("a,b\n1,2\n")
        with pytest.raises(DataError, match="no column Image Index, Finding Labels"):
            read_nih(tmp_path)

    def test_validation_patients(self, tmp_path):
        rows = [(f"{p:08d}_{i:03d}.png", "No Finding", i, p, "50", "F", "PA") for p in range(1, 41) for i in range(3)]
        test = [row[0] for row in rows if row[3] > 30]
        table = read_nih(write(tmp_path / "a", rows, test=test), valid_fraction=0.2, seed=5)
        patients = {s: set(table.split(s).frame["patient"]) for s in table.splits}
        assert {s: len(p) for s, p in patients.items()} == {"train": 24, "valid": 6, "test": 10}
        assert patients["test"] == {str(p) for p in range(31, 41)}
        mixed = read_nih(write(tmp_path / "b", rows[::-1], test=test), valid_fraction=0.2, seed=5)
        assert set(mixed.split("valid").frame["path"]) == set(table.split("valid").frame["path"])
        other = read_nih(tmp_path / "a", valid_fraction=0.2, seed=6)
        assert set(other.split("valid").frame["patient"]) != patients["valid"]


class TestBoxes:
    def test_relative_to_the_published_size(self, tmp_path):
        boxes = [
            "00000003_000.png,Infiltrate,256,128.5,512,300",
            "00000001_000.png,Cardiomegaly,0,0,1024.4,1024",
            "00000099_000.png,Mass,1,2,3,4",
        ]
        table = read_nih(write(tmp_path, boxes=boxes))
        assert table.boxes[["path", "finding"]].to_numpy().tolist() == [
            ["images/00000003_000.png", "Infiltration"],
            ["images/00000001_000.png", "Cardiomegaly"],
        ]
        corners = table.boxes[["x1", "y1", "x2", "y2"]].to_numpy()
        np.testing.assert_allclose(corners, [[0.25, 128.5 / 1024, 0.75, 428.5 / 1024], [0, 0, 1, 1]])
        assert table.split("test").boxes["finding"].tolist() == ["Infiltration"]

    def test_only_findings_of_the_label_set(self, tmp_path):
        write(tmp_path, boxes=["00000003_000.png,Infiltrate,1,1,2,2", "00000001_000.png,Cardiomegaly,1,1,2,2"])
        assert read_nih(tmp_path, CHEXPERT14).boxes["finding"].tolist() == ["Cardiomegaly"]

    @pytest.mark.parametrize("box", ["5,5,0,9", "5,5,9,-1", "-9,5,20,20", "5,5,1100,20", "5,5,9,", "5,x,9,9"])
    def test_illegal(self, tmp_path, box):
        write(tmp_path, boxes=["00000003_000.png,Infiltrate,1,1,2,2", f"00000001_000.png,Cardiomegaly,{box}"])
        with pytest.raises(DataError, match=r"BBox_List_2017\.csv:3: illegal box: x, y, w, h = "):
            read_nih(tmp_path)
        problems = []
        assert len(read_nih(tmp_path, problems=problems).boxes) == 1
        assert "illegal box" in {p.kind for p in problems}

    def test_a_number_that_is_text_is_told_as_it_stands(self, tmp_path):
        write(tmp_path, boxes=["00000001_000.png,Cardiomegaly,5,abc,9,9,,,"])
        with pytest.raises(DataError, match=r"csv:2: illegal box: x, y, w, h = 5, abc, 9, 9$"):
            read_nih(tmp_path)

    def test_a_finding_that_nih_does_not_know(self, tmp_path):
        write(tmp_path, boxes=["00000003_000.png,Infiltrate,1,1,2,2", "00000001_000.png,Cardiomegally,1,1,2,2"])
        with pytest.raises(DataError, match=r"csv:3: illegal box: 'Cardiomegally' is none of NIH's 14 findings"):
            read_nih(tmp_path)
        problems = []
        assert len(read_nih(tmp_path, problems=problems).boxes) == 1
        assert [(p.row, p.path) for p in problems if p.kind == "illegal box"] == [(3, "00000001_000.png")]

    def test_unreadable(self, tmp_path):
        write(tmp_path, boxes=["just text"])
        with pytest.raises(DataError, match="not a readable box list"):
            read_nih(tmp_path)

    def test_absent(self, tmp_path):
        assert len(read_nih(write(tmp_path)).boxes) == 0


@pytest.fixture(scope="module")
def xrv_data():
    found = importlib.util.find_spec("torchxrayvision")
    folder = Path(found.origin).parent / "data" if found is not None and found.origin else None
    if folder is None or not (folder / "Data_Entry_2017_v2020.csv.gz").is_file():
        pytest.skip("NIH's full label table comes with torchxrayvision, which is not installed")
    return folder


@pytest.fixture(scope="module")
def full(xrv_data, tmp_path_factory):
    """The full table of 112,120 rows, without images; the first 100,000 are train_val, up to a patient's end."""
    root = tmp_path_factory.mktemp("nih_full")
    for name in ("Data_Entry_2017_v2020.csv", "BBox_List_2017.csv"):
        with gzip.open(xrv_data / f"{name}.gz", "rb") as source, (root / name).open("wb") as target:
            shutil.copyfileobj(source, target)
    with (root / "Data_Entry_2017_v2020.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    border = rows[100_000]["Patient ID"]
    cut = next(i for i, row in enumerate(rows) if row["Patient ID"] == border)
    (root / "train_val_list.txt").write_text("\n".join(row["Image Index"] for row in rows[:cut]))
    (root / "test_list.txt").write_text("\n".join(row["Image Index"] for row in rows[cut:]))
    return read_nih(root), rows, cut


class TestFullTable:
    def test_counts_agree_with_a_plain_loop(self, full):
        table, rows, _ = full
        assert len(table) == 112_120
        expected = Counter(name for row in rows for name in row["Finding Labels"].split("|"))
        names = {"Pleural Effusion": "Effusion", "Pleural Thickening": "Pleural_Thickening"}
        got = {names.get(f, f): int(n) for f, n in table.counts()["positive"].items()}
        assert got == {name: n for name, n in expected.items() if name != "No Finding"}
        assert (table.counts()["negative"] + table.counts()["positive"] == 112_120).all()

    def test_demographics_and_splits(self, full):
        table, rows, cut = full
        assert table.frame["age"].tolist() == [float(row["Patient Age"]) for row in rows]
        assert table.frame["projection"].tolist() == [row["View Position"] for row in rows]
        assert (table.frame["split"][cut:] == "test").all()
        patients = [set(table.split(s).frame["patient"]) for s in ("train", "valid", "test")]
        assert not patients[0] & patients[1]
        assert not (patients[0] | patients[1]) & patients[2]
        assert len(patients[1]) == round(0.1 * len(patients[0] | patients[1]))

    def test_all_boxes(self, full):
        table, *_ = full
        assert len(table.boxes) == 984
        assert table.boxes["finding"].value_counts().to_dict() == {
            "Atelectasis": 180,
            "Pleural Effusion": 153,
            "Cardiomegaly": 146,
            "Infiltration": 123,
            "Pneumonia": 120,
            "Pneumothorax": 98,
            "Mass": 85,
            "Nodule": 79,
        }
        corners = table.boxes[["x1", "y1", "x2", "y2"]].to_numpy()
        assert ((corners >= 0) & (corners <= 1)).all()
        assert (corners[:, :2] < corners[:, 2:]).all()


@pytest.fixture(scope="module")
def nih1000():
    beside = Path(__file__).resolve().parents[2] / "../shared/data/nih1000"
    root = Path(os.environ.get("MXA_NIH1000", beside))
    if not (root / "Data_Entry_2017_v2020.csv").is_file():
        pytest.skip("no folder shared/data/nih1000 beside the repository, and MXA_NIH1000 names none")
    return root


def test_real_copy(nih1000):
    table = read_nih(nih1000)
    assert len(table) == 790
    assert len(table.split("test")) == 180
    assert all(path.is_file() for path in table.files())
    assert len(table.boxes) == 36
    with (nih1000 / "Data_Entry_2017_v2020.csv").open(newline="") as file:
        pneumonia = sum("Pneumonia" in row["Finding Labels"] for row in csv.DictReader(file))
    assert table.counts().loc["Pneumonia", "positive"] == pneumonia
    patients = [table.split(s).frame["patient"].nunique() for s in ("train", "valid", "test")]
    assert sum(patients) == table.frame["patient"].nunique()
