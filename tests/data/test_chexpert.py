import csv
import gzip
import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mxa.data.chexpert import find_folder, parse_chexpert_csv, read_chexpert
from mxa.data.table import Table
from mxa.errors import ConfigError, DataError
from mxa.labels import CHEXPERT14, NIH14, LabelPolicy, LabelSet, label_set

FINDINGS = CHEXPERT14.findings
HEADER = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS]
NAN = float("nan")


def line(path, sex="Male", age="60", view="Frontal", projection="AP", **labels):
    return [path, sex, age, view, projection, *(labels.get(f.replace(" ", "_"), "") for f in FINDINGS)]


def write(path, rows, header=HEADER):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def image(folder, patient, study=1, view="view1_frontal.jpg", split="train"):
    path = folder / split / f"patient{patient:05d}" / f"study{study}" / view
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


TRAIN = [
    line("CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg", "Female", "68", Edema="-1.0"),
    line(
        "CheXpert-v1.0-small/train/patient00001/study1/view2_lateral.jpg", "Female", "68", "Lateral", "", Edema="-1.0"
    ),
    line(
        "CheXpert-v1.0-small/train/patient00002/study3/view1_frontal.jpg", "Unknown", "0", projection="PA", Edema="0.0"
    ),
]
VALID = [
    line("CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg", age="", Edema="1.0", Fracture="0.0"),
]


@pytest.fixture
def small(tmp_path):
    folder = tmp_path / "CheXpert-v1.0-small"
    write(folder / "train.csv", TRAIN)
    write(folder / "valid.csv", VALID)
    return folder


class TestLayout:
    def test_rows(self, small):
        table = read_chexpert(small)
        assert isinstance(table, Table)
        assert table.dataset == "chexpert"
        assert table.root == small
        assert table.splits == ("train", "valid")
        assert table.frame.iloc[1].to_dict() == {
            "path": "train/patient00001/study1/view2_lateral.jpg",
            "patient": "patient00001",
            "study": "patient00001/study1",
            "view": "lateral",
            "projection": "",
            "sex": "F",
            "age": 68.0,
            "split": "train",
            "source": "train.csv",
            "row": 3,
        }
        assert table.frame["sex"].tolist() == ["F", "F", "", "M"]
        assert table.frame["projection"].tolist() == ["AP", "", "PA", "AP"]
        assert table.frame["row"].tolist() == [2, 3, 4, 2]
        np.testing.assert_array_equal(table.frame["age"], [68, 68, 0, NAN])
        np.testing.assert_array_equal(table.values[:, FINDINGS.index("Edema")], [-1, -1, 0, 1])
        assert table.annotated.all()

    def test_default_and_other_policies(self, small):
        column = FINDINGS.index("Edema")
        assert read_chexpert(small).target[:, column].tolist() == [1, 1, 0, 1]
        table = read_chexpert(small, policy=LabelPolicy("u-ignore"))
        assert table.mask[:, column].tolist() == [False, False, True, True]

    def test_folder_above(self, small, tmp_path):
        assert read_chexpert(tmp_path).fingerprint() == read_chexpert(small).fingerprint()
        assert read_chexpert(str(tmp_path)).root == small

    @pytest.mark.parametrize(
        "prefix", ["", "CheXpert-v1.0/", "/data/train/CheXpert/", "../CheXpert-v1.0-small/", "x y/"]
    )
    def test_any_prefix_is_dropped(self, tmp_path, prefix):
        path = write(tmp_path / "train.csv", [line(f"{prefix}train/patient00001/study1/view1_frontal.jpg")])
        assert parse_chexpert_csv(path).frame["path"].tolist() == ["train/patient00001/study1/view1_frontal.jpg"]

    def test_two_sizes_side_by_side(self, small, tmp_path):
        write(tmp_path / "CheXpert-v1.0" / "train.csv", TRAIN)
        with pytest.raises(DataError, match=r"holds CheXpert-v1\.0 and CheXpert-v1\.0-small; name one"):
            read_chexpert(tmp_path)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(DataError, match=r"neither train\.csv nor valid\.csv.*CheXpert-v1\.0-small.*Stanford AIMI"):
            read_chexpert(tmp_path / "nowhere")

    def test_missing_csv(self, small):
        (small / "train.csv").unlink()
        with pytest.raises(DataError, match=r"train\.csv is missing\. CheXpert is given out"):
            read_chexpert(small)
        assert read_chexpert(small, splits=("valid",)).splits == ("valid",)

    def test_root_that_is_the_folder_wins_over_one_inside(self, small):
        write(small / "CheXpert-v1.0" / "train.csv", TRAIN)
        assert find_folder(small) == small


