"""Is it as good for everybody? Figures within groups of cases, and their gaps to all other cases.

Groups come from metadata (sex, age bands, view, projection, any column) or from the labels (hidden strata: findings
within the cases that have another finding, such as pneumothorax with and without a drain; Oakden-Rayner et al., ACM
CHIL 2020). A gap is the group minus all other cases with a known value of that column; both come from the same drawings
of patients, so its interval is a paired one.

The underdiagnosis rate is the share of cases with a finding that are called "No Finding" (its false positive rate;
Seyyed-Kalantari et al., Nature Medicine 2021).
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mxa.errors import ConfigError
from mxa.evaluation.bootstrap import ALL_AT_AN_END, Bootstrap, Draws
from mxa.evaluation.cases import Cases
from mxa.evaluation.intervals import Interval
from mxa.evaluation.metrics import BoolArray, FloatArray
from mxa.labels import NO_FINDING

AGE_BANDS = (0.0, 20.0, 40.0, 60.0, 80.0)
"""Lower ends in years, as in Seyyed-Kalantari et al.; the last band is open."""
COLUMNS = ("sex", "age", "view", "projection")
LARGEST_COLUMN = 20
"""A column with more values than this is no grouping (an identifier, say)."""


@dataclass(frozen=True, eq=False)
class Group:
    """Some of the cases.

    Attributes:
        column: what they are grouped by.
        value: which value of it.
        rows: (N,) bool, the group.
        others: (N,) bool, the other cases whose value of the column is known.
    """

    column: str
    value: str
    rows: BoolArray
    others: BoolArray

    @property
    def unknown(self) -> int:
        """Cases whose value of the column is not known; they are on neither side."""
        return int((~(self.rows | self.others)).sum())


@dataclass(frozen=True)
class GroupFigure:
    """One figure in a group: its interval and that of its gap, or the reason why there is none.

    Attributes:
        inside: in the group; None where undefined, or without an interval.
        gap: group minus others; None where either is undefined, or without an interval.
        positives: positives in the group (of the rate: cases that could be called wrongly).
        negatives: negatives in the group (of the rate: 0).
        reason: why ``inside`` or ``gap`` is None.
        value: in the group, also where it has no interval; None where undefined.
    """

    inside: Interval | None
    gap: Interval | None
    positives: int
    negatives: int
    reason: str | None = None
    value: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        result: dict[str, Any] = {
            "value": self.value,
            "inside": None if self.inside is None else self.inside.to_dict(),
            "gap": None if self.gap is None else self.gap.to_dict(),
            "positives": self.positives,
            "negatives": self.negatives,
        }
        return result if self.reason is None else result | {"reason": self.reason}


@dataclass(frozen=True)
class GroupResult:
    """A group's figures.

    Attributes:
        column: what the cases are grouped by.
        value: which value of it.
        cases: number of cases.
        patients: number of patients.
        unknown: cases that are left out, as their value of the column is not known.
        findings: AUROC per finding.
        macro: mean AUROC over ``macro_over``, in the group and among the others alike.
        macro_over: findings with enough positives and negatives on both sides.
        underdiagnosis: rate of false "No Finding"; None where the labels lack it.
    """

    column: str
    value: str
    cases: int
    patients: int
    unknown: int
    findings: Mapping[str, GroupFigure]
    macro: GroupFigure
    macro_over: tuple[str, ...]
    underdiagnosis: GroupFigure | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "column": self.column,
            "value": self.value,
            "cases": self.cases,
            "patients": self.patients,
            "unknown": self.unknown,
            "auroc_macro": self.macro.to_dict() | {"over": list(self.macro_over)},
            "underdiagnosis": None if self.underdiagnosis is None else self.underdiagnosis.to_dict(),
            "findings": {name: one.to_dict() for name, one in self.findings.items()},
        }


def metadata_groups(
    cases: Cases, columns: Sequence[str] | None = None, age_bands: Sequence[float] = AGE_BANDS
) -> list[Group]:
    """Groups by columns of the cases' metadata; a column with a single known value gives none.

    Args:
        cases: N cases.
        columns: which; None takes those of sex, age, view and projection that are there, but not
            :func:`too_many_values`.
        age_bands: lower ends in years, ascending; the last band is open.

    Raises:
        ConfigError: a column is not there, has more than 20 values, or the bands do not ascend.
    """
    require_bands(age_bands)
    if columns is None:
        left_out = too_many_values(cases, age_bands)
        columns = [name for name in COLUMNS if name in cases.frame.columns and name not in left_out]
    if lost := [name for name in columns if name not in cases.frame.columns]:
        raise ConfigError(f"no column {', '.join(lost)} to group by; the labels have: {', '.join(cases.frame.columns)}")
    found = []
    for name in columns:
        found += list(_by_value(name, _values(cases, name, age_bands), "subgroups"))
    return found


def too_many_values(cases: Cases, age_bands: Sequence[float] = AGE_BANDS) -> dict[str, int]:
    """Which of sex, age, view and projection have too many values to group by, and how many."""
    numbers = {name: len(_known(_values(cases, name, age_bands))) for name in COLUMNS if name in cases.frame.columns}
    return {name: number for name, number in numbers.items() if number > LARGEST_COLUMN}


def require_bands(age_bands: Sequence[float]) -> None:
    """Check the lower ends of age bands.

    Raises:
        ConfigError: there is none, one is not finite, or they do not ascend.
    """
    if list(age_bands) != sorted(set(age_bands)) or not len(age_bands) or not np.isfinite(age_bands).all():
        raise ConfigError(
            f"age bands must ascend, got {list(age_bands)}; give lower ends in years, such as {list(AGE_BANDS)}"
        )


def finding_groups(cases: Cases, findings: Sequence[str]) -> list[Group]:
    """Hidden strata: the cases with and without each of these findings, as far as it is annotated.

    Several findings joined by " + " give every combination of them.

    Raises:
        ConfigError: a finding is not among the labels.
    """
    found = []
    for condition in findings:
        names = [part.strip() for part in condition.split("+")]
        columns = [cases.labels.index(name) for name in names]
        known = cases.mask[:, columns].all(axis=1)
        present = cases.target[:, columns] == 1
        words = np.where(present, names, [f"no {name}" for name in names])
        values = np.array([", ".join(row) for row in words], dtype=object)
        found += list(_by_value(condition, np.where(known, values, ""), "strata"))
    return found


def score_groups(
    cases: Cases,
    groups: Sequence[Group],
    draws: Draws,
    thresholds: FloatArray,
    *,
    minimum: int = 10,
    level: float = 0.95,
) -> list[GroupResult]:
    """Score every group.

    Args:
        cases: N cases.
        groups: which of them.
        draws: of the cases' patients.
        thresholds: (L,) operating point; only that of "No Finding" is used. NaN where there is none.
        minimum: a figure needs this many positives and negatives, in the group and among the others.
        level: of the intervals.

    Raises:
        ConfigError: ``minimum`` is below 1.
    """
    if minimum < 1:
        raise ConfigError(f"the minimum count must be at least 1, got {minimum}")
    return [_score(cases, group, draws, thresholds, minimum, level) for group in groups]


def _score(cases: Cases, group: Group, draws: Draws, thresholds: FloatArray, minimum: int, level: float) -> GroupResult:
    rank = cases.scores()
    sides = [cases.mask & rows[:, None] for rows in (group.rows, group.others)]
    counts = [_counts(cases, mask) for mask in sides]
    short = [np.minimum(*count) < minimum for count in counts]
    inside, outside = (
        _without(draws.auroc(rank, cases.target, mask), few) for mask, few in zip(sides, short, strict=True)
    )
    gap = inside.minus(outside)
    findings = {}
    for j, name in enumerate(cases.labels):
        numbers = [(int(positives[j]), int(negatives[j])) for positives, negatives in counts]
        reason = _first_reason([_reason(*one, minimum) for one in numbers], (inside, outside, gap), j)
        shown = inside.interval(j, level), gap.interval(j, level)
        findings[name] = GroupFigure(*shown, *numbers[0], reason, _number(inside.estimate[j]))
    both = short[0] | short[1]
    over = tuple(name for name, few in zip(cases.labels, both, strict=True) if not few)
    return GroupResult(
        group.column,
        group.value,
        int(group.rows.sum()),
        len({patient for patient, kept in zip(cases.patient, group.rows, strict=True) if kept}),
        group.unknown,
        findings,
        _macro(_without(inside, both), gap, over, level),
        over,
        _underdiagnosis(cases, group, draws, thresholds, minimum, level),
    )


def _macro(inside: Bootstrap, gap: Bootstrap, over: tuple[str, ...], level: float) -> GroupFigure:
    """Over the same findings on both sides, in each replicate too, so that the gap compares like with like."""
    if not over:
        return GroupFigure(None, None, 0, 0, "no finding has enough cases on both sides")
    mean, difference = inside.macro(), gap.macro()
    reason = mean.why_none() or difference.why_none()
    shown = mean.interval(level=level), difference.interval(level=level)
    return GroupFigure(*shown, 0, 0, reason, _number(mean.estimate[0]))


def _underdiagnosis(
    cases: Cases, group: Group, draws: Draws, thresholds: FloatArray, minimum: int, level: float
) -> GroupFigure | None:
    if NO_FINDING not in cases.labels.findings:
        return None
    j = cases.labels.index(NO_FINDING)
    if np.isnan(thresholds[j]):
        return GroupFigure(None, None, 0, 0, f"no threshold for {NO_FINDING}")
    ill = cases.mask[:, j] & (cases.target[:, j] == 0)
    called = cases.probability[:, [j]] > thresholds[j]
    sides = [(ill & rows)[:, None] for rows in (group.rows, group.others)]
    numbers = [int(side.sum()) for side in sides]
    few = [number < minimum for number in numbers]
    inside, outside = (_without(draws.rate(called, side), np.array([f])) for side, f in zip(sides, few, strict=True))
    gap = inside.minus(outside)
    reasons = [
        f"{number} cases with a finding (minimum {minimum})" if f else None
        for number, f in zip(numbers, few, strict=True)
    ]
    reason = _first_reason(reasons, (inside, outside, gap), 0)
    if reason is None and inside.at_an_end[0] and outside.at_an_end[0]:
        reason = ALL_AT_AN_END
    shown = draws.share_interval(inside, sides[0], level=level), None if reason else gap.interval(level=level)
    return GroupFigure(*shown, numbers[0], 0, reason, _number(inside.estimate[0]))


def _first_reason(few: Sequence[str | None], figures: tuple[Bootstrap, Bootstrap, Bootstrap], j: int) -> str | None:
    """Why a figure or its gap has no interval: the group's own reason first, as it also stands for the gap.

    Args:
        few: of the group and of the others, what they have too few of.
        figures: of the group, of the others, and the gap.
        j: which column of them.
    """
    own, others = (short or figure.why_none(j) for short, figure in zip(few, figures, strict=False))
    return own or (f"others: {others}" if others else figures[2].why_none(j))


def _without(bootstrap: Bootstrap, columns: BoolArray) -> Bootstrap:
    """The same with some columns undefined."""
    jackknife = None if bootstrap.jackknife is None else np.where(columns, np.nan, bootstrap.jackknife)
    return Bootstrap(
        np.where(columns, np.nan, bootstrap.estimate),
        np.where(columns, np.nan, bootstrap.replicates),
        jackknife,
        bootstrap.fixed,
    )


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _counts(cases: Cases, mask: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Positives and negatives per finding."""
    return (mask & (cases.target == 1)).sum(axis=0), (mask & (cases.target == 0)).sum(axis=0)


