"""The paper's figures of merit as pure NumPy functions, float64 inside [paper 3.3, 7].

Shapes: N images, L findings. Every function that takes a ``mask`` (N, L) bool counts exactly the elements where it is
True; what stands elsewhere in the target never matters. A quantity that is undefined is never given a value nor
averaged in: it is None (or NaN from :func:`auroc`), and the result says why.

An element is predicted positive when its probability is above 0.5 (not at 0.5), as in the paper's 1[p > 0.5].
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mxa.errors import DataError
from mxa.labels import LabelSet

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class FindingMetrics:
    """One finding's counts and ranking quality.

    Attributes:
        auroc: Area under the ROC curve in [0, 1], or None when it is undefined.
        positives: Counted images that have the finding.
        negatives: Counted images that do not.
        ignored: Images that the mask leaves out.
        reason: Why ``auroc`` is None ("not annotated", "no positives", "no negatives"); None when it is defined.
    """

    auroc: float | None
    positives: int
    negatives: int
    ignored: int
    reason: str | None


@dataclass(frozen=True)
class Evaluation:
    """All figures of one set of predictions.

    Attributes:
        loss: Mean binary cross-entropy over the counted elements, natural logarithm; None when it is infinite.
        accuracy: Share of the counted elements whose prediction at 0.5 equals the target.
        f1_micro: F1 at 0.5 over the pooled elements; None when there is neither a positive nor a predicted positive.
        auroc_micro: AUROC of the pooled elements; None when only one class is counted.
        auroc_macro: Unweighted mean of the findings' AUROC over ``auroc_macro_over``; None when that is empty.
        auroc_macro_over: Names of the findings whose AUROC is defined, in label order.
        images: Number of images N.
        findings: Per finding, in label order.
        reasons: Why a figure above is None, by its attribute name; has no other keys.
    """

    loss: float | None
    accuracy: float
    f1_micro: float | None
    auroc_micro: float | None
    auroc_macro: float | None
    auroc_macro_over: tuple[str, ...]
    images: int
    findings: Mapping[str, FindingMetrics]
    reasons: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types without NaN or infinity.

        The keys are always the same, except that ``reasons`` is added when one of the figures above it is null.
        """
        result: dict[str, Any] = {
            "loss": self.loss,
            "accuracy": self.accuracy,
            "f1_micro": self.f1_micro,
            "auroc_micro": self.auroc_micro,
            "auroc_macro": self.auroc_macro,
            "auroc_macro_over": list(self.auroc_macro_over),
            "images": self.images,
            "findings": {
                name: {
                    "auroc": one.auroc,
                    "positives": one.positives,
                    "negatives": one.negatives,
                    "ignored": one.ignored,
                    "reason": one.reason,
                }
                for name, one in self.findings.items()
            },
        }
        if self.reasons:
            result["reasons"] = dict(self.reasons)
        return result


class _Scores(NamedTuple):
    """What the figures need of the predictions, each (N, L)."""

    rank: FloatArray  # orders the images; any increasing function of the probability
    predicted: BoolArray  # probability above 0.5
    log_p: FloatArray  # log probability of the finding
    log_q: FloatArray  # log probability of its absence


def sigmoid(logit: npt.ArrayLike) -> FloatArray:
    """Return 1 / (1 + exp(-logit)) in float64, without overflow for any finite logit."""
    z = np.asarray(logit, dtype=np.float64)
    e = np.exp(-np.abs(z))
    result: FloatArray = np.where(z >= 0, 1.0, e) / (1.0 + e)
    return result


def auroc(score: npt.ArrayLike, target: npt.ArrayLike) -> float:
    """Return the area under the ROC curve: the chance that a positive outranks a negative, ties counting half.

    This is the Mann-Whitney statistic divided by the number of pairs.

    Args:
        score: (N,) finite; higher means more likely positive. Any increasing function of it gives the same result.
        target: (N,) of 0 and 1.

    Returns:
        A number in [0, 1], or NaN when there is no positive or no negative.

    Raises:
        ValueError: If the shapes are not (N,) twice.
        DataError: If a score is not finite or a target is neither 0 nor 1.
    """
    _, positive, negative = count_by_score(score, target)
    pairs = positive.sum() * negative.sum()
    if pairs == 0:
        return float("nan")
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / pairs)


