"""Estimates with their intervals, one below the other: a forest plot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mxa.evaluation.figures.style import BAND, GRID, dot, shared_level, wrap
from mxa.evaluation.intervals import Interval

_LINE = 0.2  # inches per row
_NUMBERS = 1.03  # where the numbers begin, in widths of the plot


@dataclass(frozen=True)
class ForestRow:
    """One line of a forest plot.

    Attributes:
        label: What is estimated, such as the finding.
        interval: The estimate with its interval, or None where it is undefined.
        note: Why it is undefined; beside an interval a remark that follows the numbers, such as a p-value.
        series: Which of several estimates of the same thing, such as the model; empty when there is but one.

    Raises:
        ValueError: If there is neither an interval nor a note, or the interval is impossible.
    """

    label: str
    interval: Interval | None
    note: str = ""
    series: str = ""

    def __post_init__(self) -> None:
        one = self.interval
        if one is None and not self.note:
            raise ValueError(f"the row {self.label!r} has no interval; its note must say why")
        if one is not None and not (np.isfinite([one.estimate, one.low, one.high]).all() and one.low <= one.high):
            raise ValueError(f"the row {self.label!r} has an impossible interval: {one}")


class _Block(NamedTuple):
    """The rows that share a label, from ``y`` downwards; a heading has no rows."""

    y: float
    label: str
    rows: tuple[ForestRow, ...]


def forest_figure(groups: Mapping[str, Sequence[ForestRow]], xlabel: str, reference: float | None) -> Figure:
    """Draw a dot with its interval per row, and the same in numbers at the right.

    Rows of one group that share a label stand together under it, one per series. A row without an interval shows its
    note instead. With a reference of 0 the numbers are differences and have a sign.

    Args:
        groups: Per heading its rows, from the top; the heading "" is not written.
        xlabel: What is estimated.
        reference: Where a vertical line says "no better" or "no different" (0.5 for an AUROC, 0 for a difference).

    Raises:
        ValueError: If there is no row, a group has a label and series twice, or the intervals' levels differ.
    """
    rows = [row for group in groups.values() for row in group]
    if not rows:
        raise ValueError("there is no row to show")
    intervals = [row.interval for row in rows if row.interval is not None]
    level = shared_level(intervals)
    series = list(dict.fromkeys(row.series for row in rows))
    blocks = _blocks(groups)
    bottom = blocks[-1].y + len(blocks[-1].rows) - 0.4
    figure = Figure(figsize=(7.5, _LINE * (bottom + 0.6) + 0.9), layout="constrained")
    ax = figure.subplots()
    for block in blocks:
        for k, row in enumerate(block.rows):
            _draw(ax, block.y + k, row, dot(series.index(row.series)), signed=reference == 0)
    _name(ax, blocks)
    if level:
        ax.text(_NUMBERS, -1.1, f"Estimate ({level} interval)", transform=ax.get_yaxis_transform(), **_words(7))
    if reference is not None:
        ax.axvline(reference, color="#888888", linewidth=0.9, linestyle="--", zorder=1, label="_reference")
    ax.set_ylim(bottom, -0.6)
    ax.set_xlim(_limits(intervals, reference))
    ax.set_xlabel(xlabel, fontsize=9)
    ax.tick_params(axis="x", labelsize=8)
    ax.grid(axis="x", color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    if any(series):
        handles = [Line2D([], [], label=wrap(name), linewidth=1.3, **dot(i)) for i, name in enumerate(series) if name]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(len(series), 3), frameon=False, fontsize=8)
    return figure


def _blocks(groups: Mapping[str, Sequence[ForestRow]]) -> list[_Block]:
    """Give every heading and label its place, from 0 downwards; a group is set off by half a row."""
    blocks: list[_Block] = []
    y = 0.0
    for heading, rows in groups.items():
        by_label: dict[str, dict[str, ForestRow]] = {}
        for row in rows:
            of_label = by_label.setdefault(row.label, {})
            if row.series in of_label:
                raise ValueError(f"group {heading!r} has the row {row.label!r} of series {row.series!r} twice")
            of_label[row.series] = row
        y += 0.5 if blocks and rows else 0.0
        if heading and rows:
            blocks.append(_Block(y, heading, ()))
            y += 1
        for label, of_label in by_label.items():
            blocks.append(_Block(y, label, tuple(of_label.values())))
            y += len(of_label)
    return blocks


def _draw(ax: Axes, y: float, row: ForestRow, style: dict[str, Any], signed: bool) -> None:
    one = row.interval
    if one is None:
        ax.text(_NUMBERS, y, row.note, transform=ax.get_yaxis_transform(), style="italic", **_words(7))
        return
    ax.plot([one.low, one.high], [y, y], color=style["color"], linewidth=1.3, label="_interval", solid_capstyle="butt")
    ax.plot([one.estimate], [y], linestyle="none", label="_estimate", **style)
    numbers = one.signed() if signed else str(one)
    text = f"{numbers}  {row.note}" if row.note else numbers
    ax.text(_NUMBERS, y, text, transform=ax.get_yaxis_transform(), **_words(7))


def _name(ax: Axes, blocks: Sequence[_Block]) -> None:
    """Write each label beside the middle of its rows, the headings in bold, and shade every second label."""
    ax.set_yticks(
        [block.y + max(len(block.rows) - 1, 0) / 2 for block in blocks], [block.label for block in blocks], fontsize=8
    )
    ax.tick_params(axis="y", length=0)
    for tick, block in zip(ax.get_yticklabels(), blocks, strict=True):
        if not block.rows:
            tick.set_fontweight("bold")
    for block in [block for block in blocks if block.rows][::2]:
        ax.axhspan(block.y - 0.5, block.y + len(block.rows) - 0.5, color=BAND, linewidth=0, zorder=-1)


def _words(size: float) -> dict[str, Any]:
    return {"fontsize": size, "va": "center", "color": "#333333"}


def _limits(intervals: Sequence[Interval], reference: float | None) -> tuple[float, float]:
    """Return the range of x that shows all intervals, all estimates and the reference, with a margin."""
    values = [value for one in intervals for value in (one.low, one.estimate, one.high)]
    values += [] if reference is None else [reference]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = 0.05 * (high - low) or 0.05
    return low - margin, high + margin
