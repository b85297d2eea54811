"""One model in small multiples: ROC and precision-recall curves with their intervals and with named points."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mxa.evaluation.figures.style import COLOURS, MARKERS, PALE, say, small_multiples, wrap
from mxa.evaluation.metrics import FloatArray

_Corner = Literal["upper right", "lower left", "lower right"]

_CURVE: dict[str, Any] = {"color": COLOURS[0], "linewidth": 1.3}
_BAND: dict[str, Any] = {"facecolor": COLOURS[0], "alpha": 0.2, "linewidth": 0}
_CHANCE: dict[str, Any] = {"color": PALE, "linewidth": 0.9, "linestyle": "--"}


@dataclass(frozen=True, eq=False)
class Band:
    """The pointwise interval of a curve.

    Attributes:
        x: (K,) in [0, 1], ascending.
        low: (K,) in [0, 1], the lower end at each x; NaN where it is undefined, which leaves a gap.
        high: (K,) in [0, 1], the upper end, likewise.

    Raises:
        ValueError: If the shapes differ, a value is outside [0, 1], x descends, or a lower end is above its upper end.
    """

    x: FloatArray
    low: FloatArray
    high: FloatArray

    def __post_init__(self) -> None:
        _require_ascending("a band", self.x, low=self.low, high=self.high)
        if (self.low > self.high).any():
            raise ValueError("a band's lower end is above its upper end")


@dataclass(frozen=True, eq=False)
class Curve:
    """One finding's curve.

    Attributes:
        x: (K,) in [0, 1], ascending: false positive rate (ROC) or recall (precision-recall); empty when there is none.
        y: (K,) in [0, 1]: true positive rate or precision.
        text: The area and its interval in words, such as "0.812 (0.780 to 0.841)".
        positives: Counted images that have the finding.
        counted: Counted images.
        reason: Why there is no curve ("no positives"); None when there is one.
        band: The curve's interval, or None.
        points: Places (x, y) on the panel by name, such as an operating point or a human reader.

    Raises:
        ValueError: If the shapes differ, a value is outside [0, 1], x descends, the counts are impossible, or there is
            not exactly one of a curve and a reason.
    """

    x: FloatArray
    y: FloatArray
    text: str
    positives: int
    counted: int
    reason: str | None = None
    band: Band | None = None
    points: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require_ascending("a curve", self.x, y=self.y)
        if np.isnan(self.y).any():
            raise ValueError("a curve has a y that is NaN; leave the point out")
        if not 0 <= self.positives <= self.counted:
            raise ValueError(f"{self.positives} positives among {self.counted} counted images are impossible")
        if (len(self.x) == 0) != bool(self.reason):
            raise ValueError("a curve needs either points x and y, or the reason why it has none")
        if self.reason and (self.band is not None or self.points):
            raise ValueError(f"a curve that is undefined ({self.reason}) has neither a band nor points")
        for name, point in self.points.items():
            if not all(0 <= value <= 1 for value in point):
                raise ValueError(f"the point {name!r} is outside [0, 1]: {point}")


def roc_panels(curves: Mapping[str, Curve]) -> Figure:
    """Draw ROC curves in small multiples: one panel per finding, the diagonal for chance, the last panel as the key.

    Args:
        curves: Per title of a panel, such as the finding, its curve; ``text`` is the AUROC.

    Raises:
        ValueError: If there is no curve.
    """
    figure, axes = _panels(curves, "False positive rate", "True positive rate")
    for ax, one in zip(axes, curves.values(), strict=True):
        if not one.reason:
            ax.plot([0, 1], [0, 1], label="_chance", zorder=1, **_CHANCE)
            ax.plot(one.x, one.y, label=one.text, **_CURVE)
            _draw_band(ax, one.band, None)
            _legend(ax, "AUROC", "lower right")
    return figure


def pr_panels(curves: Mapping[str, Curve]) -> Figure:
    """Draw precision-recall curves in small multiples: one panel per finding, the last panel as the key.

    The line of chance is the prevalence, positives / counted. A curve is a staircase: up to each recall it has the
    precision at that recall, from recall 0 on, so that the area below it is the average precision
    sum((recall[k] - recall[k-1]) * precision[k]).

    Args:
        curves: Per title of a panel, such as the finding, its curve; ``text`` is the average precision.

    Raises:
        ValueError: If there is no curve.
    """
    figure, axes = _panels(curves, "Recall (sensitivity)", "Precision (positive predictive value)")
    for ax, one in zip(axes, curves.values(), strict=True):
        if not one.reason:
            ax.axhline(one.positives / one.counted, label="_chance", zorder=1, **_CHANCE)
            x, y = np.concatenate(([0.0], one.x)), np.concatenate((one.y[:1], one.y))
            ax.plot(x, y, label=one.text, drawstyle="steps-pre", **_CURVE)
            _draw_band(ax, one.band, "pre")
            _legend(ax, "Average precision", "upper right" if _leaves_upper_right(one) else "lower left")
    return figure


def _panels(curves: Mapping[str, Curve], xlabel: str, ylabel: str) -> tuple[Figure, list[Axes]]:
    """Return the figure and the panels of the curves with titles, named points, reasons and key, but no curve yet."""
    if not curves:
        raise ValueError("there is no curve to show")
    figure, (*axes, last) = small_multiples(len(curves) + 1)
    names = list(dict.fromkeys(name for one in curves.values() for name in one.points))
    for ax, (title, one) in zip(axes, curves.items(), strict=True):
        if one.reason:
            say(ax, one.reason)
        for name, (x, y) in one.points.items():
            ax.plot(x, y, label=f"_{name}", clip_on=False, zorder=4, **_point(names.index(name)))
        ax.set_title(f"{title}\n{one.positives} of {one.counted} positive", fontsize=8)
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")
        ax.tick_params(labelsize=7)
    last.set_axis_off()
    last.legend(handles=_key(curves, names), loc="center", frameon=False, fontsize=8)
    figure.supxlabel(xlabel, fontsize=9)
    figure.supylabel(ylabel, fontsize=9)
    return figure, axes


def _draw_band(ax: Axes, band: Band | None, step: Literal["pre"] | None) -> None:
    if band is not None:
        ax.fill_between(band.x, band.low, band.high, step=step, label="_band", **_BAND)


def _legend(ax: Axes, title: str, place: _Corner) -> None:
    # A single curve needs no sample of its line beside the number.
    legend = ax.legend(
        loc=place, title=title, fontsize=7, title_fontsize=7, framealpha=0.8, handlelength=0, handletextpad=0
    )
    legend.set_zorder(3)


def _leaves_upper_right(curve: Curve) -> bool:
    """Whether the upper right corner is freer of the staircase than the lower left one."""
    right, left = curve.y[curve.x >= 0.3], curve.y[curve.x <= 0.7]
    above = 1 - float(right.max(initial=0.0))
    return above >= float(left.min(initial=1.0))


def _point(i: int) -> dict[str, Any]:
    # Without the curves' blue, and hollow, so that the curve under a point is seen.
    return {
        "color": COLOURS[1:][i % (len(COLOURS) - 1)],
        "marker": MARKERS[i % len(MARKERS)],
        "markersize": 5.5,
        "markerfacecolor": "white",
        "markeredgewidth": 1.4,
        "linestyle": "none",
    }


def _key(curves: Mapping[str, Curve], names: list[str]) -> list[Artist]:
    result: list[Artist] = [Line2D([], [], label="Model", **_CURVE)]
    if any(one.band is not None for one in curves.values()):
        result.append(Patch(label="Its interval", **_BAND))
    result.append(Line2D([], [], label="Chance", **_CHANCE))
    return result + [Line2D([], [], label=wrap(name), **_point(i)) for i, name in enumerate(names)]


def _require_ascending(what: str, x: FloatArray, **values: FloatArray) -> None:
    """Check x and what belongs to it; NaN is allowed in the values."""
    for name, value in {"x": x, **values}.items():
        if value.ndim != 1 or value.shape != x.shape:
            raise ValueError(f"{what} needs x, {', '.join(values)} of one shape (K,), got {x.shape} and {value.shape}")
        if ((value < 0) | (value > 1)).any():
            raise ValueError(f"{what} has a value of {name} outside [0, 1]")
    if not (np.diff(x) >= 0).all() or np.isnan(x).any():
        raise ValueError(f"{what} needs an x that ascends")
