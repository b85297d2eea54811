"""An assessment as figures."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure

from mxa.evaluation import figures
from mxa.evaluation.assessment import POOLED, Assessment
from mxa.evaluation.assessment_tables import group_words, words
from mxa.evaluation.bands import GRID
from mxa.evaluation.figures import Band, Curve, ForestRow
from mxa.evaluation.intervals import Interval
from mxa.evaluation.measures import Measure
from mxa.evaluation.metrics import FloatArray, roc_curve
from mxa.evaluation.scores import pr_curve
from mxa.evaluation.subgroups import GroupFigure, GroupResult


def draw(found: Assessment) -> dict[str, Figure]:
    """All figures that there is something for, by file name."""
    result = {
        "roc": figures.roc_panels({name: _roc(found, j) for j, name in enumerate(found.cases.labels)}),
        "pr": figures.pr_panels({name: _pr(found, j) for j, name in enumerate(found.cases.labels)}),
        "auroc": _auroc(found),
        "cooccurrence": figures.cooccurrence_figure(found.cooccurrence[0], found.cooccurrence[1], found.cases.labels),
    }
    if not found.cases.decisions_only:
        result["reliability"] = figures.reliability_figure(found.diagrams)
    if found.comparison is not None:
        result["comparison"] = _comparison(found)
    for name, groups in (("subgroups", found.groups), ("strata", found.strata)):
        if groups:
            result[name] = _groups(groups, "Mean AUROC", lambda one: one.macro)
            result[f"{name}-gaps"] = _gaps(groups)
    return result


def _roc(found: Assessment, j: int) -> Curve:
    name, kept = found.cases.labels.findings[j], found.cases.mask[:, j]
    truth, score = found.cases.target[kept, j], found.cases.scores()[kept, j]
    measure, interval, bands = found.measures.findings[name]["auroc"], found.auroc.findings[name], found.bands[name]
    if measure.reason is not None:
        return _empty(truth, measure.reason)
    x, y, _ = roc_curve(score, truth)
    points = {}
    row = found.measures.findings[name]
    if row["sensitivity"].value is not None and row["specificity"].value is not None:
        points[f"operating point {found.operating_point}"] = (1 - row["specificity"].value, row["sensitivity"].value)
    for reader, of in found.readers.items():
        point = of[name]
        if point.sensitivity is not None and point.specificity is not None:
            points[reader] = (1 - point.specificity, point.sensitivity)
    band = None if bands is None else Band(GRID, *bands.roc)
    return Curve(x, y, _legend(measure, interval), int(truth.sum()), len(truth), band=band, points=points)


def _pr(found: Assessment, j: int) -> Curve:
    name, kept = found.cases.labels.findings[j], found.cases.mask[:, j]
    truth, score = found.cases.target[kept, j], found.cases.scores()[kept, j]
    measure, bands = found.measures.findings[name]["average_precision"], found.bands[name]
    if measure.reason is not None:
        return _empty(truth, measure.reason)
    x, y, _ = pr_curve(score, truth)
    row = found.measures.findings[name]
    points = {}
    if row["sensitivity"].value is not None and row["ppv"].value is not None:
        points[f"operating point {found.operating_point}"] = (row["sensitivity"].value, row["ppv"].value)
    band = None if bands is None else Band(GRID, *bands.pr)
    text = _legend(measure, found.average_precision.findings[name])
    return Curve(x, y, text, int(truth.sum()), len(truth), band=band, points=points)


def _empty(truth: FloatArray, reason: str) -> Curve:
    nothing = np.empty(0)
    return Curve(nothing, nothing, "", int(truth.sum()), len(truth), reason)


def _legend(measure: Measure, interval: Interval | None) -> str:
    return f"{measure.value:.3f}" if interval is None else str(interval)


def _auroc(found: Assessment) -> Figure:
    """Forest of the findings, with the mean and the pooled labels above."""
    areas, measured = found.auroc, found.measures
    mean = Measure(measured.macro["auroc"].value)
    whole = [
        _row("Mean of the findings (macro)", areas.macro, mean, areas.macro_reason),
        _row(f"{POOLED} (micro)", found.auroc_micro, measured.micro["auroc"], found.auroc_micro_reason),
    ]
    rows = [
        _row(name, interval, measured.findings[name]["auroc"], areas.reasons.get(name))
        for name, interval in areas.findings.items()
    ]
    return figures.forest_figure({"Overall": whole, "Findings": rows}, "Area under the ROC curve", 0.5)


def _row(name: str, interval: Interval | None, measure: Measure, reason: str | None) -> ForestRow:
    return ForestRow(name, interval, "" if interval else words(None, measure, reason))


def _comparison(found: Assessment) -> Figure:
    one = found.comparison
    assert one is not None
    rows = []
    for name, difference in one.findings.items():
        p = difference.p_bootstrap
        note = f"p (Holm) {_p(p[1])}" if p else difference.reason or "undefined"
        rows.append(ForestRow(name, difference.bootstrap, note))
    note = f"p {_p(one.p_macro)}" if one.p_macro is not None else one.macro_reason or "undefined"
    whole = ForestRow("Mean of the findings (macro)", one.macro, note)
    groups = {"Overall": [whole], "Findings": rows}
    return figures.forest_figure(groups, f"AUROC of {one.first} minus {one.second}", 0.0)


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


def _groups(groups: Sequence[GroupResult], xlabel: str, of: Callable[[GroupResult], GroupFigure]) -> Figure:
    by_column: dict[str, list[ForestRow]] = {}
    for one in groups:
        figure = of(one)
        note = "" if figure.inside else group_words(figure)
        by_column.setdefault(one.column, []).append(ForestRow(f"{one.value} (n = {one.cases})", figure.inside, note))
    return figures.forest_figure(by_column, xlabel, 0.5)


def _gaps(groups: Sequence[GroupResult]) -> Figure:
    """Gaps of the mean AUROC and of the rate of false No Finding side by side."""
    by_column: dict[str, list[ForestRow]] = {}
    for one in groups:
        rows = by_column.setdefault(one.column, [])
        for series, figure in (("mean AUROC", one.macro), ("rate of false No Finding", one.underdiagnosis)):
            if figure is not None:
                note = "" if figure.gap else figure.reason or "undefined"
                rows.append(ForestRow(one.value, figure.gap, note, series))
    return figures.forest_figure(by_column, "Gap: the group minus all other cases", 0.0)
