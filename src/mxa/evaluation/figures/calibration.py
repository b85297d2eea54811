"""Whether probabilities mean what they say: reliability diagrams."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mxa.evaluation.figures.style import PALE, distinct, dot, explain, line, say, small_multiples, wrap
from mxa.evaluation.scores import Reliability

_AREA = (5.0, 35.0)  # of a marker in square points, from an empty bin to the panel's largest
_NARROWEST = 0.01  # side of a panel whose points all coincide


def reliability_figure(diagrams: Mapping[str, Mapping[str, Reliability]]) -> Figure:
    """Draw observed frequency against mean predicted probability in small multiples, several diagrams in each panel.

    Each panel is as wide as its data, so that the small probabilities of a rare finding can be read too; both axes have
    the same range, and the diagonal is perfect calibration. The area of a marker grows with the images in its bin. The
    last panel is the key.

    Args:
        diagrams: Per title of a panel, such as the finding, and per name, such as "as the network gives", its diagram.
            One without bins is of a finding that is not annotated, and the panel says so.

    Raises:
        ValueError: If there is no diagram, or one has shapes that differ or values outside [0, 1].
    """
    names = list(dict.fromkeys(name for of_panel in diagrams.values() for name in of_panel))
    if not names or not all(diagrams.values()):
        raise ValueError("there is no diagram to show")
    figure, (*axes, last) = small_multiples(len(diagrams) + 1)
    for ax, (title, of_panel) in zip(axes, diagrams.items(), strict=True):
        for name, one in of_panel.items():
            _require_diagram(f"{title}, {name!r}", one)
        _draw(ax, title, of_panel, names)
    last.set_axis_off()
    last.legend(handles=_key(names), loc="center", frameon=False, fontsize=8)
    last.text(0.5, 0.02, "Larger marker: more cases", transform=last.transAxes, ha="center", fontsize=7)
    figure.supxlabel("Mean predicted probability", fontsize=9)
    figure.supylabel("Observed frequency", fontsize=9)
    return figure


def _draw(ax: Axes, title: str, diagrams: Mapping[str, Reliability], names: list[str]) -> None:
    ax.axline((0, 0), slope=1, color=PALE, linewidth=0.8, zorder=1, label="_perfect")
    largest = max(one.count.max(initial=0) for one in diagrams.values())
    for name, one in diagrams.items():
        i = names.index(name)
        if len(one.count):
            ax.plot(one.predicted, one.observed, label=name, **line(i) | {"linewidth": 0.9})
            area = _AREA[0] + (_AREA[1] - _AREA[0]) * one.count / largest
            marker = {"color": dot(i)["color"], "marker": dot(i)["marker"], "edgecolors": "white", "linewidths": 0.4}
            ax.scatter(one.predicted, one.observed, s=area, label=f"_{name}", zorder=3, **marker)
    note = explain({name: None if len(one.count) else "not annotated" for name, one in diagrams.items()})
    if note:
        say(ax, note)
    counts = distinct(
        f"{(one.observed * one.count).sum():.0f} of {one.count.sum()} positive" for one in diagrams.values()
    )
    ax.set_title(f"{title}\n{counts}", fontsize=8)
    ax.set(xlim=_range(diagrams), ylim=_range(diagrams), aspect="equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    ax.tick_params(labelsize=7)


def _range(diagrams: Mapping[str, Reliability]) -> tuple[float, float]:
    """Return the range of both axes: all points with a margin, a little beyond [0, 1] at most."""
    values = np.concatenate([part for one in diagrams.values() for part in (one.predicted, one.observed)])
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    margin = max(0.06 * (high - low), _NARROWEST / 2 - (high - low) / 2)
    return low - margin, high + margin


def _key(names: list[str]) -> list[Line2D]:
    perfect = Line2D([], [], color=PALE, linewidth=0.8, label="Perfect calibration")
    return [*(Line2D([], [], label=wrap(name), **line(i) | dot(i)) for i, name in enumerate(names)), perfect]


def _require_diagram(what: str, diagram: Reliability) -> None:
    predicted, observed, count = diagram.predicted, diagram.observed, diagram.count
    if predicted.ndim != 1 or not predicted.shape == observed.shape == count.shape:
        raise ValueError(
            f"{what}: predicted, observed and count must all be (B,), "
            f"got {predicted.shape}, {observed.shape}, {count.shape}"
        )
    for name, value in (("predicted", predicted), ("observed", observed)):
        if not ((value >= 0) & (value <= 1)).all():
            raise ValueError(f"{what}: {name} has a value outside [0, 1]")
    if not (count > 0).all():
        raise ValueError(f"{what}: a bin without images has no place in a diagram")
