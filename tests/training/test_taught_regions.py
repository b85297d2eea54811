"""Boxes of a teacher's maps against loops in float64, and the distance from them."""

import math

import pytest
import torch

from mxa.training.taught_regions import MIN_SIZE, region_distance, taught_regions


def by_hand(maps: torch.Tensor, shown: torch.Tensor) -> list[float]:
    """One picture: centroid and spread of what is positive of the shown findings' maps."""
    findings, height, width = maps.shape
    weights = {
        ((j + 0.5) / width, (i + 0.5) / height): sum(
            max(0.0, float(maps[k, i, j])) for k in range(findings) if shown[k]
        )
        for i in range(height)
        for j in range(width)
    }
    whole = sum(weights.values())
    if whole == 0:
        return [math.nan] * 4
    middle = [sum(w * place[axis] for place, w in weights.items()) / whole for axis in (0, 1)]
    spread = [sum(w * (place[axis] - middle[axis]) ** 2 for place, w in weights.items()) / whole for axis in (0, 1)]
    half = [math.sqrt(12 * s + MIN_SIZE**2) / 2 for s in spread]
    low = [max(0.0, m - h) for m, h in zip(middle, half, strict=True)]
    return low + [min(1.0, m + h) for m, h in zip(middle, half, strict=True)]


def test_boxes_are_those_of_the_shown_findings_evidence() -> None:
    torch.manual_seed(0)
    maps = torch.randn(6, 5, 4, 7, dtype=torch.float64)
    shown = torch.rand(6, 5) < 0.5
    shown[4] = False
    maps[5] = -maps[5].abs()
    found = taught_regions(maps, shown)
    expected = torch.tensor([by_hand(*one) for one in zip(maps, shown, strict=True)], dtype=torch.float64)
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert found[4:].isnan().all(), "nothing is shown, or nothing speaks for it"
    assert not found[:4].isnan().any()


def test_evidence_in_one_place_makes_the_smallest_box_there() -> None:
    maps = torch.full((1, 2, 8, 8), -1.0)
    maps[0, 1, 2, 5] = 3.0
    box = taught_regions(maps, torch.tensor([[False, True]]))[0]
    assert box.tolist() == pytest.approx([0.6875 - 0.05, 0.3125 - 0.05, 0.6875 + 0.05, 0.3125 + 0.05])


def test_the_distance_is_the_mean_over_blocks_and_known_images() -> None:
    torch.manual_seed(1)
    taught = torch.rand(5, 4)
    taught[[1, 3]] = math.nan
    boxes = {name: torch.rand(5, 4, requires_grad=True) for name in ("a", "b")}
    found = region_distance(boxes, taught)
    offs = [float((boxes[name][i] - taught[i]).abs().mean().detach()) for name in boxes for i in (0, 2, 4)]
    assert found.item() == pytest.approx(sum(offs) / 6)
    found.backward()
    for box in boxes.values():
        assert box.grad is not None
        assert (box.grad[[1, 3]] == 0).all()
        torch.testing.assert_close(box.grad[[0, 2, 4]].abs(), torch.full((3, 4), 1 / 24))


def test_where_nothing_is_known_nothing_is_taught() -> None:
    box = torch.rand(2, 4, requires_grad=True)
    found = region_distance({"a": box}, torch.full((2, 4), math.nan))
    assert found.item() == 0
    found.backward()
    assert box.grad is not None
    assert (box.grad == 0).all()
