"""All figures of merit of one set of cases, per finding, pooled (micro) and averaged (macro).

Every cell has a value or the reason why it has none; a macro figure is the mean over the findings that have a value and
names them. Figures at a threshold are undefined where the operating point has no threshold for the finding.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mxa.errors import ConfigError
from mxa.evaluation.cases import Cases
from mxa.evaluation.metrics import BoolArray, FloatArray, auroc
from mxa.evaluation.scores import (
    Confusion,
    average_precision,
    brier,
    calibration_error,
    missing_class,
    sensitivity_at,
    specificity_at,
)

AT_THRESHOLD = ("accuracy", "f1", "sensitivity", "specificity", "ppv", "npv")
ECE_BINS = 15


@dataclass(frozen=True)
class Measure:
    """A value, or the reason why there is none."""

    value: float | None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"value": self.value} if self.reason is None else {"value": None, "reason": self.reason}


@dataclass(frozen=True)
class Macro:
    """The mean over the findings of ``over``; None when there is none."""

    value: float | None
    over: tuple[str, ...]


@dataclass(frozen=True)
class Measures:
    """The table of all figures.

    Attributes:
        names: the figures, in order.
        findings: per finding and figure.
        micro: per figure, over the pooled counted elements.
        macro: per figure, over the findings where it is defined.
    """

    names: tuple[str, ...]
    findings: Mapping[str, Mapping[str, Measure]]
    micro: Mapping[str, Measure]
    macro: Mapping[str, Macro]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""

        def row(measures: Mapping[str, Measure]) -> dict[str, Any]:
            return {name: one.to_dict() for name, one in measures.items()}

        return {
            "findings": {finding: row(measures) for finding, measures in self.findings.items()},
            "micro": row(self.micro),
            "macro": {name: {"value": one.value, "over": list(one.over)} for name, one in self.macro.items()},
        }


@dataclass(frozen=True, eq=False)
class _Elements:
    """The counted elements of one row of the table, each (n,)."""

    probability: FloatArray
    truth: BoolArray
    rank: FloatArray
    log_likelihood: FloatArray
    decision: BoolArray
    threshold_reason: str | None


def measure(
    cases: Cases,
    thresholds: FloatArray,
    missing: Mapping[str, str] | None = None,
    *,
    at_specificity: float = 0.9,
    at_sensitivity: float = 0.9,
) -> Measures:
    """Compute every figure.

    Args:
        cases: N cases, L findings.
        thresholds: (L,) a case is called positive above it; NaN where the operating point has none.
        missing: why, by finding, for these.
        at_specificity: fixed specificity in [0, 1] at which sensitivity is read.
        at_sensitivity: fixed sensitivity in [0, 1] at which specificity is read. Neither is a figure of decisions (0
            or 1), which have one sensitivity and one specificity each.

    Raises:
        ConfigError: a fixed rate is outside [0, 1].
        ValueError: ``thresholds`` is not (L,).
    """
    if thresholds.shape != (len(cases.labels),):
        raise ValueError(f"{len(cases.labels)} findings need as many thresholds, got {thresholds.shape}")
    require_rates(at_specificity, at_sensitivity)
    figures = _ALWAYS if cases.decisions_only else _ALWAYS | _at_fixed_rates(at_specificity, at_sensitivity)
    parts = _elements(cases, thresholds, missing or {})
    findings = {name: _row(part, figures) for name, part in zip(cases.labels, parts, strict=True)}
    with_threshold = [part for part in parts if part.threshold_reason is None]
    pooled = _pool(parts)
    micro = _row(pooled, figures) | _threshold_row(_pool(with_threshold) if with_threshold else pooled)
    names = (*figures, *AT_THRESHOLD)
    return Measures(names, findings, micro, {name: _macro(findings, name) for name in names})


def require_rates(at_specificity: float, at_sensitivity: float) -> None:
    """Check the fixed rates of :func:`measure`.

    Raises:
        ConfigError: one is outside [0, 1]; 90 is not 0.9.
    """
    for what, rate in (("at_specificity", at_specificity), ("at_sensitivity", at_sensitivity)):
        if not 0 <= rate <= 1:
            raise ConfigError(f"{what} is {rate}; give a number in [0, 1], such as 0.9")


Figure = Callable[[_Elements], float]


# Name to function, and whether it needs both classes.
_ALWAYS: dict[str, tuple[Figure, bool]] = {
    "auroc": (lambda e: auroc(e.rank, e.truth), True),
    "average_precision": (lambda e: average_precision(e.rank, e.truth), True),
    "brier": (lambda e: brier(e.probability, e.truth), False),
    "log_loss": (lambda e: float(np.abs(e.log_likelihood.mean())), False),
    "ece": (lambda e: calibration_error(e.probability, e.truth, ECE_BINS), False),
}


def _at_fixed_rates(specificity: float, sensitivity: float) -> dict[str, tuple[Figure, bool]]:
    return {
        f"sensitivity_at_specificity_{specificity:g}": (lambda e: sensitivity_at(specificity, e.rank, e.truth), True),
        f"specificity_at_sensitivity_{sensitivity:g}": (lambda e: specificity_at(sensitivity, e.rank, e.truth), True),
    }


def _elements(cases: Cases, thresholds: FloatArray, missing: Mapping[str, str]) -> list[_Elements]:
    truth = cases.target == 1
    rank = cases.scores()
    likelihood = _log_likelihood(cases, truth)
    with np.errstate(invalid="ignore"):
        decision = cases.probability > thresholds
    result = []
    for j, (name, kept) in enumerate(zip(cases.labels, cases.mask.T, strict=True)):
        reason = missing.get(name, "no threshold") if np.isnan(thresholds[j]) else None
        result.append(
            _Elements(
                cases.probability[kept, j],
                truth[kept, j],
                rank[kept, j],
                likelihood[kept, j],
                decision[kept, j],
                reason,
            )
        )
    return result


def _log_likelihood(cases: Cases, truth: BoolArray) -> FloatArray:
    """(N, L) log probability that the predictions gave to what is true; minus infinity where that was 0."""
    if cases.logit is not None:
        return -np.logaddexp(0.0, np.where(truth, -cases.logit, cases.logit))
    with np.errstate(divide="ignore"):
        return np.where(truth, np.log(cases.probability), np.log1p(-cases.probability))


def _pool(parts: list[_Elements]) -> _Elements:
    reasons = [part.threshold_reason for part in parts]
    return _Elements(
        np.concatenate([part.probability for part in parts]),
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.rank for part in parts]),
        np.concatenate([part.log_likelihood for part in parts]),
        np.concatenate([part.decision for part in parts]),
        "no finding has a threshold" if all(reasons) else None,
    )


def _row(part: _Elements, figures: Mapping[str, tuple[Figure, bool]]) -> dict[str, Measure]:
    row = {name: _measure(part, figure, both) for name, (figure, both) in figures.items()}
    return row | _threshold_row(part)


def _measure(part: _Elements, figure: Figure, both: bool) -> Measure:
    missing = missing_class(part.truth)
    if missing and (both or not len(part.truth)):
        return Measure(None, missing)
    value = figure(part)
    if np.isinf(value):
        wrong = int(np.isneginf(part.log_likelihood).sum())
        return Measure(None, f"infinite: {wrong} probabilities of exactly 0 for a positive or 1 for a negative")
    return Measure(value)


def _threshold_row(part: _Elements) -> dict[str, Measure]:
    reason = part.threshold_reason if len(part.truth) else "not annotated"
    if reason is not None:
        return {name: Measure(None, reason) for name in AT_THRESHOLD}
    hit, truth = part.decision, part.truth
    counted = Confusion(
        tp=int((hit & truth).sum()),
        fp=int((hit & ~truth).sum()),
        fn=int((~hit & truth).sum()),
        tn=int((~hit & ~truth).sum()),
    )
    return {name: Measure(getattr(counted, name), counted.reason(name)) for name in AT_THRESHOLD}


def _macro(findings: Mapping[str, Mapping[str, Measure]], name: str) -> Macro:
    defined = {finding: row[name].value for finding, row in findings.items() if row[name].value is not None}
    mean = float(np.mean(np.array(list(defined.values()), dtype=np.float64))) if defined else None
    return Macro(mean, tuple(defined))
