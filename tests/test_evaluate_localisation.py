"""Where saved models look, scored end to end: on a phantom, and on NIH's layout with a list of boxes."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from deploy import small
from mxa.data.options import DataOptions, read
from mxa.data.phantom import make_phantom
from mxa.data.table import Table
from mxa.errors import ConfigError, DataError
from mxa.evaluate import Sources, evaluate
from mxa.evaluate_localisation import Localised, localise
from mxa.evaluation.assessment import AssessOptions
from mxa.evaluation.localisation.report import to_dict
from mxa.labels import CHEXPERT14, NIH14
from mxa.models.artifact import Architecture, Classifier, load, save
from mxa.models.build import build_model
from mxa.preprocess import Preprocess

FEW = AssessOptions(replicates=20)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """28 training, 6 validation and 6 test images. Do not change its files."""
    out = tmp_path_factory.mktemp("phantom") / "data"
    make_phantom(out, images=40, size=64, workers=1)
    return out


def plain() -> Classifier:
    """A network without MXA; its maps are 2 x 2."""
    torch.manual_seed(0)
    network = build_model("efficientvit_m0", 14, 128).eval()
    return Classifier(network, Architecture("efficientvit_m0", {}), CHEXPERT14, Preprocess(size=128), {})


@pytest.fixture(scope="module")
def nih(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NIH's layout: 14 images of 7 patients, the last 6 for testing; boxes of test images and of a stranger."""
    root, rng = tmp_path_factory.mktemp("nih") / "NIH", np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    names = [f"{patient:08d}_{k:03d}.png" for patient in range(1, 8) for k in range(2)]
    lines = ["Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"]
    for i, name in enumerate(names):
        Image.fromarray(rng.integers(0, 256, (64, 64)).astype(np.uint8)).save(root / "images" / name)
        finding = ["Effusion|Mass", "No Finding", "Mass"][i % 3]
        lines.append(f"{name},{finding},{i % 2},{int(name[:8])},50,M,PA")
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join(lines) + "\n")
    (root / "train_val_list.txt").write_text("\n".join(names[:8]) + "\n")
    (root / "test_list.txt").write_text("\n".join(names[8:]) + "\n")
    boxes = [f"{names[9]},Effusion,512,256,256,128", f"{names[9]},Mass,0,0,512,512", f"{names[11]},Mass,0,0,512,256"]
    boxes += [f"{names[12]},Mass,256,0,512,512", "00000099_000.png,Mass,0,0,512,512"]
    (root / "boxes.csv").write_text("\n".join(["Image Index,Finding Label,Bbox [x,y,w,h],,,", *boxes]) + "\n")
    return root


def sources(model: Path, marks: Path, data: DataOptions, split: str = "test", aggregate: str | None = None) -> Sources:
    return Sources(
        model=model, predictions=None, labels=None, data=data, split=split, aggregate=aggregate, localisation=marks
    )


def marked(root: Path, split: str) -> set[tuple[str, str]]:
    """The marked findings of a phantom's split, read by pandas."""
    boxes = pd.read_csv(next(root.glob("*/boxes.csv")))
    return {pair for pair in zip(boxes["Path"], boxes["finding"], strict=True) if f"/{split}/" in pair[0]}


def stored(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "localisation.json").read_text(encoding="utf-8"))
    return found


def remember(name: str, seen: list[Any], patch: pytest.MonkeyPatch) -> None:
    """Keep the first argument of every call."""
    module, function = name.rsplit(".", 1)
    original: Callable[..., Any] = getattr(__import__(module, fromlist=[function]), function)

    def called(first: object, *arguments: object, **more: object) -> object:
        seen.append(first)
        return original(first, *arguments, **more)

    patch.setattr(name, called)


