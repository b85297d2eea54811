"""Several models overlaid: ROC curves, AUROC per finding, training."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mxa.errors import DataError
from mxa.evaluation.figures.style import (
    BAND,
    GRID,
    NOTE,
    PALE,
    distinct,
    dot,
    explain,
    key,
    line,
    require_models,
    say,
    small_multiples,
    wrap,
)
from mxa.evaluation.metrics import Evaluation, FloatArray, evaluate_probability, roc_curve
from mxa.labels import LabelSet

Scored = tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike]

_POOLED = "All labels pooled (micro)"
_SERIES = {"train_loss": "Training loss", "val_loss": "Validation loss", "val_auroc": "Validation AUROC"}


class _Curve(NamedTuple):
    """One model in one ROC panel; no points and no area where the curve is undefined."""

    fpr: FloatArray
    tpr: FloatArray
    auroc: float | None
    positives: int
    counted: int
    reason: str | None


def roc_figure(curves: Mapping[str, Scored], labels: LabelSet) -> Figure:
    """Draw ROC curves in small multiples: one panel per finding and one for all labels pooled, all models overlaid.

    A panel's title says how many of the counted labels are positive; its legend gives each model's AUROC. A finding
    without positives or without negatives shows the reason instead of a curve. The last panel is the key of the models.

    Args:
        curves: Per model name its probability (N, L) in [0, 1], target (N, L) of 0 and 1, and mask (N, L) bool.
        labels: The L findings in column order.

    Raises:
        ValueError: If there is no model, or see :func:`mxa.evaluation.metrics.evaluate_probability`.
        DataError: See :func:`mxa.evaluation.metrics.evaluate_probability`.
    """
    require_models(curves)
    by_model = {model: _curves(scored, labels) for model, scored in curves.items()}
    names = (*labels, _POOLED)
    figure, (*axes, last) = small_multiples(len(names) + 1)
    for ax, name in zip(axes, names, strict=True):
        _draw_roc(ax, name, {model: one[name] for model, one in by_model.items()})
    last.set_axis_off()
    last.legend(handles=key(curves), loc="center", title="Models", frameon=False, fontsize=8)
    figure.supxlabel("False positive rate", fontsize=9)
    figure.supylabel("True positive rate", fontsize=9)
    return figure


def auc_bars(evaluations: Mapping[str, Evaluation], labels: LabelSet) -> Figure:
    """Draw each finding's AUROC as one dot per model, with the mean and the pooled AUROC below; 0.5 is chance.

    Dots, as an axis that starts near 0.5 would make bars lie about the ratios. Undefined ones give their reason.

    Args:
        evaluations: Per model name its evaluation over ``labels``.
        labels: The L findings, drawn from the top.

    Raises:
        ValueError: If there is no model, or an evaluation is over other findings.
    """
    require_evaluations(evaluations, labels)
    rows = [*labels, "Mean of the defined (macro)", _POOLED]
    values = {model: _areas(evaluation) for model, evaluation in evaluations.items()}
    height = max(0.3, 0.1 * len(evaluations) + 0.1)
    figure = Figure(figsize=(7.5, height * len(rows) + 1.1), layout="constrained")
    ax = figure.subplots()
    for i, (model, areas) in enumerate(values.items()):
        offset = 0.7 * ((i + 0.5) / len(values) - 0.5)
        x = [np.nan if area is None else area for area, _ in areas]
        ax.plot(x, np.arange(len(rows)) + offset, linestyle="none", label=wrap(model), **dot(i))
    defined = [area for areas in values.values() for area, _ in areas if area is not None]
    left = min([0.5, *defined]) - 0.05
    for row in range(len(rows)):
        note = explain({model: areas[row][1] for model, areas in values.items()})
        if note:
            ax.text(left + 0.005, row, note, fontsize=7, va="center", **NOTE)
    for row in range(0, len(rows), 2):
        ax.axhspan(row - 0.5, row + 0.5, color=BAND, linewidth=0, zorder=-1)
    ax.axvline(0.5, color=PALE, linewidth=0.8, zorder=0)
    ax.axhline(len(labels) - 0.5, color=PALE, linewidth=0.8, zorder=0)
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlim(left, 1.02)
    ax.set_xlabel("Area under the ROC curve", fontsize=9)
    ax.tick_params(axis="x", labelsize=8)
    ax.grid(axis="x", color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=min(len(evaluations), 3), frameon=False, fontsize=8)
    return figure


def training_curves(history: Mapping[str, Sequence[Mapping[str, float | None]]]) -> Figure:
    """Draw training loss, validation loss and validation AUROC over the epochs, all models overlaid.

    Args:
        history: Per model name one record per epoch with the keys ``epoch`` and any of ``train_loss``, ``val_loss`` and
            ``val_auroc``. Where a value is missing or None the line has a gap; other keys are not drawn.

    Raises:
        ValueError: If there is no model.
        DataError: If a record has no epoch.
    """
    require_models(history)
    for model, records in history.items():
        for i, record in enumerate(records):
            if record.get("epoch") is None:
                raise DataError(f"the history of {model!r} has no epoch in record {i}, counting from 0")
    figure = Figure(figsize=(8.4, 2.9), layout="constrained")
    for ax, (column, title) in zip(figure.subplots(1, len(_SERIES)), _SERIES.items(), strict=True):
        for i, (model, records) in enumerate(history.items()):
            epochs = np.array([record["epoch"] for record in records], dtype=np.float64)
            values = np.array([record.get(column) for record in records], dtype=np.float64)  # None becomes NaN
            ax.plot(epochs, values, label=model, marker=".", markevery=_isolated(values), **line(i))
        if not any(np.isfinite(drawn.get_ydata()).any() for drawn in ax.get_lines()):
            say(ax, "not recorded")
            ax.set_yticks([])
        ax.set_title(title, fontsize=9)
        ax.set_xlabel("Epoch", fontsize=8)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        ax.tick_params(labelsize=7)
        ax.grid(color=GRID, linewidth=0.6)
    figure.legend(
        handles=key(history), loc="outside lower center", ncols=min(len(history), 3), frameon=False, fontsize=8
    )
    return figure


def require_evaluations(evaluations: Mapping[str, Evaluation], labels: LabelSet) -> None:
    """Check that there is at least one evaluation and that all are over ``labels``.

    Raises:
        ValueError: If not; the message names the model.
    """
    require_models(evaluations)
    for model, evaluation in evaluations.items():
        if tuple(evaluation.findings) != labels.findings:
            raise ValueError(f"the evaluation of {model!r} is not over the findings of {labels.name}")


def _curves(scored: Scored, labels: LabelSet) -> dict[str, _Curve]:
    evaluation = evaluate_probability(*scored, labels)
    probability, target, counted = (np.asarray(array) for array in scored)
    result = {
        name: _curve(probability[counted[:, j], j], target[counted[:, j], j], one.auroc, one.reason)
        for j, (name, one) in enumerate(evaluation.findings.items())
    }
    pooled = evaluation.auroc_micro, evaluation.reasons.get("auroc_micro")
    return result | {_POOLED: _curve(probability[counted], target[counted], *pooled)}


def _curve(score: npt.NDArray[Any], target: npt.NDArray[Any], area: float | None, reason: str | None) -> _Curve:
    empty = np.empty(0)
    fpr, tpr, _ = (empty, empty, empty) if area is None else roc_curve(score, target)
    return _Curve(fpr, tpr, area, int(target.sum()), len(target), reason)


def _draw_roc(ax: Axes, name: str, curves: Mapping[str, _Curve]) -> None:
    ax.plot([0, 1], [0, 1], color=PALE, linewidth=0.8, label="_chance")
    for i, one in enumerate(curves.values()):
        if one.auroc is not None:
            ax.plot(one.fpr, one.tpr, label=f"{one.auroc:.3f}", **line(i))
    if any(one.auroc is not None for one in curves.values()):
        legend = ax.legend(loc="lower right", title="AUROC", fontsize=7, framealpha=0.8, handlelength=2.2)
        legend.get_title().set_fontsize(7)
    note = explain({model: one.reason for model, one in curves.items()})
    if note:
        say(ax, note)
    count = distinct(f"{one.positives} of {one.counted} positive" for one in curves.values())
    ax.set_title(f"{name}\n{count}", fontsize=8)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")
    ax.tick_params(labelsize=7)


def _areas(evaluation: Evaluation) -> list[tuple[float | None, str | None]]:
    """Return value and reason in the order of the rows of :func:`auc_bars`."""
    reasons = evaluation.reasons
    return [
        *((one.auroc, one.reason) for one in evaluation.findings.values()),
        (evaluation.auroc_macro, reasons.get("auroc_macro")),
        (evaluation.auroc_micro, reasons.get("auroc_micro")),
    ]


def _isolated(values: FloatArray) -> list[int]:
    """Return the points that no line reaches, as both neighbours are gaps: only a dot can show them."""
    gap = np.isnan(np.concatenate(([np.nan], values, [np.nan])))
    return [int(k) for k in np.flatnonzero(~gap[1:-1] & gap[:-2] & gap[2:])]
