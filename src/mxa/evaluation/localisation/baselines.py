"""What boxes and points score that never looked at the image: only what beats them is informative.

* The whole image.
* What the training marks teach (:func:`learn`): the centred box of the best size, the mean box, the pixel that is most
  often marked, each once of all marks together and once of the finding's alone.
* A model's own boxes and maps with the marks of other images (:func:`matched_and_shuffled`).

MXA boxes are one for all findings of an image. The fair baselines for them are therefore those of all marks together,
which do not know the finding either; those per finding know more than the boxes do, and are the fair ones for maps.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mxa.evaluation.localisation.geometry import area_inside, areas, blocks, iou, peaks, tight_boxes
from mxa.evaluation.localisation.measures import Regions, Scores, draw, score_boxes, score_maps
from mxa.evaluation.metrics import BoolArray, FloatArray
from mxa.preprocess import Box

SIDES = 20
"""The centred box has one of SIDES x SIDES sizes: 1 / SIDES, 2 / SIDES ... 1 of the width and of the height."""
WHOLE_IMAGE = "whole image"
PER_FINDING = " per finding"
_ROUNDING = 1e-12

Pairs = Iterable[tuple[slice, slice, Scores]]
"""Regions of which cases, boxes or maps of which cases, and the scores (r, c, B) of each of the former with each of the
latter."""


@dataclass(frozen=True)
class Prior:
    """What some training marks have in common.

    Attributes:
        marks: how many they are.
        centred: the centred box whose mean IoU with them is best; of equal ones the lowest, then the narrowest.
        mean: the mean of their tight boxes.
        point: x, y of the pixel that most of them mark; of several, the one nearest to their mean place.
    """

    marks: int
    centred: Box
    mean: Box
    point: tuple[float, float]


@dataclass(frozen=True)
class Trained:
    """What the training marks teach. Make one with :func:`learn`.

    Attributes:
        overall: of all marks together, so that frequent findings count more.
        findings: of each finding's marks.
    """

    overall: Prior
    findings: Mapping[str, Prior]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "overall": asdict(self.overall),
            "findings": {name: asdict(prior) for name, prior in self.findings.items()},
        }


def learn(findings: Sequence[str], regions: Sequence[BoolArray]) -> Trained:
    """Find the baselines' boxes and points on training marks, which must not be among those that are scored.

    Args:
        findings: M names.
        regions: M masks (G, G) bool on one grid over the picture, at least one marked pixel each.

    Raises:
        ValueError: there is no mark, the numbers differ, or a region is empty or of another grid.
    """
    if not len(findings) or len(findings) != len(regions):
        raise ValueError(f"need as many regions as findings, at least one; got {len(regions)} and {len(findings)}")
    if {region.shape for region in regions} != {(len(regions[0]),) * 2}:
        raise ValueError("training regions are not on one square grid")
    masks = np.stack(regions)
    if not masks.any(axis=(1, 2)).all():
        raise ValueError("a training region has no marked pixel; leave its mark out or take a finer grid")
    overlap = iou(area_inside(masks, _centred_boxes(len(masks))), areas(_centred_boxes(1)), _area(masks))
    tight = tight_boxes(masks)

    def prior(rows: BoolArray) -> Prior:
        mean = overlap[rows].mean(axis=0)
        best = int(np.argmax(mean >= mean.max() - _ROUNDING))
        return Prior(
            int(rows.sum()), _box(_centred_boxes(1)[0, best]), _box(tight[rows].mean(axis=0)), _most_marked(masks[rows])
        )

    names = np.array(findings, dtype=object)
    return Trained(
        prior(np.ones(len(names), dtype=bool)), {name: prior(names == name) for name in dict.fromkeys(findings)}
    )


def _centred_boxes(count: int) -> FloatArray:
    """The boxes of all sizes, by height, then width: (count, SIDES * SIDES, 4)."""
    side = np.arange(1, SIDES + 1) / SIDES
    height, width = (size.ravel() for size in np.meshgrid(side, side, indexing="ij"))
    boxes = np.stack([0.5 - width / 2, 0.5 - height / 2, 0.5 + width / 2, 0.5 + height / 2], axis=1)
    return np.broadcast_to(boxes, (count, *boxes.shape))


def _area(masks: BoolArray) -> FloatArray:
    return np.asarray(masks.mean(axis=(1, 2))[:, None])


def _box(corners: FloatArray) -> Box:
    x1, y1, x2, y2 = corners.tolist()
    return x1, y1, x2, y2


def _most_marked(masks: BoolArray) -> tuple[float, float]:
    count = masks.sum(axis=0, dtype=np.float64)
    row, column = np.nonzero(count == count.max())
    middle = np.array([[column.mean() + 0.5, row.mean() + 0.5]]) / len(count)
    x, y = peaks(count[None], middle)[0].tolist()
    return x, y


def baseline_boxes(findings: Sequence[str], trained: Trained | None) -> dict[str, FloatArray]:
    """Boxes (N, 4) of N cases; NaN where no training mark is of the finding."""
    found = {WHOLE_IMAGE: np.tile([0.0, 0.0, 1.0, 1.0], (len(findings), 1))}
    if trained is not None:
        found |= _each(findings, trained, "centred box", lambda prior: prior.centred)
        found |= _each(findings, trained, "mean box", lambda prior: prior.mean)
    return found


def baseline_points(findings: Sequence[str], trained: Trained | None) -> dict[str, FloatArray]:
    """Points (N, 2) of N cases; NaN where no training mark is of the finding."""
    return {} if trained is None else _each(findings, trained, "most marked pixel", lambda prior: prior.point)


def _each(
    findings: Sequence[str], trained: Trained, name: str, of: Callable[[Prior], tuple[float, ...]]
) -> dict[str, FloatArray]:
    overall = of(trained.overall)
    unknown = (np.nan,) * len(overall)
    known = {finding: of(prior) for finding, prior in trained.findings.items()}
    return {
        name: np.tile(overall, (len(findings), 1)),
        name + PER_FINDING: np.array([known.get(finding, unknown) for finding in findings]),
    }


def pairs_of_boxes(regions: Regions, boxes: FloatArray) -> Iterator[tuple[slice, slice, Scores]]:
    """Every region of n cases with the B boxes of each of them, boxes (n, B, 4)."""
    count, kinds = boxes.shape[:2]
    everyones = boxes.reshape(1, -1, 4)
    for rows in blocks(count):
        part = regions.take(rows)
        scores = score_boxes(part, np.broadcast_to(everyones, (len(part), *everyones.shape[1:])))
        yield rows, slice(0, count), {name: values.reshape(-1, count, kinds) for name, values in scores.items()}


def pairs_of_maps(regions: Regions, maps: FloatArray, windows: FloatArray) -> Iterator[tuple[slice, slice, Scores]]:
    """Every region of n cases with the map (n, h, w) of each of them; B is 1."""
    for columns in blocks(len(maps)):
        drawn = draw(maps[columns], windows[columns], regions.masks.shape[-1])
        for rows in blocks(len(maps)):
            scores = score_maps(regions.take(rows), drawn)
            yield rows, columns, {name: values[..., None] for name, values in scores.items()}


def matched_and_shuffled(pairs: Pairs, other: BoolArray) -> tuple[Scores, Scores]:
    """Each region with its own case's boxes or maps, and the mean over those of others.

    The mean is the expected value of giving a region what belongs to another one, each being as likely; no chance is
    left in it.

    Args:
        pairs: of n cases, all with all.
        other: (n, n) bool, True where the second case is another one to the first.

    Returns:
        Two times measure to (n, B); the second NaN where a case has no other.
    """
    number = np.arange(len(other))
    own: Scores = {}
    total: Scores = {}
    for rows, columns, scores in pairs:
        r, c = np.nonzero(number[rows, None] == number[None, columns])
        for name, values in scores.items():
            for kept in (own, total):
                kept.setdefault(name, np.zeros((len(other), values.shape[2])))
            own[name][number[rows][r]] = values[r, c]
            total[name][rows] += np.einsum("rcb,rc->rb", values, other[rows, columns].astype(np.float64))
    count = np.where(other.any(axis=1), other.sum(axis=1), np.nan)[:, None]
    return own, {name: values / count for name, values in total.items()}
