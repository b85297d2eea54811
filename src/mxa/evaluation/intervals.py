"""How sure an AUROC is, and a difference of two: patient-clustered bootstrap, DeLong, Holm's correction.

Images of one patient are alike, so the bootstrap draws patients, not images (Field and Welsh, "Bootstrapping clustered
data", JRSS B 2007). A replicate never copies rows: it weights them by how often their patient was drawn, and the
weighted AUROC is read off the ranks, which are found once. DeLong's method (DeLong et al., Biometrics 1988; midranks as
in Sun and Xu, IEEE Signal Processing Letters 2014) needs no resampling but takes images as independent: for one image
per patient.

Shapes: N images, L findings, R replicates, P patients. NaN stands for undefined (a replicate without positives or
without negatives) and is never given a value.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from mxa.errors import DataError
from mxa.evaluation.metrics import BoolArray, FloatArray, require_finite

CHUNK = 64
"""Replicates that are weighted at once; bounds the memory at about 64 N numbers."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        estimate: on the data themselves.
        low: lower end.
        high: upper end.
        level: coverage aimed at, such as 0.95.
        undefined: share of the replicates in which the quantity was undefined; they are left out.
    """

    estimate: float
    low: float
    high: float
    level: float
    undefined: float = 0.0


@dataclass(frozen=True)
class Bootstrap:
    """AUROC per finding on the data and on patient-clustered replicates of them.

    Attributes:
        estimate: (L,), NaN where undefined.
        replicates: (R, L), NaN where undefined.
        jackknife: (P, L) AUROC without each patient, for BCa; NaN where undefined.
    """

    estimate: FloatArray
    replicates: FloatArray
    jackknife: FloatArray

    def macro(self) -> "Bootstrap":
        """The mean over the findings whose AUROC is defined on the data, as a single column.

        A replicate's mean is over those of them that are defined in it; without any it is undefined.
        """
        used = ~np.isnan(self.estimate)
        parts = (self.estimate[None], self.replicates, self.jackknife)
        estimate, replicates, jackknife = (_mean_of_defined(part[:, used]) for part in parts)
        return Bootstrap(estimate, replicates[:, None], jackknife[:, None])

    def minus(self, other: "Bootstrap") -> "Bootstrap":
        """The paired difference of two models: both must come from the same images, patients and seed.

        Raises:
            ValueError: the shapes differ, so that they cannot.
        """
        if self.replicates.shape != other.replicates.shape or self.jackknife.shape != other.jackknife.shape:
            raise ValueError("only bootstraps of the same images, patients and number of replicates can be paired")
        return Bootstrap(
            self.estimate - other.estimate, self.replicates - other.replicates, self.jackknife - other.jackknife
        )

    def interval(self, column: int = 0, level: float = 0.95, method: str = "bca") -> Interval | None:
        """The interval of one column, or None where its estimate is undefined.

        Args:
            column: a finding.
            level: coverage, in (0, 1).
            method: "bca" (bias-corrected and accelerated; Efron, JASA 1987) or "percentile".

        Raises:
            ValueError: the level or the method is impossible.
        """
        if not 0 < level < 1 or method not in {"bca", "percentile"}:
            raise ValueError(f"level must be in (0, 1) and method bca or percentile, got {level} and {method!r}")
        estimate = float(self.estimate[column])
        drawn = self.replicates[:, column]
        defined = drawn[~np.isnan(drawn)]
        if np.isnan(estimate) or not len(defined):
            return None
        tails = np.array([(1 - level) / 2, (1 + level) / 2])
        if method == "bca":
            tails = _bca_tails(tails, estimate, defined, self.jackknife[:, column])
        low, high = np.quantile(defined, tails)
        return Interval(estimate, float(low), float(high), level, 1 - len(defined) / len(drawn))

    def p_value(self, column: int = 0) -> float | None:
        """Two-sided bootstrap p-value of "the column is 0", for a difference; None where it is undefined.

        Twice the smaller share of the replicates on either side of 0, at least 1 / (R + 1).
        """
        drawn = self.replicates[:, column]
        defined = drawn[~np.isnan(drawn)]
        if np.isnan(self.estimate[column]) or not len(defined):
            return None
        smaller = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
        return min(1.0, 2 * (smaller + 1) / (len(defined) + 1))


def bootstrap_auroc(
    score: npt.ArrayLike,
    target: npt.ArrayLike,
    mask: npt.ArrayLike,
    patient: Sequence[str],
    *,
    replicates: int = 2000,
    seed: int = 0,
) -> Bootstrap:
    """Resample patients, and score every replicate.

    The same seed and patients give the same draws, whatever is scored: so two models are paired by using it for both.

    Args:
        score: (N, L) finite; higher means more likely positive.
        target: (N, L) of 0 and 1 where counted.
        mask: (N, L) bool, True counts.
        patient: N identifiers.
        replicates: number R.
        seed: of the draws.

    Raises:
        ValueError: shapes differ, or there is no replicate to draw.
        DataError: a score is not finite, or a counted target is neither 0 nor 1.
    """
    s, y, counted = np.asarray(score, dtype=np.float64), np.asarray(target), np.asarray(mask)
    if s.ndim != 2 or not s.shape == y.shape == counted.shape or len(patient) != len(s) or not len(s):
        raise ValueError(
            f"scores {s.shape}, target {y.shape}, mask {counted.shape}, {len(patient)} patients do not fit"
        )
    if counted.dtype != np.bool_:
        raise ValueError(f"mask must be bool, got {counted.dtype}")
    if replicates < 1:
        raise ValueError(f"replicates must be at least 1, got {replicates}")
    require_finite(s, "score")
    if (counted & (y != 0) & (y != 1)).any():
        raise DataError("a counted target is neither 0 nor 1")
    names, cluster = np.unique(np.asarray(patient), return_inverse=True)
    columns = [
        _Ranked(s[counted[:, j], j], y[counted[:, j], j] == 1, cluster[counted[:, j]]) for j in range(s.shape[1])
    ]
    rng = np.random.default_rng(seed)
    drawn = np.empty((replicates, s.shape[1]))
    share = np.full(len(names), 1 / len(names))
    for start in range(0, replicates, CHUNK):
        counts = rng.multinomial(len(names), share, size=min(CHUNK, replicates - start)).astype(np.float64)
        for j, column in enumerate(columns):
            drawn[start : start + len(counts), j] = column.auroc(counts)
    whole = np.ones((1, len(names)))
    return Bootstrap(
        np.array([column.auroc(whole)[0] for column in columns]),
        drawn,
        np.stack([column.without_each(len(names)) for column in columns], axis=1),
    )


class _Ranked:
    """One finding's images, sorted by score once.

    Args:
        score: (n,).
        truth: (n,) bool.
        cluster: (n,) number of each image's patient.
    """

    def __init__(self, score: FloatArray, truth: BoolArray, cluster: npt.NDArray[np.int64]) -> None:
        order = np.argsort(score, kind="stable")
        self.truth, self.cluster = truth[order], cluster[order]
        self.score = score[order]
        # Where each run of equal scores begins.
        self.first = np.flatnonzero(np.diff(self.score, prepend=np.nan) != 0)

    def auroc(self, counts: FloatArray) -> FloatArray:
        """(R, P) how often each patient was drawn -> (R,) AUROC, ties counting half."""
        if not len(self.truth):
            return np.full(len(counts), np.nan)
        weight = counts[:, self.cluster]
        positive = np.add.reduceat(weight * self.truth, self.first, axis=1)
        negative = np.add.reduceat(weight * ~self.truth, self.first, axis=1)
        below = np.cumsum(negative, axis=1) - negative
        pairs = positive.sum(axis=1) * negative.sum(axis=1)
        won = (positive * (below + negative / 2)).sum(axis=1)
        return np.divide(won, pairs, out=np.full(len(counts), np.nan), where=pairs > 0)

    def without_each(self, patients: int) -> FloatArray:
        """(P,) AUROC without each patient: the pairs that a patient takes part in are subtracted from all pairs."""
        wins, losses = _placements(self.score, self.truth)
        positives, negatives = (np.bincount(self.cluster[k], minlength=patients) for k in (self.truth, ~self.truth))
        taken = np.bincount(self.cluster, wins * self.truth + losses * ~self.truth, minlength=patients)
        lost = taken - self._inside(patients, (positives > 0) & (negatives > 0))
        pairs = (positives.sum() - positives) * (negatives.sum() - negatives)
        won = wins[self.truth].sum() - lost
        return np.divide(won, pairs, out=np.full(patients, np.nan), where=pairs > 0)

    def _inside(self, patients: int, mixed: BoolArray) -> FloatArray:
        """Pairs won between images of one and the same patient, which :meth:`without_each` has subtracted twice."""
        inside = np.zeros(patients)
        rows = np.flatnonzero(mixed[self.cluster])
        rows = rows[np.argsort(self.cluster[rows], kind="stable")]
        for group in np.split(rows, np.flatnonzero(np.diff(self.cluster[rows])) + 1):
            if len(group):
                score, truth = self.score[group], self.truth[group]
                inside[self.cluster[group[0]]] = _placements(score, truth)[0][truth].sum()
        return inside


def _placements(score: FloatArray, truth: BoolArray) -> tuple[FloatArray, FloatArray]:
    """For each image the pairs won by positives against it or by it: against all negatives, and against all positives.

    Args:
        score: (n,), in any order.
        truth: (n,) bool.

    Returns:
        ``wins`` (n,): negatives below the image, ties half. ``losses`` (n,): positives above the image, ties half.
    """
    negative, positive = np.sort(score[~truth]), np.sort(score[truth])
    wins = (np.searchsorted(negative, score, "left") + np.searchsorted(negative, score, "right")) / 2
    under = (np.searchsorted(positive, score, "left") + np.searchsorted(positive, score, "right")) / 2
    return wins, len(positive) - under


def _mean_of_defined(values: FloatArray) -> FloatArray:
    """(K, L) -> (K,) mean over the entries that are not NaN; NaN where all are."""
    defined = ~np.isnan(values)
    number = defined.sum(axis=1)
    total = np.where(defined, values, 0.0).sum(axis=1)
    return np.divide(total, number, out=np.full(len(values), np.nan), where=number > 0)


def _bca_tails(tails: FloatArray, estimate: float, drawn: FloatArray, jackknife: FloatArray) -> FloatArray:
    """The quantiles that BCa reads instead of the percentile method's.

    An estimate outside all replicates (an AUROC of 1, say) or a jackknife without spread leaves nothing to correct: the
    percentile method's quantiles stay.
    """
    below = ((drawn < estimate).sum() + (drawn == estimate).sum() / 2) / len(drawn)
    spread = jackknife[~np.isnan(jackknife)]
    spread = spread.mean() - spread if len(spread) else spread
    square = float((spread**2).sum())
    if not 0 < below < 1 or square == 0:
        return tails
    bias = stats.norm.ppf(below)
    acceleration = float((spread**3).sum()) / (6 * square**1.5)
    z = bias + stats.norm.ppf(tails)
    return np.asarray(stats.norm.cdf(bias + z / (1 - acceleration * z)))


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
    placed = [_placements(one, truth) for one in s]
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
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    (area,), ((variance,),) = delong(np.asarray(score)[None], target)
    if not 0 < area < 1:
        return Interval(float(area), float(area), float(area), level)
    centre = np.log(area / (1 - area))
    reach = stats.norm.ppf((1 + level) / 2) * np.sqrt(variance) / (area * (1 - area))
    low, high = 1 / (1 + np.exp(-(centre + np.array([-reach, reach]))))
    return Interval(float(area), float(low), float(high), level)


def delong_difference(
    score: npt.ArrayLike, other: npt.ArrayLike, target: npt.ArrayLike, level: float = 0.95
) -> tuple[Interval, float]:
    """The difference of two models' AUROC on the same images (first minus second), and its two-sided p-value.

    Raises:
        ValueError, DataError: see :func:`delong`; the level is not in (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    area, covariance = delong(np.stack([np.asarray(score), np.asarray(other)]), target)
    difference = float(area[0] - area[1])
    error = float(np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0.0)))
    reach = float(stats.norm.ppf((1 + level) / 2)) * error
    # Two models that rank alike differ by exactly nothing.
    p = 1.0 if error == 0 and difference == 0 else float(2 * stats.norm.sf(abs(difference) / error)) if error else 0.0
    return Interval(difference, difference - reach, difference + reach, level), p


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment of several p-values (Scandinavian Journal of Statistics 1979).

    Args:
        p_values: in [0, 1]; None for a comparison that is undefined, which does not count and stays None.

    Raises:
        ValueError: a p-value is outside [0, 1].
    """
    given = [(p, i) for i, p in enumerate(p_values) if p is not None]
    if any(not 0 <= p <= 1 for p, _ in given):
        raise ValueError(f"p-values must be in [0, 1], got {list(p_values)}")
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(sorted(given)):
        highest = max(highest, min(1.0, (len(given) - rank) * p))
        adjusted[i] = highest
    return adjusted
