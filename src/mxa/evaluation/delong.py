"""DeLong's interval and test of AUROCs, without resampling.

Source: DeLong et al., Biometrics 1988; midranks as in Sun and Xu, IEEE Signal Processing Letters 2014. It takes images
as independent, so it is meant for one image per patient; with several the bootstrap of patients is right
(:mod:`mxa.evaluation.bootstrap`).
"""

import numpy as np
import numpy.typing as npt
from scipy import stats

from mxa.errors import DataError
from mxa.evaluation.intervals import Interval, require_level
from mxa.evaluation.metrics import FloatArray, require_finite
from mxa.evaluation.ranked import placements

NO_VARIANCE = "no estimated variance"
"""Why there is no test: each of two models ranks (or differs from the other) in one and the same way everywhere."""
_ROUNDING = 1e-14
"""A difference's variance below this share of the two models' own is 0 but for rounding."""


def delong(scores: npt.ArrayLike, target: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """AUROCs of K models on the same independent images, and their covariance.

    Args:
        scores: (K, N) finite.
        target: (N,) of 0 and 1, two of each at least.

    Returns:
        (K,) AUROCs and their (K, K) covariance matrix.

    Raises:
        ValueError: the shapes do not fit.
        DataError: a score is not finite, a target is neither 0 nor 1, or a class has fewer than two images.
    """
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(target)
    if s.ndim != 2 or y.shape != s.shape[1:]:
        raise ValueError(f"scores must be (K, N) and target (N,), got {s.shape} and {y.shape}")
    require_finite(s.T, "score")
    if ((y != 0) & (y != 1)).any():
        raise DataError("a target is neither 0 nor 1")
    truth = y == 1
    m, n = int(truth.sum()), int((~truth).sum())
    if min(m, n) < 2:
        raise DataError(f"DeLong's method needs two positives and two negatives, got {m} and {n}")
    placed = [placements(one, truth) for one in s]
    by_positive = np.stack([wins[truth] / n for wins, _ in placed])
    by_negative = np.stack([losses[~truth] / m for _, losses in placed])
    covariance = np.atleast_2d(np.cov(by_positive)) / m + np.atleast_2d(np.cov(by_negative)) / n
    return by_positive.mean(axis=1), covariance


def delong_interval(score: npt.ArrayLike, target: npt.ArrayLike, level: float = 0.95) -> Interval:
    """DeLong's interval of one AUROC, on the logit scale, which keeps it inside [0, 1] (Pepe, 2003, 5.2).

    An AUROC of exactly 0 or 1 has no estimated variance: the interval is then the point, and says nothing.

    Raises:
        ValueError, DataError: see :func:`delong`; the level is not in (0, 1).
    """
    require_level(level)
    (area,), ((variance,),) = delong(np.asarray(score)[None], target)
    if not 0 < area < 1:
        return Interval(float(area), float(area), float(area), level)
    centre = np.log(area / (1 - area))
    reach = stats.norm.ppf((1 + level) / 2) * np.sqrt(variance) / (area * (1 - area))
    low, high = 1 / (1 + np.exp(-(centre + np.array([-reach, reach]))))
    return Interval(float(area), float(low), float(high), level)


def delong_difference(
    score: npt.ArrayLike, other: npt.ArrayLike, target: npt.ArrayLike, level: float = 0.95
) -> tuple[Interval, float] | None:
    """The difference of two models' AUROC on the same images (first minus second), and its two-sided p-value.

    Returns:
        None where the models differ and the difference has :data:`NO_VARIANCE`, which leaves nothing to test with.

    Raises:
        ValueError, DataError: see :func:`delong`; the level is not in (0, 1).
    """
    require_level(level)
    area, covariance = delong(np.stack([np.asarray(score), np.asarray(other)]), target)
    difference = float(area[0] - area[1])
    own = covariance[0, 0] + covariance[1, 1]
    variance = own - 2 * covariance[0, 1]
    if variance <= _ROUNDING * own:
        # Two models that rank alike differ by exactly nothing.
        return None if difference else (Interval(0.0, 0.0, 0.0, level), 1.0)
    error = float(np.sqrt(variance))
    reach = float(stats.norm.ppf((1 + level) / 2)) * error
    p = float(2 * stats.norm.sf(abs(difference) / error))
    return Interval(difference, difference - reach, difference + reach, level), p
