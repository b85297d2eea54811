"""A saved model's operating points and calibrations, chosen anew on a validation split and on nothing else."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_curve

from conftest import ROOT_NAME, write_chexpert
from mxa.calibrate import calibrate
from mxa.data.options import DataOptions, read
from mxa.errors import ArtifactError, ConfigError, DataError
from mxa.evaluation.tuning import Tuning
from mxa.labels import CHEXPERT14, LabelPolicy
from mxa.models.artifact import Architecture, Classifier, fingerprint, load, save
from mxa.models.build import build_model
from mxa.predict import predict_table
from mxa.preprocess import Preprocess


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An untrained network with random outputs that differ from image to image."""
    torch.manual_seed(0)
    network = build_model("efficientvit_m0", 14, 64).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    one = Classifier(network, Architecture("efficientvit_m0", {}), CHEXPERT14, Preprocess(size=64), {"note": "test"})
    return save(one, tmp_path / "model")


def stored(model: Path) -> Tuning:
    return Tuning.from_dict(json.loads((model / "config.json").read_text())["tuning"], CHEXPERT14)


def test_thresholds_are_the_best_on_validation(model: Path, tiny_chexpert: Path) -> None:
    tuning = calibrate(model, DataOptions(root=str(tiny_chexpert)), ["youden", "sensitivity=0.8"])
    assert list(tuning.operating_points) == ["youden", "sensitivity=0.8"]
    assert list(tuning.calibrations) == ["temperature", "platt", "isotonic"]
    valid = read(DataOptions(root=str(tiny_chexpert))).split("valid")
    probability = predict_table(load(model), valid).probability
    seen = 0
    for j, finding in enumerate(CHEXPERT14):
        y, p = valid.target[:, j], probability[:, j]
        youden, sensitive = (point.thresholds[j] for point in tuning.operating_points.values())
        if y.min() == y.max():
            assert youden is sensitive is None, finding
            assert tuning.point("youden").reasons[finding] == ("no negatives" if y.min() else "no positives")
            continue
        false, true, _ = roc_curve(y, p, drop_intermediate=False)
        rates = [((p > at)[y == 1].mean(), (p > at)[y == 0].mean()) for at in (youden, sensitive)]
        assert rates[0][0] - rates[0][1] == pytest.approx((true - false).max()), finding
        assert rates[1] == pytest.approx((true[true >= 0.8].min(), false[true >= 0.8].min())), finding
        seen += 1
    assert seen > 5


def test_they_are_stored_and_nothing_else_changes(model: Path, tiny_chexpert: Path) -> None:
    before, config = fingerprint(model), json.loads((model / "config.json").read_text())
    weights = (model / "model.safetensors").read_bytes()
    assert config["tuning"] == {}
    tuning = calibrate(model, DataOptions(root=str(tiny_chexpert)))
    assert stored(model) == tuning
    assert fingerprint(model) == before
    assert (model / "model.safetensors").read_bytes() == weights
    after = json.loads((model / "config.json").read_text())
    assert {**after, "tuning": {}} == config
    card = (model / "README.md").read_text()
    assert "Chosen on 16 valid images of chexpert." in card
    assert "youden, f1, sensitivity=0.9, specificity=0.9" in card
    again = calibrate(model, DataOptions(root=str(tiny_chexpert)), ["f1"])
    assert list(stored(model).operating_points) == ["f1"]
    assert again.point("f1") == tuning.point("f1")


def test_only_validation_is_looked_at(model: Path, tiny_chexpert: Path, tmp_path: Path) -> None:
    """Without any training or test image, and with other test labels, the result is the same."""
    root = shutil.copytree(tiny_chexpert, tmp_path / "data")
    first = calibrate(model, DataOptions(root=str(root)))
    valid = read(DataOptions(root=str(root))).split("valid")
    assert first.fitted_on == {
        "dataset": "chexpert",
        "split": "valid",
        "images": 16,
        "fingerprint": valid.fingerprint(),
    }
    for split in ("train", "test"):
        shutil.rmtree(root / ROOT_NAME / split)
        file = root / ROOT_NAME / f"{split}.csv"
        file.write_text(file.read_text().replace(",0.0", ",1.0"))
    second = calibrate(model, DataOptions(root=str(root)))
    assert second == first


