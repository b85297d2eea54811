"""The options reach the reader that they name, and wrong ones are refused."""

from pathlib import Path

import pytest

from mxa.data.options import CsvOptions, DataOptions, read
from mxa.errors import ConfigError
from mxa.labels import NIH14, LabelPolicy


def test_chexpert_views_and_projections(tiny_chexpert: Path) -> None:
    assert len(read(DataOptions(root=str(tiny_chexpert)))) == 68
    frontal = read(DataOptions(root=str(tiny_chexpert), views=["frontal"]))
    assert set(frontal.frame["view"]) == {"frontal"}
    assert len(frontal) == 34
    assert len(read(DataOptions(root=str(tiny_chexpert), projections=["AP"]))) == 34


def test_policy_and_labels_reach_the_table(tiny_chexpert: Path) -> None:
    zeros = read(DataOptions(root=str(tiny_chexpert), policy=LabelPolicy(uncertain="u-zeros")))
    ones = read(DataOptions(root=str(tiny_chexpert)))
    assert zeros.target.sum() < ones.target.sum()
    named = read(DataOptions(root=str(tiny_chexpert), labels=["Fracture", "Edema"]))
    assert named.labels.findings == ("Fracture", "Edema")
    column = ones.labels.index("Fracture")
    assert (named.target[:, 0] == ones.target[:, column]).all()


def test_a_models_own_findings_win(tiny_chexpert: Path) -> None:
    table = read(DataOptions(root=str(tiny_chexpert)), labels=NIH14)
    assert table.labels == NIH14
    assert not table.mask[:, NIH14.index("Hernia")].any()


def test_nih_split_options(nih1000: Path) -> None:
    one = read(DataOptions(root=str(nih1000), dataset="nih", labels="nih14", valid_fraction=0.3))
    other = read(DataOptions(root=str(nih1000), dataset="nih", labels="nih14", valid_fraction=0.3, split_seed=1))
    assert len(one.split("valid")) > 0.15 * len(one)
    assert set(one.split("valid").frame["path"]) != set(other.split("valid").frame["path"])
    assert set(one.split("test").frame["path"]) == set(other.split("test").frame["path"])


def test_csv_columns(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("img,who,part,Edema,broken\na.png,p1,train,1,0\nb.png,p2,valid,0,1\n")
    options = DataOptions(
        root=str(tmp_path),
        dataset="csv",
        labels=["Edema", "Fracture"],
        csv=CsvOptions(
            file=str(file), path="img", patient="who", split="part", findings={"Edema": "Edema", "Fracture": "broken"}
        ),
    )
    table = read(options)
    assert table.target.tolist() == [[1, 0], [0, 1]]
    assert table.splits == ("train", "valid")


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_csv_of_one_split(split: str, tmp_path: Path) -> None:
    """Only of training rows a part becomes valid."""
    file = tmp_path / "labels.csv"
    file.write_text("path,Edema\n" + "".join(f"{i}.png,1\n" for i in range(10)))
    table = read(
        DataOptions(
            root=str(tmp_path), dataset="csv", labels=["Edema"], csv=CsvOptions(file=str(file), only_split=split)
        )
    )
    assert table.splits == (("train", "valid") if split == "train" else (split,))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"dataset": "mimic"}, "data.dataset"),
        ({"valid_fraction": 1.0}, "data.valid_fraction"),
        ({}, "data.root"),
        ({"root": "x", "dataset": "csv"}, "data.csv.file"),
        ({"root": "x", "dataset": "csv", "views": ["frontal"]}, "data.views"),
        ({"root": "x", "labels": "chexpert15"}, "chexpert15"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        read(DataOptions(**options))  # type: ignore[arg-type]
