import math

import numpy as np
import pytest
import torch
from marked_cases import blobs, cut, drawn, random_boxes, rectangle

from mxa.evaluation.localisation.geometry import (
    BLOCK,
    area_inside,
    areas,
    blocks,
    centres,
    iou,
    marked_at,
    peaks,
    render,
    shared_area,
    tight_boxes,
    widen,
)


def test_blocks_cover_every_row_once():
    for count in (1, BLOCK, BLOCK + 1, 3 * BLOCK - 1):
        rows = [i for part in blocks(count) for i in range(count)[part]]
        assert rows == list(range(count))
        assert all(part.stop - part.start <= BLOCK for part in blocks(count))


def test_area_and_centre_of_a_box():
    boxes = np.array([[0.1, 0.2, 0.4, 1.0], [0.5, 0.5, 0.5, 0.9]])
    np.testing.assert_allclose(areas(boxes), [0.24, 0])
    np.testing.assert_allclose(centres(boxes), [[0.25, 0.6], [0.5, 0.7]])


@pytest.mark.parametrize(
    ("other", "shared"),
    [
        ([0.0, 0.0, 1.0, 1.0], 0.08),
        ([0.4, 0.3, 1.0, 0.5], 0.02),
        ([0.5, 0.0, 1.0, 1.0], 0.0),  # touches
        ([0.6, 0.6, 0.7, 0.7], 0.0),  # apart in both axes, so that two negative lengths would make an area
    ],
)
def test_shared_area_of_two_boxes(other, shared):
    assert shared_area(np.array([0.3, 0.1, 0.5, 0.5]), np.array(other)) == pytest.approx(shared)


def test_iou_of_areas():
    np.testing.assert_allclose(
        iou(np.array([0.1, 0.0, 0.0]), np.array([0.2, 0.5, 0.0]), np.array([0.3, 0.1, 0.0])), [0.25, 0, 0]
    )


@pytest.mark.parametrize("grid", [1, 5, 8])
def test_area_inside_is_the_sum_over_cut_pixels(grid):
    rng = np.random.default_rng(grid)
    masks, boxes = blobs(rng, BLOCK + 3, grid), random_boxes(rng, BLOCK + 3, 3)
    boxes[0, 0], boxes[1, 0] = [0, 0, 1, 1], [1, 1, 1, 1]
    boxes[2, 0] = np.round(boxes[2, 0] * grid) / grid
    expected = [
        [
            sum(cut(b[0], b[2], j, grid) * cut(b[1], b[3], i, grid) for i, j in np.argwhere(mask).tolist())
            for b in of_mask.tolist()
        ]
        for mask, of_mask in zip(masks, boxes, strict=True)
    ]
    np.testing.assert_allclose(area_inside(masks, boxes), expected, atol=1e-14)


def test_tight_boxes_touch_the_outermost_pixels():
    mask = np.zeros((10, 10), dtype=bool)
    mask[2, 7] = mask[6, 3] = True
    whole = np.ones((10, 10), dtype=bool)
    corner = rectangle(10, 9, 0, 10, 1)
    found = tight_boxes(np.stack([mask, whole, corner]))
    np.testing.assert_allclose(found, [[0.3, 0.2, 0.8, 0.7], [0, 0, 1, 1], [0.9, 0, 1, 0.1]])


def test_a_point_lies_in_the_pixel_right_and_below_of_it():
    masks = np.stack([rectangle(4, 2, 1, 3, 2), rectangle(4, 3, 3, 4, 4)])
    points = np.array(
        [[[0.5, 0.25], [0.74, 0.49], [0.75, 0.25], [0.5, 0.5], [0.25, 0.5]], [[1.0, 1.0]] + [[0.7, 1.0]] * 4]
    )
    assert marked_at(masks, points).tolist() == [[True, True, False, False, False], [True, False, False, False, False]]


def test_widened_by_a_distance_between_centres():
    rng = np.random.default_rng(0)
    masks = blobs(rng, 5, 12) & (rng.random((5, 12, 12)) < 0.1)
    masks[:, 4, 5] = True
    for radius in (0.05, 1 / 12, 0.24):
        expected = [
            [
                [any(math.hypot(i - a, j - b) / 12 <= radius for a, b in np.argwhere(mask).tolist()) for j in range(12)]
                for i in range(12)
            ]
            for mask in masks
        ]
        assert widen(masks, radius).tolist() == expected


def test_maps_are_drawn_as_torch_enlarges_them():
    maps = np.random.default_rng(0).normal(size=(3, 4, 5))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(maps)[:, None], size=(40, 40), mode="bilinear", align_corners=False
    )[:, 0]
    np.testing.assert_allclose(render(maps, np.tile([0.0, 0, 1, 1], (3, 1)), 40), expected.numpy(), atol=1e-12)


@pytest.mark.parametrize("shape", [(4, 4), (2, 3), (1, 1)])
@pytest.mark.parametrize("window", [(0, 0, 1, 1), (0.2, 0, 0.7, 1), (-0.3, 0.1, 1.4, 0.85), (0.52, -2, 3, 0.13)])
def test_maps_are_drawn_within_their_window(shape, window):
    values = np.random.default_rng(1).random((1, *shape))
    np.testing.assert_allclose(render(values, np.array([window]), 11)[0], drawn(values[0], window, 11), atol=1e-12)


def test_the_peak_is_the_highest_pixel():
    values = np.random.default_rng(2).random((4, 5, 5))
    for found, one in zip(peaks(values, np.zeros((4, 2))), values, strict=True):
        row, column = np.argwhere(one == one.max())[0]
        np.testing.assert_allclose(found, [(column + 0.5) / 5, (row + 0.5) / 5])


def test_of_equal_peaks_the_one_nearest_to_the_anchor_counts():
    values = np.zeros((4, 4, 4))
    values[:, 0, 3] = values[:, 2, 1] = 0.3
    values[:, 2, 1] *= 1 - 1e-12  # rounding
    anchors = np.array([[0.9, 0.1], [0.1, 0.7], [0.0, 0.0], [0.375, 0.125]])
    # (0, 0) is nearer to column 1, row 2 (0.73 against 0.88); the last anchor is as far from both.
    expected = [[0.875, 0.125], [0.375, 0.625], [0.375, 0.625], [0.875, 0.125]]
    np.testing.assert_allclose(peaks(values, anchors), expected)
