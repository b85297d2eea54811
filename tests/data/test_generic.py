import numpy as np
import pytest

from mxa.data.generic import read_csv
from mxa.errors import ConfigError, DataError
from mxa.labels import CHEXPERT14, LabelPolicy, LabelSet, label_set

TWO = LabelSet("two", ("Edema", "Pleural Effusion"), ("ED", "PE"))
TEXT = """\
file,person,exam,set,gender,years,view,pos,Edema,Effusion
a/1.png,007,e1,train,F,57,Frontal,PA,1,0
a/2.png,007,e1,Training,female,057Y,LATERAL,,1.0,-1
b/1.png,8,e2,val,m,,oblique,AP,0,
b/2.png,,,test,X,200,,,0.0,1
"""
ALL = {
    "path_column": "file",
    "patient_column": "person",
    "study_column": "exam",
    "split_column": "set",
    "sex_column": "gender",
    "age_column": "years",
    "view_column": "view",
    "projection_column": "pos",
}


@pytest.fixture
def table_csv(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(TEXT)
    return path


def many(tmp_path, n=40):
    path = tmp_path / "many.csv"
    path.write_text("file,person,Edema\n" + "".join(f"{i}.png,p{i // 2},1\n" for i in range(n)))
    return path, label_set(["Edema"])


class TestColumns:
    def test_everything_named(self, table_csv, tmp_path):
        table = read_csv(table_csv, tmp_path / "images", TWO, **ALL)
        frame = table.frame
        assert table.dataset == "csv"
        assert table.root == tmp_path / "images"
        assert frame["path"].tolist() == ["a/1.png", "a/2.png", "b/1.png", "b/2.png"]
        assert frame["patient"].tolist() == ["007", "007", "8", "b/2.png"]
        assert frame["study"].tolist() == ["e1", "e1", "e2", "b/2.png"]
        assert frame["split"].tolist() == ["train", "train", "valid", "test"]
        assert frame["sex"].tolist() == ["F", "F", "M", ""]
        assert frame["view"].tolist() == ["frontal", "lateral", "", ""]
        assert frame["projection"].tolist() == ["PA", "", "AP", ""]
        assert frame["row"].tolist() == [2, 3, 4, 5]
        assert set(frame["source"]) == {"labels.csv"}
        np.testing.assert_array_equal(frame["age"], [57, 57, np.nan, np.nan])
        np.testing.assert_array_equal(table.values, [[1, 0], [1, -1], [0, np.nan], [0, 1]])
        assert table.target.tolist() == [[1, 0], [1, 1], [0, 0], [0, 1]]

    def test_path_alone(self, table_csv, tmp_path):
        table = read_csv(table_csv, tmp_path, TWO, LabelPolicy("u-zeros"), path_column="file")
        assert table.frame["patient"].tolist() == table.frame["study"].tolist() == table.frame["path"].tolist()
        assert table.splits == ("train",)
        assert table.frame["age"].isna().all()
        assert set(table.frame["sex"]) == set(table.frame["view"]) == {""}
        assert table.target[1].tolist() == [1, 0]

    @pytest.mark.parametrize("role", list(ALL))
    def test_unknown_column_lists_the_present(self, table_csv, tmp_path, role):
        option = f"csv.{role.removesuffix('_column')}"
        message = rf"{option} \({role}\) is 'nope', but .*labels.csv has only: file, person, exam"
        with pytest.raises(ConfigError, match=message):
            read_csv(table_csv, tmp_path, TWO, **{**ALL, role: "nope"})

    def test_finding_columns(self, table_csv, tmp_path):
        table = read_csv(table_csv, tmp_path, path_column="file", finding_columns={"Pneumonia": "Effusion"})
        j = CHEXPERT14.index("Pneumonia")
        np.testing.assert_array_equal(table.values[:, j], [0, -1, np.nan, 1])
        assert table.annotated.any(axis=0).sum() == 1
        assert table.annotated[:, j].all()

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"Pneumonia": "pna"}, r"csv\.findings \(finding_columns\) names 'pna' for Pneumonia, but .* has only"),
            ({"Scoliosis": "Edema"}, "no finding 'Scoliosis'"),
            ({}, r"csv\.findings \(finding_columns\) is empty"),
        ],
    )
    def test_illegal_finding_columns(self, table_csv, tmp_path, given, message):
        with pytest.raises(ConfigError, match=message):
            read_csv(table_csv, tmp_path, path_column="file", finding_columns=given)

    def test_finding_without_a_column_is_not_masked_in_silence(self, table_csv, tmp_path):
        with pytest.raises(DataError, match=r"labels\.csv: no column Mass; name them in csv\.findings"):
            read_csv(table_csv, tmp_path, label_set(["Edema", "Mass"]), path_column="file")


class TestRows:
    def test_illegal_rows(self, tmp_path):
        path = tmp_path / "labels.csv"
        path.write_text("file,set,Edema\na.png,train,1\n../b.png,train,1\nc.png,holdout,1\nd.png,test,2\n,train,1\n")
        options = {"labels": label_set(["Edema"]), "path_column": "file", "split_column": "set"}
        with pytest.raises(DataError, match=r"labels\.csv:3: path outside the root.*and 1 more"):
            read_csv(path, tmp_path, **options)
        problems = []
        table = read_csv(path, tmp_path, **options, problems=problems)
        assert [(p.row, p.kind) for p in problems] == [
            (3, "path outside the root"),
            (6, "no path"),
            (4, "illegal split"),
            (5, "illegal label"),
        ]
        assert table.frame["path"].tolist() == ["a.png", "d.png"]
        assert table.mask.tolist() == [[True], [False]]

    def test_illegal_split(self, tmp_path):
        path = tmp_path / "labels.csv"
        path.write_text("file,set,Edema\na.png,,1\n")
        with pytest.raises(DataError, match=r"labels\.csv:2: illegal split: column 'set' is ''"):
            read_csv(path, tmp_path, label_set(["Edema"]), path_column="file", split_column="set")

    def test_no_rows(self, tmp_path):
        path = tmp_path / "labels.csv"
        path.write_text("file,Edema\n")
        with pytest.raises(DataError, match="no usable row"):
            read_csv(path, tmp_path, label_set(["Edema"]), path_column="file")


class TestSplits:
    def test_by_patient(self, tmp_path):
        path, labels = many(tmp_path)
        table = read_csv(path, tmp_path, labels, path_column="file", patient_column="person", valid_fraction=0.25)
        train, valid = (set(table.split(s).frame["patient"]) for s in ("train", "valid"))
        assert not train & valid
        assert (len(train), len(valid)) == (15, 5)

    def test_by_image_without_patients(self, tmp_path):
        path, labels = many(tmp_path)
        table = read_csv(path, tmp_path, labels, path_column="file", valid_fraction=0.25)
        assert len(table.split("valid")) == 10

    def test_named(self, tmp_path):
        path, labels = many(tmp_path)
        assert read_csv(path, tmp_path, labels, path_column="file", split="test").splits == ("test",)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"split": "val"}, r"csv\.only_split \(split\) is 'val'; choose from train, valid, test"),
            ({"split": "test", "valid_fraction": 0.1}, "valid_fraction takes patients from train"),
            ({"split_column": "person", "valid_fraction": 0.1}, "valid_fraction takes patients from train"),
            ({"valid_fraction": 2.0}, "valid_fraction is 2.0"),
        ],
    )
    def test_illegal_options(self, tmp_path, options, message):
        path, labels = many(tmp_path)
        with pytest.raises(ConfigError, match=message):
            read_csv(path, tmp_path, labels, path_column="file", **options)
