"""The maps against the folded head in float64, against automatic differentiation, and against the logits."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mxa.errors import ConfigError
from mxa.labels import CHEXPERT14
from mxa.models.artifact import Architecture, Classifier
from mxa.models.build import build_model
from mxa.models.cam import class_activation_maps
from mxa.preprocess import Preprocess

SIZE = 160
"""EfficientViT's last map is 3 x 3 then."""


def classifier(name: str, size: int = SIZE, **options: object) -> Classifier:
    """Random weights, and batch norms that are no identities."""
    torch.manual_seed(0)
    model = build_model(name, 14, size, options=options).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    for parameter in model.get_classifier().parameters():
        nn.init.normal_(parameter)
    return Classifier(model, Architecture(name, options), CHEXPERT14, Preprocess(size=size), {})


def pictures(count: int = 2, size: int = SIZE) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 1, size, size)).astype(np.uint8))


def last_map(model: Classifier, pixels: Tensor) -> Tensor:
    """What the pooling layer gets, caught on its way."""
    caught = []
    hook = model.model.global_pool.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    model.logits(pixels)
    hook.remove()
    return caught[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "name", ["efficientvit_m0", "mxa_efficientvit_m0", "test_resnet", "test_efficientnet", "densenet121"]
)
def test_the_mean_of_a_map_is_the_logit(name: str, dtype: torch.dtype) -> None:
    options = {"growth_rate": 8, "block_config": [2, 2, 2, 2]} if name == "densenet121" else {}
    model = classifier(name, **options)
    model.model.to(dtype)
    pixels = pictures()
    found = class_activation_maps(model, pixels)
    batch, findings, height, width = found.maps.shape
    assert (batch, findings) == (2, 14)
    assert min(height, width) >= 3
    assert found.maps.dtype == found.logits.dtype == torch.float32
    assert torch.equal(found.logits, model.logits(pixels))
    assert found.maps.std((2, 3)).min() > 1e-3
    scale = found.maps.abs().max().item()
    torch.testing.assert_close(found.maps.double().mean((2, 3)), found.logits.double(), rtol=0, atol=1e-6 * (1 + scale))


@pytest.mark.parametrize("name", ["efficientvit_m0", "mxa_efficientvit_m0"])
def test_the_folded_head_gives_the_same_maps(name: str) -> None:
    """Zhou et al., equation 2, with the batch norm folded into the linear layer, written out in float64."""
    model, pixels = classifier(name), pictures()
    f = last_map(model, pixels).double().numpy()
    norm, linear = model.model.head.bn, model.model.head.linear
    mean, var, gamma, beta = (
        t.detach().double().numpy() for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    weight, bias = linear.weight.detach().double().numpy(), linear.bias.detach().double().numpy()
    slope = gamma / np.sqrt(var + norm.eps)
    maps = np.einsum("lc,bchw->blhw", weight * slope, f)
    maps += (bias + weight @ (beta - mean * slope))[:, None, None]
    np.testing.assert_allclose(class_activation_maps(model, pixels).maps, maps, atol=1e-5 * np.abs(maps).max())


@pytest.mark.parametrize("name", ["efficientvit_m0", "mxa_efficientvit_m0", "test_resnet"])
def test_automatic_differentiation_gives_the_same_maps(name: str) -> None:
    """HiResCAM (Draelos and Carin 2020, equation 3) of the last map: gradient times activation, summed over channels.

    For such a head it is the CAM without its constant, divided by the number of positions.
    """
    model, pixels = classifier(name), pictures()
    model.model.double()
    f = last_map(model, pixels).clone().requires_grad_()
    logits = model.model.forward_head(f)
    positions = f.shape[2] * f.shape[3]
    expected = []
    for j in range(14):
        (gradient,) = torch.autograd.grad(logits[:, j].sum(), f, retain_graph=True)
        hires = (gradient * f).sum(1)
        expected.append(positions * hires + (logits[:, j] - hires.sum((1, 2)))[:, None, None])
    found = class_activation_maps(model, pixels).maps
    torch.testing.assert_close(found.double(), torch.stack(expected, 1).detach(), rtol=1e-6, atol=1e-6)


def test_boxes_come_from_the_same_pass_and_the_model_stays_as_it_is() -> None:
    model, pixels = classifier("mxa_efficientvit_m0"), pictures()
    expected = model.regions(pixels)
    passes: list[Tensor] = []
    hook = model.model.patch_embed.register_forward_hook(lambda *args: passes.append(args[2]))
    before = dict(model.model.__dict__)
    found = class_activation_maps(model, pixels)
    hook.remove()
    assert len(passes) == 1
    assert model.model.__dict__ == before
    assert list(found.boxes) == list(expected)
    assert len(expected) == 6
    for block, boxes in found.boxes.items():
        assert torch.equal(boxes, expected[block])
    assert class_activation_maps(classifier("efficientvit_m0"), pixels).boxes == {}


class NoTimm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 14)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((2, 3)))


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("test_convnext", {}, r"is not linear.*off its logit by"),  # layer norm behind the pooling
        ("mobilenetv3_small_050", {}, r"is not linear.*off its logit by"),  # an activation behind the pooling
        ("test_resnet", {"global_pool": "max"}, r"is not linear.*off its logit by"),
        ("test_mambaout", {}, r"does not start from one map"),  # channels last
        ("test_vit", {"img_size": SIZE}, r"does not start from one map"),  # tokens
    ],
)
def test_other_heads_are_refused(name: str, options: dict[str, object], reason: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"no exact class-activation map of {name}: its head .*{reason}.*DenseNet or ResNet"
    ):
        class_activation_maps(classifier(name, **options), pictures())


def test_a_network_that_is_not_timms_is_refused() -> None:
    model = Classifier(NoTimm().eval(), Architecture("own", {}), CHEXPERT14, Preprocess(size=SIZE), {})
    with pytest.raises(ConfigError, match=r"map of own: it does not say where its head begins"):
        class_activation_maps(model, pictures())


def test_rounding_of_half_precision_is_no_reason_to_refuse() -> None:
    model = classifier("mxa_efficientvit_m0")
    whole = class_activation_maps(model, pictures()).maps
    model.model.to(torch.bfloat16)
    half = class_activation_maps(model, pictures()).maps
    assert half.dtype == torch.float32
    assert torch.corrcoef(torch.stack([whole.flatten(), half.flatten()]))[0, 1] > 0.9
