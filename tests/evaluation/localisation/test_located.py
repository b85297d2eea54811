import re
from dataclasses import fields

import numpy as np
import pytest
from marked_cases import rectangle

from mxa.errors import DataError
from mxa.evaluation.localisation import Located

BLOCK = "stages.0.blocks.0"


def located(**changes):
    parts = {
        "paths": ("a.png", "a.png", "b.png"),
        "patients": ("p", "p", "q"),
        "findings": ("Edema", "Mass", "Edema"),
        "single": np.array([False, False, True]),
        "regions": (rectangle(8, 0, 0, 4, 4), rectangle(8, 2, 2, 3, 3), rectangle(8, 0, 0, 8, 8)),
        "boxes": {BLOCK: np.tile([0.1, 0.2, 0.6, 0.9], (3, 1))},
        "maps": np.arange(48.0).reshape(3, 4, 4),
        "windows": np.tile([0.0, 0.0, 1.0, 1.0], (3, 1)),
    }
    assert {f.name for f in fields(Located)} == set(parts)
    return Located(**(parts | changes))


def at(values, i, new):
    changed = np.array(values, dtype=float)
    changed[i] = new
    return changed


def test_what_fits_is_taken():
    one = located()
    assert len(one) == 3
    assert one.grid == 8


def test_blocks_are_put_in_the_networks_order():
    names = [f"stages.{name}" for name in ("1.blocks.10", "0.blocks.0", "1.blocks.2", "2.blocks.0")]
    one = located(boxes={name: np.tile([0.0, 0, 1, 1], (3, 1)) for name in names})
    assert list(one.boxes) == [names[1], names[2], names[0], names[3]]
    assert one.stages == {"stage 1": names[1], "stage 2": names[0], "stage 3": names[3]}


def test_regions_of_one_block_are_in_their_order():
    names = [f"{BLOCK}.regions.{number}" for number in (0, 2, 10)]
    one = located(boxes={name: np.array([BOX[0]] * 3) for name in (names[2], names[0], "stages.1.blocks.0", names[1])})
    assert list(one.boxes) == [*names, "stages.1.blocks.0"]
    regions = {f"stage 1, region {number}": name for number, name in zip((1, 3, 11), names, strict=True)}
    assert one.stages == {**regions, "stage 2": "stages.1.blocks.0"}


def test_the_union_is_the_smallest_box_around_all():
    first = np.tile([0.2, 0.3, 0.5, 0.6], (3, 1))
    second = np.array([[0.1, 0.4, 0.4, 0.9], [0.3, 0.35, 0.4, 0.5], [0.6, 0.0, 1.0, 0.2]])
    found = located(boxes={BLOCK: first, "stages.0.blocks.1": second}).all_boxes()
    assert list(found) == [BLOCK, "stages.0.blocks.1", "union"]
    expected = [[0.1, 0.3, 0.5, 0.9], [0.2, 0.3, 0.5, 0.6], [0.2, 0.0, 1.0, 0.6]]
    np.testing.assert_array_equal(found["union"], expected)


def test_without_boxes_there_is_no_stage_and_no_union():
    one = located(boxes={})
    assert (one.stages, one.all_boxes()) == ({}, {})


def test_rounding_beyond_the_picture_is_taken_back():
    boxes = np.tile(np.array([0.5, 0, 1 + 1e-7, 1], dtype=np.float32), (3, 1))
    assert boxes.max() > 1
    assert located(boxes={BLOCK: boxes}).boxes[BLOCK].tolist() == [[0.5, 0, 1, 1]] * 3


def test_an_empty_box_and_a_window_beyond_the_picture_are_taken():
    one = located(boxes={BLOCK: np.zeros((3, 4))}, windows=np.tile([-0.5, 0, 1.5, 1], (3, 1)))
    assert one.boxes[BLOCK].max() == 0
    assert one.windows.min() == -0.5


BOX = np.tile([0.1, 0.2, 0.6, 0.9], (3, 1))
WINDOW = np.tile([0.0, 0.0, 1.0, 1.0], (3, 1))
MAPS = np.zeros((3, 4, 4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"paths": ("a.png",) * 3}, "a.png has the patients 'p' and 'q'"),
        ({"findings": ("Mass", "Mass", "Edema")}, "a.png: Mass comes twice"),
        ({"single": np.array([False, True, True])}, "a.png is called single, but has Edema and Mass"),
        (
            {"regions": (rectangle(8, 0, 0, 4, 4),) * 2 + (np.zeros((8, 8), dtype=bool),)},
            "b.png, Edema: no pixel of the 8 x 8 grid",
        ),
        ({"boxes": {BLOCK: at(BOX, (1, 2), np.nan)}}, "a.png, Mass: its box of stages.0.blocks.0 has values that"),
        ({"boxes": {BLOCK: at(BOX, (2, 2), 1.01)}}, "b.png, Edema: the box of stages.0.blocks.0 is"),
        ({"boxes": {BLOCK: at(BOX, (2, 0), -0.01)}}, "b.png, Edema: the box of stages.0.blocks.0 is"),
        ({"boxes": {BLOCK: at(BOX, (0, 0), 0.7)}}, "a.png, Edema: the box of stages.0.blocks.0 is"),
        ({"boxes": {BLOCK: at(BOX, (0, 1), 0.95)}}, "a.png, Edema: the box of stages.0.blocks.0 is"),
        ({"maps": at(MAPS, (1, 0, 0), np.inf)}, "a.png, Mass: its map has values that"),
        ({"windows": at(WINDOW, (1, 0), 1.0)}, "a.png, Mass: its window .* shows nothing"),
        ({"windows": at(WINDOW, (1, 3), 0.0)}, "a.png, Mass: its window .* shows nothing"),
        ({"windows": at(WINDOW, 2, [1, 0, 2, 1])}, "b.png, Edema: its window .* shows nothing"),
        ({"windows": at(WINDOW, 2, [0, -1, 1, 0])}, "b.png, Edema: its window .* shows nothing"),
    ],
)
def test_bad_data_are_named(changes, message):
    with pytest.raises(DataError, match=message):
        located(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patients": ("p", "p")}, "differ in number"),
        ({"regions": (rectangle(8, 0, 0, 4, 4),)}, "differ in number"),
        ({"single": np.array([0, 0, 1])}, r"single is \(3,\) bool"),
        ({"single": np.array([True])}, r"single is \(3,\) bool"),
        (
            {"regions": (rectangle(8, 0, 0, 4, 4),) * 2 + (rectangle(9, 0, 0, 4, 4),)},
            r"regions are \(8, 8\) bool.*b\.png",
        ),
        ({"regions": (np.ones((8, 8)),) * 3}, r"regions are \(8, 8\) bool"),
        ({"boxes": {BLOCK: BOX[:2]}}, r"3 cases need one box of stages\.0\.blocks\.0 each.*\(2, 4\)"),
        ({"boxes": {BLOCK: BOX[:, :3]}}, r"\(3, 3\)"),
        ({"boxes": {"head": BOX}}, "'head' is no name of a block"),
        ({"maps": MAPS[:, 0]}, r"one map each.*\(3, 4\)"),
        ({"maps": MAPS[:, :0]}, r"one map each.*\(3, 0, 4\)"),
        ({"windows": WINDOW[0]}, r"one window each.*\(4,\)"),
        ({"windows": None}, "maps need their windows"),
        ({"boxes": {}, "maps": None}, "neither boxes nor maps"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        located(**changes)


def test_no_case_is_refused():
    with pytest.raises(DataError, match=re.escape("no case is marked")):
        located(paths=(), patients=(), findings=(), single=np.zeros(0, dtype=bool), regions=())
