import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from marked_cases import blobs, box_scores, map_scores, point_scores, random_boxes, rectangle

from mxa.evaluation.localisation.measures import (
    MEASURES,
    TOLERANCE,
    Regions,
    draw,
    score_boxes,
    score_maps,
    score_points,
)

WHOLE = np.array([[0.0, 0.0, 1.0, 1.0]])


def scored(mask, box):
    """The measures of one box."""
    found = score_boxes(Regions.of(mask[None]), np.array(box, dtype=float)[None, None])
    assert tuple(found) == MEASURES
    return {name: values.item() for name, values in found.items()}


def scored_map(mask, values, window=(0, 0, 1, 1)):
    drawn = draw(np.array([values], dtype=float), np.array([window], dtype=float), len(mask))
    return {name: found.item() for name, found in score_maps(Regions.of(mask[None]), drawn).items()}


def test_a_box_and_a_region_by_hand():
    """A region of 2 x 2 pixels of 4 x 4 without its lower right one; the box covers 1.5 x 2 pixels of them."""
    mask = rectangle(4, 1, 1, 3, 3)
    mask[2, 2] = False
    found = scored(mask, [0.375, 0.25, 1.0, 0.75])  # 2.5 x 2 pixels
    assert found == {
        "iou": pytest.approx(2 / (5 + 3 - 2)),
        "tight_iou": pytest.approx(3 / (5 + 4 - 3)),
        "hit": 0.0,  # its centre lies in the pixel that is not marked
        "pointing": 0.0,
        "inside": pytest.approx(2 / 5),
        "covered": pytest.approx(2 / 3),
    }


def test_boxes_as_pixel_by_pixel():
    rng = np.random.default_rng(0)
    masks, boxes = blobs(rng, 9, 13), random_boxes(rng, 9, 4)
    boxes[0, 0] = [0.3, 0.2, 0.3, 0.9]
    found = score_boxes(Regions.of(masks), boxes)
    for name in MEASURES:
        expected = [[box_scores(m, b)[name] for b in of_mask] for m, of_mask in zip(masks, boxes, strict=True)]
        np.testing.assert_allclose(found[name], expected, atol=1e-12, err_msg=name)
    assert 0 < found["hit"].mean() < 1  # both happen


@given(st.integers(1, 12), st.data())
def test_a_box_that_is_the_region_is_perfect(grid, data):
    x1, y1 = (data.draw(st.integers(0, grid - 1)) for _ in range(2))
    x2, y2 = data.draw(st.integers(x1 + 1, grid)), data.draw(st.integers(y1 + 1, grid))
    found = scored(rectangle(grid, x1, y1, x2, y2), np.array([x1, y1, x2, y2]) / grid)
    assert found == dict.fromkeys(MEASURES, pytest.approx(1))


def test_the_whole_image_covers_everything_and_holds_the_regions_share():
    mask = rectangle(8, 0, 0, 2, 3)
    found = scored(mask, [0, 0, 1, 1])
    assert found["covered"] == 1
    assert found["inside"] == found["iou"] == found["tight_iou"] == pytest.approx(6 / 64)


def test_an_empty_box_scores_nothing_even_on_the_region():
    assert scored(np.ones((8, 8), dtype=bool), [0, 0.1, 0, 0.9]) == dict.fromkeys(MEASURES, 0)


def test_the_tolerance_is_15_of_224_pixels():
    assert pytest.approx(15 / 224) == TOLERANCE
    mask = rectangle(224, 100, 100, 101, 101)
    places = np.array([[115, 100], [116, 100], [111, 110], [111, 111], [85, 100], [84, 100]])
    found = score_points(Regions.of(mask[None]), (places[None] + 0.5) / 224)
    assert found["pointing"].tolist() == [[1, 0, 1, 0, 1, 0]]  # 11 and 10: a distance of 14.9; 11 and 11: 15.6
    assert not found["hit"].any()


def test_points_as_pixel_by_pixel():
    rng = np.random.default_rng(1)
    masks, points = blobs(rng, 6, 31), rng.random((6, 20, 2))
    found = score_points(Regions.of(masks), points)
    for name in ("hit", "pointing"):
        expected = [[point_scores(m, p)[name] for p in of_mask] for m, of_mask in zip(masks, points, strict=True)]
        np.testing.assert_array_equal(found[name], expected)
    assert found["hit"].sum() < found["pointing"].sum() < found["hit"].size


