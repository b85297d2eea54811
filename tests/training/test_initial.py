"""What a DenseNet-121 teacher of one's own starts from: nothing, ImageNet, or TorchXRayVision's features."""

from pathlib import Path

import pytest
import timm
import torch

from conftest import put_into_hub_cache
from mxa.errors import ConfigError
from mxa.labels import CHEXPERT14
from mxa.models.artifact import load
from mxa.models.xrv import CONTRACT, convert
from mxa.preprocess import Preprocess
from mxa.training.config import ModelConfig
from mxa.training.initial import initial_model


@pytest.fixture(scope="module")
def chex(xrv_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert("densenet121-res224-chex", tmp_path_factory.mktemp("chex") / "model", xrv_cache)


def test_from_scratch() -> None:
    torch.manual_seed(0)
    model = initial_model(ModelConfig(name="densenet121"), CHEXPERT14, Preprocess(size=64))
    assert model(torch.zeros(2, 1, 64, 64)).shape == (2, 14)
    assert sum(p.numel() for p in model.parameters()) == 6_961_934  # torchvision's with 14 classes, less two channels


def test_torchxrayvisions_features_with_a_new_classifier(chex: Path) -> None:
    """[6.2]: the classification layer removed and fine-tuned to 14 findings."""
    torch.manual_seed(0)
    model = initial_model(ModelConfig(name="densenet121", warm_start=str(chex)), CHEXPERT14, CONTRACT)
    source = load(chex).model
    pixels = torch.rand(2, 1, 224, 224) * 2048 - 1024
    with torch.no_grad():
        features = model.eval().forward_features(pixels)
        torch.testing.assert_close(features, source.forward_features(pixels))
        assert model(pixels).shape == (2, 14)


def test_another_scaling_of_the_pixels_is_refused(chex: Path) -> None:
    config = ModelConfig(name="densenet121", warm_start=str(chex))
    with pytest.raises(
        ConfigError, match=r"preprocess\.mean 0\.5 and preprocess\.std 0\.00048828125, this run has 0\.449"
    ):
        initial_model(config, CHEXPERT14, Preprocess())


def test_imagenet_weights_come_from_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    source = timm.create_model("densenet121")
    put_into_hub_cache(tmp_path, "densenet121.ra_in1k", source.state_dict())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = ModelConfig(name="densenet121", pretrained=True, options={"cache_dir": tmp_path})
    model = initial_model(config, CHEXPERT14, Preprocess(size=64)).eval()
    grey = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        expected = source.eval().forward_features(grey.expand(-1, 3, -1, -1))
        torch.testing.assert_close(model.forward_features(grey), expected, atol=1e-3, rtol=1e-3)


def test_imagenet_weights_without_cache_and_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = ModelConfig(name="densenet121", pretrained=True, options={"cache_dir": tmp_path})
    with pytest.raises(ConfigError, match=r"model\.pretrained.*timm/densenet121\.ra_in1k"):
        initial_model(config, CHEXPERT14, Preprocess(size=64))
