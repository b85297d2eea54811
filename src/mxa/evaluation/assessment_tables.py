"""An assessment as tables: the same cells on the page, and as CSV, Markdown and LaTeX."""

from collections.abc import Iterable, Sequence

import numpy as np

from mxa.evaluation.assessment import HALF, Assessment
from mxa.evaluation.comparison import Comparison
from mxa.evaluation.intervals import Interval
from mxa.evaluation.measures import Measure, Measures
from mxa.evaluation.subgroups import GroupFigure, GroupResult
from mxa.evaluation.tables import Cell, Table

NONE = "–"
SMALLEST_P = 0.0001
"""A smaller p-value is shown as below it, never as 0."""
MACRO, MICRO = "Mean of the findings (macro)", "All labels pooled (micro)"
NAMES = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "brier": "Brier score",
    "log_loss": "Log loss",
    "ece": "ECE",
    "accuracy": "Accuracy",
    "f1": "F1",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "PPV",
    "npv": "NPV",
}


def tables(found: Assessment) -> dict[str, Table]:
    """All tables that there is something for, by file name; the first is the one that matters."""
    result = {"results": results(found), "measures": measures(found)}
    if found.tuning.operating_points:
        result["operating-points"] = operating_points(found)
        result["thresholds"] = thresholds(found)
    if len(found.calibrations) > 1:
        result["calibration"] = calibration(found)
    if found.comparison is not None:
        result["comparison"] = comparison(found.comparison)
    if found.groups:
        result["subgroups"] = groups(found.groups, found)
        result["subgroup-findings"] = group_findings(found.groups)
    if found.strata:
        result["strata"] = groups(found.strata, found)
        result["strata-findings"] = group_findings(found.strata)
    if found.readers:
        result["readers"] = readers(found)
    return result


def results(found: Assessment) -> Table:
    """The table that matters: AUROC, average precision, and sensitivity and specificity at the operating point."""
    header = (
        "Finding",
        "AUROC",
        "Average precision",
        "Sensitivity",
        "Specificity",
        "Positives",
        "Negatives",
        "Ignored",
    )
    per = (found.auroc, found.average_precision, found.sensitivity, found.specificity)
    names = ("auroc", "average_precision", "sensitivity", "specificity")
    measured = found.measures
    means = (
        words(one.macro, Measure(measured.macro[name].value), one.macro_reason)
        for one, name in zip(per, names, strict=True)
    )
    rows: list[tuple[Cell, ...]] = [(MACRO, *means, NONE, NONE, NONE)]
    pooled = words(found.auroc_micro, measured.micro["auroc"], found.auroc_micro_reason)
    rows.append((MICRO, pooled, *(cell(measured.micro[name]) for name in names[1:]), *_total(found)))
    for finding, one in found.evaluation.findings.items():
        cells = (
            words(each.findings[finding], measured.findings[finding][name], each.reasons.get(finding))
            for each, name in zip(per, names, strict=True)
        )
        rows.append((finding, *cells, one.positives, one.negatives, one.ignored))
    options, over = found.options, measured.macro["auroc"].over
    caption = (
        f"{found.name}. With {100 * options.level:g}% intervals over patients (bootstrap, {options.replicates} "
        "replicates; BCa, average precision percentile; exact where a finding's rate is 0 or 1, which the mean's "
        f"interval takes as it is). Operating point: {_point(found)}. The mean AUROC is over {len(over)} of "
        f"{len(found.cases.labels)} findings; what is undefined is never averaged in."
    )
    if without := int(np.isnan(found.thresholds).sum()):
        caption += f" Pooled and mean sensitivity and specificity leave out the {without} findings without a threshold."
    return Table(header, tuple(rows), caption)


def measures(found: Assessment) -> Table:
    """Every figure of merit, per finding, pooled and averaged."""
    one = found.measures
    header = ("Finding", *(_title(name) for name in one.names))
    rows: list[tuple[Cell, ...]] = [
        (MACRO, *(NONE if (m := one.macro[name]).value is None else m.value for name in one.names)),
        (MICRO, *(cell(one.micro[name]) for name in one.names)),
        *((finding, *(cell(row[name]) for name in one.names)) for finding, row in one.findings.items()),
    ]
    caption = f"All figures. Accuracy, F1, sensitivity, specificity, PPV and NPV: {_point(found)}."
    return Table(header, tuple(rows), caption)