@pytest.mark.parametrize("window", [(0, 0, 1, 1), (0.13, 0, 0.88, 1), (-0.21, 0, 1.18, 1)])
def test_maps_as_pixel_by_pixel(window):
    """Every map with every region."""
    rng = np.random.default_rng(2)
    masks, maps = blobs(rng, 5, 19), rng.normal(size=(6, 4, 3))
    found = score_maps(Regions.of(masks), draw(maps, np.tile(window, (6, 1)), 19))
    for name in ("iou", "hit", "pointing", "inside"):
        expected = [[map_scores(mask, one, window)[name] for one in maps] for mask in masks]
        np.testing.assert_allclose(found[name], expected, atol=1e-12, err_msg=name)
    assert set(found) == {"iou", "hit", "pointing", "inside"}
    assert 0 < found["hit"].mean() < 1


def test_a_map_and_a_region_by_hand():
    """One positive cell of 2 x 2, the others negative: it falls off evenly between the cells' centres."""
    mask = rectangle(4, 0, 0, 2, 4)  # the left half
    found = scored_map(mask, [[8, -3], [-5, -1]])
    # Along an axis the pixels' centres read 1, 3/4, 1/4, 0 of the cell.
    assert found["inside"] == pytest.approx((1 + 3 / 4) / 2)
    assert found["hit"] == 1
    assert found["iou"] == pytest.approx(4 / 8)  # 1, 3/4, 3/4, 9/16 reach a half


def test_exactly_half_of_the_maximum_counts():
    values = np.array([[2.0, 2.0], [1.0, 1.0]]) / 3
    assert scored_map(np.ones((16, 16), dtype=bool), values)["iou"] == pytest.approx(1)
    values[1] *= 0.999
    assert scored_map(np.ones((16, 16), dtype=bool), values)["iou"] < 0.99


def test_a_flat_top_points_to_the_centre_of_its_cell():
    """The first cell is as high from its centre up to the picture's corner."""
    drawn = draw(np.diag([3.0, 1, 1, 1])[None], WHOLE, 64)
    np.testing.assert_allclose(drawn.points, [[7.5 / 64, 7.5 / 64]])  # the centre, 8 / 64, lies between two pixels


def test_of_equal_cells_the_first_counts():
    maps = np.zeros((1, 3, 3))
    maps[0, 0, 2] = maps[0, 2, 0] = 1
    x, y = draw(maps, WHOLE, 9).points[0]
    assert (x, y) == (pytest.approx(7.5 / 9), pytest.approx(1.5 / 9))


@pytest.mark.parametrize(("value", "inside", "overlap"), [(0.7, 0.25, 0.25), (0.0, 0, 0), (-2.0, 0, 0)])
def test_a_constant_map_and_one_that_is_nowhere_positive_miss(value, inside, overlap):
    mask = rectangle(8, 0, 0, 4, 4)  # with the first of the equal cells
    found = scored_map(mask, np.full((4, 4), value))
    assert (found["hit"], found["pointing"]) == (0, 0)
    assert (found["inside"], found["iou"]) == (pytest.approx(inside), pytest.approx(overlap))
    assert draw(np.full((1, 4, 4), value), WHOLE, 8).nowhere.all()


def test_rounding_makes_no_map_point():
    maps = np.full((2, 4, 4), 0.3)
    maps[:, 1, 2] += [1e-8, 1e-3]
    assert draw(maps, WHOLE, 8).nowhere.tolist() == [True, False]


def test_a_map_that_is_positive_only_beyond_the_picture_misses():
    maps = np.zeros((1, 2, 4))
    maps[0, :, 0] = 1
    drawn = draw(maps, np.array([[-2.0, 0, 2, 1]]), 8)
    assert drawn.nowhere.all()
    assert not drawn.half.any()
    assert not drawn.share.any()


def test_what_lies_beyond_the_picture_does_not_count():
    """The highest cell is in the padding; within the picture the right half alone is positive."""
    values = [[9, 0, 0, 1]] * 4
    mask = rectangle(8, 4, 0, 8, 8)
    found = scored_map(mask, values, (-0.5, 0, 1.5, 1))
    expected = map_scores(mask, values, (-0.5, 0, 1.5, 1))
    assert found["inside"] == pytest.approx(expected["inside"])
    assert (
        found["hit"] == expected["hit"] == 0
    )  # at the left edge of the picture, still next to the cell in the padding


def test_part_of_the_regions():
    masks = blobs(np.random.default_rng(0), 5, 9)
    part, whole = Regions.of(masks).take(np.array([3, 1])), Regions.of(masks[[3, 1]])
    assert len(part) == 2
    for name in ("masks", "near", "area", "tight"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name))
