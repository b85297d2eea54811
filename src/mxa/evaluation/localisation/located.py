"""What is scored: marked cases, and where a model looked for each of them."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from mxa.errors import DataError
from mxa.evaluation.metrics import BoolArray, FloatArray

UNION = "union"
_BLOCK = re.compile(r"stages\.(\d+)\.blocks\.(\d+)(?:\.regions\.(\d+))?")
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Located:
    """N cases, each a marked finding of an image, with a model's boxes and maps. Treat the arrays as read-only.

    Attributes:
        paths: N images.
        patients: N identifiers; an image has one patient.
        findings: N names; a finding of an image comes once.
        single: (N,) bool, True where the finding is the only marked one of its image.
        regions: N masks (G, G) bool on one grid over the picture, as :meth:`mxa.data.marks.Mark.region` makes them.
        boxes: per MXA block (``stages.0.blocks.0``) or region of one (``stages.0.blocks.0.regions.1``) boxes (N, 4),
            x1, y1, x2, y2 in [0, 1] of the picture, as :meth:`mxa.preprocess.Preprocess.place` cuts them; rounding by
            1e-6 beyond is taken back. May be empty.
        maps: (N, h, w) the finding's class-activation map of each case, or None.
        windows: (N, 4) left, top, right, bottom of the part of the picture that a map covers, in [0, 1] of the picture
            and beyond (:meth:`mxa.preprocess.Preprocess.window`); needed with maps.

    Raises:
        ValueError: arrays do not fit the cases or each other, a block's name is none, or there is nothing to score.
        DataError: there is no case, one comes twice, an image has several patients or is wrongly called single, a
            region is empty on the grid, or a box, map or window has impossible values.
    """

    paths: tuple[str, ...]
    patients: tuple[str, ...]
    findings: tuple[str, ...]
    single: BoolArray
    regions: tuple[BoolArray, ...]
    boxes: Mapping[str, FloatArray]
    maps: FloatArray | None = None
    windows: FloatArray | None = None

    def __post_init__(self) -> None:
        _check_cases(self)
        _check_regions(self)
        if not self.boxes and self.maps is None:
            raise ValueError("there are neither boxes nor maps to score")
        boxes = {name: self._checked_boxes(name, boxes) for name, boxes in self.boxes.items()}
        object.__setattr__(self, "boxes", dict(sorted(boxes.items(), key=lambda item: _place(item[0]))))
        if self.maps is not None:
            if self.windows is None:
                raise ValueError("maps need their windows")
            object.__setattr__(self, "maps", self._checked("map", self.maps, 3))
            object.__setattr__(self, "windows", self._checked_windows(self.windows))

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def grid(self) -> int:
        """Side G of the regions' grid."""
        return len(self.regions[0])

    @property
    def stages(self) -> dict[str, str]:
        """The last block of each stage: "stage 1" -> ``stages.0.blocks.0``, in the network's order.

        Each region of one with several is an entry: "stage 1, region 2" -> ``stages.0.blocks.0.regions.1``.
        """
        found = {}
        for stage, names in last_blocks(self.boxes).items():
            for name in names:
                region = f", region {_place(name)[2] + 1}" if len(names) > 1 else ""
                found[f"stage {stage + 1}{region}"] = name
        return found

    def all_boxes(self) -> dict[str, FloatArray]:
        """Boxes (N, 4) of every block, and the union: the smallest box around those of all blocks."""
        if not self.boxes:
            return {}
        each = np.stack(list(self.boxes.values()))
        union = np.concatenate([each[..., :2].min(axis=0), each[..., 2:].max(axis=0)], axis=1)
        return {**self.boxes, UNION: union}

    def _checked_boxes(self, name: str, boxes: FloatArray) -> FloatArray:
        _place(name)
        checked = self._checked(f"box of {name}", boxes, 2, 4)
        cut = np.clip(checked, 0, 1)
        beyond = np.abs(cut - checked).max(axis=1)
        legal = (beyond <= _ROUNDING) & np.logical_and.reduce(cut[:, :2] <= cut[:, 2:], axis=1)
        self._require(legal, lambda i: f"the box of {name} is {checked[i]}; corners are x1, y1, x2, y2 in [0, 1]")
        return cut

    def _checked_windows(self, windows: FloatArray) -> FloatArray:
        checked = self._checked("window", windows, 2, 4)
        low, high = checked[:, :2], checked[:, 2:]
        seen = np.logical_and.reduce((low < high) & (low < 1) & (high > 0), axis=1)
        self._require(seen, lambda i: f"its window {checked[i]} shows nothing of the picture")
        return checked

    def _checked(self, what: str, values: FloatArray, ndim: int, last: int | None = None) -> FloatArray:
        array = np.asarray(values, dtype=np.float64)
        fits = array.ndim == ndim and len(array) == len(self) and 0 not in array.shape
        if not fits or (last is not None and array.shape[-1] != last):
            raise ValueError(f"{len(self)} cases need one {what} each, got an array of shape {array.shape}")
        finite = np.isfinite(array.reshape(len(self), -1).sum(axis=1))
        self._require(finite, lambda i: f"its {what} has values that are not finite")
        return array

    def _require(self, right: BoolArray, wrong: Callable[[int], str]) -> None:
        if not right.all():
            i = int(np.argmin(right))
            raise DataError(f"{self.paths[i]}, {self.findings[i]}: {wrong(i)}")


