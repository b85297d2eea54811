"""Saving and loading: nothing changes on the way, and whatever is wrong is said."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mxa.errors import ArtifactError, ConfigError
from mxa.evaluation import calibration
from mxa.evaluation.metrics import sigmoid
from mxa.evaluation.thresholds import Rule, choose_operating_point
from mxa.evaluation.tuning import Tuning
from mxa.labels import CHEXPERT14, LabelSet
from mxa.models.artifact import Architecture, Classifier, fingerprint, load, save, store_tuning
from mxa.models.build import build_model
from mxa.models.card import model_card
from mxa.preprocess import Preprocess


def classifier(name: str = "mxa_efficientvit_m0", labels: LabelSet = CHEXPERT14, **options: object) -> Classifier:
    torch.manual_seed(0)
    model = build_model(name, len(labels), 64, options=options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return Classifier(model, Architecture(name, options), labels, Preprocess(size=64, fit="pad"), {"note": "test"})


def edit(folder: Path, change: object) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    change(config)  # type: ignore[operator]
    file.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mxa_efficientvit_m0", {}),
        ("mxa_efficientvit_m0", {"mxa_reduction": 8, "mxa_stages": [1, 2]}),
        ("efficientvit_m0", {}),
    ],
)
def test_a_saved_model_comes_back_the_same(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    original = classifier(name, **options)
    loaded = load(save(original, tmp_path / "model"))
    pixels = torch.randint(0, 256, (3, 1, 64, 64), dtype=torch.uint8)
    assert torch.equal(loaded.logits(pixels), original.logits(pixels))
    assert loaded.labels == original.labels
    assert loaded.preprocess == original.preprocess
    assert loaded.training == {"note": "test"}
    assert not loaded.model.training


def test_logits_are_the_model_on_scaled_pixels() -> None:
    one = classifier()
    pixels = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    expected = one.model((pixels.float() / 255 - 0.449) / 0.226)
    torch.testing.assert_close(one.logits(pixels), expected, atol=1e-5, rtol=1e-5)


def test_regions_of_mxa_and_of_plain_models() -> None:
    pixels = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    assert len(classifier().regions(pixels)) == 6
    assert classifier("efficientvit_m0").regions(pixels) == {}


def test_alternative_weights(tmp_path: Path) -> None:
    original = classifier()
    other = {key: torch.zeros_like(value) for key, value in original.model.state_dict().items()}
    save(original, tmp_path / "model", {"ema": other})
    loaded = load(tmp_path / "model", weights="ema")
    assert all((value == 0).all() for value in loaded.model.state_dict().values())


def test_the_folder_explains_itself(tmp_path: Path) -> None:
    save(classifier(), tmp_path / "model")
    assert {file.name for file in (tmp_path / "model").iterdir()} == {"model.safetensors", "config.json", "README.md"}
    card = (tmp_path / "model" / "README.md").read_text()
    for finding in CHEXPERT14:
        assert finding in card
    assert "not for clinical use" in card
    assert "64 x 64" in card


def test_the_card_tells_data_and_validation() -> None:
    config = {
        "architecture": {"name": "efficientvit_m0"},
        "labels": CHEXPERT14.to_dict(),
        "preprocess": Preprocess().to_dict(),
        "training": {
            "data": {
                "dataset": "chexpert",
                "fingerprint": "f" * 64,
                "images": {"train": 123, "valid": 45},
                "policy": {"uncertain": "u-ones", "blank": "negative"},
            },
            "weights": "ema",
            "validation": {
                "raw": {"loss": 0.5, "auroc_micro": 0.81, "auroc_macro": 0.7},
                "ema": {"loss": 0.4, "auroc_micro": 0.82, "auroc_macro": None},
            },
        },
    }
    card = model_card(config)
    assert "123 train images, 45 valid images" in card
    assert "| raw | 0.5000 | 0.8100 | 0.7000 |" in card
    assert "| ema (selected) | 0.4000 | 0.8200 | – |" in card


def test_an_existing_model_is_not_overwritten(tmp_path: Path) -> None:
    save(classifier(), tmp_path / "model")
    with pytest.raises(ArtifactError, match="already holds a model"):
        save(classifier(), tmp_path / "model")


def test_a_changed_byte_and_a_changed_length_are_found(tmp_path: Path) -> None:
    folder = save(classifier(), tmp_path / "model")
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=r"model\.safetensors is damaged: sha256"):
        load(folder)
    file.write_bytes(whole[:-7])
    with pytest.raises(ArtifactError, match=rf"damaged: bytes is {len(whole) - 7}"):
        load(folder)


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    folder = save(classifier(), tmp_path / "model")
    (folder / missing).unlink()
    with pytest.raises(ArtifactError, match=missing):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format_version=99), "format version 99"),
        (lambda c: c["preprocess"].update(version=99), "contract version 99"),
        (
            lambda c: c["labels"].update(findings=list(CHEXPERT14.findings[:13]), codes=list(CHEXPERT14.codes[:13])),
            "13 findings",
        ),
        (lambda c: c.pop("architecture"), "architecture"),
        (lambda c: c["architecture"].update(name="efficientvit_m0"), "not of the architecture"),
        (lambda c: c["architecture"].update(name="nothing_m0"), "nothing_m0"),
        (lambda c: c["architecture"].update(options={"mxa_size": 3}), "mxa_size"),
    ],
)
def test_a_wrong_config_is_explained(tmp_path: Path, change: object, message: str) -> None:
    folder = save(classifier(), tmp_path / "model")
    edit(folder, change)
    with pytest.raises(ArtifactError, match=message):
        load(folder)


def test_garbled_json_is_named(tmp_path: Path) -> None:
    folder = save(classifier(), tmp_path / "model")
    (folder / "config.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"config\.json is not valid JSON"):
        load(folder)


def test_a_pickle_in_disguise_is_not_opened(tmp_path: Path) -> None:
    folder = save(classifier(), tmp_path / "model")
    torch.save({"x": torch.zeros(1)}, folder / "model.safetensors")
    data = (folder / "model.safetensors").read_bytes()
    edit(
        folder,
        lambda c: c["files"].update(
            {"model.safetensors": {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}}
        ),
    )
    with pytest.raises(ArtifactError, match="not a safetensors file"):
        load(folder)


def test_other_timm_models_build_and_unknown_ones_do_not() -> None:
    assert build_model("resnet10t", 5, 64).eval()(torch.randn(1, 1, 64, 64)).shape == (1, 5)
    with pytest.raises(ConfigError, match="mxa_efficientvit_m9"):
        build_model("mxa_efficientvit_m9", 14, 224)


def test_a_network_without_weights_to_start_from_is_named() -> None:
    with pytest.raises(ConfigError, match=r"model\.pretrained: densenet264d has no weights to start from"):
        build_model("densenet264d", 14, 64, pretrained=True)


def tuned() -> Tuning:
    """Operating points and calibrations of 40 made-up validation images."""
    rng = np.random.default_rng(0)
    target = (rng.random((40, 14)) < 0.4).astype(float)
    target[:, 0] = 0
    mask = np.ones(target.shape, dtype=bool)
    logit = rng.normal(size=target.shape) + target
    about = {"dataset": "somewhere", "split": "valid", "images": 40, "fingerprint": "f" * 64}
    points = {
        rule: choose_operating_point(Rule.parse(rule), sigmoid(logit), target, mask, CHEXPERT14)
        for rule in ("youden", "cost=3")
    }
    return Tuning(points, {"platt": calibration.fit("platt", logit, target, mask, CHEXPERT14)}, about)


def test_operating_points_and_calibrations_come_back(tmp_path: Path) -> None:
    folder = save(replace(classifier(), tuning=tuned().to_dict()), tmp_path / "model")
    assert Tuning.from_dict(load(folder).tuning, CHEXPERT14) == tuned()
    assert Tuning.from_dict(load(folder).tuning, CHEXPERT14).point("cost=3").thresholds[0] is None


def test_storing_operating_points_changes_nothing_else(tmp_path: Path) -> None:
    folder = save(classifier(), tmp_path / "model")
    before, weights = fingerprint(folder), (folder / "model.safetensors").read_bytes()
    config = json.loads((folder / "config.json").read_text())
    assert config["tuning"] == {}
    assert "Operating points" not in (folder / "README.md").read_text()
    store_tuning(folder, tuned().to_dict())
    assert fingerprint(folder) == before
    assert (folder / "model.safetensors").read_bytes() == weights
    assert json.loads((folder / "config.json").read_text()) == config | {"tuning": tuned().to_dict()}
    assert {file.name for file in folder.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    pixels = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    assert torch.equal(load(folder).logits(pixels), classifier().logits(pixels))


def test_the_card_names_the_operating_points(tmp_path: Path) -> None:
    folder = save(classifier(), tmp_path / "model")
    store_tuning(folder, tuned().to_dict())
    card = " ".join((folder / "README.md").read_text().split())
    assert "Chosen on 40 valid images of somewhere. Operating points: youden, cost=3. Calibrations: platt." in card
    assert f"{sum(p.numel() for p in classifier().model.parameters()):,} parameters." in card


def test_storing_needs_a_model_that_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not a saved model"):
        store_tuning(tmp_path, {})
    folder = save(classifier(), tmp_path / "model")
    (folder / "README.md").unlink()
    (folder / "README.md").mkdir()
    with pytest.raises(ArtifactError, match="cannot be written to"):
        store_tuning(folder, tuned().to_dict())
    assert json.loads((folder / "config.json").read_text())["tuning"] == {}


def test_a_model_of_an_older_version_still_loads(tmp_path: Path) -> None:
    """Before there were operating points and a count of parameters in the configuration."""
    folder = save(classifier(), tmp_path / "model")
    edit(folder, lambda c: (c.pop("tuning"), c.pop("parameters")))
    loaded = load(folder)
    assert loaded.tuning == {}
    assert Tuning.from_dict(loaded.tuning, CHEXPERT14) == Tuning()
    card = model_card(json.loads((folder / "config.json").read_text()))
    assert "parameters." not in card
    assert "Operating points" not in card
    store_tuning(folder, tuned().to_dict())
    assert Tuning.from_dict(load(folder).tuning, CHEXPERT14) == tuned()
