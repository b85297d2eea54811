"""Everything that is known about one set of predictions, in numbers: what the report, its tables and figures show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mxa.errors import ConfigError
from mxa.evaluation.bands import CurveBands, curve_bands
from mxa.evaluation.bootstrap import ALL_AT_AN_END, REPLICATES, Bootstrap, Draws
from mxa.evaluation.calibration import logit_of
from mxa.evaluation.cases import Cases
from mxa.evaluation.comparison import Comparison, compare
from mxa.evaluation.delong import delong_interval
from mxa.evaluation.intervals import Interval
from mxa.evaluation.measures import Measures, measure, require_rates
from mxa.evaluation.metrics import BoolArray, Evaluation, FloatArray, evaluate, evaluate_probability
from mxa.evaluation.readers import Reader, ReaderPoint, count_under, reader_points
from mxa.evaluation.scores import Reliability, reliability
from mxa.evaluation.subgroups import (
    AGE_BANDS,
    Group,
    GroupResult,
    finding_groups,
    metadata_groups,
    require_bands,
    score_groups,
)
from mxa.evaluation.tuning import Tuning
from mxa.labels import SUPPORT_DEVICES

HALF = "0.5"
"""The operating point of a model that has none: a probability above 0.5, as in the paper."""
PREFERRED = "youden"
UNCALIBRATED = "as given"
POOLED = "All labels pooled"
BAND_REPLICATES = 500
FEWEST_REPLICATES = 20
"""Of fewer the ends of an interval are mere chance."""


@dataclass(frozen=True)
class AssessOptions:
    """How predictions are looked at."""

    operating_point: str = ""
    """Which of the operating points chosen on validation data decides; 0.5 is a probability above 0.5 for every
    finding. Empty: youden where it was chosen, else 0.5."""
    at_specificity: float = 0.9
    """Sensitivity is also read at this specificity."""
    at_sensitivity: float = 0.9
    """Specificity is also read at this sensitivity."""
    subgroups: list[str] | None = None
    """Columns of the labels to group by; null takes those of sex, age, view and projection that are there."""
    age_bands: list[float] = field(default_factory=lambda: list(AGE_BANDS))
    """Lower ends of the age bands in years."""
    strata: list[str] | None = None
    """Findings within whose presence and absence all others are scored, such as [Support Devices]; "A + B" gives every
    combination. Null takes Support Devices where it is annotated."""
    min_count: int = 10
    """A figure of a subgroup needs this many positives and negatives, in it and outside."""
    level: float = 0.95
    """Coverage of the intervals."""
    replicates: int = REPLICATES
    """Bootstrap replicates."""
    seed: int = 0
    """Of the bootstrap."""

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ConfigError(f"level is {self.level!r}; give a number between 0 and 1, such as 0.95")
        if self.replicates < FEWEST_REPLICATES or self.min_count < 1 or self.seed < 0:
            raise ConfigError(
                f"replicates must be at least {FEWEST_REPLICATES}, min_count at least 1, seed 0 or more; got "
                f"{self.replicates}, {self.min_count}, {self.seed}"
            )
        require_rates(self.at_specificity, self.at_sensitivity)
        require_bands(self.age_bands)
        for option, names in (("subgroups", self.subgroups or []), ("strata", self.strata or [])):
            if repeated := sorted({name for name in names if names.count(name) > 1}):
                raise ConfigError(f"{option} names {', '.join(repeated)} twice; name each once")


@dataclass(frozen=True, eq=False)
class Intervals:
    """Intervals of one figure: per finding, and of the mean over the findings that have the figure.

    Attributes:
        findings: None where the figure is undefined, or ``reasons`` says why.
        macro: likewise.
        reasons: per finding why a figure that is defined has no interval.
        macro_reason: why the mean has none.
    """

    findings: Mapping[str, Interval | None]
    macro: Interval | None
    reasons: Mapping[str, str]
    macro_reason: str | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "findings": {name: None if one is None else one.to_dict() for name, one in self.findings.items()},
            "macro": None if self.macro is None else self.macro.to_dict(),
            "reasons": dict(self.reasons),
            "macro_reason": self.macro_reason,
        }


@dataclass(frozen=True, eq=False)
class Assessment:
    """All numbers of one set of predictions.

    Attributes:
        name: of the model.
        cases: what was scored.
        tuning: what was chosen on validation data; empty where nothing was.
        evaluation: the paper's figures, at a probability of 0.5.
        operating_point: name of the one that decides below.
        thresholds: (L,) its thresholds, NaN where it has none.
        measures: all figures at that operating point.
        at_points: all figures at each operating point that was chosen, and at 0.5.
        auroc, average_precision, sensitivity, specificity: bootstrap intervals; of a sensitivity or specificity of
            exactly 0 or 1 the exact one.
        auroc_micro: bootstrap interval of the pooled labels' AUROC.
        auroc_micro_reason: why that has none though it is defined.
        delong: DeLong's interval per finding; None where it is undefined.
        bands: of the ROC and precision-recall curves, per finding.
        calibrations: per calibration (and as given) its figures.
        diagrams: per finding (and pooled) and calibration the reliability diagram.
        groups: subgroups by metadata.
        strata: within the presence and absence of findings.
        readers: per human reader the point of each finding.
        under: per finding the readers below the curve, and of how many.
        comparison: with another model, or None.
        cooccurrence: (2, L, L) share of those with finding i that truly have j, and that are predicted to.
    """

    name: str
    cases: Cases
    options: AssessOptions
    tuning: Tuning
    evaluation: Evaluation
    operating_point: str
    thresholds: FloatArray
    measures: Measures
    at_points: Mapping[str, Measures]
    auroc: Intervals
    auroc_micro: Interval | None
    auroc_micro_reason: str | None
    average_precision: Intervals
    sensitivity: Intervals
    specificity: Intervals
    delong: Mapping[str, Interval | None]
    bands: Mapping[str, CurveBands | None]
    calibrations: Mapping[str, Measures]
    diagrams: Mapping[str, Mapping[str, Reliability]]
    groups: Sequence[GroupResult]
    strata: Sequence[GroupResult]
    readers: Mapping[str, Mapping[str, ReaderPoint]]
    under: Mapping[str, tuple[int, int]]
    comparison: Comparison | None
    cooccurrence: FloatArray

    @property
    def patients(self) -> int:
        """Number of different patients."""
        return len(set(self.cases.patient))


def assess(
    cases: Cases,
    options: AssessOptions,
    *,
    name: str,
    tuning: Tuning | None = None,
    against: tuple[str, Cases] | None = None,
    readers: Sequence[Reader] = (),
) -> Assessment:
    """Compute everything.

    Args:
        cases: what to score.
        options: how.
        name: of the model.
        tuning: operating points and calibrations that were chosen on validation data.
        against: another model's name and its predictions of the same cases.
        readers: human readers of some of the cases.

    Raises:
        ConfigError: an option does not fit the cases, or the operating point was not chosen.
        DataError: nothing can be scored, or readers or the other model do not fit the cases.
    """
    tuning = tuning or Tuning()
    rank, target, mask = cases.scores(), cases.target, cases.mask
    evaluation = _evaluation(cases)
    point, thresholds, missing = _decide(options, tuning, cases)
    draws = Draws(cases.patient, replicates=options.replicates, seed=options.seed)
    groups, strata = groups_and_strata(cases, options)
    positive, negative = mask & (target == 1) & ~np.isnan(thresholds), mask & (target == 0) & ~np.isnan(thresholds)
    with np.errstate(invalid="ignore"):
        called = cases.probability > thresholds
    bands = curve_bands(_fewer(draws, cases, options), rank, target, mask, options.level)
    read = {reader.name: reader_points(reader, cases) for reader in readers}

    def intervals(bootstrap: Bootstrap, method: str = "bca") -> Intervals:
        found = [bootstrap.interval(j, options.level, method) for j in range(len(cases.labels))]
        return _together(bootstrap, dict(zip(cases.labels, found, strict=True)), options.level, method)

    def shares(hit: BoolArray, counted: BoolArray) -> Intervals:
        rate = draws.rate(hit, counted)
        found = {name: draws.share_interval(rate, counted, j, options.level) for j, name in enumerate(cases.labels)}
        return _together(rate, found, options.level, "bca", rates=True)

    def measured(one: Cases, at: FloatArray, why: Mapping[str, str]) -> Measures:
        return measure(one, at, why, at_specificity=options.at_specificity, at_sensitivity=options.at_sensitivity)

    def grouped(chosen: Sequence[Any]) -> list[GroupResult]:
        return score_groups(cases, chosen, draws, thresholds, minimum=options.min_count, level=options.level)

    calibrated, pooled = _calibrated(cases, tuning), draws.auroc_micro(rank, target, mask)
    return Assessment(
        name=name,
        cases=cases,
        options=options,
        tuning=tuning,
        evaluation=evaluation,
        operating_point=point,
        thresholds=thresholds,
        measures=measured(cases, thresholds, missing),
        at_points={
            HALF: measured(cases, np.full(len(cases.labels), 0.5), {}),
            **{key: measured(cases, *_thresholds(tuning, key, cases)) for key in tuning.operating_points},
        },
        auroc=intervals(draws.auroc(rank, target, mask)),
        auroc_micro=pooled.interval(0, options.level),
        auroc_micro_reason=pooled.why_none(),
        average_precision=intervals(draws.average_precision(rank, target, mask), "percentile"),
        sensitivity=shares(called, positive),
        specificity=shares(~called, negative),
        delong=_delong(cases, options.level),
        bands=dict(zip(cases.labels, bands, strict=True)),
        calibrations={key: measured(one, np.full(len(cases.labels), 0.5), {}) for key, one in calibrated.items()},
        diagrams=_diagrams(calibrated),
        groups=grouped(groups),
        strata=grouped(strata),
        readers=read,
        under=count_under(list(read.values())),
        comparison=None if against is None else compare(cases, against[1], draws, (name, against[0]), options.level),
        cooccurrence=_cooccurrence(cases, thresholds),
    )


def groups_and_strata(cases: Cases, options: AssessOptions) -> tuple[list[Group], list[Group]]:
    """The subgroups and the hidden strata that the options ask for.

    Raises:
        ConfigError: the cases have no such column or finding, or one has too many values to group by.
    """
    return metadata_groups(cases, options.subgroups, options.age_bands), finding_groups(cases, _strata(options, cases))


def _together(
    found: Bootstrap, intervals: Mapping[str, Interval | None], level: float, method: str, *, rates: bool = False
) -> Intervals:
    """The findings' intervals with that of their mean, which has none where all of them are rates at an end."""
    mean = found.macro()
    reasons = {name: why for j, (name, one) in enumerate(intervals.items()) if not one and (why := found.why_none(j))}
    reason = mean.why_none()
    if rates and found.at_an_end[~np.isnan(found.estimate)].all() and not np.isnan(mean.estimate[0]):
        reason = ALL_AT_AN_END
    return Intervals(intervals, None if reason else mean.interval(0, level, method), reasons, reason)