class TestTestSet:
    def test_image_level_csv_without_demographics_in_another_column_order(self, small):
        columns = list(reversed(FINDINGS))
        row = ["test/patient64741/study1/view1_frontal.jpg", *("1" if f == "Edema" else "0" for f in columns)]
        lateral = ["test/patient64742/study1/view2_lateral.jpg", *("0" for _ in columns)]
        write(small / "test_labels.csv", [row, lateral], ["Path", *columns])
        table = read_chexpert(small).split("test")
        assert table.frame["view"].tolist() == ["frontal", "lateral"]
        assert table.frame["sex"].tolist() == table.frame["projection"].tolist() == ["", ""]
        assert table.frame["age"].isna().all()
        assert table.target[0].tolist() == [1 if f == "Edema" else 0 for f in FINDINGS]

    def test_study_level_csv_takes_the_images_on_disk(self, small):
        for view in ("view2_lateral.jpg", "view1_frontal.jpg", "notes.txt"):
            image(small, 64741, view=view, split="test")
        image(small, 64742, view="view1_frontal.JPG", split="test")
        rows = [
            ["CheXpert-v1.0/test/patient64741/study1", *"1" * 14],
            ["CheXpert-v1.0/test/patient64742/study1/", *"0" * 14],
        ]
        write(small / "groundtruth.csv", rows, ["Study", *FINDINGS])
        table = read_chexpert(small).split("test")
        assert table.frame["path"].tolist() == [
            "test/patient64741/study1/view1_frontal.jpg",
            "test/patient64741/study1/view2_lateral.jpg",
            "test/patient64742/study1/view1_frontal.JPG",
        ]
        assert table.frame["row"].tolist() == [2, 2, 3]
        assert table.frame["patient"].tolist() == ["patient64741", "patient64741", "patient64742"]
        assert table.frame["view"].tolist() == ["frontal", "lateral", "frontal"]
        assert table.target.sum(axis=1).tolist() == [14, 14, 0]

    def test_study_without_images(self, small):
        image(small, 64742, split="test")
        rows = [[f"CheXpert-v1.0/test/patient{p}/study1", *"0" * 14] for p in (64741, 64742)]
        write(small / "groundtruth.csv", rows, ["Study", *FINDINGS])
        with pytest.raises(DataError, match=r"groundtruth\.csv:2: missing image: no image in .*patient64741"):
            read_chexpert(small)
        problems = []
        assert len(read_chexpert(small, problems=problems).split("test")) == 1
        assert [(p.kind, p.row) for p in problems] == [("missing image", 2)]

    def test_asked_for_alone_it_must_be_there(self, small):
        assert read_chexpert(small, splits=("train", "test")).splits == ("train",)
        with pytest.raises(DataError, match=r"test\.csv or test_labels\.csv or groundtruth\.csv is missing"):
            read_chexpert(small, splits=("test",))


