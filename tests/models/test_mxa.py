"""The MXA block against independent computations: loops in float64, slicing, finite differences, PyTorch's own
resize."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mxa.models.mxa import ChannelAttention, Mxa, RegionPredictor, SpatialAttention, roi_pool, sampling_positions


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights, biases and statistics everywhere: zeros and ones hide errors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator, dtype=value.dtype) - 0.5)
                if name.endswith("running_var"):
                    value.abs_().add_(0.5)
    return module


def crop_and_resize(plane: np.ndarray, x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    """Slice the pixels [y1:y2, x1:x2] of one plane and resize them to the plane's size: loops, float64."""
    height, width = plane.shape
    crop = plane[y1:y2, x1:x2]
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * crop.shape[0] / height - 0.5, 0), crop.shape[0] - 1)
            x = min(max((j + 0.5) * crop.shape[1] / width - 0.5, 0), crop.shape[1] - 1)
            top, left = math.floor(y), math.floor(x)
            bottom, right = min(top + 1, crop.shape[0] - 1), min(left + 1, crop.shape[1] - 1)
            fy, fx = y - top, x - left
            out[i, j] = (1 - fy) * ((1 - fx) * crop[top, left] + fx * crop[top, right]) + fy * (
                (1 - fx) * crop[bottom, left] + fx * crop[bottom, right]
            )
    return out


@pytest.mark.parametrize("box", [(0, 0, 7, 5), (1, 2, 4, 5), (3, 0, 4, 1), (0, 4, 7, 5), (5, 1, 7, 4)])
def test_crop_equals_a_loop_that_slices_and_resizes(box: tuple[int, int, int, int]) -> None:
    height, width = 5, 7
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    x1, y1, x2, y2 = box
    boxes = torch.tensor([[x1 / width, y1 / height, x2 / width, y2 / height]] * 2, dtype=torch.float64)
    pooled = roi_pool(x, boxes).numpy()
    for b in range(2):
        for c in range(3):
            np.testing.assert_allclose(pooled[b, c], crop_and_resize(x[b, c].numpy(), *box), atol=1e-12)


def test_crop_equals_pytorchs_own_resize_of_the_slice() -> None:
    x = torch.randn(1, 4, 14, 14)
    boxes = torch.tensor([[2 / 14, 3 / 14, 9 / 14, 13 / 14]])
    expected = nn.functional.interpolate(x[:, :, 3:13, 2:9], size=(14, 14), mode="bilinear", align_corners=False)
    torch.testing.assert_close(roi_pool(x, boxes), expected, atol=1e-5, rtol=1e-5)


def test_each_image_is_cropped_to_its_own_box() -> None:
    x = torch.randn(3, 2, 8, 8)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.25, 0.5, 0.75, 1.0], [0.5, 0.0, 1.0, 0.5]])
    together = roi_pool(x, boxes)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], roi_pool(x[i : i + 1], boxes[i : i + 1]))
    assert not torch.allclose(together[1], roi_pool(x[1:2], boxes[2:3])[0])


def test_the_whole_map_gives_the_map() -> None:
    x = torch.randn(2, 3, 14, 9)
    torch.testing.assert_close(roi_pool(x, torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2)), x, atol=1e-5, rtol=1e-5)


def test_gradient_of_the_crop_against_finite_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 2, 6, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    # Away from pixel edges, where bilinear interpolation has kinks.
    boxes = torch.tensor(
        [[0.113, 0.217, 0.871, 0.743], [0.331, 0.047, 0.667, 0.913]], dtype=torch.float64, requires_grad=True
    )
    assert torch.autograd.gradcheck(roi_pool, (x, boxes), eps=1e-7, atol=1e-5)


def test_the_loss_reaches_every_weight_of_the_region_predictor() -> None:
    block = randomise(Mxa(16).double())
    block.train()
    out, _ = block(torch.randn(4, 16, 7, 7, dtype=torch.float64))
    out.square().sum().backward()
    for name, parameter in block.region.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_gradient_of_the_block_through_the_box_against_finite_differences() -> None:
    block = randomise(Mxa(8).double()).eval()
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    bias = block.region.head.bias
    weight = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    (block(x)[0] * weight).sum().backward()
    for k in range(4):
        step = 1e-6
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                bias[k] += sign * step
                values.append((block(x)[0] * weight).sum().item())
                bias[k] -= sign * step
        assert bias.grad[k].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_boxes_are_ordered_and_inside_whatever_the_weights(scale: float) -> None:
    predictor = randomise(RegionPredictor(8)).eval()
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


