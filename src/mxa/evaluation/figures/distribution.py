"""Values of models side by side: boxes over the epochs (the paper's Figure 3), means with intervals (Figure 4)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from mxa.evaluation.figures.style import COLOURS, GRID, NOTE, dot, require_models, shared_level, wrap
from mxa.evaluation.intervals import Interval
from mxa.evaluation.metrics import FloatArray

_GOLDEN = 0.6180339887498949


def box_figure(values: Mapping[str, Mapping[str, Sequence[float]]], ylabel: str) -> Figure:
    """Draw one panel per run and in it one box per model, with every value as a point [paper, Figure 3].

    A box spans the quartiles, its line is the median, and its whiskers reach the farthest values within 1.5
    interquartile ranges. The points are spread sideways for legibility alone, always in the same way.

    Args:
        values: Per title of a panel and model the values, such as the AUROC of each epoch. A model without values in
            one of the panels says so there.
        ylabel: What the values are; the panels share the axis.

    Raises:
        ValueError: If there is no panel or no model, or a value is not finite.
    """
    models = list(dict.fromkeys(model for of_panel in values.values() for model in of_panel))
    require_models(dict.fromkeys(models))
    width = max(1.8, 0.55 * len(models) + 0.5)
    figure = Figure(figsize=(width * len(values) + 0.8, 3.8), layout="constrained")
    axes = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    for ax, (title, of_panel) in zip(axes, values.items(), strict=True):
        for i, model in enumerate(models):
            drawn = np.asarray(of_panel.get(model, ()), dtype=np.float64)
            if drawn.ndim != 1 or not np.isfinite(drawn).all():
                raise ValueError(f"{title}, {model!r}: needs finite values (K,); leave out what is undefined")
            _box(ax, i, drawn)
        ax.set_title(title, fontsize=9)
        _name_models(ax, models)
    axes[0].set_ylabel(ylabel, fontsize=9)
    return figure


def interval_bars(rows: Mapping[str, Interval], ylabel: str, published: Mapping[str, float] | None = None) -> Figure:
    """Draw each model's estimate with its interval, and published values as hollow markers [paper, Figure 4].

    Dots, as bars on an axis that does not start at 0 would lie about the ratios.

    Args:
        rows: Per model its mean with interval.
        ylabel: What is estimated.
        published: Published values per model; models that are in here alone follow at the right.

    Raises:
        ValueError: If there is no model, the intervals' levels differ, or a value is not finite.
    """
    published = published or {}
    models = list(dict.fromkeys([*rows, *published]))
    require_models(dict.fromkeys(models))
    level = shared_level(rows.values())
    for model, one in rows.items():
        if not np.isfinite([one.estimate, one.low, one.high]).all() or one.low > one.high:
            raise ValueError(f"{model!r} has an impossible interval: {one}")
    for model, value in published.items():
        if not np.isfinite(value):
            raise ValueError(f"the published value of {model!r} is {value}; leave it out")
    figure = Figure(figsize=(max(3.5, 0.8 * len(models) + 1.2), 3.8), layout="constrained")
    ax = figure.subplots()
    if rows:
        _intervals(ax, {models.index(model): one for model, one in rows.items()}, f"mean with its {level} interval")
    if published:
        # Beside an interval, a published value stands a little to the right of it.
        _published(ax, [(models.index(model) + 0.15 * (model in rows), value) for model, value in published.items()])
    ax.margins(y=0.12)
    _name_models(ax, models)
    ax.set_ylabel(ylabel, fontsize=9)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    return figure


def _box(ax: Axes, i: int, values: FloatArray) -> None:
    """Draw the box of model ``i`` at x = i; the extremes are left to the points, which show every value."""
    if not len(values):
        ax.text(i, 0.5, "no values", transform=ax.get_xaxis_transform(), rotation=90, ha="center", va="center", **NOTE)
        return
    colour = COLOURS[i % len(COLOURS)]
    edge = {"color": colour, "linewidth": 1.2}
    ax.boxplot(
        [values],
        positions=[i],
        widths=0.6,
        showfliers=False,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": to_rgba(colour, 0.15), "edgecolor": colour, "linewidth": 1.2},
        medianprops=edge | {"linewidth": 2.2},
        whiskerprops=edge,
        capprops=edge,
    )
    # Multiples of the golden ratio fill the width evenly, however many there are.
    aside = 0.4 * ((np.arange(1, len(values) + 1) * _GOLDEN) % 1 - 0.5)
    style = dot(i) | {"markersize": 3, "markeredgewidth": 0}
    ax.plot(i + aside, values, linestyle="none", alpha=0.7, label=f"_{i}", zorder=3, **style)


def _intervals(ax: Axes, rows: Mapping[int, Interval], label: str) -> None:
    """Draw the interval of each model at its x, and the estimate in numbers above it."""
    x, low, high = list(rows), [one.low for one in rows.values()], [one.high for one in rows.values()]
    ax.vlines(x, low, high, color=COLOURS[0], linewidth=1.6)
    ax.plot(x, [one.estimate for one in rows.values()], linestyle="none", label=label, **dot(0) | {"markersize": 6})
    for i, one in rows.items():
        _number(ax, (i, max(one.high, one.estimate)), one.estimate, (0, 3), {"ha": "center", "va": "bottom"})


def _published(ax: Axes, places: Sequence[tuple[float, float]]) -> None:
    """Draw published values (x, y), each with its number."""
    style = dot(1) | {"markersize": 6, "markerfacecolor": "white", "markeredgewidth": 1.4}
    ax.plot(*zip(*places, strict=True), linestyle="none", label="published", **style)
    for place in places:
        _number(ax, place, place[1], (5, 0), {"ha": "left", "va": "center"})


def _number(ax: Axes, place: tuple[float, float], value: float, offset: tuple[float, float], side: Any) -> None:
    ax.annotate(f"{value:.3f}", place, xytext=offset, textcoords="offset points", fontsize=7, color="#333333", **side)


def _name_models(ax: Axes, models: Sequence[str]) -> None:
    names = [wrap(model) for model in models]
    ax.set_xticks(range(len(models)), names, fontsize=8, rotation=35, ha="right", rotation_mode="anchor")
    ax.set_xlim(-0.6, len(models) - 0.4)
    ax.tick_params(axis="y", labelsize=8)
    ax.grid(axis="y", color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)
