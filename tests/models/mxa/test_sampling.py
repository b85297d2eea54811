"""Cropping and putting back against slicing, loops in float64, finite differences, PyTorch's own resize."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mxa.models.mxa import bilinear_weights, put_back, roi_pool, sampling_positions
from mxa.models.mxa.sampling import jittered


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


def test_one_channel_is_cropped_as_one_of_several() -> None:
    """A picture goes another way, for the speed."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 2, 32, 24, generator=generator, dtype=torch.float64)
    boxes = torch.tensor([[0.1, 0.2, 0.7, 0.9], [0.0, 0.0, 1.0, 1.0], [0.4, 0.1, 0.5, 0.95]], dtype=torch.float64)
    found = []
    for channels in ([0], [0, 1]):
        own = boxes.clone().requires_grad_()
        crop = roi_pool(x[:, channels], own, (20, 40), smoothing=1.5)[:, :1]
        crop.square().sum().backward()
        found.append((crop.detach(), own.grad))
    assert found[0][0].shape == (3, 1, 20, 40)
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


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


def test_sampling_stays_inside_the_crop_and_narrow_crops_read_their_middle() -> None:
    inside = sampling_positions(torch.tensor([0.25]), torch.tensor([0.75]), 8)[0]
    assert inside.min() >= 2
    assert inside.max() <= 5
    narrow = sampling_positions(torch.tensor([0.5]), torch.tensor([0.6]), 4)[0]
    torch.testing.assert_close(narrow, torch.full((4,), 1.7))


def test_a_smaller_output_averages_the_crop() -> None:
    """Each output is the mean of the pixels weighted by a triangle over twice its own share of the crop: loops."""
    x = torch.randn(1, 1, 12, 12, dtype=torch.float64)
    x1, y1, x2, y2 = 2 / 12, 1 / 12, 10 / 12, 12 / 12
    found = roi_pool(x, torch.tensor([[x1, y1, x2, y2]], dtype=torch.float64), (3, 4))[0, 0].numpy()

    def weights(low: float, high: float, out: int, j: int) -> np.ndarray:
        step = (high - low) * 12 / out
        position = min(max(low * 12 + (j + 0.5) * step - 0.5, low * 12), high * 12 - 1)
        row = np.array([max(0.0, step - abs(position - i)) for i in range(12)])
        return row / row.sum()

    for i in range(3):
        for j in range(4):
            expected = weights(y1, y2, 3, i) @ x[0, 0].numpy() @ weights(x1, x2, 4, j)
            assert found[i, j] == pytest.approx(expected, abs=1e-12)


def test_smoothing_reaches_farther_and_keeps_a_flat_map_flat() -> None:
    boxes = torch.tensor([[0.2, 0.3, 0.6, 0.9]], dtype=torch.float64)
    flat = torch.full((1, 2, 8, 8), 3.0, dtype=torch.float64)
    torch.testing.assert_close(roi_pool(flat, boxes, smoothing=2.5), flat)
    weights = bilinear_weights(torch.tensor([[3.2]], dtype=torch.float64), 8, 2.0)[0, 0]
    raw = torch.tensor([max(0.0, 2.0 - abs(3.2 - i)) for i in range(8)], dtype=torch.float64)
    torch.testing.assert_close(weights, raw / raw.sum())
    spike = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    spike[..., 4, 7] = 1  # two pixels beside the box: only a smoothed crop sees it
    assert roi_pool(spike, boxes).abs().max() == 0
    assert roi_pool(spike, boxes, smoothing=4).abs().max() > 0


def test_gradient_of_a_smoothed_smaller_crop_against_finite_differences() -> None:
    x = torch.randn(2, 2, 9, 8, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[0.113, 0.217, 0.871, 0.743]] * 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: roi_pool(a, b, (4, 5), 1.7), (x, boxes), eps=1e-7, atol=1e-5)


