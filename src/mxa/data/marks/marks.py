"""The data structure: one finding of one image with its boxes and perhaps its mask, and all of them of one source."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage

from mxa.data.table import Table
from mxa.errors import DataError

log = logging.getLogger(__name__)

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
ImageBoxes = dict[str, FloatArray]
"""Finding -> boxes (n, 4) of one image."""
_DIAGONALS_CONNECT = np.ones((3, 3))


@dataclass(frozen=True, eq=False)
class Mark:
    """One finding of one image. Treat the arrays as read-only.

    Attributes:
        path: The image, as in ``Table.frame["path"]``.
        finding: Canonical name, as in the table's label set.
        boxes: (n, 4) float64, n >= 1: x1, y1, x2, y2 in [0, 1] of the picture's width and height, x1 < x2, y1 < y2.
        mask: (h, w) over the whole picture, any resolution, at least one pixel marked; None where only boxes were
            drawn.

    Raises:
        ValueError: If boxes or mask are not of this kind.
    """

    path: str
    finding: str
    boxes: FloatArray
    mask: BoolArray | None

    def __post_init__(self) -> None:
        _check_boxes(self.boxes)
        if self.mask is not None:
            if self.mask.ndim != 2 or self.mask.dtype != bool:
                raise ValueError(f"a mask is (h, w) bool, got {self.mask.shape} {self.mask.dtype}")
            if not self.mask.any():
                raise ValueError(f"the mask of {self.finding} in {self.path} marks no pixel; make no Mark of it")

    def region(self, height: int, width: int) -> BoolArray:
        """Return the marked pixels on a grid over the whole picture.

        A mask is resized by nearest neighbour: a pixel takes the value of the mask where its centre lies. On a grid
        coarser than the mask a small sign may fall between the centres; the region is then empty.

        Without a mask it is the union of the boxes: a pixel belongs to a box when its centre does (x1 <= x < x2). A
        box that is narrower or lower than a pixel and holds no centre takes the column or row that its own centre
        lies in, so that every box marks a pixel.

        Args:
            height: Rows of the grid.
            width: Columns of the grid.

        Returns:
            (height, width) bool.

        Raises:
            ValueError: If the grid has no pixel.
        """
        if height < 1 or width < 1:
            raise ValueError(f"a grid of {height} x {width} has no pixel")
        mask = self.mask
        if mask is not None:
            return mask[np.ix_(_nearest(mask.shape[0], height), _nearest(mask.shape[1], width))]
        rows = _covered(self.boxes[:, 1], self.boxes[:, 3], height)
        columns = _covered(self.boxes[:, 0], self.boxes[:, 2], width)
        return np.any(rows[:, :, None] & columns[:, None, :], axis=0)


class EncodedMark(Mark):
    """A mark whose mask stays encoded until it is asked for: those of a data set would take many gigabytes.

    Attributes:
        decode: Gives the mask, (h, w) bool with at least one pixel marked.
    """

    decode: Callable[[], BoolArray]

    def __init__(self, path: str, finding: str, boxes: FloatArray, decode: Callable[[], BoolArray]) -> None:
        _check_boxes(boxes)
        for name, value in {"path": path, "finding": finding, "boxes": boxes, "decode": decode}.items():
            object.__setattr__(self, name, value)

    @property
    def mask(self) -> BoolArray:
        """(h, w) bool, decoded anew with every access."""
        return self.decode()


@dataclass(frozen=True, eq=False)
class Marks:
    """All marks of one source.

    Attributes:
        source: Words for a report, such as "CheXlocalize".
        marks: In the order of the table's rows, then of its findings; at most one per path and finding.
        unmatched: Images of the source that the table does not hold, as the source names them, in its order.

    Raises:
        ValueError: If two marks are of the same path and finding.
    """

    source: str
    marks: tuple[Mark, ...]
    unmatched: tuple[str, ...]

    def __post_init__(self) -> None:
        seen = set()
        for mark in self.marks:
            if (mark.path, mark.finding) in seen:
                raise ValueError(f"two marks of {mark.finding} in {mark.path}; put their boxes into one")
            seen.add((mark.path, mark.finding))

    @classmethod
    def of_table(cls, source: str, table: Table, found: Iterable[Mark], unmatched: Iterable[str]) -> "Marks":
        """Order the marks of a table's images, and leave out those of findings that its label set does not have.

        What is left out, for either reason, is counted in a log message.

        Args:
            source: Words for a report.
            table: The images and findings.
            found: Marks of images of the table, in any order.
            unmatched: Images of the source that the table does not hold.

        Returns:
            The marks.
        """
        column = {finding: j for j, finding in enumerate(table.labels)}
        row = {path: i for i, path in enumerate(dict.fromkeys(table.frame["path"]))}
        found, unmatched = list(found), tuple(unmatched)
        kept = [mark for mark in found if mark.finding in column]
        kept.sort(key=lambda mark: (row[mark.path], column[mark.finding]))
        log.info(
            "%s: %d marks; left out: %d images that the table does not hold, %d marks of findings that label set %r "
            "does not have",
            *(source, len(kept), len(unmatched), len(found) - len(kept), table.labels.name),
        )
        return cls(source, tuple(kept), unmatched)

    def by_path(self) -> dict[str, dict[str, Mark]]:
        """Return path -> finding -> mark, in the order of ``marks``; images without a mark have no entry."""
        images: dict[str, dict[str, Mark]] = {}
        for mark in self.marks:
            images.setdefault(mark.path, {})[mark.finding] = mark
        return images


def _check_boxes(boxes: FloatArray) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes) or boxes.dtype != np.float64:
        raise ValueError(f"boxes are (n, 4) float64 with n >= 1, got {boxes.shape} {boxes.dtype}")
    if (wrong := ~legal_boxes(boxes)).any():
        raise ValueError(f"{boxes[wrong][0].tolist()} is no box: 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1")


def legal_boxes(boxes: FloatArray) -> BoolArray:
    """Return (n,), True where a box (n, 4) lies in [0, 1] and has an area; NaN does not."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return np.all((low >= 0) & (low < high) & (high <= 1), axis=1)


