"""What a reader must know before the numbers, in sentences: nothing is left out or taken for something in silence."""

from collections.abc import Mapping

from mxa.evaluation.assessment import AssessOptions
from mxa.evaluation.cases import Cases
from mxa.evaluation.reference import Reference
from mxa.evaluation.subgroups import LARGEST_COLUMN, too_many_values
from mxa.evaluation.tuning import Tuning
from mxa.labels import LabelPolicy


def about_labels(reference: Reference, policy: LabelPolicy) -> list[str]:
    """Uncertain and blank labels are never taken for something in silence."""
    hard = policy.hardened()
    uncertain = ", ".join([hard.uncertain, *(f"{name} {value}" for name, value in hard.per_finding.items())])
    counts = (
        (reference.uncertain, "uncertain", "uncertain", uncertain),
        (reference.blank, "blank (not mentioned)", "blank", hard.blank),
    )
    return [
        f"{count} labels are {what}; --policy.{option} says what they count as: {value}."
        for count, what, option, value in counts
        if count
    ]


def about_cases(cases: Cases) -> list[str]:
    """What patients, decisions and missing findings mean for the figures."""
    found = []
    if not cases.patients_known:
        found.append(
            "No patients are named: every case counts as a patient of its own, so intervals may be too narrow."
        )
    if cases.decisions_only:
        found.append(
            "The predictions are decisions (0 or 1): each ROC curve has one point, and there is no calibration."
        )
    return found + _not("scored", cases.not_scored)


def about_groups(cases: Cases, options: AssessOptions) -> list[str]:
    """Which of the columns that are grouped by unasked are no grouping."""
    if options.subgroups is not None:
        return []
    return [
        f"Not grouped by {column}: it has {number} values, more than {LARGEST_COLUMN}."
        for column, number in too_many_values(cases, options.age_bands).items()
    ]


def about_comparison(cases: Cases, name: str, other: Cases) -> list[str]:
    """A comparison has the findings that both models score."""
    reasons = {finding: f"not scored for {name}" for finding in cases.labels if finding not in other.labels.findings}
    reasons |= {finding: f"only scored for {name}" for finding in other.labels if finding not in cases.labels.findings}
    return _not("compared", reasons)


def about_calibration(cases: Cases, tuning: Tuning) -> list[str]:
    """Calibrations without some finding are not shown; one that could not be fitted leaves a finding as given."""
    labels, calibrations = cases.labels, tuning.calibrations
    known = {name for one in calibrations.values() for name in one.findings}  # all have the same
    if calibrations and (lacking := [name for name in labels if name not in known]):
        return [f"No calibration is shown: {', '.join(lacking)} (not annotated on validation)."]
    found = []
    for kind, one in calibrations.items():
        found += _not(f"calibrated by {kind}", {name: one.reasons[name] for name in labels if name in one.reasons})
    return found


def _not(what: str, reasons: Mapping[str, str]) -> list[str]:
    """One sentence for all findings, those with the same reason together."""
    together: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        together.setdefault(reason, []).append(name)
    parts = [f"{', '.join(names)} ({reason})" for reason, names in together.items()]
    return [f"Not {what}: {'; '.join(parts)}."] if parts else []