def put_back_by_loops(crop: np.ndarray, x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    """Every pixel reads the crop at its place in the box, times the share of it that the box covers."""
    height, width = crop.shape
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            rows = max(0.0, min((i + 1) / height, y2) - max(i / height, y1)) * height
            columns = max(0.0, min((j + 1) / width, x2) - max(j / width, x1)) * width
            y = min(max(((i + 0.5) / height - y1) / (y2 - y1) * height - 0.5, 0), height - 1)
            x = min(max(((j + 0.5) / width - x1) / (x2 - x1) * width - 0.5, 0), width - 1)
            top, left = math.floor(y), math.floor(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            fy, fx = y - top, x - left
            value = (1 - fy) * ((1 - fx) * crop[top, left] + fx * crop[top, right])
            value += fy * ((1 - fx) * crop[bottom, left] + fx * crop[bottom, right])
            out[i, j] = value * rows * columns
    return out


@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0, 1.0), (0.13, 0.27, 0.81, 0.64), (0.4, 0.9, 0.45, 1.0)])
def test_put_back_equals_a_loop(box: tuple[float, float, float, float]) -> None:
    crop = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    found = put_back(crop, torch.tensor([box] * 2, dtype=torch.float64)).numpy()
    for b in range(2):
        for c in range(3):
            np.testing.assert_allclose(found[b, c], put_back_by_loops(crop[b, c].numpy(), *box), atol=1e-12)


def test_put_back_of_the_whole_map_is_the_map_and_outside_of_a_box_is_nothing() -> None:
    crop = torch.randn(1, 2, 8, 8)
    torch.testing.assert_close(put_back(crop, torch.tensor([[0.0, 0.0, 1.0, 1.0]])), crop, atol=1e-5, rtol=1e-5)
    back = put_back(crop, torch.tensor([[0.25, 0.5, 0.75, 1.0]]))
    assert back[..., :4, :].abs().max() == 0
    assert back[..., :2].abs().max() == 0
    assert back[..., 6:].abs().max() == 0
    assert back[..., 4:, 2:6].abs().min() > 0


def test_what_was_cut_out_comes_back_to_its_place() -> None:
    """A ramp survives bilinear resampling there and back, but for the half pixel at the box's edges."""
    ramp = torch.arange(12, dtype=torch.float64).expand(12, 12).reshape(1, 1, 12, 12)
    boxes = torch.tensor([[3 / 12, 2 / 12, 9 / 12, 8 / 12]], dtype=torch.float64)
    back = put_back(roi_pool(ramp, boxes), boxes)
    torch.testing.assert_close(back[..., 2:8, 4:8], ramp[..., 2:8, 4:8], atol=1e-9, rtol=0)


def test_gradient_of_putting_back_against_finite_differences() -> None:
    crop = torch.randn(2, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor(
        [[0.113, 0.217, 0.871, 0.743], [0.331, 0.047, 0.667, 0.913]], dtype=torch.float64, requires_grad=True
    )
    assert torch.autograd.gradcheck(put_back, (crop, boxes), eps=1e-7, atol=1e-5)


def test_jittered_boxes_stay_inside_and_vary_as_told() -> None:
    torch.manual_seed(0)
    box = torch.tensor([[0.4, 0.3, 0.7, 0.7]], dtype=torch.float64)
    torch.testing.assert_close(jittered(box, 0.0), box)
    many = jittered(box.expand(20_000, 4), 0.02)
    centre, size = (many[:, :2] + many[:, 2:]) / 2, many[:, 2:] - many[:, :2]
    torch.testing.assert_close(centre.mean(0), torch.tensor([0.55, 0.5]).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(size.mean(0), torch.tensor([0.3, 0.4]).double(), atol=1e-3, rtol=0)
    for values in (centre, size):
        torch.testing.assert_close(values.std(0), torch.full((2,), 0.02).double(), rtol=0.03, atol=0)
    wild = jittered(torch.rand(20_000, 2).double().mul(0.5).repeat(1, 2) + torch.tensor([0, 0, 0.5, 0.4]), 0.5)
    assert wild.min() >= -1e-9
    assert wild.max() <= 1 + 1e-9
    assert ((wild[:, 2:] - wild[:, :2]).amin(0) > torch.tensor([0.049, 0.039])).all()


def test_a_jittered_boxes_gradient_is_the_boxes_own() -> None:
    torch.manual_seed(1)
    boxes = torch.tensor([[0.4, 0.3, 0.7, 0.7]], dtype=torch.float64, requires_grad=True)
    jittered(boxes, 0.01).mul(torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    torch.testing.assert_close(boxes.grad, torch.tensor([[1.0, 2.0, 3.0, 4.0]]).double())