def last_blocks(names: Iterable[str]) -> dict[int, list[str]]:
    """The names of the boxes of each stage's last block, one for each of its regions, by the stage's number from 0.

    Args:
        names: of boxes (``stages.0.blocks.0``, ``stages.0.blocks.0.regions.1``), a stage's blocks in their order.

    Raises:
        ValueError: one is no such name.
    """
    last: dict[int, tuple[int, list[str]]] = {}
    for name in names:
        stage, block, _ = _place(name)
        if stage not in last or last[stage][0] != block:
            last[stage] = block, []
        last[stage][1].append(name)
    return {stage: own for stage, (_, own) in last.items()}


def _place(block: str) -> tuple[int, int, int]:
    """Stage, place in it and region, all from 0."""
    found = _BLOCK.fullmatch(block)
    if found is None:
        raise ValueError(f"{block!r} is no name of a block, such as stages.0.blocks.0")
    return int(found[1]), int(found[2]), int(found[3] or 0)


def _check_cases(located: Located) -> None:
    count = len(located.paths)
    if not count:
        raise DataError("no case is marked, so there is nothing to score; check that marks and images fit")
    if {len(located.patients), len(located.findings), len(located.regions)} != {count}:
        raise ValueError("paths, patients, findings and regions differ in number")
    if located.single.shape != (count,) or located.single.dtype != np.bool_:
        raise ValueError(f"single is ({count},) bool, got {located.single.shape} {located.single.dtype}")
    seen: dict[str, tuple[str, list[str]]] = {}
    for path, patient, finding in zip(located.paths, located.patients, located.findings, strict=True):
        first, of_image = seen.setdefault(path, (patient, []))
        if patient != first:
            raise DataError(f"{path} has the patients {first!r} and {patient!r}; an image is of one")
        if finding in of_image:
            raise DataError(f"{path}: {finding} comes twice; put its marks into one case")
        of_image.append(finding)
    for path, single in zip(located.paths, located.single, strict=True):
        if single and len(seen[path][1]) > 1:
            raise DataError(f"{path} is called single, but has {' and '.join(seen[path][1])}")


def _check_regions(located: Located) -> None:
    grid = len(located.regions[0])
    for path, finding, region in zip(located.paths, located.findings, located.regions, strict=True):
        if region.shape != (grid, grid) or region.dtype != np.bool_:
            raise ValueError(f"regions are ({grid}, {grid}) bool, got {region.shape} {region.dtype} for {path}")
        if not region.any():
            raise DataError(f"{path}, {finding}: no pixel of the {grid} x {grid} grid is marked; take a finer grid")
