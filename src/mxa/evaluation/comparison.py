"""Two models on the same cases: is one better, finding by finding and on average?

Both are scored with the same drawings of patients, so the bootstrap's differences are paired. DeLong's test stands
beside it; it takes cases as independent. p-values over the findings are corrected by Holm's method.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mxa.errors import DataError
from mxa.evaluation.bootstrap import Draws
from mxa.evaluation.cases import Cases
from mxa.evaluation.delong import NO_VARIANCE, delong_difference
from mxa.evaluation.intervals import Interval, holm
from mxa.evaluation.metrics import FloatArray
from mxa.evaluation.scores import missing_class


@dataclass(frozen=True)
class Difference:
    """First model minus second, of one finding's AUROC.

    Attributes:
        first: AUROC of the first model.
        second: AUROC of the second.
        bootstrap: patient-clustered interval of the difference.
        p_bootstrap: two-sided, and corrected over the findings.
        delong: DeLong's interval of the difference, cases taken as independent.
        p_delong: two-sided, and corrected over the findings.
        reason: why a part is None.
    """

    first: float | None
    second: float | None
    bootstrap: Interval | None
    p_bootstrap: tuple[float, float] | None
    delong: Interval | None
    p_delong: tuple[float, float] | None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        result: dict[str, Any] = {"first": self.first, "second": self.second}
        for name, interval, p in (
            ("bootstrap", self.bootstrap, self.p_bootstrap),
            ("delong", self.delong, self.p_delong),
        ):
            if interval is not None and p is not None:
                result[name] = interval.to_dict() | {"p": p[0], "p_holm": p[1]}
        return result if self.reason is None else result | {"reason": self.reason}


@dataclass(frozen=True)
class Comparison:
    """Two models, by finding and on average.

    Attributes:
        first: name of the first model.
        second: name of the second.
        findings: per finding.
        macro: interval of the difference of the mean AUROCs.
        p_macro: its two-sided bootstrap p-value; one comparison, so not corrected.
        macro_over: the findings averaged.
        clustered: whether some patient has several cases, so that DeLong's intervals are too narrow.
        macro_reason: why the mean's difference has no interval though it is defined.
    """

    first: str
    second: str
    findings: Mapping[str, Difference]
    macro: Interval | None
    p_macro: float | None
    macro_over: tuple[str, ...]
    clustered: bool
    macro_reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        macro = (
            None if self.macro is None else self.macro.to_dict() | {"p": self.p_macro, "over": list(self.macro_over)}
        )
        return {
            "first": self.first,
            "second": self.second,
            "macro": macro,
            "macro_reason": self.macro_reason,
            "findings": {name: one.to_dict() for name, one in self.findings.items()},
            "several_cases_per_patient": self.clustered,
        }


def compare(first: Cases, second: Cases, draws: Draws, names: tuple[str, str], level: float = 0.95) -> Comparison:
    """Compare two models.

    Args:
        first: N cases as one model scores them.
        second: the same cases, in the same order, as the other does; findings that only one side scores are left out.
        draws: of the cases' patients.
        names: of the two models.
        level: of the intervals.

    Raises:
        DataError: the cases, their truth, or all their findings differ.
    """
    shared = require_comparable(first, second, names)
    one, two = ([case.labels.index(name) for name in shared] for case in (first, second))
    target, mask = first.target[:, one], first.mask[:, one]
    scores = first.scores()[:, one], second.scores()[:, two]
    areas = [draws.auroc(score, target, mask) for score in scores]
    difference = areas[0].minus(areas[1])
    delongs = [_delong(scores, target, mask, j, level) for j in range(len(shared))]
    p_boot = [difference.p_value(j) for j in range(len(shared))]
    p_delong = [None if found is None else found[1] for found in delongs]
    corrected = holm(p_boot), holm(p_delong)
    findings = {
        name: Difference(
            _number(areas[0].estimate[j]),
            _number(areas[1].estimate[j]),
            difference.interval(j, level),
            _pair(p_boot[j], corrected[0][j]),
            None if (found := delongs[j]) is None else found[0],
            _pair(p_delong[j], corrected[1][j]),
            _reason(target[mask[:, j], j], difference.why_none(j), delongs[j]),
        )
        for j, name in enumerate(shared)
    }
    macro = areas[0].macro().minus(areas[1].macro())
    over = tuple(name for name, value in zip(shared, difference.estimate, strict=True) if not np.isnan(value))
    clustered = draws.patients < draws.images
    return Comparison(*names, findings, macro.interval(level=level), macro.p_value(), over, clustered, macro.why_none())


def require_comparable(first: Cases, second: Cases, names: tuple[str, str]) -> list[str]:
    """Check that two models can be compared; arguments as :func:`compare`.

    Returns:
        The findings that both score.

    Raises:
        DataError: the cases, their truth, or all their findings differ.
    """
    if first.key != second.key:
        raise DataError(
            f"{names[0]} and {names[1]} are not of the same cases in the same order; {_unlike(first, second)}"
        )
    shared = [name for name in first.labels if name in second.labels.findings]
    if not shared:
        raise DataError(f"{names[0]} and {names[1]} have no finding in common")
    one, two = ([case.labels.index(name) for name in shared] for case in (first, second))
    target, mask = first.target[:, one], first.mask[:, one]
    unlike = np.argwhere((mask != second.mask[:, two]) | (mask & (target != second.target[:, two])))
    if len(unlike):
        row, column = unlike[0]
        raise DataError(
            f"{names[0]} and {names[1]} were read with different labels: {len(unlike)} differ, the first is "
            f"{shared[column]} of {first.key[row]}; read both with the same labels"
        )
    return shared


def _unlike(first: Cases, second: Cases) -> str:
    """The first place where the cases differ, in words."""
    for one, two in zip(first.key, second.key, strict=False):
        if one != two:
            return f"the first to differ are {one} and {two}"
    return f"there are {len(first)} and {len(second)}"


def _delong(
    scores: tuple[FloatArray, FloatArray],
    target: FloatArray,
    mask: "np.ndarray[Any, np.dtype[np.bool_]]",
    j: int,
    level: float,
) -> tuple[Interval, float] | None:
    kept = mask[:, j]
    truth = target[kept, j]
    if min((truth == 1).sum(), (truth == 0).sum()) < 2:
        return None
    return delong_difference(scores[0][kept, j], scores[1][kept, j], truth, level)


def _reason(truth: FloatArray, bootstrap: str | None, delong: tuple[Interval, float] | None) -> str | None:
    """Why a part of a finding's difference is missing.

    Args:
        truth: (n,) of the counted cases.
        bootstrap: why the bootstrap has no interval.
        delong: DeLong's interval and p-value, if there are any.
    """
    if missing := missing_class(truth):
        return missing
    few = min((truth == 1).sum(), (truth == 0).sum()) < 2
    lacking = "needs two positives and two negatives" if few else f"has {NO_VARIANCE}"
    return "; ".join(filter(None, (bootstrap, None if delong else f"DeLong's method {lacking}"))) or None


def _pair(p: float | None, corrected: float | None) -> tuple[float, float] | None:
    return None if p is None or corrected is None else (p, corrected)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
