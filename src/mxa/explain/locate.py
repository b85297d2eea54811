"""Where a model looks in marked images: its boxes and maps, as :mod:`mxa.evaluation.localisation` scores them.

Shapes: B pictures of a batch, N marks, S the side of the network's input, h x w its last map.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mxa.data.decode import read_picture
from mxa.data.marks import Mark
from mxa.data.table import Table
from mxa.errors import ConfigError, DataError
from mxa.evaluation.localisation import GRID, Located
from mxa.evaluation.metrics import BoolArray, FloatArray
from mxa.models.artifact import Classifier
from mxa.models.cam import class_activation_maps
from mxa.predict import BATCH_SIZE
from mxa.preprocess import Preprocess

log = logging.getLogger(__name__)

IntArray = npt.NDArray[np.int64]


def locate(
    classifier: Classifier, table: Table, marks: Sequence[Mark], *, grid: int = GRID, workers: int = 0
) -> Located:
    """Run a model over the marked images of a table; boxes and maps come from one pass.

    A network without an exact class-activation map has boxes only, one without MXA regions has maps only. Of the maps
    those of the marked findings are kept.

    Args:
        classifier: the model; the marks' findings are among its own.
        table: the images.
        marks: of images of the table, at most one per image and finding.
        grid: side of the regions' grid.
        workers: loading processes.

    Returns:
        A case per mark, in the order of the images' first marks; those of an image stay in their order.

    Raises:
        ConfigError: the network has neither boxes nor maps.
        DataError: there is no mark, or an image cannot be read; the message names it.
        ValueError: a mark's image is not in the table.
    """
    if not marks:
        raise DataError("no image is marked, so there is nothing to look for; check that marks and images fit")
    place = {path: i for i, path in enumerate(dict.fromkeys(mark.path for mark in marks))}
    part = table.take(_rows(table, place))
    marks = sorted(marks, key=lambda mark: place[mark.path])
    image = np.array([place[mark.path] for mark in marks])
    column = np.array([classifier.labels.index(mark.finding) for mark in marks])
    looked, first = [], 0
    for pictures in _load(part.files(), classifier.preprocess, workers):
        here = (image >= first) & (image < first + len(pictures.sizes))
        looked.append(_look(classifier, pictures, image[here] - first, column[here]))
        first += len(pictures.sizes)
    return Located(
        paths=tuple(mark.path for mark in marks),
        patients=tuple(part.frame["patient"].iloc[image]),
        findings=tuple(mark.finding for mark in marks),
        single=np.bincount(image)[image] == 1,
        regions=regions_on_grid(marks, grid),
        boxes={name: np.concatenate([one.boxes[name] for one in looked]) for name in looked[0].boxes},
        maps=_together([one.maps for one in looked]),
        windows=np.concatenate([one.windows for one in looked]),
    )


def regions_on_grid(marks: Sequence[Mark], grid: int = GRID) -> tuple[BoolArray, ...]:
    """Marked regions on one grid over the picture, none of them empty.

    A mask that falls between the centres of the grid's pixels is taken as its boxes, which mark a pixel each at least;
    a log message counts these.

    Args:
        marks: N.
        grid: side G.

    Returns:
        N masks (G, G).
    """
    regions = [mark.region(grid, grid) for mark in marks]
    lost = [i for i, region in enumerate(regions) if not region.any()]
    for i in lost:
        regions[i] = Mark(marks[i].path, marks[i].finding, marks[i].boxes, None).region(grid, grid)
    if lost:
        log.info("%d of %d masks are too small for a grid of %d: their boxes count", len(lost), len(marks), grid)

    return tuple(regions)


def _rows(table: Table, paths: Mapping[str, int]) -> list[int]:
    """The table's row of each path."""
    row: dict[str, int] = {}
    for i, path in enumerate(table.frame["path"]):
        row.setdefault(path, i)
    if strangers := [path for path in paths if path not in row]:
        raise ValueError(f"{len(strangers)} marked images are not in the table, such as {strangers[0]}")
    return [row[path] for path in paths]


class _Pictures(NamedTuple):
    """A batch: (B, 1, S, S) uint8 for the network, and (B, 2) int64, the pictures' own width and height."""

    pixels: Tensor
    sizes: Tensor


class _SizedPictures(Dataset[_Pictures]):
    """Image files as batches that know how large each picture was, which its place in the network's input needs."""

    def __init__(self, files: Sequence[Path], contract: Preprocess) -> None:
        self.files = files
        self.contract = contract

    def __len__(self) -> int:
        return len(self.files)

    def __getitems__(self, rows: Sequence[int]) -> _Pictures:
        pixels, sizes = [], []
        for row in rows:  # one after the other: as they are on disk, a batch of them may fill the memory
            grey = read_picture(self.files[row], wide_range=self.contract.wide_range)
            pixels.append(self.contract.resize(grey, name=str(self.files[row])))
            sizes.append(grey.shape[::-1])
        return _Pictures(torch.from_numpy(np.stack(pixels)[:, None]), torch.tensor(sizes))


def _load(files: Sequence[Path], contract: Preprocess, workers: int) -> "DataLoader[_Pictures]":
    return DataLoader(_SizedPictures(files, contract), batch_size=BATCH_SIZE, num_workers=workers, collate_fn=_as_it_is)


def _as_it_is(pictures: Any) -> _Pictures:
    """The dataset has made the batch already."""
    return pictures


@dataclass(frozen=True, eq=False)
class _Looked:
    """The n marks of a batch's images; boxes (n, 4) per block, windows (n, 4) and maps (n, h, w) as in Located."""

    boxes: Mapping[str, FloatArray]
    windows: FloatArray
    maps: npt.NDArray[np.float32] | None


def _look(classifier: Classifier, pictures: _Pictures, image: IntArray, column: IntArray) -> _Looked:
    """Put a batch through the network.

    Args:
        classifier: the model.
        pictures: the batch.
        image: (n,) each mark's place in the batch.
        column: (n,) its finding's in the label set.
    """
    maps, boxes = _maps_and_boxes(classifier, pictures.pixels)
    sizes = pictures.sizes.numpy()
    scale = np.tile(sizes, 2).astype(np.float64)
    windows = np.array([classifier.preprocess.window(*size) for size in sizes.tolist()]) / scale
    placed = {}
    if boxes:
        each = np.stack([one.cpu().numpy() for one in boxes.values()])
        own = [classifier.preprocess.to_source(each[:, i], *size) for i, size in enumerate(sizes.tolist())]
        placed = dict(zip(boxes, np.stack(own, axis=1) / scale, strict=True))
    return _Looked(
        {name: one[image] for name, one in placed.items()},
        windows[image],
        None if maps is None else maps[image, column].cpu().numpy(),
    )


def _maps_and_boxes(classifier: Classifier, pixels: Tensor) -> tuple[Tensor | None, dict[str, Tensor]]:
    """Maps (B, L, h, w), where the network has exact ones, and boxes (B, 4) in [0, 1] of the input by block."""
    try:
        found = class_activation_maps(classifier, pixels)
    except ConfigError as error:
        boxes = classifier.regions(pixels)
        if not boxes:
            name = classifier.architecture.name
            raise ConfigError(f"{name} has no MXA regions, and {error}; where it looks cannot be scored") from error
        return None, boxes
    return found.maps, found.boxes


def _together(maps: Sequence[npt.NDArray[np.float32] | None]) -> FloatArray | None:
    """All batches' maps; None where the network has no exact ones."""
    exact = [one for one in maps if one is not None]
    return np.concatenate(exact, dtype=np.float64) if len(exact) == len(maps) else None