def operating_points(found: Assessment) -> Table:
    """What each operating point means on these cases, averaged over the findings."""
    names = ("sensitivity", "specificity", "ppv", "npv", "f1", "accuracy")
    rows = tuple(
        (point, *(_mean(one, name) for name in names), f"{len(one.macro['sensitivity'].over)} of {len(one.findings)}")
        for point, one in found.at_points.items()
    )
    header = ("Operating point", *(NAMES[name] for name in names), "Findings")
    return Table(header, rows, "Operating points, means over the findings. Chosen on validation data, all but 0.5.")


def thresholds(found: Assessment) -> Table:
    """The thresholds of the operating points, for probabilities before calibration."""
    points = found.tuning.operating_points
    rows = []
    for finding in found.cases.labels:
        cells: list[Cell] = []
        for point in points.values():
            known = dict(zip(point.findings, point.thresholds, strict=True))
            value = known.get(finding)
            cells.append(point.reasons.get(finding, "not annotated on validation") if value is None else value)
        rows.append((finding, *cells, 0.5))
    caption = "Thresholds. Positive is a probability (as given, before calibration) above the threshold."
    return Table(("Finding", *points, "0.5"), tuple(rows), caption)


def calibration(found: Assessment) -> Table:
    """How far the probabilities mean what they say, as given and as each calibration maps them."""
    header = ("Probabilities", "ECE (pooled)", "ECE (mean)", "Brier (pooled)", "Log loss (pooled)", "AUROC (mean)")
    rows = tuple(
        (
            kind,
            cell(one.micro["ece"]),
            _mean(one, "ece"),
            cell(one.micro["brier"]),
            cell(one.micro["log_loss"]),
            _mean(one, "auroc"),
        )
        for kind, one in found.calibrations.items()
    )
    return Table(
        header,
        rows,
        "Calibrations, fitted on validation data and scored here. ECE: expected calibration error, 15 equal-mass bins.",
    )


def comparison(found: Comparison) -> Table:
    """Two models, finding by finding."""
    header = (
        "Finding",
        found.first,
        found.second,
        "Difference",
        "p",
        "p (Holm)",
        "Difference (DeLong)",
        "p (DeLong)",
        "p (DeLong, Holm)",
    )
    macro = (
        MACRO,
        NONE,
        NONE,
        _signed(found.macro, found.macro_reason or NONE),
        _p(found.p_macro),
        NONE,
        NONE,
        NONE,
        NONE,
    )
    rows: list[tuple[Cell, ...]] = [macro]
    for finding, one in found.findings.items():
        areas = (_optional(one.first), _optional(one.second))
        missing = one.reason or NONE
        boot = (_signed(one.bootstrap, missing), *_ps(one.p_bootstrap))
        delong = (_signed(one.delong, missing), *_ps(one.p_delong))
        rows.append((finding, *areas, *boot, *delong))
    caption = (
        "AUROC, first minus second: paired bootstrap over patients, and DeLong's test; p over the findings corrected "
        "by Holm's method."
    )
    if found.clustered:
        caption += " Some patients have several cases, which DeLong's test takes as independent: prefer the bootstrap."
    return Table(header, tuple(rows), caption)


def groups(found: Sequence[GroupResult], whole: Assessment) -> Table:
    """One row per group: mean AUROC and its gap, underdiagnosis and its gap."""
    header = (
        "By",
        "Group",
        "Cases",
        "Patients",
        "AUROC (mean)",
        "Gap of AUROC",
        "Over",
        "False No Finding",
        "Gap of false No Finding",
    )
    rows = []
    for one in found:
        under = one.underdiagnosis
        rate = (NONE, NONE) if under is None else _group(under)
        over = f"{len(one.macro_over)} of {len(one.findings)}"
        rows.append((one.column, one.value, one.cases, one.patients, *_group(one.macro), over, *rate))
    unknown = {one.column: one.unknown for one in found if one.unknown}
    caption = (
        "A gap is the group minus all other cases. The mean AUROC is over the findings with at least "
        f"{whole.options.min_count} positives and negatives on both sides. False No Finding: share of the cases with a "
        "finding that are called No Finding (underdiagnosis)."
    )
    if unknown:
        left_out = ", ".join(f"{count} ({column})" for column, count in unknown.items())
        caption += f" Left out, as the value is unknown: {left_out}."
    return Table(header, tuple(rows), caption)


