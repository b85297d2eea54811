import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mxa.data.chexpert import read_chexpert
from mxa.data.marks.marks import (
    Mark,
    Marks,
    group_boxes,
    legal_boxes,
    part_boxes,
    paths_by_image,
    unmatched_images,
)
from mxa.errors import DataError
from mxa.labels import LabelSet

WHOLE = np.array([[0.0, 0, 1, 1]])


def boxed(*boxes, path="a.png", finding="Edema"):
    return Mark(path, finding, np.array(boxes, dtype=np.float64), None)


def masked(mask):
    return Mark("a.png", "Edema", WHOLE, np.asarray(mask, dtype=bool))


class TestMark:
    @pytest.mark.parametrize(
        "boxes", [np.empty((0, 4)), np.zeros((1, 5)), np.array([0.0, 0, 1, 1]), WHOLE.astype(np.float32)]
    )
    def test_boxes_of_another_shape_or_type(self, boxes):
        with pytest.raises(ValueError, match=r"boxes are \(n, 4\) float64"):
            Mark("a.png", "Edema", boxes, None)

    @pytest.mark.parametrize(
        "box", [[0.5, 0, 0.5, 1], [0, 0.6, 1, 0.5], [-0.1, 0, 1, 1], [0, 0, 1, 1.01], [0, np.nan, 1, 1]]
    )
    def test_illegal_box(self, box):
        assert legal_boxes(np.array([WHOLE[0], box])).tolist() == [True, False]
        with pytest.raises(ValueError, match=r"is no box: 0 <= x1 < x2"):
            boxed(WHOLE[0], box)

    @pytest.mark.parametrize("mask", [np.ones((2, 2), dtype=np.uint8), np.ones(4, dtype=bool)])
    def test_mask_of_another_shape_or_type(self, mask):
        with pytest.raises(ValueError, match=r"a mask is \(h, w\) bool"):
            Mark("a.png", "Edema", WHOLE, mask)

    def test_empty_mask(self):
        with pytest.raises(ValueError, match=r"mask of Edema in a\.png marks no pixel"):
            masked(np.zeros((3, 3)))


class TestRegionOfMask:
    @pytest.mark.parametrize("size", [(7, 9), (3, 4), (14, 18), (20, 31), (1, 1), (7, 1)])
    def test_nearest_neighbour_by_pixel_centres(self, size):
        mask = np.random.default_rng(3).random((7, 9)) < 0.5
        expected = np.zeros(size, dtype=bool)
        for i in range(size[0]):
            for j in range(size[1]):
                y, x = (i + 0.5) / size[0], (j + 0.5) / size[1]
                expected[i, j] = mask[int(y * 7), int(x * 9)]
        got = masked(mask).region(*size)
        assert got.dtype == bool
        np.testing.assert_array_equal(got, expected)

    def test_mask_goes_before_boxes(self):
        mask = np.array([[True, False], [False, False]])
        np.testing.assert_array_equal(masked(mask).region(2, 2), mask)

    def test_small_sign_on_a_coarse_grid_may_vanish(self):
        mask = np.zeros((9, 9), dtype=bool)
        mask[0, 0] = True
        assert not masked(mask).region(3, 3).any()


class TestRegionOfBoxes:
    def test_against_a_loop(self):
        rng = np.random.default_rng(5)
        for _ in range(50):
            corners = rng.random((3, 2, 2))
            corners.sort(axis=1)  # low, high
            boxes = np.concatenate([corners[:, 0], corners[:, 1]], axis=1)
            height, width = rng.integers(1, 12, 2)
            got = boxed(*boxes).region(height, width)
            np.testing.assert_array_equal(got, np.logical_or.reduce([fill(box, height, width) for box in boxes]))

    def test_pixel_edges(self):
        got = boxed([0.25, 0.5, 0.75, 1]).region(2, 4)
        np.testing.assert_array_equal(got, [[0, 0, 0, 0], [0, 1, 1, 0]])

    def test_centre_on_an_edge_belongs_to_the_box_that_begins_there(self):
        assert boxed([0, 0, 0.625, 1]).region(1, 4).tolist() == [[True, True, False, False]]
        assert boxed([0.625, 0, 1, 1]).region(1, 4).tolist() == [[False, False, True, True]]

    def test_box_smaller_than_a_pixel(self):
        expected = np.zeros((4, 4), dtype=bool)
        expected[2, 1] = True
        np.testing.assert_array_equal(boxed([0.26, 0.70, 0.27, 0.74]).region(4, 4), expected)

    def test_narrow_box_keeps_its_height(self):
        got = boxed([0.26, 0, 0.27, 0.5]).region(4, 4)
        assert got.sum(axis=0).tolist() == [0, 2, 0, 0]
        assert got.sum(axis=1).tolist() == [1, 1, 0, 0]

    @pytest.mark.parametrize("width", [1, 2, 3, 7, 10])
    def test_last_pixel(self, width):
        last = np.nextafter(1.0, 0)
        assert boxed([last, last, 1, 1]).region(3, width)[2].tolist() == [False] * (width - 1) + [True]

    @pytest.mark.parametrize("size", [(0, 3), (3, 0), (-1, 3)])
    def test_no_grid(self, size):
        with pytest.raises(ValueError, match="has no pixel"):
            boxed(WHOLE[0]).region(*size)


