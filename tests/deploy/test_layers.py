"""The rewritten layers equal the trained ones to the rounding of double precision."""

import copy
from dataclasses import fields

import pytest
import torch
from torch import nn

from deploy.small import OPTIONS, classifier, pictures
from mxa.deploy.layers import crop, crop_weights, rewrite
from mxa.models.mxa import MxaOptions, bilinear_weights, roi_pool, sampling_positions


@pytest.mark.parametrize(
    ("name", "side", "options"),
    [
        ("mxa_efficientvit_m0", 64, {}),  # each map is one window
        ("mxa_efficientvit_m0", 224, {}),  # 4 windows in the first stage
        ("mxa_efficientvit_m1", 192, {"mxa_stages": [1, 2]}),  # 4 windows of 7 on a map of 12
        ("mxa_efficientvit_m0", 64, OPTIONS | {"mxa_region_pool": 2}),
        ("mxa_efficientvit_m0", 64, OPTIONS | {"mxa_region": "moments", "mxa_put_back": True, "mxa_smoothing": 2.0}),
        ("mxa_efficientvit_m0", 64, OPTIONS | {"mxa_regions": 2, "mxa_put_back": True}),
        ("mxa_efficientvit_m0", 64, OPTIONS | {"mxa_source": "stem", "mxa_stages": [0], "mxa_region": "moments"}),
        ("efficientvit_m0", 64, OPTIONS),
    ],
)
def test_the_whole_network_in_double_precision(name: str, side: int, options: dict[str, object]) -> None:
    one = classifier(name, side, options)
    trained = one.model.double()
    rewritten = rewrite(copy.deepcopy(trained))
    x = one.preprocess.scale(torch.from_numpy(pictures(3, side)).double())
    with torch.inference_mode():
        expected, found = trained(x), rewritten(x)
        assert expected.std(0).min() > 1e-3  # the pictures differ
        torch.testing.assert_close(found, expected, atol=1e-11, rtol=1e-11)
        if name.startswith("mxa"):
            (_, boxes), (_, expected_boxes) = rewritten.forward_with_regions(x), trained.forward_with_regions(x)
            assert list(boxes) == list(expected_boxes)
            torch.testing.assert_close(boxes, expected_boxes, atol=1e-11, rtol=0)
            assert max(box.std(0).max() for box in expected_boxes.values()) > 1e-3


# Each option of the block, away from the paper's value.
CHANGED: dict[str, dict[str, object]] = {
    "reduction": {"mxa_reduction": 4},
    "spatial_kernel": {"mxa_spatial_kernel": 3},
    "region_reduction": {"mxa_region_reduction": 2},
    "region_pool": {"mxa_region_pool": 3},
    "roi": {"mxa_roi": False},
    "gates": {"mxa_gates": False},
    "region": {"mxa_region": "moments"},
    "regions": {"mxa_regions": 2},
    "min_size": {"mxa_min_size": 0.3},
    "log_size": {"mxa_log_size": True},
    "smoothing": {"mxa_smoothing": 2.0},
    "jitter": {"mxa_jitter": 0.1},
    "source": {"mxa_source": "image", "mxa_stages": [0]},
    "put_back": {"mxa_put_back": True},
    "layer_scale": {"mxa_layer_scale": 0.5},
    "spatial_bias": {"mxa_spatial_bias": 0.0},
}


def test_every_option_of_the_block_is_tried() -> None:
    assert set(CHANGED) == {one.name for one in fields(MxaOptions)}


@pytest.mark.parametrize("option", CHANGED)
def test_a_block_with_any_option_stays_what_it_is(option: str) -> None:
    one = classifier(options=OPTIONS | CHANGED[option])
    trained = one.model.double()
    rewritten = rewrite(copy.deepcopy(trained))
    x = one.preprocess.scale(torch.from_numpy(pictures(3)).double())
    with torch.inference_mode():
        (expected, expected_boxes), (found, boxes) = (net.forward_with_regions(x) for net in (trained, rewritten))
    assert expected.std(0).min() > 1e-3  # the pictures differ
    torch.testing.assert_close(found, expected, atol=1e-11, rtol=1e-11)
    torch.testing.assert_close(boxes, expected_boxes, atol=1e-11, rtol=0)


def test_no_batch_norm_and_no_bare_residual_is_left() -> None:
    rewritten = rewrite(classifier().model)
    assert not [
        name for name, module in rewritten.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    assert not [name for name, _ in rewritten.named_modules() if name.endswith(("dw0.m", "dw1.m"))]


@pytest.mark.parametrize("pixels", [1, 2, 4, 7, 14])
def test_crop_weights_are_those_of_the_trained_block(pixels: int) -> None:
    """For boxes of any size from the smallest, narrower than a pixel or not, to the whole map."""
    torch.manual_seed(0)
    size = 0.1 + 0.9 * torch.rand(200, 2, dtype=torch.float64)
    low = (1 - size) * torch.rand(200, 2, dtype=torch.float64)
    low[0], size[0] = 0, 1
    weights = crop_weights(low, size, pixels)
    for axis in range(2):
        edges = low[:, axis], (low + size)[:, axis]
        expected = bilinear_weights(sampling_positions(*edges, pixels), pixels)
        torch.testing.assert_close(weights[:, axis], expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    torch.testing.assert_close(weights[0], torch.eye(pixels, dtype=torch.float64).expand(2, -1, -1))


def test_crop_is_roi_pooling() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 3, 7, 7, dtype=torch.float64)
    size = 0.1 + 0.9 * torch.rand(5, 2, dtype=torch.float64)
    low = (1 - size) * torch.rand(5, 2, dtype=torch.float64)
    columns, rows = crop_weights(low, size, 7).unbind(1)
    expected = roi_pool(x, torch.cat([low, low + size], dim=1))
    torch.testing.assert_close(crop(x, columns, rows), expected, atol=1e-12, rtol=0)