def group_findings(found: Sequence[GroupResult]) -> Table:
    """AUROC per group and finding, with its gap."""
    columns = ", ".join(dict.fromkeys(one.column for one in found))
    caption = f"AUROC per finding, by {columns}. A gap is the group minus all other cases."
    rows = tuple(
        (
            one.column,
            one.value,
            finding,
            *_group(figure),
            figure.positives,
            figure.negatives,
        )
        for one in found
        for finding, figure in one.findings.items()
    )
    return Table(("By", "Group", "Finding", "AUROC", "Gap of AUROC", "Positives", "Negatives"), rows, caption)


def readers(found: Assessment) -> Table:
    """Human readers: their sensitivity and specificity, and how many lie under the model's curve."""
    rows = []
    for finding in found.cases.labels:
        points = [(name, one[finding]) for name, one in found.readers.items() if one[finding].reason != "not read"]
        shown = "; ".join(f"{name} {_rate(point.sensitivity)} / {_rate(point.specificity)}" for name, point in points)
        under, total = found.under[finding]
        rows.append((finding, f"{under} of {total}" if total else NONE, shown or "not read"))
    header = ("Finding", "Readers under the curve", "Sensitivity / specificity of each")
    return Table(header, tuple(rows), "The model's curve is that of the cases that the reader read.")


# --------------------------------------------------------------------- cells


def cell(measure: Measure) -> Cell:
    """A value, or why there is none."""
    return measure.value if measure.value is not None else measure.reason or "undefined"


def _signed(interval: Interval | None, missing: str = NONE) -> str:
    return missing if interval is None else interval.signed()


def words(interval: Interval | None, measure: Measure, reason: str | None) -> str:
    """A figure with its interval, or alone with the reason why that is missing, or why there is no figure."""
    if interval is not None:
        return str(interval)
    return measure.reason or NONE if measure.value is None else f"{measure.value:.3f} ({reason})"


def group_words(figure: GroupFigure) -> str:
    """A figure in a group, as :func:`words`."""
    return words(figure.inside, Measure(figure.value, figure.reason), figure.reason)


def _group(figure: GroupFigure) -> tuple[str, str]:
    """A figure and its gap; a reason stands once, where the first of them is missing."""
    gap = NONE if figure.inside is None else _signed(figure.gap, figure.reason or NONE)
    return group_words(figure), gap


def _point(found: Assessment) -> str:
    name = found.operating_point
    return "a probability above 0.5" if name == HALF else f"{name}, chosen on validation data"


def _title(name: str) -> str:
    for start in ("sensitivity_at_specificity_", "specificity_at_sensitivity_"):
        if name.startswith(start):
            what, _, of = start.removesuffix("_").partition("_at_")
            return f"{NAMES[what]} at {of} {name.removeprefix(start)}"
    return NAMES[name]


def _mean(measured: Measures, name: str) -> Cell:
    value = measured.macro[name].value
    return NONE if value is None else value


def _total(found: Assessment) -> tuple[int, int, int]:
    each: Iterable[tuple[int, int, int]] = (
        (one.positives, one.negatives, one.ignored) for one in found.evaluation.findings.values()
    )
    positives, negatives, ignored = (sum(column) for column in zip(*each, strict=True))
    return positives, negatives, ignored


def _optional(value: float | None) -> Cell:
    return NONE if value is None else value


def _p(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:.4f}" if value >= SMALLEST_P else f"<{SMALLEST_P}"


def _ps(pair: tuple[float, float] | None) -> tuple[str, str]:
    return (NONE, NONE) if pair is None else (_p(pair[0]), _p(pair[1]))


def _rate(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"