def fill(box, height, width):
    x1, y1, x2, y2 = box
    rows = [i for i in range(height) if y1 <= (i + 0.5) / height < y2] or [int((y1 + y2) / 2 * height)]
    columns = [j for j in range(width) if x1 <= (j + 0.5) / width < x2] or [int((x1 + x2) / 2 * width)]
    filled = np.zeros((height, width), dtype=bool)
    for i in rows:
        for j in columns:
            filled[i, j] = True
    return filled


class TestPartBoxes:
    def test_two_parts(self):
        mask = np.zeros((4, 5), dtype=bool)
        mask[0:2, 3:5] = True
        mask[3, 0] = True
        np.testing.assert_allclose(part_boxes(mask), [[3 / 5, 0, 1, 2 / 4], [0, 3 / 4, 1 / 5, 1]], rtol=1e-15)

    def test_corners_connect(self):
        np.testing.assert_array_equal(part_boxes(np.eye(4, dtype=bool)), WHOLE)

    def test_none(self):
        assert part_boxes(np.zeros((4, 5), dtype=bool)).shape == (0, 4)

    @pytest.mark.parametrize("order", ["C", "F"])
    def test_against_flood_fill(self, order):
        mask = np.random.default_rng(1).random((30, 40)) < 0.2
        mask[:3] = mask[:, -2:] = False
        expected = flood_boxes(mask)
        assert len(expected) > 10
        np.testing.assert_allclose(part_boxes(np.asarray(mask, order=order)), expected, rtol=1e-15)


def flood_boxes(mask):
    height, width = mask.shape
    left = {(int(i), int(j)) for i, j in np.argwhere(mask)}
    boxes = []
    for seed in sorted(left):
        if seed not in left:
            continue
        left.remove(seed)
        part, edge = [seed], [seed]
        while edge:
            i, j = edge.pop()
            near = {(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & left
            left -= near
            part += near
            edge += near
        rows, columns = zip(*part, strict=True)
        boxes.append([min(columns) / width, min(rows) / height, (max(columns) + 1) / width, (max(rows) + 1) / height])
    return boxes


class TestMarks:
    def test_by_path(self):
        a, b, c = boxed(WHOLE[0]), boxed(WHOLE[0], finding="Fracture"), boxed(WHOLE[0], path="b.png")
        got = Marks("made up", (a, b, c), ()).by_path()
        assert list(got) == ["a.png", "b.png"]
        assert got["a.png"] == {"Edema": a, "Fracture": b}
        assert got["b.png"] == {"Edema": c}

    def test_two_of_one_finding(self):
        with pytest.raises(ValueError, match=r"two marks of Edema in a\.png"):
            Marks("made up", (boxed(WHOLE[0]), boxed(WHOLE[0])), ())

    def test_order_is_the_tables(self, tiny_chexpert, caplog):
        table = read_chexpert(tiny_chexpert, LabelSet("two", ("Fracture", "Edema"), ("FX", "ED")), splits=("test",))
        table = table.take([5, 2, 2, 9])
        paths = table.frame["path"].tolist()
        found = [
            boxed(WHOLE[0], path=paths[k], finding=finding)
            for k, finding in [(1, "Edema"), (0, "Edema"), (3, "Pneumonia"), (0, "Fracture"), (3, "Edema")]
        ]
        with caplog.at_level(logging.INFO, "mxa"):
            marks = Marks.of_table("made up", table, found, ["x", "y", "z"])
        assert [(m.path, m.finding) for m in marks.marks] == [
            (paths[0], "Fracture"),
            (paths[0], "Edema"),
            (paths[1], "Edema"),
            (paths[3], "Edema"),
        ]
        assert marks.unmatched == ("x", "y", "z")
        assert "made up: 4 marks; left out: 3 images" in caplog.text
        assert "1 marks of findings that label set 'two' does not have" in caplog.text


@dataclass
class FakeTable:
    """What :func:`paths_by_image` looks at."""

    frame: pd.DataFrame


def table_of(*paths):
    return FakeTable(pd.DataFrame({"path": paths}))


class TestMatching:
    def test_names(self):
        table = table_of("x/b.png", "x/a.png", "x/b.png", "y/none.jpg")
        names = {"x/b.png": "B", "x/a.png": "A", "y/none.jpg": ""}
        assert list(paths_by_image(table, names.__getitem__).items()) == [("B", "x/b.png"), ("A", "x/a.png")]

    def test_one_name_for_two_images(self):
        with pytest.raises(DataError, match=r"x/a\.png and y/a\.png of the table are both called 'a\.png'"):
            paths_by_image(table_of("x/a.png", "y/a.png"), lambda path: path[2:])

    def test_unmatched(self):
        assert unmatched_images(Path("f"), ["c", "a", "b"], {"a": "x/a.png"}) == ("c", "b")

    def test_no_image_matches(self):
        with pytest.raises(DataError, match=r"^f: the table holds none of its 2 images, such as 'c'; are these"):
            unmatched_images(Path("f"), ["c", "b"], {"a": "x/a.png"})

    def test_group_boxes(self):
        boxes = np.arange(16.0).reshape(4, 4)
        images, findings = pd.Series(["b", "a", "b", "b"]), pd.Series(["Mass", "Mass", "Edema", "Mass"])
        got = group_boxes(images, findings, boxes)
        assert [(image, list(found)) for image, found in got.items()] == [("b", ["Mass", "Edema"]), ("a", ["Mass"])]
        np.testing.assert_array_equal(got["b"]["Mass"], boxes[[0, 3]])
        np.testing.assert_array_equal(got["b"]["Edema"], boxes[[2]])
        np.testing.assert_array_equal(got["a"]["Mass"], boxes[[1]])
