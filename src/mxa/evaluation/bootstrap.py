"""How sure a figure is: the patient-clustered bootstrap.

Images of one patient are alike, so patients are drawn, not images (Field and Welsh, "Bootstrapping clustered data",
JRSS B 2007). A replicate never copies rows: it weights them by how often their patient was drawn. All that is scored
with one and the same :class:`Draws` is paired: replicate r of two models, or of two groups of images, is of the same
patients, so that differences have honest intervals.

Shapes: N images, L findings, R replicates, P patients. NaN stands for undefined (a replicate without positives, say)
and is never given a value.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from mxa.errors import DataError
from mxa.evaluation.intervals import Interval, exact_rate, require_level
from mxa.evaluation.metrics import BoolArray, FloatArray, require_finite
from mxa.evaluation.ranked import Ranked

CHUNK = 64
"""Replicates that are weighted at once, at most."""
WEIGHTS = 4_000_000
"""Weights that are held at once for each processor; fewer replicates go together where there are many images."""
REPLICATES = 2000
SPREAD = 1e-12
"""Replicates that differ by less differ by rounding alone."""
ONE_PATIENT, UNDEFINED = "one patient has no interval", "undefined in every replicate"
"""Why a figure that is defined has no interval."""
ALL_AT_AN_END = "every rate is 0 or 1: no interval"
"""Why a mean of rates, or a difference of two, has none: it is the same in every replicate."""


@dataclass(frozen=True)
class Bootstrap:
    """A figure per finding on the data and on patient-clustered replicates of them.

    Attributes:
        estimate: (L,), NaN where undefined.
        replicates: (R, L), NaN where undefined.
        jackknife: (P, L) the figure without each patient, for BCa, NaN where undefined; or None where it is not known,
            and only percentile intervals can be had.
        fixed: (L,) bool, where there is nothing to resample, as the cases that the figure depends on are of one
            patient: it is the same in every replicate, which says nothing of how sure it is. None is nowhere.
    """

    estimate: FloatArray
    replicates: FloatArray
    jackknife: FloatArray | None = None
    fixed: BoolArray | None = None

    @property
    def at_an_end(self) -> BoolArray:
        """(L,) where the estimate is exactly 0 or 1: a rate is so in every replicate then."""
        return np.isin(self.estimate, (0, 1))

    def macro(self) -> "Bootstrap":
        """The mean over the findings whose figure is defined on the data, as a single column.

        A replicate's mean is over those of them that are defined in it; without any it is undefined. What is fixed is
        taken as it is, unless all are.
        """
        used = ~np.isnan(self.estimate)
        jackknife = None if self.jackknife is None else _mean_of_defined(self.jackknife[:, used])[:, None]
        return Bootstrap(
            _mean_of_defined(self.estimate[None, used]),
            _mean_of_defined(self.replicates[:, used])[:, None],
            jackknife,
            np.atleast_1d(self._where_fixed()[used].all()),
        )

    def take(self, columns: Sequence[int]) -> "Bootstrap":
        """Some of the findings."""
        picked = list(columns)
        jackknife = None if self.jackknife is None else self.jackknife[:, picked]
        return Bootstrap(self.estimate[picked], self.replicates[:, picked], jackknife, self._where_fixed()[picked])

    def minus(self, other: "Bootstrap") -> "Bootstrap":
        """The paired difference; both must come from the same :class:`Draws`. It is fixed where either is.

        Raises:
            ValueError: the shapes differ, so that they cannot.
        """
        if self.replicates.shape != other.replicates.shape or (self.jackknife is None) != (other.jackknife is None):
            raise ValueError("only bootstraps of one figure from the same draws can be paired")
        jackknife = None
        if self.jackknife is not None and other.jackknife is not None:
            if self.jackknife.shape != other.jackknife.shape:
                raise ValueError("only bootstraps of one figure from the same draws can be paired")
            jackknife = self.jackknife - other.jackknife
        fixed = self._where_fixed() | other._where_fixed()
        return Bootstrap(self.estimate - other.estimate, self.replicates - other.replicates, jackknife, fixed)

    def interval(self, column: int = 0, level: float = 0.95, method: str = "bca") -> Interval | None:
        """The interval of one column, or None where its estimate is undefined or :meth:`why_none` says why.

        Args:
            column: a finding.
            level: coverage, in (0, 1).
            method: "bca" (bias-corrected and accelerated; Efron, JASA 1987) or "percentile". Without a jackknife
                "bca" corrects the bias alone.

        Raises:
            ValueError: the level or the method is impossible.
        """
        require_level(level)
        if method not in {"bca", "percentile"}:
            raise ValueError(f"method must be bca or percentile, got {method!r}")
        estimate = float(self.estimate[column])
        drawn = self.replicates[:, column]
        defined = drawn[~np.isnan(drawn)]
        if np.isnan(estimate) or self.why_none(column):
            return None
        tails = np.array([(1 - level) / 2, (1 + level) / 2])
        if method == "bca":
            tails = _bca_tails(tails, estimate, defined, None if self.jackknife is None else self.jackknife[:, column])
        low, high = np.quantile(defined, tails)
        return Interval(estimate, float(low), float(high), level, 1 - len(defined) / len(drawn))

    def why_none(self, column: int = 0) -> str | None:
        """Why a column whose estimate is defined has neither interval nor p-value: one patient, or no replicate.

        None where it has them, or is undefined itself.
        """
        if np.isnan(self.estimate[column]):
            return None
        if self._where_fixed()[column]:
            return ONE_PATIENT
        return UNDEFINED if np.isnan(self.replicates[:, column]).all() else None

    def p_value(self, column: int = 0) -> float | None:
        """Two-sided bootstrap p-value of "the column is 0", for a difference; None where there is no interval either.

        Twice the smaller share of the replicates on either side of 0, at least 2 / (R + 1).
        """
        drawn = self.replicates[:, column]
        defined = drawn[~np.isnan(drawn)]
        if np.isnan(self.estimate[column]) or self.why_none(column):
            return None
        smaller = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
        return min(1.0, 2 * (smaller + 1) / (len(defined) + 1))

    def _where_fixed(self) -> BoolArray:
        return np.zeros(self.estimate.shape, dtype=np.bool_) if self.fixed is None else self.fixed


def mean_over_runs(runs: Sequence[Bootstrap]) -> Bootstrap:
    """The mean of several runs' figures, replicate by replicate; all must come from the same :class:`Draws`.

    It is fixed where all are.
    """
    jackknives = [run.jackknife for run in runs if run.jackknife is not None]
    return Bootstrap(
        np.mean([run.estimate for run in runs], axis=0),
        np.mean([run.replicates for run in runs], axis=0),
        np.mean(jackknives, axis=0) if len(jackknives) == len(runs) else None,
        np.all([run._where_fixed() for run in runs], axis=0),
    )


class Draws:
    """R drawings of P patients with replacement.

    The same patients (in any order of rows), number and seed give the same drawings.

    Args:
        patient: N identifiers, one per image.
        replicates: number R.
        seed: of the drawings.

    Raises:
        ValueError: there is no image, or no replicate to draw.
    """

    def __init__(self, patient: Sequence[str], *, replicates: int = REPLICATES, seed: int = 0) -> None:
        if not len(patient):
            raise ValueError("there is no image to draw")
        if replicates < 1:
            raise ValueError(f"replicates must be at least 1, got {replicates}")
        names, self.cluster = np.unique(np.asarray(patient), return_inverse=True)
        self.patients, self.replicates, self.images = len(names), replicates, len(patient)
        share = np.full(self.patients, 1 / self.patients)
        drawn = np.random.default_rng(seed).multinomial(self.patients, share, size=replicates)
        self._counts = drawn.astype(np.min_scalar_type(int(drawn.max())))  # a byte each, as none is drawn 256 times

    def chunks(self, elements: int | None = None) -> Iterator[tuple[slice, FloatArray]]:
        """A few replicates at a time: which, and how often each patient was drawn (r, P).

        Args:
            elements: how many are weighted in each replicate; None is the number of images.
        """
        together = max(1, min(CHUNK, WEIGHTS // (elements or self.images)))
        for start in range(0, self.replicates, together):
            part = slice(start, min(start + together, self.replicates))
            yield part, self._counts[part].astype(np.float64)

    def auroc(self, score: npt.ArrayLike, target: npt.ArrayLike, mask: npt.ArrayLike) -> Bootstrap:
        """AUROC per finding.

        Args:
            score: (N, L) finite; higher means more likely positive.
            target: (N, L) of 0 and 1 where counted.
            mask: (N, L) bool, True counts.

        Raises:
            ValueError: shapes differ.
            DataError: a score is not finite, or a counted target is neither 0 nor 1.
        """
        columns = self.ranked(score, target, mask)
        jackknife = np.stack([column.auroc_without_each(self.patients) for column in columns], axis=1)
        return self._ranking(columns, [column.auroc for column in columns], jackknife)

    def auroc_micro(self, score: npt.ArrayLike, target: npt.ArrayLike, mask: npt.ArrayLike) -> Bootstrap:
        """AUROC of all findings' labels pooled, as a single column; arguments and errors as :meth:`auroc`."""
        parts = self.ranked(score, target, mask)
        pooled = Ranked(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("score", "truth", "cluster")))
        jackknife = pooled.auroc_without_each(self.patients)[:, None]
        return self._ranking([pooled], [pooled.auroc], jackknife, len(pooled.score))

    def average_precision(self, score: npt.ArrayLike, target: npt.ArrayLike, mask: npt.ArrayLike) -> Bootstrap:
        """Average precision per finding; arguments and errors as :meth:`auroc`. There is no jackknife."""
        columns = self.ranked(score, target, mask)
        return self._ranking(columns, [column.average_precision for column in columns])

    def rate(self, hit: npt.ArrayLike, counted: npt.ArrayLike) -> Bootstrap:
        """A mean over images per finding, such as sensitivity (hits among the positives) or Brier score.

        Args:
            hit: (N, L) what is averaged: bool, or any finite numbers where counted.
            counted: (N, L) bool, over which images.

        Raises:
            ValueError: shapes differ, or ``counted`` is not bool.
            DataError: a counted number is not finite.
        """
        h, c = np.asarray(hit, dtype=np.float64), np.asarray(counted)
        self._require_shape(h, c)
        _require_bool(c)
        h = np.where(c, h, 0.0)
        require_finite(h, "counted")
        over = np.zeros((2, self.patients, h.shape[1]))
        for total, value in zip(over, (h, c.astype(np.float64)), strict=True):
            np.add.at(total, self.cluster, value)
        drawn = np.concatenate([np.stack([counts @ total for total in over]) for _, counts in self.chunks()], axis=1)
        whole = over.sum(axis=1)
        fixed = (over[1] > 0).sum(axis=0) < 2
        return Bootstrap(_ratio(whole), _ratio(drawn), _ratio(whole[:, None] - over), fixed)

    def share_interval(
        self, share: Bootstrap, counted: BoolArray, column: int = 0, level: float = 0.95
    ) -> Interval | None:
        """The interval of a :meth:`rate` of yes and no.

        A share of exactly 0 or 1 is so in every replicate: in their place it has its exact interval, one trial per
        patient.

        Args:
            share: what :meth:`rate` gave.
            counted: (N, L) bool, what it was given.
            column: a finding.
            level: coverage, in (0, 1).

        Returns:
            None where the share is undefined, or :meth:`Bootstrap.why_none` says why.

        Raises:
            ValueError: the level is impossible.
        """
        if not share.at_an_end[column]:
            return share.interval(column, level)
        trials = len(np.unique(self.cluster[counted[:, column]]))
        return exact_rate(round(share.estimate[column]) * trials, trials, level)

    def ranked(self, score: npt.ArrayLike, target: npt.ArrayLike, mask: npt.ArrayLike) -> list[Ranked]:
        """The findings' counted images in the order of their scores; arguments and errors as :meth:`auroc`."""
        s, y, counted = np.asarray(score, dtype=np.float64), np.asarray(target), np.asarray(mask)
        self._require_shape(s, y, counted)
        _require_bool(counted)
        require_finite(s, "score")
        if (counted & (y != 0) & (y != 1)).any():
            raise DataError("a counted target is neither 0 nor 1")
        return [Ranked(s[kept, j], y[kept, j] == 1, self.cluster[kept]) for j, kept in enumerate(np.transpose(counted))]

    def _require_shape(self, *arrays: npt.NDArray[np.generic]) -> None:
        shapes = {array.shape for array in arrays}
        if len(shapes) > 1 or arrays[0].ndim != 2 or len(arrays[0]) != self.images:
            raise ValueError(f"arrays of {sorted(shapes)} do not fit {self.images} images and each other")

    def _ranking(
        self,
        columns: Sequence[Ranked],
        figures: Sequence[Callable[[FloatArray], FloatArray]],
        jackknife: FloatArray | None = None,
        elements: int | None = None,
    ) -> Bootstrap:
        """A figure of each ranking. Fixed are those that never vary because one of their sides is of one patient."""
        estimate, drawn = self._replicate(figures, elements)
        alone = np.array([min(column.patients) < 2 for column in columns])
        return Bootstrap(estimate, drawn, jackknife, alone & _without_spread(drawn))

    def _replicate(
        self, figures: Sequence[Callable[[FloatArray], FloatArray]], elements: int | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Estimate (L,) and replicates (R, L); findings are independent, so each processor takes some."""
        drawn = np.empty((self.replicates, len(figures)))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for part, counts in self.chunks(elements):
                drawn[part] = np.stack(list(pool.map(_call, figures, [counts] * len(figures))), axis=1)
        whole = np.ones((1, self.patients))
        return np.array([figure(whole)[0] for figure in figures]), drawn


def _require_bool(mask: npt.NDArray[np.generic]) -> None:
    if mask.dtype != np.bool_:
        raise ValueError(f"mask must be bool, got {mask.dtype}")


def _call(figure: Callable[[FloatArray], FloatArray], counts: FloatArray) -> FloatArray:
    return figure(counts)


def _ratio(parts: FloatArray) -> FloatArray:
    """Numerator and denominator, stacked -> their quotient, NaN where there is nothing to divide by."""
    numerator, denominator = parts
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def _without_spread(drawn: FloatArray) -> BoolArray:
    """(R, L) -> (L,) whether the defined replicates of a column are all the same, up to rounding."""
    undefined = np.isnan(drawn)
    low, high = (np.where(undefined, end, drawn) for end in (np.inf, -np.inf))
    return high.max(axis=0) - low.min(axis=0) < SPREAD


def _mean_of_defined(values: FloatArray) -> FloatArray:
    """(K, L) -> (K,) mean over the entries that are not NaN; NaN where all are."""
    defined = ~np.isnan(values)
    number = defined.sum(axis=1)
    total = np.where(defined, values, 0.0).sum(axis=1)
    return np.divide(total, number, out=np.full(len(values), np.nan), where=number > 0)


def _bca_tails(tails: FloatArray, estimate: float, drawn: FloatArray, jackknife: FloatArray | None) -> FloatArray:
    """The quantiles that BCa reads instead of the percentile method's.

    An estimate outside all replicates (an AUROC of 1, say) leaves nothing to correct: the percentile method's quantiles
    stay. A jackknife without spread accelerates nothing.
    """
    below = ((drawn < estimate).sum() + (drawn == estimate).sum() / 2) / len(drawn)
    if not 0 < below < 1:
        return tails
    bias = stats.norm.ppf(below)
    acceleration = 0.0
    if jackknife is not None:
        spread = jackknife[~np.isnan(jackknife)]
        spread = spread.mean() - spread if len(spread) else spread
        square = float((spread**2).sum())
        if square > 0:
            acceleration = float((spread**3).sum()) / (6 * square**1.5)
    z = bias + stats.norm.ppf(tails)
    return np.asarray(stats.norm.cdf(bias + z / (1 - acceleration * z)))
