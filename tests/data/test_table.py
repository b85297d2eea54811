import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mxa.data.table import BOX_COLUMNS, META_COLUMNS, Table
from mxa.errors import ConfigError, DataError
from mxa.labels import LabelPolicy, LabelSet

LABELS = LabelSet("two", ("Edema", "Fracture"), ("ED", "FX"))
NAN = float("nan")
KNOWN = "8f87ceadbadda1bb858935c0067d2973067da99265f5f79ce3aaf9920f3bd7c5"
SPLIT = ["train", "valid", "train", "test"]
VALUES = [[1, -1], [-1, NAN], [0, -1], [NAN, 0]]


def make(root="data", policy=None, values=VALUES, split=SPLIT, annotated=None, boxes=None, dataset="demo"):
    n = len(split)
    frame = pd.DataFrame({name: [f"{name}{i}" for i in range(n)] for name in META_COLUMNS})
    frame["age"], frame["row"], frame["split"] = 50.0, range(2, n + 2), split
    frame.index = range(10, 10 + n)
    values = np.array(values, dtype=np.float64)
    annotated = np.ones(values.shape, dtype=bool) if annotated is None else annotated
    return Table.build(frame, values, annotated, LABELS, policy or LabelPolicy(), Path(root), dataset, boxes)


def boxes_of(*paths):
    return pd.DataFrame([(p, "Edema", 0.1, 0.2, 0.3, 0.4) for p in paths], columns=list(BOX_COLUMNS))


class TestBuild:
    def test_columns_index_and_types(self):
        table = make()
        assert list(table.frame.columns) == list(META_COLUMNS)
        assert table.frame.index.tolist() == [0, 1, 2, 3]
        assert [table.values.dtype, table.target.dtype] == [np.float32, np.float32]  # noqa: PD011 - a Table
        assert [table.annotated.dtype, table.mask.dtype] == [bool, bool]
        assert list(table.boxes.columns) == list(BOX_COLUMNS)
        assert len(table) == 4

    def test_default_policy(self):
        assert make().target.tolist() == [[1, 1], [1, 0], [0, 1], [0, 0]]

    def test_random_targets_in_train_only(self):
        table = make(policy=LabelPolicy("u-zeros-smooth", smooth_zeros=(0.1, 0.3)))
        assert 0.1 <= table.target[0, 1] <= 0.3
        assert 0.1 <= table.target[2, 1] <= 0.3
        assert table.target[1, 0] == 0
        assert table.target.dtype == np.float32
        assert table.mask.all()

    def test_random_targets_follow_their_rows(self):
        table = make(policy=LabelPolicy("u-ones-smooth"))
        assert table.split("train").target.tolist() == table.target[[0, 2]].tolist()
        assert table.take([2, 0]).target.tolist() == table.target[[2, 0]].tolist()

    def test_values_that_are_not_annotated_become_blank(self):
        annotated = np.array([[True, False]] * 4)
        table = make(annotated=annotated)
        assert np.isnan(table.values[:, 1]).all()  # noqa: PD011 - a Table
        assert not table.mask[:, 1].any()

    def test_missing_column(self):
        table = make()
        with pytest.raises(DataError, match="lacks the columns \\['view'\\]"):
            Table.build(
                table.frame.drop(columns="view"), table.values, table.annotated, LABELS, LabelPolicy(), Path(), "demo"
            )

    def test_missing_box_column(self):
        with pytest.raises(DataError, match=r"box table lacks.*'x1'"):
            make(boxes=boxes_of("path0").drop(columns="x1"))

    def test_lengths_differ(self):
        with pytest.raises(DataError, match="4 rows of metadata but 1 rows of labels"):
            make(values=[[1, 0]])

    def test_unknown_split(self):
        with pytest.raises(DataError, match="unknown split \\['val'\\]"):
            make(split=["train", "val", "train", "test"])

    def test_finding_with_a_metadata_name(self):
        table = make()
        labels = LabelSet("bad", ("age", "Edema"), ("A", "E"))
        with pytest.raises(ConfigError, match="'age'"):
            Table.build(table.frame, table.values, table.annotated, labels, LabelPolicy(), Path(), "demo")

    def test_illegal_value(self):
        with pytest.raises(DataError, match="row 2, Fracture: illegal label 3"):
            make(values=[[1, 0], [1, 0], [1, 3], [0, 0]])


