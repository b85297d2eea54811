"""Operating points: the probability above which a finding is called present, chosen on validation data only.

Thresholds refer to the uncalibrated probabilities, the sigmoid of the model's logits. A calibration that keeps the
ranking then changes no decision, and can be fitted, replaced or left away without choosing the thresholds anew.

Shapes: N images, L findings.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from mxa.errors import ConfigError
from mxa.evaluation.metrics import FloatArray, require_probability
from mxa.evaluation.scores import IntArray, counted_columns, cut_counts, missing_class
from mxa.labels import LabelSet

RULES = ("youden", "f1", "sensitivity=V", "specificity=V", "cost=V")
"""How rules are written; V is in (0, 1] for a sensitivity or specificity, above 0 for a cost."""

BELOW_ZERO = float(np.nextafter(0.0, -1.0))
"""The highest threshold that even a probability of 0 exceeds."""


@dataclass(frozen=True)
class Rule:
    """How a threshold is chosen.

    Attributes:
        kind: "youden" maximises sensitivity + specificity - 1 (Youden, Cancer 1950). "f1" maximises F1. "sensitivity"
            takes the highest threshold that still reaches a sensitivity of ``value``, so the best specificity there
            is; "specificity" the lowest that reaches a specificity of ``value``, so the best sensitivity. "cost"
            minimises false positives + ``value`` x false negatives: a missed finding costs ``value`` false alarms.
        value: In (0, 1] for "sensitivity" and "specificity", above 0 for "cost"; None for the others.

    Raises:
        ConfigError: If there is no such kind, or the value is missing, superfluous or out of range.
    """

    kind: str
    value: float | None = None

    def __post_init__(self) -> None:
        if not _allowed(self.kind, self.value):
            raise ConfigError(_refusal(self.kind if self.value is None else f"{self.kind}={self.value}"))
        if self.value is not None:
            object.__setattr__(self, "value", float(self.value))

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """Read a rule as :func:`str` writes it, such as "youden" or "sensitivity=0.9".

        Raises:
            ConfigError: If the text is no rule; the message names it and the choices.
        """
        kind, equals, value = text.partition("=")
        try:
            return cls(kind, float(value) if equals else None)
        except (ValueError, ConfigError):
            raise ConfigError(_refusal(text)) from None

    def __str__(self) -> str:
        if self.value is None:
            return self.kind
        return f"{self.kind}={np.format_float_positional(self.value, trim='-')}"


def choose(rule: Rule, probability: npt.ArrayLike, target: npt.ArrayLike) -> float:
    """Choose one finding's threshold; "probability above it" is the decision.

    It lies midway between two neighbouring probabilities; half-way to 0 below the lowest (just below 0 if that is 0),
    if all are to be positive; on the highest, if none is. Where the rule seeks the best of something, the highest of
    equally good thresholds is taken, which gives the fewest false alarms.

    Args:
        rule: What is wanted.
        probability: (N,) in [0, 1], uncalibrated.
        target: (N,) of 0 and 1, both present.

    Returns:
        The threshold, at most 1 and not below :data:`BELOW_ZERO`.

    Raises:
        ValueError: If the shapes are not (N,) twice.
        DataError: If a probability is outside [0, 1], a target is neither 0 nor 1, or one class is missing.
    """
    value, tp, fp = cut_counts(probability, target)
    require_probability(np.asarray(probability, dtype=np.float64))
    return _above(value, _best_cut(rule, tp, fp))


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold per finding, and the rule that they were chosen by.

    Attributes:
        rule: As :func:`str` of the :class:`Rule` writes it.
        findings: L names.
        thresholds: Per finding, for uncalibrated probabilities; None where it is undefined.
        reasons: By finding, why it has no threshold; has no other keys.

    Raises:
        ConfigError: If the rule is none, a finding is repeated, a threshold is no number or out of range, or the
            reasons are not those of the findings without threshold.
    """

    rule: str
    findings: tuple[str, ...]
    thresholds: tuple[float | None, ...]
    reasons: Mapping[str, str]

    def __post_init__(self) -> None:
        Rule.parse(self.rule)
        if len(self.thresholds) != len(self.findings) or len(set(self.findings)) != len(self.findings):
            raise ConfigError(f"an operating point needs one threshold per finding, got {self.findings}")
        for finding, threshold in zip(self.findings, self.thresholds, strict=True):
            if threshold is not None and not (_is_number(threshold) and BELOW_ZERO <= threshold <= 1):
                raise ConfigError(f"the threshold of {finding!r} must be a number in [0, 1] or null, got {threshold!r}")
        without = {f for f, threshold in zip(self.findings, self.thresholds, strict=True) if threshold is None}
        if set(self.reasons) != without:
            raise ConfigError(
                f"an operating point needs a reason for each finding without threshold and for no other, "
                f"but {sorted(without)} have none and {sorted(self.reasons)} have a reason"
            )
        # A later change of the caller's dict must not reach us.
        object.__setattr__(self, "reasons", dict(self.reasons))

    def array(self) -> FloatArray:
        """Return the thresholds as (L,) float64, NaN where undefined."""
        return np.array([np.nan if t is None else t for t in self.thresholds], dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "rule": self.rule,
            "thresholds": dict(zip(self.findings, self.thresholds, strict=True)),
            "reasons": dict(self.reasons),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "OperatingPoint":
        """Build an operating point from what :meth:`to_dict` gave; the findings are in the order of its thresholds.

        Raises:
            ConfigError: If a field is missing, unknown or of the wrong kind.
        """
        if not isinstance(data, Mapping) or set(data) != {"rule", "thresholds", "reasons"}:
            raise ConfigError(f"an operating point needs exactly rule, thresholds and reasons, got {data!r}")
        rule, thresholds, reasons = data["rule"], data["thresholds"], data["reasons"]
        if not isinstance(rule, str):
            raise ConfigError(_refusal(rule))
        if not isinstance(thresholds, Mapping) or not isinstance(reasons, Mapping):
            raise ConfigError("an operating point's thresholds and reasons must each be a mapping by finding")
        if any(not isinstance(reason, str) for reason in reasons.values()):
            raise ConfigError(f"an operating point's reasons must be in words, got {dict(reasons)}")
        return cls(rule, tuple(thresholds), tuple(thresholds.values()), reasons)


def choose_operating_point(
    rule: Rule, probability: npt.ArrayLike, target: npt.ArrayLike, mask: npt.ArrayLike, labels: LabelSet
) -> OperatingPoint:
    """Choose the threshold of every finding, on validation data.

    A finding without counted positives or without counted negatives gets none, with the reason. The probabilities are
    the uncalibrated ones (sigmoid of the logits), so that a calibration that keeps the ranking changes no decision.

    Args:
        rule: What is wanted of each finding.
        probability: (N, L) in [0, 1], uncalibrated.
        target: (N, L) of 0 and 1 where counted, anything elsewhere.
        mask: (N, L) bool; True counts.
        labels: The L findings in column order.

    Raises:
        ValueError: If the shapes differ, are not (N, L), or the mask is not bool.
        DataError: If a probability (counted or not) is outside [0, 1], or a counted target is neither 0 nor 1.
    """
    columns = counted_columns(probability, target, mask, labels)
    require_probability(np.asarray(probability, dtype=np.float64))
    lacking = {finding: missing_class(y) for finding, _, y in columns}
    thresholds = tuple(None if lacking[finding] else choose(rule, p, y) for finding, p, y in columns)
    reasons = {finding: reason for finding, reason in lacking.items() if reason}
    return OperatingPoint(str(rule), labels.findings, thresholds, reasons)


def _best_cut(rule: Rule, tp: IntArray, fp: IntArray) -> int:
    """Return the k of :func:`cut_counts` that the rule wants."""
    positives, negatives = tp[0], fp[0]
    if rule.kind == "sensitivity":
        return int(np.flatnonzero(tp / positives >= rule.value)[-1])
    if rule.kind == "specificity":
        return int(np.flatnonzero((negatives - fp) / negatives >= rule.value)[0])
    fn = positives - tp
    loss = {
        "youden": lambda: fp * positives + fn * negatives,  # (1 - J) x positives x negatives, in whole numbers
        "f1": lambda: (fp + fn) / (2 * tp + fp + fn),  # 1 - F1
        "cost": lambda: fp + rule.value * fn,
    }[rule.kind]()
    # Losses that differ by rounding alone are equal.
    return int(np.flatnonzero(loss <= loss.min() * (1 + 1e-12))[-1])


def _above(value: FloatArray, cut: int) -> float:
    """Return the threshold that exactly the values from ``cut`` on exceed, of (K,) ascending values."""
    if cut == len(value):
        return float(value[-1])
    if cut == 0:
        return float(value[0] / 2) if value[0] > 0 else BELOW_ZERO
    lower, upper = value[cut - 1], value[cut]
    middle = lower + (upper - lower) / 2
    # There may be no number between the two; the midpoint then rounds to either.
    return float(middle if middle < upper else lower)


def _allowed(kind: str, value: object) -> bool:
    if kind in {"youden", "f1"}:
        return value is None
    if not _is_number(value) or value <= 0:
        return False
    return kind == "cost" or (kind in {"sensitivity", "specificity"} and value <= 1)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _refusal(text: object) -> str:
    return (
        f"operating point {str(text)!r} is none of {', '.join(RULES)}; "
        "V is in (0, 1] for a sensitivity or specificity, and above 0 for a cost"
    )
