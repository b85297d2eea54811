"""Figures for the report, through Matplotlib's object interface: no display, no global state."""

from mxa.evaluation.figures.calibration import reliability_figure
from mxa.evaluation.figures.chart import Chart
from mxa.evaluation.figures.cooccurrence import cooccurrence_figure
from mxa.evaluation.figures.curves import Band, Curve, pr_panels, roc_panels
from mxa.evaluation.figures.distribution import box_figure, interval_bars
from mxa.evaluation.figures.forest import ForestRow, forest_figure
from mxa.evaluation.figures.overlay import auc_bars, require_evaluations, roc_figure, training_curves
from mxa.evaluation.figures.style import distinct, save

__all__ = [
    "Band",
    "Chart",
    "Curve",
    "ForestRow",
    "auc_bars",
    "box_figure",
    "cooccurrence_figure",
    "distinct",
    "forest_figure",
    "interval_bars",
    "pr_panels",
    "reliability_figure",
    "require_evaluations",
    "roc_figure",
    "roc_panels",
    "save",
    "training_curves",
]