class TestSelection:
    def test_splits_in_their_natural_order(self):
        assert make(split=["test", "train", "test", "test"]).splits == ("train", "test")

    def test_split(self):
        part = make().split("train")
        assert part.frame["path"].tolist() == ["path0", "path2"]
        assert part.frame.index.tolist() == [0, 1]
        assert part.values[:, 0].tolist() == [1, 0]  # noqa: PD011 - a Table

    @pytest.mark.parametrize("name", ["valid", "nonsense"])
    def test_absent_split_lists_the_present(self, name):
        with pytest.raises(DataError, match=f"no '{name}' rows; splits with rows: \\['train', 'test'\\]"):
            make(split=["train", "train", "train", "test"]).split(name)

    def test_take_by_mask_and_by_numbers(self):
        table = make()
        assert table.take([3, 0]).frame["path"].tolist() == ["path3", "path0"]
        assert table.take(np.array([False, True, False, True])).frame["path"].tolist() == ["path1", "path3"]
        assert len(table.take([])) == 0

    def test_boxes_follow_their_images(self):
        table = make(boxes=boxes_of("path0", "path1", "path1"))
        assert table.split("valid").boxes["path"].tolist() == ["path1", "path1"]
        assert len(table.split("test").boxes) == 0

    def test_files_are_absolute(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert make(root="data").files()[0] == tmp_path / "data" / "path0"


class TestFingerprint:
    def test_known_value(self):
        # A change here means that packs and caches made earlier no longer match.
        assert make().fingerprint() == make(root="/elsewhere").fingerprint()
        assert make().fingerprint() == KNOWN

    def test_policy_does_not_count_but_everything_annotated_does(self):
        prints = [
            make(),
            make(dataset="other"),
            make(values=[[1, -1], [-1, NAN], [0, -1], [0, 0]]),
            make(split=["valid", "train", "train", "test"]),
            make(annotated=np.array([[True, True], [True, False], [True, True], [True, True]])),
            make().take([1, 0, 2, 3]),
            make().take([0, 1]),
        ]
        assert len({t.fingerprint() for t in prints}) == len(prints)
        assert make(policy=LabelPolicy("u-zeros")).fingerprint() == make().fingerprint()


class TestViews:
    def test_counts(self):
        counts = make(annotated=np.array([[True, True], [True, True], [True, True], [False, True]])).counts()
        assert counts.loc["Edema"].to_dict() == {
            "positive": 1,
            "negative": 1,
            "uncertain": 1,
            "blank": 0,
            "not_annotated": 1,
        }
        assert counts.loc["Fracture", ["negative", "uncertain", "blank"]].tolist() == [1, 2, 1]

    def test_to_frame(self):
        flat = make(policy=LabelPolicy("u-ignore")).to_frame()
        assert list(flat.columns) == [*META_COLUMNS, "Edema", "Fracture", "mask:Edema", "mask:Fracture"]
        assert flat["mask:Fracture"].tolist() == [False, True, False, True]
        assert flat["Edema"].tolist() == [1, 0, 0, 0]

    def test_survives_pickling(self):
        table = make()
        assert pickle.loads(pickle.dumps(table)).fingerprint() == table.fingerprint()


class TestConcat:
    def test_parts_in_order(self):
        table = make(policy=LabelPolicy("u-ones-smooth"), boxes=boxes_of("path1"))
        joined = Table.concat([table.split("valid"), table.split("train")])
        assert joined.frame["path"].tolist() == ["path1", "path0", "path2"]
        assert joined.target.tolist() == table.target[[1, 0, 2]].tolist()
        assert joined.boxes["path"].tolist() == ["path1"]
        assert joined.dataset == "demo"

    def test_data_set_names_are_joined(self):
        assert Table.concat([make(), make(dataset="b"), make()]).dataset == "demo+b"

    @pytest.mark.parametrize(
        ("other", "field"), [(make(root="x"), "root"), (make(policy=LabelPolicy("u-zeros")), "policy")]
    )
    def test_must_agree(self, other, field):
        with pytest.raises(ConfigError, match=f"their {field} are the same"):
            Table.concat([make(), other])

    def test_nothing(self):
        with pytest.raises(ConfigError, match="nothing to concatenate"):
            Table.concat([])