def roc_curve(score: npt.ArrayLike, target: npt.ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the ROC curve with one point per distinct score, after a start at (0, 0).

    Args:
        score: (N,) finite; higher means more likely positive.
        target: (N,) of 0 and 1, both present.

    Returns:
        False positive rate, true positive rate and threshold, each (distinct scores + 1,). Point k calls positive what
        scores at least ``threshold[k]``; the first threshold is infinity, the last point (1, 1). The trapezoidal area
        below equals :func:`auroc`.

    Raises:
        ValueError: If the shapes are not (N,) twice.
        DataError: If a score is not finite, a target is neither 0 nor 1, or one class is missing.
    """
    value, positive, negative = count_by_score(score, target)
    reason = _undefined(int(positive.sum()), int(negative.sum()))
    if reason:
        raise DataError(f"a ROC curve needs both classes, but there are {reason}")
    true = np.concatenate(([0.0], np.cumsum(positive[::-1])))
    false = np.concatenate(([0.0], np.cumsum(negative[::-1])))
    return false / false[-1], true / true[-1], np.concatenate(([np.inf], value[::-1]))


def log_loss(logit: npt.ArrayLike, target: npt.ArrayLike, mask: npt.ArrayLike) -> float:
    """Return the mean binary cross-entropy over the counted elements, natural logarithm [paper 3.3].

    Args:
        logit: (N, L) finite.
        target: (N, L) in [0, 1] where counted; soft targets are allowed.
        mask: (N, L) bool.

    Returns:
        A finite number of at least 0, computed from the logits so that confident mistakes are not clipped.

    Raises:
        ValueError: If the shapes differ or the mask is not bool.
        DataError: If there is no counted element, a logit is not finite, or a counted target is outside [0, 1].
    """
    z, y, counted = _as_arrays(logit, target, mask)
    require_finite(z, "logit")
    if not ((y >= 0) & (y <= 1))[counted].all():
        raise DataError("a counted target is outside [0, 1]; mask it or map it to a probability first")
    return _mean_cross_entropy(*_log_probabilities(z), y, counted)


def evaluate(logit: npt.ArrayLike, target: npt.ArrayLike, mask: npt.ArrayLike, labels: LabelSet) -> Evaluation:
    """Score logits: all figures of the paper's Table 3 and Table 5 [paper 3.3, 7].

    Images are ranked by their logits, which keeps apart what rounds to the same probability.

    Args:
        logit: (N, L) finite.
        target: (N, L) of 0 and 1 where counted, anything elsewhere.
        mask: (N, L) bool; True counts.
        labels: The L findings in column order.

    Raises:
        ValueError: If the shapes differ, are not (N, L), or the mask is not bool.
        DataError: If a logit is not finite (counted or not), a counted target is neither 0 nor 1, or nothing counts.
    """
    z, y, counted = _as_arrays(logit, target, mask, labels)
    require_finite(z, "logit")
    return _evaluate(_Scores(z, z > 0, *_log_probabilities(z)), y, counted, labels)


def evaluate_probability(
    probability: npt.ArrayLike, target: npt.ArrayLike, mask: npt.ArrayLike, labels: LabelSet
) -> Evaluation:
    """Score probabilities, for predictions of which nothing else is known (such as somebody else's CSV).

    A probability of exactly 0 for a positive or 1 for a negative makes the loss infinite: it is then None, with the
    reason. Nothing is clipped.

    Args:
        probability: (N, L) in [0, 1].
        target: (N, L) of 0 and 1 where counted, anything elsewhere.
        mask: (N, L) bool; True counts.
        labels: The L findings in column order.

    Raises:
        ValueError: If the shapes differ, are not (N, L), or the mask is not bool.
        DataError: If a probability is outside [0, 1], a counted target is neither 0 nor 1, or nothing is counted.
    """
    p, y, counted = _as_arrays(probability, target, mask, labels)
    require_probability(p)
    with np.errstate(divide="ignore"):
        scores = _Scores(p, p > 0.5, np.log(p), np.log1p(-p))
    return _evaluate(scores, y, counted, labels)


def require_finite(value: FloatArray, what: str) -> None:
    """Check that an array of one row per image has no NaN and no infinity; ``what`` names it in the message.

    Raises:
        DataError: If it has; the message says how many and names the first row.
    """
    _refuse(~np.isfinite(value), f"{what} values that are not finite (NaN or infinite)")


def require_probability(probability: FloatArray) -> None:
    """Check that all of an (N, L) array lies in [0, 1].

    Raises:
        DataError: If an element is not finite or outside [0, 1]; the message says how many and names the first row.
    """
    require_finite(probability, "probability")
    _refuse((probability < 0) | (probability > 1), "probabilities outside [0, 1]")


def count_by_score(score: npt.ArrayLike, target: npt.ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the distinct scores, ascending, and how many positives and negatives have each.

    Args:
        score: (N,) finite.
        target: (N,) of 0 and 1.

    Returns:
        Three arrays of one element per distinct score: the score, its positives and its negatives (whole numbers).

    Raises:
        ValueError: If the shapes are not (N,) twice.
        DataError: If a score is not finite or a target is neither 0 nor 1.
    """
    s, y = np.asarray(score, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if s.ndim != 1 or s.shape != y.shape:
        raise ValueError(f"score and target must both be (N,), got {s.shape} and {y.shape}")
    require_finite(s, "score")
    _refuse((y != 0) & (y != 1), "targets that are neither 0 nor 1")
    order = np.argsort(s)
    s, y = s[order], y[order]
    first = np.flatnonzero(np.diff(s, prepend=np.nan) != 0)
    if len(first) == 0:
        return s, y, y
    positive = np.add.reduceat(y, first)
    return s[first], positive, np.diff(first, append=len(s)) - positive


def _evaluate(scores: _Scores, target: FloatArray, counted: BoolArray, labels: LabelSet) -> Evaluation:
    _refuse(counted & (target != 0) & (target != 1), "counted targets that are neither 0 nor 1")
    truth = target == 1
    findings = {
        name: _finding(scores.rank[counted[:, j], j], truth[counted[:, j], j], len(truth))
        for j, name in enumerate(labels)
    }
    defined = {name: one.auroc for name, one in findings.items() if one.auroc is not None}
    pooled = _finding(scores.rank[counted], truth[counted], truth.size)
    loss = _mean_cross_entropy(scores.log_p, scores.log_q, target, counted)
    f1 = _f1(scores.predicted[counted], truth[counted])

    reasons: dict[str, str] = {}
    if not np.isfinite(loss):
        impossible = counted & np.isneginf(np.where(truth, scores.log_p, scores.log_q))
        reasons["loss"] = f"infinite: {impossible.sum()} probabilities of exactly 0 for a positive or 1 for a negative"
    if f1 is None:
        reasons["f1_micro"] = "no positives and no predicted positives"
    if pooled.reason is not None:
        reasons["auroc_micro"] = pooled.reason
    if not defined:
        reasons["auroc_macro"] = "no finding has both positives and negatives"
    return Evaluation(
        loss=loss if np.isfinite(loss) else None,
        accuracy=float((scores.predicted == truth)[counted].mean()),
        f1_micro=f1,
        auroc_micro=pooled.auroc,
        auroc_macro=float(np.mean(list(defined.values()))) if defined else None,
        auroc_macro_over=tuple(defined),
        images=len(truth),
        findings=findings,
        reasons=reasons,
    )


def _finding(rank: FloatArray, truth: BoolArray, total: int) -> FindingMetrics:
    positives = int(truth.sum())
    negatives = len(truth) - positives
    reason = _undefined(positives, negatives)
    area = auroc(rank, truth) if reason is None else None
    return FindingMetrics(area, positives, negatives, total - len(truth), reason)


def _undefined(positives: int, negatives: int) -> str | None:
    if positives + negatives == 0:
        return "not annotated"
    if positives == 0:
        return "no positives"
    return "no negatives" if negatives == 0 else None


def _f1(predicted: BoolArray, truth: BoolArray) -> float | None:
    denominator = int(predicted.sum()) + int(truth.sum())
    return 2 * int((predicted & truth).sum()) / denominator if denominator else None


def _log_probabilities(z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return log sigmoid(z) and log(1 - sigmoid(z)), exact in both tails."""
    return -np.logaddexp(0.0, -z), -np.logaddexp(0.0, z)


def _mean_cross_entropy(log_p: FloatArray, log_q: FloatArray, target: FloatArray, counted: BoolArray) -> float:
    log_p, log_q, target = log_p[counted], log_q[counted], target[counted]
    # 0 * log(0) is 0 here, while float arithmetic makes it NaN.
    with np.errstate(invalid="ignore"):
        gain = np.where(target > 0, target * log_p, 0.0) + np.where(target < 1, (1 - target) * log_q, 0.0)
    return float(np.abs(gain.mean()))  # the mean is never above 0; abs also turns -0.0 into 0.0


def _as_arrays(
    value: npt.ArrayLike, target: npt.ArrayLike, mask: npt.ArrayLike, labels: LabelSet | None = None
) -> tuple[FloatArray, FloatArray, BoolArray]:
    v, y, counted = np.asarray(value, dtype=np.float64), np.asarray(target, dtype=np.float64), np.asarray(mask)
    if v.ndim != 2 or not v.shape == y.shape == counted.shape:
        raise ValueError(f"predictions, target and mask must all be (N, L), got {v.shape}, {y.shape}, {counted.shape}")
    if labels is not None and v.shape[1] != len(labels):
        raise ValueError(f"predictions have {v.shape[1]} columns, but {labels.name} has {len(labels)} findings")
    # An integer mask would be taken for indices.
    if counted.dtype != np.bool_:
        raise ValueError(f"mask must be bool, got {counted.dtype}")
    if len(v) == 0:
        raise DataError("there are no images to evaluate")
    if not counted.any():
        raise DataError(
            f"none of the {counted.size} labels counts: all are masked out, so there is nothing to evaluate"
        )
    return v, y, counted


def _refuse(bad: BoolArray, what: str) -> None:
    if bad.any():
        row = int(np.argwhere(bad)[0, 0])
        raise DataError(f"{bad.sum()} of {bad.size} elements are {what}; the first is in row {row}, counting from 0")