class TestSelection:
    def test_views(self, small):
        assert len(read_chexpert(small, views=("frontal",))) == 3
        assert read_chexpert(small, views=["lateral"]).frame["row"].tolist() == [3]

    def test_projections(self, small):
        assert read_chexpert(small, projections=("PA",)).frame["row"].tolist() == [4]
        assert len(read_chexpert(small, projections=("PA", "AP"))) == 3

    def test_projections_of_a_test_set_that_has_none(self, small, caplog):
        write(small / "test.csv", [["test/patient64741/study1/view1_frontal.jpg", *"0" * 14]], ["Path", *FINDINGS])
        with caplog.at_level("WARNING"):
            table = read_chexpert(small, projections=("PA",))
        assert table.frame["row"].tolist() == [4]
        assert table.splits == ("train",)
        assert f"{small}/test.csv: has no AP/PA values" in caplog.text
        assert len(read_chexpert(small, views=("frontal",)).split("test")) == 1
        with pytest.raises(DataError, match="no row is left"):
            read_chexpert(small, projections=("PA",), splits=("test",))

    def test_projections_of_a_training_set_that_has_none(self, small):
        write(small / "valid.csv", [["valid/patient64541/study1/view1_frontal.jpg", *"0" * 14]], ["Path", *FINDINGS])
        with pytest.raises(DataError, match=r"valid\.csv: has no AP/PA values.*leave data\.projections out"):
            read_chexpert(small, projections=("PA",))

    def test_projections_of_a_header_alone(self, small):
        write(small / "valid.csv", [])
        assert read_chexpert(small, projections=("PA",)).frame["row"].tolist() == [4]

    def test_nothing_left(self, small):
        with pytest.raises(DataError, match="no row is left"):
            read_chexpert(small, projections=("LL",))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"views": ("side",)}, "views is"),
            ({"views": "frontal"}, "views is 'frontal'"),
            ({"views": ()}, "views is"),
            ({"splits": ("train", "val")}, "splits is"),
            ({"splits": "train"}, "splits is 'train'"),
        ],
    )
    def test_illegal_options(self, small, options, message):
        with pytest.raises(ConfigError, match=message):
            read_chexpert(small, **options)


class TestLabels:
    def test_findings_that_chexpert_lacks_are_not_annotated(self, small):
        table = read_chexpert(small, NIH14)
        annotated = dict(zip(NIH14, table.annotated.all(axis=0), strict=True))
        assert {f for f, yes in annotated.items() if yes} == set(NIH14) & set(CHEXPERT14)
        assert not table.mask[:, NIH14.index("Hernia")].any()

    def test_no_common_finding(self, small):
        with pytest.raises(ConfigError, match="none of the findings of label set 'custom': Hernia"):
            read_chexpert(small, label_set(["Hernia"]))

    def test_older_name_of_a_column(self, tmp_path):
        header = [h.replace("Lung Opacity", "Airspace Opacity") for h in HEADER]
        path = write(tmp_path / "train.csv", [line("train/patient00001/study1/a.jpg", Lung_Opacity="1.0")], header)
        assert parse_chexpert_csv(path).values[0, FINDINGS.index("Lung Opacity")] == 1

    def test_missing_column_is_not_masked_in_silence(self, small):
        write(small / "valid.csv", [row[:-1] for row in VALID], HEADER[:-1])
        with pytest.raises(DataError, match=r"valid\.csv: no column Support Devices; pass a label set without it"):
            read_chexpert(small)
        without = LabelSet("thirteen", FINDINGS[:-1], CHEXPERT14.codes[:-1])
        assert read_chexpert(small, without).annotated.all()

    def test_two_columns_for_one_finding(self, small):
        write(small / "valid.csv", [[*row, ""] for row in VALID], [*HEADER, "Airspace Opacity"])
        with pytest.raises(DataError, match=r"valid\.csv: columns 'Lung Opacity' and 'Airspace Opacity'"):
            read_chexpert(small)

    @pytest.mark.parametrize("cell", ["2.0", "-2.0", "yes"])
    def test_illegal_label(self, small, cell):
        write(small / "valid.csv", [*VALID, line("valid/patient64542/study1/a.jpg", Fracture=cell)])
        with pytest.raises(DataError, match=rf"valid\.csv:3: illegal label: column 'Fracture' is {cell}"):
            read_chexpert(small)

    def test_all_illegal_rows_are_collected(self, small):
        rows = [
            line("train/patient00001/study1/a.jpg", Edema="2.0"),
            line("../secret/a.jpg"),
            line("/etc/passwd"),
            line(""),
            line("train/b.jpg"),
            line("train/patient00001/../../../a.jpg"),
            line("train/patient00002/study1/a.jpg", age="411", Edema="1.0"),
        ]
        write(small / "train.csv", rows)
        with pytest.raises(DataError, match=r"train\.csv:3: path outside the root: .*and 4 more"):
            read_chexpert(small)
        problems = []
        table = read_chexpert(small, problems=problems).split("train")
        assert [(p.row, p.kind) for p in problems] == [
            (3, "path outside the root"),
            (4, "path outside the root"),
            (5, "no path"),
            (6, "unknown path"),
            (7, "path outside the root"),
            (2, "illegal label"),
            (8, "illegal age"),
        ]
        assert table.frame["row"].tolist() == [2, 8]
        assert not table.mask[0, FINDINGS.index("Edema")]  # an illegal label is not taken for a blank one
        assert table.mask.sum() == 27
        assert {p.source for p in problems} == {"train.csv"}

    def test_neither_path_nor_study(self, tmp_path):
        path = write(tmp_path / "train.csv", [row[1:] for row in TRAIN], HEADER[1:])
        with pytest.raises(DataError, match="neither a Path nor a Study column"):
            parse_chexpert_csv(path)

    def test_row_that_breaks_off(self, small):
        text = (small / "train.csv").read_text().rstrip()
        (small / "train.csv").write_text(text[:-5])
        with pytest.raises(DataError, match=r"train\.csv: line 4 has 14 fields, the header has 19"):
            read_chexpert(small)

    def test_header_alone(self, small):
        write(small / "train.csv", [])
        write(small / "valid.csv", [])
        with pytest.raises(DataError, match="no row is left"):
            read_chexpert(small)


