"""Saving and loading: nothing changes on the way, and whatever is wrong is said."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

import mxa
from mxa.errors import ArtifactError, ConfigError
from mxa.labels import CHEXPERT14, LabelSet
from mxa.models.artifact import Architecture, Classifier, save
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
    loaded = mxa.load(mxa.save(original, tmp_path / "model"))
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
    loaded = mxa.load(tmp_path / "model", weights="ema")
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
        mxa.load(folder)
    file.write_bytes(whole[:-7])
    with pytest.raises(ArtifactError, match=rf"damaged: bytes is {len(whole) - 7}"):
        mxa.load(folder)


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    folder = save(classifier(), tmp_path / "model")
    (folder / missing).unlink()
    with pytest.raises(ArtifactError, match=missing):
        mxa.load(folder)


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
        mxa.load(folder)


def test_garbled_json_is_named(tmp_path: Path) -> None:
    folder = save(classifier(), tmp_path / "model")
    (folder / "config.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"config\.json is not valid JSON"):
        mxa.load(folder)


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
        mxa.load(folder)


def test_other_timm_models_build_and_unknown_ones_do_not() -> None:
    assert build_model("resnet10t", 5, 64).eval()(torch.randn(1, 1, 64, 64)).shape == (1, 5)
    with pytest.raises(ConfigError, match="mxa_efficientvit_m9"):
        build_model("mxa_efficientvit_m9", 14, 224)