def test_a_data_set_without_validation_is_refused(model: Path, tmp_path: Path) -> None:
    root = write_chexpert(tmp_path / "data", {"train": 4, "test": 4})
    before = (model / "config.json").read_bytes()
    with pytest.raises(DataError, match=r"valid"):
        calibrate(model, DataOptions(root=str(root)))
    assert (model / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (["youden", "best"], r"operating point 'best' is none of youden, f1, sensitivity=V"),
        (["sensitivity=90"], r"sensitivity=90"),
        ([], r"no rules are given"),
    ],
)
def test_wrong_rules_are_refused_at_once(rules: list[str], message: str) -> None:
    """Before the model is even looked for."""
    with pytest.raises(ConfigError, match=message):
        calibrate(Path("no-such-model"), DataOptions(root="no-such-data"), rules)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not a saved model"):
        calibrate(tmp_path, DataOptions(root="no-such-data"))


def test_another_split_of_the_training_data_is_warned_of(
    model: Path, tiny_chexpert: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It may hold training images. Another hospital's data set, of another name, is what the command is for."""
    config = json.loads((model / "config.json").read_text())
    provenance = {"dataset": "chexpert", "fingerprint": "0" * 64, "images": {"train": 1}}
    provenance |= {"policy": {"uncertain": "u-ones", "blank": "negative"}}
    for data, expected in ((provenance, True), ({**provenance, "dataset": "nih"}, False)):
        (model / "config.json").write_text(json.dumps(config | {"training": {"data": data}}))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            calibrate(model, DataOptions(root=str(tiny_chexpert)), ["f1"])
        assert ("differs from the one that the model was trained with" in caplog.text) is expected


def test_calibrations_are_of_the_raw_logits(model: Path, tiny_chexpert: Path) -> None:
    """Isotonic calibration has the observed frequency of every step, on the data that it was fitted on."""
    tuning = calibrate(model, DataOptions(root=str(tiny_chexpert)))
    valid = read(DataOptions(root=str(tiny_chexpert))).split("valid")
    predictions = predict_table(load(model), valid)
    found = tuning.calibrations["isotonic"].apply(predictions.logit)
    for j, finding in enumerate(CHEXPERT14):
        if finding in tuning.calibrations["isotonic"].curves:
            assert found[:, j].mean() == pytest.approx(valid.target[:, j].mean())
            order = np.argsort(predictions.logit[:, j])
            assert (np.diff(found[order, j]) >= 0).all()


def test_what_predictions_are_to_use_is_stored_and_checked(model: Path, tiny_chexpert: Path) -> None:
    data = DataOptions(root=str(tiny_chexpert))
    for wrong in ({"use_operating_point": "f1"}, {"use_calibration": "magic"}):
        with pytest.raises(ConfigError, match=r"(use_operating_point is 'f1'|use_calibration is 'magic'); choose one"):
            calibrate(model, data, ["youden"], **wrong)  # type: ignore[arg-type]
    assert json.loads((model / "config.json").read_text())["tuning"] == {}
    calibrate(model, data, ["youden"], use_operating_point="youden", use_calibration="platt")
    assert (stored(model).operating_point, stored(model).calibration) == ("youden", "platt")
    calibrate(model, data, ["youden"])
    assert (stored(model).operating_point, stored(model).calibration) == ("", "")


@pytest.mark.parametrize(("label", "policy"), [("0.0", "u-ones"), ("-1.0", "u-ignore")])
def test_good_thresholds_are_not_replaced_by_none(
    label: str, policy: str, model: Path, tiny_chexpert: Path, tmp_path: Path
) -> None:
    """Without any positive, and without any label."""
    calibrate(model, DataOptions(root=str(tiny_chexpert)))
    before = (model / "config.json").read_bytes()
    root = shutil.copytree(tiny_chexpert, tmp_path / "data")
    file = root / ROOT_NAME / "valid.csv"
    frame = pd.read_csv(file, dtype=str)
    frame[list(CHEXPERT14)] = label
    frame.to_csv(file, index=False)
    with pytest.raises(DataError, match=r"no threshold to choose"):
        calibrate(model, DataOptions(root=str(root), policy=LabelPolicy(uncertain=policy)))
    assert (model / "config.json").read_bytes() == before
