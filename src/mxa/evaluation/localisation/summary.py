"""Means over cases with intervals over patients: pooled, per finding, and as the mean of the findings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mxa.evaluation.bootstrap import ALL_AT_AN_END, Bootstrap, Draws
from mxa.evaluation.intervals import Interval
from mxa.evaluation.metrics import BoolArray, FloatArray

POOLED, MACRO = "pooled", "macro"
"""Over all cases, and the mean of the findings' means."""
RATES = ("hit", "pointing")
"""Measures that are a rate of yes and no."""


@dataclass(frozen=True)
class Mean:
    """A mean over cases, or why there is none.

    Attributes:
        value: the mean.
        interval: over patients; None without a value, where all cases are of one patient, and of the mean of the
            findings' rates where each of them is 0 or 1.
        cases: how many it is over.
        patients: how many these cases have.
        reason: why value or interval is None.
        over: of a mean of the findings, which.
    """

    value: float | None
    interval: Interval | None
    cases: int
    patients: int
    reason: str | None = None
    over: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        found: dict[str, Any] = {"value": self.value, "cases": self.cases, "patients": self.patients}
        if self.interval is not None:
            found["interval"] = self.interval.to_dict()
        if self.reason is not None:
            found["reason"] = self.reason
        return found | ({"over": list(self.over)} if self.over else {})


@dataclass(frozen=True, eq=False)
class Scored:
    """One box, map or point per case.

    Attributes:
        scores: measure to (N,), NaN where it is undefined.
        missing: why it is undefined there.
    """

    scores: Mapping[str, FloatArray]
    missing: str = ""

    def minus(self, other: "Scored") -> "Scored":
        """The difference in each measure that both have; undefined where one of them is."""
        scores = {name: values - other.scores[name] for name, values in self.scores.items() if name in other.scores}
        return Scored(scores, "; ".join(dict.fromkeys(filter(None, (self.missing, other.missing)))))


@dataclass(frozen=True, eq=False)
class Summariser:
    """Takes means over groups of N cases, all with the same drawings of their patients.

    Attributes:
        draws: of the N cases' patients.
        findings: those that are reported, in order; all that cases have are among them.
        of: (N,) the finding of each case.
        level: of the intervals.
    """

    draws: Draws
    findings: tuple[str, ...]
    of: "np.ndarray[Any, np.dtype[np.object_]]"
    level: float

    def means(self, scored: Scored, rows: BoolArray, *, difference: bool = False) -> dict[str, dict[str, Mean]]:
        """:data:`POOLED`, :data:`MACRO` and each finding -> measure -> mean.

        Args:
            scored: the N cases.
            rows: (N,) bool, the cases of the group.
            difference: the scores are differences; a rate of exactly 0 has no exact interval then.
        """
        groups = np.stack([rows, *(rows & (self.of == finding) for finding in self.findings)], axis=1)
        found: dict[str, dict[str, Mean]] = {over: {} for over in (POOLED, MACRO, *self.findings)}
        for name, values in scored.scores.items():
            counted = groups & ~np.isnan(values)[:, None]
            boot = self.draws.rate(np.where(counted, values[:, None], 0.0), counted)
            exact = name in RATES and not difference
            each = [
                self._mean(boot, j, counted, exact, scored.missing if groups[:, j].any() else "no case")
                for j in range(groups.shape[1])
            ]
            found[POOLED][name] = each[0]
            found[MACRO][name] = self._macro(boot, each, exact)
            for finding, one in zip(self.findings, each[1:], strict=True):
                found[finding][name] = one
        return found

    def _mean(self, boot: Bootstrap, column: int, counted: BoolArray, exact: bool, missing: str) -> Mean:
        cases, patients = int(counted[:, column].sum()), self._patients(counted[:, column])
        if not cases:
            return Mean(None, None, 0, 0, missing)
        if exact:
            interval = self.draws.share_interval(boot, counted, column, self.level)
        else:
            interval = boot.interval(column, self.level)
        reason = None if interval else boot.why_none(column)
        return Mean(float(boot.estimate[column]), interval, cases, patients, reason)

    def _macro(self, boot: Bootstrap, each: list[Mean], exact: bool) -> Mean:
        """Of the findings that have a mean; ``each`` begins with the pooled one, which is over the same cases."""
        used = [j for j, one in enumerate(each[1:], start=1) if one.value is not None]
        if not used:
            return Mean(None, None, 0, 0, "; ".join(dict.fromkeys(one.reason or "" for one in each[1:])))
        macro = boot.take(used).macro()
        reason = macro.why_none() or (ALL_AT_AN_END if exact and boot.at_an_end[used].all() else None)
        interval = None if reason else macro.interval(level=self.level)
        over = tuple(self.findings[j - 1] for j in used)
        return Mean(float(macro.estimate[0]), interval, each[0].cases, each[0].patients, reason, over)

    def _patients(self, counted: BoolArray) -> int:
        return len(np.unique(self.draws.cluster[counted]))
