"""What the MXA blocks' regions did over the epochs of a run, in one picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mxa.evaluation.figures.style import GRID, PALE, key, line, say, small_multiples
from mxa.training.region_watch import ALIKE, BACKBONE, WHOLE_AREA, BlockRegions

_BACKBONE: Mapping[str, Any] = {"color": PALE, "linestyle": "-", "linewidth": 2.2}
_LIMIT: Mapping[str, Any] = {"color": "#555555", "linestyle": (0, (1, 2)), "linewidth": 0.9}


def regions_figure(rows: Sequence[BlockRegions]) -> Figure:
    """Draw area, share of whole maps, centre, spread, movement and gradient ratio, a line per block, and the key.

    "Spread" is the largest of the three spreads. The dotted lines are the limits of the warning at the end of a run:
    blocks above the one of the area, or below the one of the spread, have the same region for all images.

    Args:
        rows: of all epochs and blocks, as :func:`mxa.training.region_watch.read_regions` gives them.

    Raises:
        ValueError: there is no row.
    """
    if not rows:
        raise ValueError("there is no epoch to show")
    blocks = {block: [row for row in rows if row.block == block] for block in dict.fromkeys(row.block for row in rows)}
    figure, (area, whole, x, y, spread, moved, gradient, last) = small_multiples(8)
    for ax, title, name in (
        (area, "Area", "area"),
        (whole, "Boxes that are the whole map", "whole"),
        (x, "Centre, x", "x"),
        (y, "Centre, y", "y"),
        (spread, "Spread over the images", "spread"),
        (moved, "Moved since the first epoch", "moved"),
        (gradient, "Gradient / weights", "gradient_ratio"),
    ):
        _draw(ax, title, blocks, name)
    for ax in (area, whole, x, y):
        ax.set_ylim(-0.03, 1.03)
    area.axhline(WHOLE_AREA, label="_limit", zorder=1, **_LIMIT)
    spread.axhline(ALIKE, label="_limit", zorder=1, **_LIMIT)
    for ax in (spread, moved):
        ax.set_ylim(bottom=0)
    _compare(gradient, next(iter(blocks.values())))
    limit = Line2D([], [], label="limit of the warning", **_LIMIT)
    last.set_axis_off()
    last.legend(
        handles=[*key(blocks), Line2D([], [], label=BACKBONE, **_BACKBONE), limit],
        loc="center",
        frameon=False,
        fontsize=7,
    )
    figure.supxlabel("Epoch", fontsize=9)
    return figure


def _draw(ax: Axes, title: str, blocks: Mapping[str, Sequence[BlockRegions]], name: str) -> None:
    """Draw one number of all blocks; small dots, so that a single epoch can be seen."""
    for i, (block, own) in enumerate(blocks.items()):
        values = [getattr(row, name) for row in own]
        ax.plot([row.epoch for row in own], values, label=block, marker=".", markersize=3, **line(i))
    ax.set_title(title, fontsize=8)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    ax.tick_params(which="both", labelsize=7)
    ax.grid(axis="y", color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)


def _compare(ax: Axes, rows: Sequence[BlockRegions]) -> None:
    """Put the backbone behind the blocks' gradients, on a logarithmic axis where there is anything to draw on it."""
    ratios = [row.backbone_gradient_ratio for row in rows]
    ax.plot([row.epoch for row in rows], ratios, label=BACKBONE, zorder=1, **_BACKBONE)
    drawn = np.concatenate([np.asarray(each.get_ydata(), dtype=np.float64) for each in ax.get_lines()])
    if (np.isfinite(drawn) & (drawn > 0)).any():
        ax.set_yscale("log")
    else:
        say(ax, "no gradients")