def group_boxes(images: "pd.Series[str]", findings: "pd.Series[str]", boxes: FloatArray) -> dict[str, ImageBoxes]:
    """Gather the boxes of every finding of every image.

    Args:
        images: (n,) image of each box.
        findings: (n,) finding of each box.
        boxes: (n, 4).

    Returns:
        Image -> finding -> its boxes, all in the order in which they come first.
    """
    rows: dict[str, dict[str, list[int]]] = {}
    for i, (image, finding) in enumerate(zip(images, findings, strict=True)):
        rows.setdefault(image, {}).setdefault(finding, []).append(i)
    return {image: {finding: boxes[at] for finding, at in found.items()} for image, found in rows.items()}


def part_boxes(mask: BoolArray) -> FloatArray:
    """Return the tight boxes of a mask's connected parts; pixels that touch at a corner are connected.

    Args:
        mask: (h, w) bool over the whole picture.

    Returns:
        (n, 4) float64: x1, y1, x2, y2, the pixels' outer edges divided by width and height; n = 0 for an empty mask.
        Parts come in the order of their first pixels, row by row.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.empty((0, 4))
    # Labelling the marked part alone takes a fraction of the time: a mask of CheXlocalize has six million pixels.
    top, left = rows[0], columns[0]
    labels, _ = ndimage.label(mask[top : rows[-1] + 1, left : columns[-1] + 1], structure=_DIAGONALS_CONNECT)
    spans = ndimage.find_objects(labels)
    edges = np.array([[x.start + left, y.start + top, x.stop + left, y.stop + top] for y, x in spans])
    height, width = mask.shape
    return edges / np.array([width, height, width, height])


def paths_by_image(table: Table, image_of: Callable[[str], str]) -> dict[str, str]:
    """Return what a source calls the table's images -> path.

    Args:
        table: The images.
        image_of: Gives an image's name from its path, or "" where the source cannot have it.

    Returns:
        Name -> path, in the order of the rows.

    Raises:
        DataError: If two images of the table have the same name.
    """
    paths: dict[str, str] = {}
    for path in dict.fromkeys(table.frame["path"]):
        image = image_of(path)
        if image and paths.setdefault(image, path) != path:
            raise DataError(f"{paths[image]} and {path} of the table are both called {image!r} where marks are kept")
    return paths


def unmatched_images(source: Path, images: Collection[str], paths: Mapping[str, str]) -> tuple[str, ...]:
    """Return the images of a file that the table does not hold, in the file's order.

    Args:
        source: The file, for the message.
        images: Its images, each once.
        paths: What :func:`paths_by_image` gave.

    Raises:
        DataError: If the table holds none of them.
    """
    unmatched = tuple(image for image in images if image not in paths)
    if len(unmatched) == len(images):
        such = f", such as {unmatched[0]!r}" if unmatched else ""
        raise DataError(
            f"{source}: the table holds none of its {len(images)} images{such}; are these the marks of another data "
            "set or split?"
        )
    return unmatched


def _nearest(size: int, count: int) -> npt.NDArray[np.int64]:
    """Return (count,) which of ``size`` cells holds the centre of each of ``count`` cells over the same length."""
    return (2 * np.arange(count) + 1) * size // (2 * count)


def _covered(low: FloatArray, high: FloatArray, count: int) -> BoolArray:
    """Return (n, count), True where [low, high) in [0, 1] holds the centre of one of ``count`` cells.

    An interval between two centres takes the cell that its own centre lies in.
    """
    cells = np.arange(count)
    centres = (cells + 0.5) / count
    covered = (low[:, None] <= centres) & (centres < high[:, None])
    own = np.minimum(np.floor((low + high) / 2 * count), count - 1)
    return covered | (~covered.any(axis=1, keepdims=True) & (cells == own[:, None]))
