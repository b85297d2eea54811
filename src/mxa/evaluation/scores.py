"""Figures of merit of one finding beyond its AUROC, float64 inside.

Shapes: N images, of which only the counted ones are given; :func:`counted_columns` picks them out of (N, L) arrays. A
target is 0 or 1. An image is called positive when its probability is above the threshold, not at it. A quantity that is
undefined is NaN or None, never a number.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mxa.errors import ConfigError, DataError
from mxa.evaluation.metrics import FloatArray, count_by_score, require_probability
from mxa.labels import LabelSet

IntArray = npt.NDArray[np.int64]


def average_precision(score: npt.ArrayLike, target: npt.ArrayLike) -> float:
    """Return the average precision: the sum over thresholds of the gain in recall times the precision.

    One threshold per distinct score and no interpolation, as scikit-learn's ``average_precision_score``. Chance level
    is the prevalence.

    Args:
        score: (N,) finite; higher means more likely positive. Any increasing function of it gives the same result.
        target: (N,) of 0 and 1.

    Returns:
        A number in (0, 1], or NaN when there is no positive.

    Raises:
        ValueError: If the shapes are not (N,) twice.
        DataError: If a score is not finite or a target is neither 0 nor 1.
    """
    _, positive, negative = count_by_score(score, target)
    if not positive.any():
        return float("nan")
    _, precision = _recall_and_precision(positive, negative)
    return float((positive[::-1] * precision).sum() / positive.sum())


def pr_curve(score: npt.ArrayLike, target: npt.ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the precision-recall curve with one point per distinct score and no invented point at recall 0.

    Args:
        score: (N,) finite; higher means more likely positive.
        target: (N,) of 0 and 1, with a positive.

    Returns:
        Recall (never falling), precision and threshold (falling), each (distinct scores,). Point k calls positive what
        scores at least ``threshold[k]``; the last recall is 1 and the last precision the prevalence.

    Raises:
        ValueError: If the shapes are not (N,) twice.
        DataError: If a score is not finite, a target is neither 0 nor 1, or there is no positive.
    """
    value, positive, negative = count_by_score(score, target)
    if not positive.any():
        raise DataError("a precision-recall curve needs positives, but there are none")
    return (*_recall_and_precision(positive, negative), value[::-1])


def brier(probability: npt.ArrayLike, target: npt.ArrayLike) -> float:
    """Return the Brier score, the mean squared difference of probability and target (Brier, 1950).

    Args:
        probability: (N,) in [0, 1].
        target: (N,) of 0 and 1.

    Returns:
        A number in [0, 1], 0 is best; NaN for N = 0.

    Raises:
        ValueError: If the shapes are not (N,) twice.
        DataError: If a probability is outside [0, 1] or a target is neither 0 nor 1.
    """
    value, positive, negative = _count_by_probability(probability, target)
    if not len(value):
        return float("nan")
    return float((positive * (1 - value) ** 2 + negative * value**2).sum() / (positive + negative).sum())


@dataclass(frozen=True, eq=False)
class Reliability:
    """A reliability diagram of B bins, by ascending probability.

    Attributes:
        predicted: (B,) mean probability in each bin.
        observed: (B,) share of positives in each bin.
        count: (B,) images in each bin, at least 1.
    """

    predicted: FloatArray
    observed: FloatArray
    count: IntArray