@pytest.fixture(scope="module")
def written(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a network with MXA, by study."""
    out, seen = tmp_path_factory.mktemp("where") / "out", []
    with pytest.MonkeyPatch.context() as patch:
        remember("mxa.explain.locate.read_picture", seen, patch)
        evaluate(sources(small.saved(), phantom, DataOptions(root=str(phantom)), aggregate="max"), FEW, out)
    assert {path.parts[-4] for path in seen} == {"valid", "test"}, "training marks are read, training images are not"
    return out


def test_cases_and_baselines_are_those_of_their_splits(phantom: Path, written: Path) -> None:
    found = stored(written)
    test, train, valid = (marked(phantom, split) for split in ("test", "train", "valid"))
    assert found["selections"]["all"]["cases"] == len(test) > 10
    assert found["trained"]["overall"]["marks"] == len(train)
    assert {name: one["marks"] for name, one in found["trained"]["findings"].items()} == dict(
        pd.Series([finding for _, finding in train]).value_counts()
    )
    assert set(found["findings"]) == {finding for _, finding in test}
    assert found["findings"] == [finding for finding in CHEXPERT14 if finding in found["findings"]]
    assert found["provenance"]["marks"] == (
        f"phantom masks at {phantom}: {len(test)} of test are scored, {len(train)} of train teach the baselines, "
        f"{len(valid)} of valid chose the best stage"
    )
    assert json.loads((written / "metrics.json").read_text())["provenance"] == found["provenance"]


def test_the_whole_image_meets_what_the_masks_hold(phantom: Path, written: Path) -> None:
    """Its IoU with a region is the region's share of the picture, whatever the model."""
    shares = []
    for path, finding in marked(phantom, "test"):
        file = next(phantom.glob("*")) / "masks" / Path(*Path(path).parts[1:]).with_suffix(".png")
        with Image.open(file) as mask:
            shares.append((np.array(mask, dtype=np.int64) >> CHEXPERT14.index(finding) & 1).mean())
    found = stored(written)["selections"]["all"]["means"]["whole image"]["pooled"]
    assert found["iou"]["value"] == pytest.approx(np.mean(shares), rel=0.02)
    assert found["covered"]["value"] == pytest.approx(1)


def test_everything_is_written(written: Path) -> None:
    found = stored(written)
    stages = {f"stages.{i}.blocks.0" for i in range(3)} | {f"stage {i}" for i in (1, 2, 3)}
    assert set(found["model"]) == stages | {"best stage", "union", "map"}
    assert found["best_stage"] in found["stages"]
    assert found["bootstrap"] == {"replicates": 20, "seed": 0, "level": 0.95}
    with Image.open(written / "localisation.png") as picture:
        assert picture.width > 500
    rows = pd.read_csv(written / "localisation.csv")
    one = rows.query("cases_are == 'all' and finding == 'pooled' and row == 'union' and minus.isna()")
    assert one.set_index("measure")["value"]["iou"] == pytest.approx(
        found["selections"]["all"]["means"]["union"]["pooled"]["iou"]["value"]
    )
    tables = (written / "localisation.md").read_text(encoding="utf-8")
    assert "*All findings pooled, all cases" in tables
    assert "beats the baselines" in tables
    page = (written / "report.html").read_text(encoding="utf-8")
    section = page[page.index("<h2>Localisation</h2>") : page.index("<h2>Provenance</h2>")]
    for said in ("A hit: the centre of the box", "Baselines never looked", "Only what beats every fair baseline"):
        assert said in section
    assert 'src="data:image/png' in section


def looked(classifier: Classifier, root: Path, split: str, table: Table | None = None) -> Localised:
    """Phantom marks scored, without the rest of the evaluation."""
    table = read(DataOptions(root=str(root)), classifier.labels) if table is None else table
    return localise(classifier, table, split, root, FEW)


def test_aggregation_does_not_touch_it(phantom: Path, written: Path) -> None:
    """Studies were scored; where the model looked was scored by image."""
    found = stored(written)
    assert "max over the images of a study" in found["provenance"]["cases"]
    by_image = json.loads(json.dumps(to_dict(looked(load(small.saved()), phantom, "test").found)))
    assert {name: found[name] for name in by_image} == by_image


def test_a_network_without_mxa_has_maps_alone(phantom: Path) -> None:
    found = looked(plain(), phantom, "test")
    assert found.found.model == ("map",)
    assert found.found.best_stage is None
    assert found.found.trained is not None
    assert found.notes == ["efficientvit_m0 has no MXA regions: its maps alone are scored."]


def test_a_split_that_is_scored_neither_teaches_nor_chooses(phantom: Path) -> None:
    on_valid, on_train = (looked(small.classifier(), phantom, split) for split in ("valid", "train"))
    assert on_valid.found.trained is not None
    assert on_valid.found.best_stage is None
    assert on_valid.notes == [
        "No best stage is shown: the validation marks, which would choose it, are scored themselves."
    ]
    assert on_train.found.trained is None
    assert on_train.found.best_stage is not None
    assert on_train.notes == ["The training split itself is scored, so its marks teach the baselines nothing."]


def test_marks_of_scored_patients_neither_teach_nor_choose(phantom: Path) -> None:
    """One training and one validation image become another image of a patient who is scored."""
    table = read(DataOptions(root=str(phantom)))
    frame = table.frame.copy()
    place = frame["path"].str.split("/").str[-4:].str.join("/")
    count = {}
    scored = min(marked(phantom, "test"))[0].split("/", 1)[1]
    for split in ("train", "valid"):
        path = min(marked(phantom, split))[0].split("/", 1)[1]
        frame.loc[place == path, "patient"] = frame.loc[place == scored, "patient"].item()
        count[split] = sum(other.endswith(path) for other, _ in marked(phantom, split))
    found = looked(small.classifier(), phantom, "test", replace(table, frame=frame))
    assert found.notes == [
        f"{number} marks of split {split} are of patients who are scored; they are left out."
        for split, number in count.items()
    ]
    assert found.found.trained is not None
    assert found.found.trained.overall.marks == len(marked(phantom, "train")) - count["train"]
    assert f"{len(marked(phantom, 'valid')) - count['valid']} of valid chose the best stage" in found.marks


def test_some_of_very_many_marks_teach(phantom: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mxa.evaluate_localisation.MOST_TRAINING_MARKS", 5)
    found = looked(plain(), phantom, "test")
    assert found.found.trained is not None
    assert found.found.trained.overall.marks == 5
    assert f"Of {len(marked(phantom, 'train'))} training marks 5, drawn at random, teach the baselines." in found.notes


def test_the_best_stage_is_chosen_on_validation_marks_alone(phantom: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    remember("mxa.evaluate_localisation.choose_stage", given, monkeypatch)
    looked(small.classifier(), phantom, "test")
    (located,) = given
    assert {path.split("/")[-4] for path in located.paths} == {"valid"}
    assert len(located) == len(marked(phantom, "valid"))


# --- NIH's boxes, all of them in the test list


@pytest.fixture(scope="module")
def nih_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(small.classifier(labels=NIH14), tmp_path_factory.mktemp("model") / "model")


def nih_sources(model: Path, root: Path, marks: str = "boxes.csv", split: str = "test") -> Sources:
    data = DataOptions(root=str(root), dataset="nih", labels="nih14", valid_fraction=0.3)
    return sources(model, root / marks, data, split)


def test_boxes_of_test_images_alone(nih: Path, nih_model: Path, tmp_path: Path) -> None:
    evaluate(nih_sources(nih_model, nih), FEW, tmp_path / "out")
    found = stored(tmp_path / "out")
    assert (found["trained"], found["best_stage"]) == (None, None)
    assert set(found["findings"]) == {"Pleural Effusion", "Mass"}
    assert found["selections"]["all"]["cases"] == 4
    whole = found["selections"]["all"]["means"]["whole image"]
    assert whole["Pleural Effusion"]["iou"]["value"] == pytest.approx(1 / 32)
    assert whole["Mass"]["iou"]["value"] == pytest.approx((1 / 4 + 1 / 8 + 1 / 4) / 3)
    assert found["notes"][:3] == [
        "1 marked images are not in the data set, such as 00000099_000.png.",
        f"{nih / 'boxes.csv'} marks no training image that could teach the baselines.",
        f"No best stage is shown: {nih / 'boxes.csv'} marks no validation image that could choose it.",
    ]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Minus whole image" in page
    assert "Minus map, shuffled" in page


@pytest.mark.parametrize(
    ("marks", "split", "message"),
    [
        ("gone.csv", "test", r"gone\.csv: no such file or folder"),
        ("images", "test", r"images: holds no marks that are known here"),
        ("Data_Entry_2017_v2020.csv", "test", r"the first line is not .*is it NIH's BBox_List_2017\.csv"),
        ("boxes.csv", "valid", r"boxes\.csv: marks no image of split 'valid' of .*; it has marks in test \(4 marks"),
    ],
)
def test_marks_that_do_not_fit_are_refused_before_anything_is_predicted(
    marks: str, split: str, message: str, nih: Path, nih_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    remember("mxa.predict.predict_table", asked, monkeypatch)
    with pytest.raises(DataError, match=message):
        evaluate(nih_sources(nih_model, nih, marks, split), FEW, tmp_path / "out")
    assert not asked
    assert not (tmp_path / "out").exists()


def test_a_network_that_tells_nothing_is_refused(nih: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_model("test_convnext", 14, 64).eval()
    one = Classifier(network, Architecture("test_convnext", {}), NIH14, Preprocess(size=64), {})
    model = save(one, tmp_path / "model")
    with pytest.raises(ConfigError, match=r"test_convnext has no MXA regions, and there is no exact"):
        evaluate(nih_sources(model, nih), FEW, tmp_path / "out")
    assert not (tmp_path / "out").exists()