def _evaluation(cases: Cases) -> Evaluation:
    if cases.logit is not None:
        return evaluate(cases.logit, cases.target, cases.mask, cases.labels)
    return evaluate_probability(cases.probability, cases.target, cases.mask, cases.labels)


def _decide(options: AssessOptions, tuning: Tuning, cases: Cases) -> tuple[str, FloatArray, Mapping[str, str]]:
    """Name and thresholds of the operating point, and why some findings have none."""
    name = options.operating_point or (PREFERRED if PREFERRED in tuning.operating_points else HALF)
    if name == HALF:
        return name, np.full(len(cases.labels), 0.5), {}
    return name, *_thresholds(tuning, name, cases)


def _thresholds(tuning: Tuning, name: str, cases: Cases) -> tuple[FloatArray, Mapping[str, str]]:
    """Those of the cases' findings; a finding that validation did not have has none."""
    point = tuning.point(name)
    known = dict(zip(point.findings, point.thresholds, strict=True))
    values = [known.get(finding) for finding in cases.labels]
    reasons = {
        finding: f"no threshold: {point.reasons.get(finding, 'not annotated')} on validation"
        for finding in cases.labels
        if known.get(finding) is None
    }
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64), reasons


def _strata(options: AssessOptions, cases: Cases) -> Sequence[str]:
    if options.strata is not None:
        return options.strata
    known = SUPPORT_DEVICES in cases.labels.findings and cases.mask[:, cases.labels.index(SUPPORT_DEVICES)].any()
    return [SUPPORT_DEVICES] if known else []