def _reason(positives: int, negatives: int, minimum: int) -> str | None:
    if min(positives, negatives) >= minimum:
        return None
    return f"{positives} positives, {negatives} negatives (minimum {minimum})"


def _by_value(column: str, values: "np.ndarray[Any, np.dtype[np.object_]]", option: str) -> Iterator[Group]:
    """One group per known value, in the order of their names; bands keep theirs by their leading number."""
    names = sorted(_known(values), key=_natural)
    if len(names) > LARGEST_COLUMN:
        raise ConfigError(
            f"{column!r} has {len(names)} values, too many to group by (at most {LARGEST_COLUMN}); leave it out of "
            f"--{option}"
        )
    if len(names) > 1:
        for name in names:
            rows = values == name
            yield Group(column, name, rows, (values != "") & ~rows)


def _known(values: "np.ndarray[Any, np.dtype[np.object_]]") -> set[str]:
    return set(values[values != ""].tolist())


def _values(cases: Cases, column: str, age_bands: Sequence[float]) -> "np.ndarray[Any, np.dtype[np.object_]]":
    """(N,) value of each case, "" where it is not known."""
    return _bands(cases.frame[column], age_bands) if column == "age" else _names(cases.frame[column])


def _natural(name: str) -> tuple[float, str]:
    number = re.match(r"\d+(\.\d+)?(?=[-+]|$)", name, re.ASCII)
    return (float(number[0]) if number else -1.0, name)


def _bands(ages: "pd.Series[Any]", bands: Sequence[float]) -> "np.ndarray[Any, np.dtype[np.object_]]":
    """Years to names such as 20-40 (from 20 to below 40) and 80+; blank where unknown."""
    years = pd.to_numeric(ages, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    names = [f"under {bands[0]:g}"]
    names += [f"{low:g}-{high:g}" for low, high in itertools.pairwise(bands)]
    names += [f"{bands[-1]:g}+"]
    place = np.searchsorted(np.asarray(bands, dtype=np.float64), years, side="right")
    return np.where(np.isnan(years), "", np.array(names, dtype=object)[place])


def _names(cells: "pd.Series[Any]") -> "np.ndarray[Any, np.dtype[np.object_]]":
    return cells.astype(object).where(cells.notna(), "").astype(str).str.strip().to_numpy(dtype=object)