def reliability(probability: npt.ArrayLike, target: npt.ArrayLike, bins: int = 15) -> Reliability:
    """Compare probabilities with what was observed, in bins of equally many images.

    The images are sorted by probability and cut at every N / ``bins`` images. Equal probabilities stay together, in the
    bin in which they begin; bins that this leaves empty are left out, so there may be fewer than ``bins``.

    Args:
        probability: (N,) in [0, 1].
        target: (N,) of 0 and 1.
        bins: Number of bins wanted, at least 1.

    Raises:
        ValueError: If the shapes are not (N,) twice.
        DataError: If a probability is outside [0, 1] or a target is neither 0 nor 1.
        ConfigError: If ``bins`` is below 1.
    """
    if bins < 1:
        raise ConfigError(f"bins must be at least 1, got {bins}")
    value, positive, negative = _count_by_probability(probability, target)
    images = (positive + negative).astype(np.int64)
    if not len(images):
        return Reliability(value, positive, images)
    begins = np.cumsum(images) - images
    first = np.flatnonzero(np.diff(begins * bins // images.sum(), prepend=-1))
    count = np.add.reduceat(images, first)
    return Reliability(np.add.reduceat(images * value, first) / count, np.add.reduceat(positive, first) / count, count)


def calibration_error(probability: npt.ArrayLike, target: npt.ArrayLike, bins: int = 15) -> float:
    """Return the expected calibration error over bins of equally many images.

    This is the mean distance of observed share and predicted probability in the bins of :func:`reliability`, weighted
    by their images (Naeini et al., AAAI 2015; equal-mass bins as in Nguyen and O'Connor, EMNLP 2015).

    Args:
        probability: (N,) in [0, 1].
        target: (N,) of 0 and 1.
        bins: Number of bins wanted, at least 1.

    Returns:
        A number in [0, 1], 0 is best; NaN for N = 0.

    Raises:
        ValueError: If the shapes are not (N,) twice.
        DataError: If a probability is outside [0, 1] or a target is neither 0 nor 1.
        ConfigError: If ``bins`` is below 1.
    """
    found = reliability(probability, target, bins)
    if not len(found.count):
        return float("nan")
    return float((found.count * np.abs(found.observed - found.predicted)).sum() / found.count.sum())


@dataclass(frozen=True)
class Confusion:
    """The four counts of a decision, and their ratios; a ratio is None where its denominator is 0.

    Attributes:
        tp: Positives called positive.
        fp: Negatives called positive.
        fn: Positives called negative.
        tn: Negatives called negative.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def sensitivity(self) -> float | None:
        """Share of the positives that are called positive."""
        return self._value("sensitivity")

    @property
    def specificity(self) -> float | None:
        """Share of the negatives that are called negative."""
        return self._value("specificity")

    @property
    def ppv(self) -> float | None:
        """Positive predictive value (precision): share of those called positive that are."""
        return self._value("ppv")

    @property
    def npv(self) -> float | None:
        """Negative predictive value: share of those called negative that are."""
        return self._value("npv")

    @property
    def accuracy(self) -> float | None:
        """Share of the images that are called what they are."""
        return self._value("accuracy")

    @property
    def f1(self) -> float | None:
        """Harmonic mean of sensitivity and positive predictive value."""
        return self._value("f1")

    def reason(self, name: str) -> str | None:
        """Say why a ratio is None; None when it has a value.

        Args:
            name: Name of one of the six properties.

        Raises:
            ValueError: If there is no such property.
        """
        _, denominator, reason = self._ratio(name)
        return None if denominator else reason

    def _value(self, name: str) -> float | None:
        numerator, denominator, _ = self._ratio(name)
        return numerator / denominator if denominator else None

    def _ratio(self, name: str) -> tuple[int, int, str]:
        """Numerator, denominator, and what it means when the denominator is 0."""
        tp, fp, fn, tn = self.tp, self.fp, self.fn, self.tn
        ratios = {
            "sensitivity": (tp, tp + fn, "no positives"),
            "specificity": (tn, tn + fp, "no negatives"),
            "ppv": (tp, tp + fp, "nothing predicted positive"),
            "npv": (tn, tn + fn, "nothing predicted negative"),
            "accuracy": (tp + tn, tp + fp + fn + tn, "no images"),
            "f1": (2 * tp, 2 * tp + fp + fn, "no positives and none predicted"),
        }
        if name not in ratios:
            raise ValueError(f"a confusion matrix has no {name!r}; choose from {', '.join(ratios)}")
        return ratios[name]


def confusion(probability: npt.ArrayLike, target: npt.ArrayLike, threshold: float) -> Confusion:
    """Count right and wrong decisions at a threshold.

    Args:
        probability: (N,) in [0, 1].
        target: (N,) of 0 and 1.
        threshold: Called positive is what lies above it, not at it.

    Raises:
        ValueError: If the shapes are not (N,) twice or the threshold is NaN.
        DataError: If a probability is outside [0, 1] or a target is neither 0 nor 1.
    """
    if np.isnan(threshold):
        raise ValueError("the threshold is NaN, so nothing can be decided; leave the finding out")
    value, positive, negative = _count_by_probability(probability, target)
    called = value > threshold
    return Confusion(
        tp=int(positive[called].sum()),
        fp=int(negative[called].sum()),
        fn=int(positive[~called].sum()),
        tn=int(negative[~called].sum()),
    )


def sensitivity_at(specificity: float, score: npt.ArrayLike, target: npt.ArrayLike) -> float:
    """Return the highest sensitivity among the thresholds whose specificity is at least the one wanted.

    Nothing is interpolated: each figure is that of a threshold which exists.

    Args:
        specificity: Lowest specificity allowed, in [0, 1].
        score: (N,) finite; higher means more likely positive.
        target: (N,) of 0 and 1, both present.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: If the shapes are not (N,) twice.
        DataError: If a score is not finite, a target is neither 0 nor 1, or one class is missing.
        ConfigError: If ``specificity`` is not in [0, 1].
    """
    _require_rate(specificity, "specificity")
    _, tp, fp = cut_counts(score, target)
    return float((tp / tp[0])[(fp[0] - fp) / fp[0] >= specificity].max())


def specificity_at(sensitivity: float, score: npt.ArrayLike, target: npt.ArrayLike) -> float:
    """Return the highest specificity among the thresholds whose sensitivity is at least the one wanted.

    Nothing is interpolated: each figure is that of a threshold which exists.

    Args:
        sensitivity: Lowest sensitivity allowed, in [0, 1].
        score: (N,) finite; higher means more likely positive.
        target: (N,) of 0 and 1, both present.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: If the shapes are not (N,) twice.
        DataError: If a score is not finite, a target is neither 0 nor 1, or one class is missing.
        ConfigError: If ``sensitivity`` is not in [0, 1].
    """
    _require_rate(sensitivity, "sensitivity")
    _, tp, fp = cut_counts(score, target)
    return float(((fp[0] - fp) / fp[0])[tp / tp[0] >= sensitivity].max())


def cut_counts(score: npt.ArrayLike, target: npt.ArrayLike) -> tuple[FloatArray, IntArray, IntArray]:
    """Return every way to cut the images in two by their score.

    Args:
        score: (N,) finite; higher means more likely positive.
        target: (N,) of 0 and 1, both present.

    Returns:
        The K distinct scores, ascending, and two arrays of K + 1 counts: the positives and the negatives among the
        images with one of the scores ``[k:]``. Element 0 counts all images, element K none.

    Raises:
        ValueError: If the shapes are not (N,) twice.
        DataError: If a score is not finite, a target is neither 0 nor 1, or one class is missing.
    """
    value, positive, negative = count_by_score(score, target)
    reason = missing_class(target)
    if reason:
        raise DataError(f"an operating point needs positives and negatives: {reason}")
    return value, _from_above(positive), _from_above(negative)


def missing_class(target: npt.ArrayLike) -> str | None:
    """Say which class an (N,) target of 0 and 1 lacks: "not annotated", "no positives", "no negatives"; else None."""
    y = np.asarray(target)
    if not len(y):
        return "not annotated"
    if not y.any():
        return "no positives"
    return "no negatives" if y.all() else None


def counted_columns(
    value: npt.ArrayLike, target: npt.ArrayLike, mask: npt.ArrayLike, labels: LabelSet
) -> list[tuple[str, FloatArray, FloatArray]]:
    """Take (N, L) arrays apart into findings, and keep the counted images of each.

    Args:
        value: (N, L) scores, probabilities or logits.
        target: (N, L) of 0 and 1 where counted, anything elsewhere.
        mask: (N, L) bool; True counts.
        labels: The L findings in column order.

    Returns:
        Per finding its name, its counted values (n,) and their targets (n,); n may be 0.

    Raises:
        ValueError: If the shapes differ, are not (N, L), or the mask is not bool.
        DataError: If a counted target is neither 0 nor 1.
    """
    v, y, counted = np.asarray(value, dtype=np.float64), np.asarray(target, dtype=np.float64), np.asarray(mask)
    if v.ndim != 2 or v.shape[1] != len(labels) or not v.shape == y.shape == counted.shape:
        raise ValueError(
            f"predictions, target and mask must all be (N, {len(labels)}) for the findings of {labels.name}, "
            f"got {v.shape}, {y.shape}, {counted.shape}"
        )
    # An integer mask would be taken for indices.
    if counted.dtype != np.bool_:
        raise ValueError(f"mask must be bool, got {counted.dtype}")
    bad = np.argwhere(counted & (y != 0) & (y != 1))
    if len(bad):
        row, column = bad[0]
        raise DataError(
            f"{len(bad)} counted targets are neither 0 nor 1; the first is {y[row, column]:g} in row {row}, "
            f"counting from 0, {labels.findings[column]}; mask it"
        )
    return [(name, v[kept, j], y[kept, j]) for j, (name, kept) in enumerate(zip(labels, counted.T, strict=True))]


def _recall_and_precision(positive: FloatArray, negative: FloatArray) -> tuple[FloatArray, FloatArray]:
    """From counts by ascending score to recall and precision by falling threshold."""
    tp, fp = np.cumsum(positive[::-1]), np.cumsum(negative[::-1])
    return tp / tp[-1], tp / (tp + fp)


def _count_by_probability(
    probability: npt.ArrayLike, target: npt.ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    counts = count_by_score(probability, target)
    require_probability(np.asarray(probability, dtype=np.float64))
    return counts


def _from_above(count: FloatArray) -> IntArray:
    """(K,) -> (K + 1,) sums of the elements from each place on."""
    return np.append(np.cumsum(count[::-1])[::-1], 0).astype(np.int64)


def _require_rate(value: float, name: str) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"the {name} wanted must be in [0, 1], got {value}")