def _fewer(draws: Draws, cases: Cases, options: AssessOptions) -> Draws:
    """A picture's bands need no more than a few hundred replicates."""
    if draws.replicates <= BAND_REPLICATES:
        return draws
    return Draws(cases.patient, replicates=BAND_REPLICATES, seed=options.seed)


def _delong(cases: Cases, level: float) -> dict[str, Interval | None]:
    found: dict[str, Interval | None] = {}
    for j, name in enumerate(cases.labels):
        kept = cases.mask[:, j]
        truth = cases.target[kept, j]
        enough = min((truth == 1).sum(), (truth == 0).sum()) >= 2
        found[name] = delong_interval(cases.scores()[kept, j], truth, level) if enough else None
    return found


def _calibrated(cases: Cases, tuning: Tuning) -> dict[str, Cases]:
    """The cases with their probabilities as given, and as each calibration maps them; ranked by what they then are."""
    result = {UNCALIBRATED: cases}
    logit = logit_of(cases.probability) if cases.logit is None else cases.logit
    for kind, one in tuning.calibrations.items():
        if set(cases.labels) <= set(one.findings):
            whole = np.zeros((len(cases), len(one.findings)))
            places = [one.findings.index(finding) for finding in cases.labels]
            whole[:, places] = logit
            result[kind] = replace(cases, probability=one.apply(whole)[:, places], logit=None)
    return result


def _diagrams(calibrated: Mapping[str, Cases]) -> dict[str, dict[str, Reliability]]:
    labels = next(iter(calibrated.values())).labels
    found: dict[str, dict[str, Reliability]] = {name: {} for name in (POOLED, *labels)}
    for kind, cases in calibrated.items():
        found[POOLED][kind] = reliability(cases.probability[cases.mask], cases.target[cases.mask])
        for j, name in enumerate(labels):
            kept = cases.mask[:, j]
            found[name][kind] = reliability(cases.probability[kept, j], cases.target[kept, j])
    return found


def _cooccurrence(cases: Cases, thresholds: FloatArray) -> FloatArray:
    """Among the cases that have finding i and are labelled for j: the share that have j, and that are called j."""
    has = (cases.mask & (cases.target == 1)).astype(np.float64)
    known = cases.mask.astype(np.float64)
    with np.errstate(invalid="ignore"):
        called = (cases.probability > thresholds) & cases.mask
    number = has.T @ known
    shares = np.full((2, *number.shape), np.nan)
    for share, what in zip(shares, (has, called.astype(np.float64)), strict=True):
        np.divide(has.T @ what, number, out=share, where=number > 0)
    shares[1][:, np.isnan(thresholds)] = np.nan
    return shares
