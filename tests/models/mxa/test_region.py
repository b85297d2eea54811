"""The region predictors against plain arithmetic."""

import math

import numpy as np
import pytest
import torch

from models.mxa.random_weights import randomise
from mxa.models.mxa import MomentRegion, RegionPredictor
from mxa.models.mxa import region as predictors


@pytest.mark.parametrize("log_size", [False, True])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_boxes_are_ordered_and_inside_whatever_the_weights(scale: float, log_size: bool) -> None:
    predictor = randomise(RegionPredictor(8, log_size=log_size)).eval()
    with torch.no_grad():
        predictor.head.weight.mul_(scale)
    boxes = predictor(torch.randn(256, 8, 7, 7) * scale)
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    assert ((boxes[:, 2:] - boxes[:, :2]) >= predictor.min_size - 1e-6).all()


def test_boxes_start_near_the_whole_map_and_centred() -> None:
    torch.manual_seed(0)
    boxes = RegionPredictor(64)(torch.randn(8, 64, 14, 14))
    torch.testing.assert_close(boxes, torch.tensor([[0.05, 0.05, 0.95, 0.95]]).expand(8, 4), atol=0.01, rtol=0)


def test_box_formula_against_plain_arithmetic() -> None:
    predictor = RegionPredictor(4).double().eval()
    raw = [0.3, -1.2, 0.7, -0.4]
    with torch.no_grad():
        predictor.head.weight.zero_()
        predictor.head.bias.copy_(torch.tensor(raw))
    boxes = predictor(torch.randn(1, 4, 5, 5, dtype=torch.float64))[0].tolist()

    def logistic(v: float) -> float:
        return 1 / (1 + math.exp(-v))

    width, height = (0.1 + 0.9 * logistic(v) for v in raw[:2])
    left, top = (1 - width) * logistic(raw[2]), (1 - height) * logistic(raw[3])
    assert boxes == pytest.approx([left, top, left + width, top + height], abs=1e-6)


def test_a_logarithmic_size_against_plain_arithmetic() -> None:
    torch.manual_seed(0)
    predictor = RegionPredictor(4, min_size=0.05, initial_size=0.6, initial_place=0.3, log_size=True).double().eval()
    x = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        predictor.head.weight.zero_()
    left, top = 0.4 * 0.3, 0.4 * 0.5
    assert predictor(x)[0].tolist() == pytest.approx([left, top, left + 0.6, top + 0.6], abs=1e-6)
    with torch.no_grad():
        predictor.head.bias.copy_(torch.tensor([0.3, -1.2, 0.0, 0.0]))
    boxes = predictor(x)[0]
    for axis, v in enumerate((0.3, -1.2)):
        # Between the logarithms of the smallest size and of the whole map.
        size = math.exp(math.log(0.05) / (1 + math.exp(v)))
        assert (boxes[2 + axis] - boxes[axis]).item() == pytest.approx(size, abs=1e-6)


@pytest.mark.parametrize("side", [1, 7, 14])
def test_a_pooled_region_predictor_sees_window_means(side: int) -> None:
    """A window at the border that is cut off is averaged over what there is."""
    plain, pooled = (randomise(RegionPredictor(8, pool=pool)).eval() for pool in (1, 2))
    pooled.load_state_dict(plain.state_dict())
    x = torch.randn(3, 8, side, side)
    half = -(-side // 2)
    windows = torch.stack(
        [
            torch.stack([x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((2, 3)) for j in range(half)], dim=-1)
            for i in range(half)
        ],
        dim=-2,
    )
    torch.testing.assert_close(pooled(x), plain(windows))


def moment_box(scores: np.ndarray, least: float) -> list[float]:
    """The box of one map of scores (H, W) by loops in float64."""
    height, width = scores.shape
    weight = np.exp(scores) / sum(math.exp(v) for v in scores.ravel())
    found = []
    for axis, n in ((1, width), (0, height)):
        share = [float(weight.take(k, axis=axis).sum()) for k in range(n)]
        centre = sum(p * (k + 0.5) / n for k, p in enumerate(share))
        variance = sum(p * ((k + 0.5) / n - centre) ** 2 for k, p in enumerate(share))
        size = math.sqrt(12 * variance + least**2)
        found.append((max(0.0, centre - size / 2), min(1.0, centre + size / 2)))
    return [found[0][0], found[1][0], found[0][1], found[1][1]]


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 30.0])
def test_moments_against_loops(sharpness: float) -> None:
    predictor = randomise(MomentRegion(6, min_size=0.2).double()).eval()
    with torch.no_grad():
        predictor.head.weight.mul_(sharpness)
    x = torch.randn(4, 6, 5, 7, dtype=torch.float64)
    boxes = predictor(x)
    scores = predictor.head(torch.relu(predictor.norm(predictor.conv(x))))[:, 0].detach().numpy()
    for b in range(4):
        assert boxes[b].tolist() == pytest.approx(moment_box(scores[b], 0.2), abs=1e-12)
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_moments_are_as_fine_under_autocast() -> None:
    weight = torch.rand(4, 14, 14, generator=torch.Generator().manual_seed(0))
    weight /= weight.sum((1, 2), keepdim=True)
    exact = predictors.moment_box(weight, 0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(predictors.moment_box(weight, 0.1), exact, rtol=0, atol=0)


def test_a_moment_box_starts_as_the_whole_map_and_can_shrink_to_a_spot() -> None:
    torch.manual_seed(0)
    predictor = MomentRegion(16, min_size=0.15).eval()
    x = torch.randn(8, 16, 14, 14)
    torch.testing.assert_close(predictor(x), torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(8, 4), atol=0.02, rtol=0)
    with torch.no_grad():
        predictor.conv.weight.zero_()
        predictor.conv.weight[:, 0, 1, 1] = 1
        predictor.head.weight.fill_(10)
    spot = torch.zeros(1, 16, 14, 14)
    spot[..., 3, 10] = 10
    half = 0.15 / 2
    centre_x, centre_y = 10.5 / 14, 3.5 / 14
    expected = [centre_x - half, centre_y - half, centre_x + half, centre_y + half]
    assert predictor(spot)[0].tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("options", [{"min_size": 0.0}, {"min_size": 1.0}, {"pool": 0}])
@pytest.mark.parametrize("kind", [MomentRegion, RegionPredictor])
def test_impossible_predictors_are_refused(kind: type, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        kind(8, **options)


def test_an_initial_size_below_the_smallest_is_refused() -> None:
    with pytest.raises(ValueError, match="initial_size"):
        RegionPredictor(8, min_size=0.5, initial_size=0.4)