def test_sampling_stays_inside_the_crop_and_narrow_crops_read_their_middle() -> None:
    inside = sampling_positions(torch.tensor([0.25]), torch.tensor([0.75]), 8)[0]
    assert inside.min() >= 2
    assert inside.max() <= 5
    narrow = sampling_positions(torch.tensor([0.5]), torch.tensor([0.6]), 4)[0]
    torch.testing.assert_close(narrow, torch.full((4,), 1.7))


def naive_cbam(x: np.ndarray, w1: np.ndarray, w2: np.ndarray, kernel: np.ndarray, bias: float) -> np.ndarray:
    """CBAM of one image (C, H, W) by loops, as the paper's 4.2 writes it."""
    channels, height, width = x.shape
    average = np.array([x[c].sum() / (height * width) for c in range(channels)])
    maximum = np.array([max(x[c, i, j] for i in range(height) for j in range(width)) for c in range(channels)])
    sigmoid = np.vectorize(lambda v: 1 / (1 + math.exp(-v)))
    gate = sigmoid(w2 @ np.maximum(w1 @ average, 0) + w2 @ np.maximum(w1 @ maximum, 0))
    refined = np.stack([gate[c] * x[c] for c in range(channels)])
    described = np.stack([refined.max(axis=0), refined.mean(axis=0)])
    half = kernel.shape[-1] // 2
    out = np.empty_like(refined)
    for i in range(height):
        for j in range(width):
            total = bias
            for d in range(2):
                for di in range(-half, half + 1):
                    for dj in range(-half, half + 1):
                        if 0 <= i + di < height and 0 <= j + dj < width:
                            total += kernel[d, di + half, dj + half] * described[d, i + di, j + dj]
            out[:, i, j] = refined[:, i, j] / (1 + math.exp(-total))
    return out


@pytest.mark.parametrize("kernel", [3, 7])
def test_cbam_against_loops(kernel: int) -> None:
    channel = randomise(ChannelAttention(8, reduction=2).double(), 1)
    spatial = randomise(SpatialAttention(kernel).double(), 2)
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64)
    found = spatial(channel(x)).detach().numpy()
    for b in range(2):
        expected = naive_cbam(
            x[b].numpy(),
            channel.w1.weight.detach().numpy(),
            channel.w2.weight.detach().numpy(),
            spatial.conv.weight[0].detach().numpy(),
            spatial.conv.bias.item(),
        )
        np.testing.assert_allclose(found[b], expected, atol=1e-12)


def test_max_pooling_branch_counts() -> None:
    """Mistake 3 of the authors' code: without it two maps of equal means could not be told apart."""
    attention = randomise(ChannelAttention(4, reduction=1).double())
    flat = torch.ones(1, 4, 2, 2, dtype=torch.float64)
    peaked = torch.zeros(1, 4, 2, 2, dtype=torch.float64)
    peaked[..., 0, 0] = 4
    assert torch.equal(flat.mean((2, 3)), peaked.mean((2, 3)))
    gates = [(attention(x) / x.clamp(min=1e-9))[..., 0, 0] for x in (flat, peaked)]
    assert (gates[0] - gates[1]).abs().max() > 1e-3


def test_block_is_its_parts_in_the_papers_order() -> None:
    block = randomise(Mxa(8).double()).eval()
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    refined, boxes = block(x)
    torch.testing.assert_close(boxes, block.region(x))
    torch.testing.assert_close(refined, block.spatial(block.channel(roi_pool(x, boxes))))


def test_a_fresh_block_adds_about_one_percent() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 64, 14, 14)
    refined, _ = Mxa(64)(x)
    share = (refined.norm() / x.norm()).item()
    assert 0.001 < share < 0.02


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: SpatialAttention(4), "odd"),
        (lambda: RegionPredictor(8, 4, 0.5, 0.4), "min_size"),
        (lambda: RegionPredictor(8, pool=0), "pool"),
    ],
)
def test_impossible_options_are_refused(make: object, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        make()  # type: ignore[operator]
