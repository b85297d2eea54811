"""Pointwise intervals around ROC and precision-recall curves: each bootstrap replicate's curve, read off on one grid.

The band is vertical: at each false positive rate (or recall) the middle ``level`` of the replicates' true positive
rates (or precisions). It speaks of one point at a time, not of the whole curve at once.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mxa.evaluation.bootstrap import Draws
from mxa.evaluation.intervals import require_level
from mxa.evaluation.metrics import FloatArray
from mxa.evaluation.ranked import Ranked

GRID = np.linspace(0, 1, 101)
"""Where the curves are read off."""


@dataclass(frozen=True, eq=False)
class CurveBands:
    """The bands of one finding's two curves on :data:`GRID`.

    Attributes:
        roc: (2, 101) lower and upper true positive rate at each false positive rate.
        pr: (2, 101) lower and upper precision at each recall.
    """

    roc: FloatArray
    pr: FloatArray


def curve_bands(
    draws: Draws, score: npt.ArrayLike, target: npt.ArrayLike, mask: npt.ArrayLike, level: float = 0.95
) -> list[CurveBands | None]:
    """The bands of every finding.

    None where the data or all replicates lack a class, or where positives and negatives are of one patient each, so
    that there is nothing to resample.

    A few hundred draws are enough for a picture.

    Raises:
        ValueError, DataError: as :meth:`mxa.evaluation.bootstrap.Draws.auroc`; the level is not in (0, 1).
    """
    require_level(level)
    return [_bands(column, draws, level) for column in draws.ranked(score, target, mask)]


def _bands(column: Ranked, draws: Draws, level: float) -> CurveBands | None:
    if min(column.patients) < 1 or max(column.patients) < 2:
        return None
    order = np.argsort(-column.score, kind="stable")
    last = np.flatnonzero(np.diff(-column.score[order], append=np.inf) != 0)  # where each run of equal scores ends
    truth, patient = column.truth[order], column.cluster[order]
    read = []
    for _, counts in draws.chunks():
        weight = counts[:, patient]
        positives = np.cumsum(weight * truth, axis=1)[:, last]
        called = np.cumsum(weight, axis=1)[:, last]
        read += [_read_off(p, c) for p, c in zip(positives, called, strict=True) if 0 < p[-1] < c[-1]]
    if not read:
        return None
    tails = [(1 - level) / 2, (1 + level) / 2]
    roc, pr = np.quantile(np.stack(read), tails, axis=0).swapaxes(0, 1)
    return CurveBands(roc, pr)


def _read_off(positives: FloatArray, called: FloatArray) -> FloatArray:
    """One replicate's two curves on the grid (2, 101).

    Args:
        positives: weight of the positives among the called, from the strictest threshold to the loosest.
        called: weight of the called.
    """
    alarms = called - positives
    tpr, fpr = positives / positives[-1], alarms / alarms[-1]
    roc = np.interp(GRID, np.concatenate(([0.0], fpr)), np.concatenate(([0.0], tpr)))
    # The strictest threshold that reaches a recall; with nothing drawn above it yet, there is no precision.
    drawn = called > 0
    recall, precision = tpr[drawn], positives[drawn] / called[drawn]
    return np.stack([roc, precision[np.searchsorted(recall, GRID - 1e-12)]])