@pytest.fixture(scope="module")
def real_csv():
    xrv = importlib.util.find_spec("torchxrayvision")
    path = Path(xrv.origin).parent / "data" / "chexpert_train.csv.gz" if xrv is not None and xrv.origin else None
    if path is None or not path.is_file():
        pytest.skip("the real CheXpert train.csv comes with torchxrayvision, which is not installed")
    return path


@pytest.fixture(scope="module")
def real(real_csv):
    return parse_chexpert_csv(real_csv)


@pytest.fixture(scope="module")
def real_rows(real_csv):
    with gzip.open(real_csv, "rt", newline="") as file:
        return list(csv.DictReader(file))


class TestRealTable:
    def test_size(self, real):
        assert len(real.frame) == 223_414
        assert real.frame["patient"].nunique() == 64_540
        assert real.annotated.all()

    def test_counts_agree_with_a_plain_loop(self, real, real_rows):
        for j, finding in enumerate(FINDINGS):
            expected = Counter(row[finding] for row in real_rows)
            values = real.values[:, j]
            got = {text: int((values == float(text)).sum()) for text in ("1.0", "0.0", "-1.0")}
            got[""] = int(np.isnan(values).sum())
            assert got == {text: expected[text] for text in got}, finding
            assert sum(expected.values()) == sum(got.values()), finding

    def test_demographics_agree_with_a_plain_loop(self, real, real_rows):
        frame = real.frame
        assert frame["sex"].tolist() == [{"Male": "M", "Female": "F"}.get(r["Sex"], "") for r in real_rows]
        assert frame["age"].tolist() == [float(r["Age"]) for r in real_rows]
        assert frame["view"].tolist() == [r["Frontal/Lateral"].lower() for r in real_rows]
        assert frame["projection"].tolist() == [r["AP/PA"] for r in real_rows]
        assert frame["path"].tolist() == [r["Path"].split("/", 1)[1] for r in real_rows]
        assert frame["row"].tolist() == list(range(2, len(real_rows) + 2))

    def test_no_finding_is_one_or_blank_and_one_means_no_pathology(self, real):
        """What the exception for No Finding in LabelPolicy rests on."""
        values = real.values
        no_finding = values[:, 0]
        assert set(np.unique(no_finding[~np.isnan(no_finding)])) == {1.0}
        pathology = ((values[:, 1:-1] == 1) | (values[:, 1:-1] == -1)).any(axis=1)
        assert not pathology[no_finding == 1].any()
        assert (values[no_finding == 1, -1] == 1).any()  # Support Devices beside No Finding: it is no pathology
        _, mask = LabelPolicy(blank="ignore").apply(values, real.annotated, CHEXPERT14)
        assert (mask[:, 0] == (pathology | (no_finding == 1))).all()
