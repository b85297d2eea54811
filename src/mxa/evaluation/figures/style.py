"""What all figures share: palette, panels, notes, and how a figure becomes a file.

Colours are those of Okabe and Ito, which stay apart for colour-blind readers; line styles and markers keep models apart
in grey print too.
"""

import os
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mxa.errors import DataError
from mxa.evaluation.figures.chart import DPI, take_words_as_they_are
from mxa.evaluation.intervals import Interval

# Okabe and Ito without yellow, which vanishes on white. 7 colours, 4 styles and 5 markers have no common factor, so
# that lines only look alike from the 29th model on, dots from the 36th.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v")
PALE = "#BBBBBB"
GRID = "#E5E5E5"
BAND = "#F5F5F5"
NOTE: dict[str, Any] = {
    "style": "italic",
    "color": "#555555",
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1.5},
}

_COLUMNS = 4


def small_multiples(count: int) -> tuple[Figure, list[Axes]]:
    """Return a figure and its first ``count`` panels, at most four in a row; the other places stay empty."""
    columns = min(_COLUMNS, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(2.1 * columns, 2.3 * rows + 0.3), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for ax in axes[count:]:
        ax.set_axis_off()
    return figure, axes[:count]


def line(i: int) -> dict[str, Any]:
    """Return colour and line style of the model number ``i``, counting from 0."""
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i % len(STYLES)], "linewidth": 1.3}


def dot(i: int) -> dict[str, Any]:
    """Return colour and marker of the model number ``i``, counting from 0."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "markersize": 4.5}


def key(models: Iterable[str]) -> list[Line2D]:
    """Return one line per model for a legend."""
    return [Line2D([], [], label=wrap(model), **line(i)) for i, model in enumerate(models)]


def wrap(name: str) -> str:
    """Break a name into lines that fit a column of the narrowest key."""
    return textwrap.fill(name, 28)


def say(ax: Axes, text: str) -> None:
    """Write a note into a panel that has nothing else to show."""
    ax.text(0.5, 0.6, text, transform=ax.transAxes, ha="center", va="center", fontsize=8, **NOTE)


def explain(reasons: Mapping[str, str | None]) -> str:
    """Return the reason that all models share, or one line per model that has one."""
    given = {model: reason for model, reason in reasons.items() if reason}
    if len(given) == len(reasons) and len(set(given.values())) == 1:
        return next(iter(given.values()))
    return "\n".join(f"{model}: {reason}" for model, reason in given.items())


def distinct(values: Iterable[object]) -> str:
    """Join the different ones among the models' values: "12" or, if they were scored on different labels, "12 / 15"."""
    return " / ".join(dict.fromkeys(map(str, values)))


def require_models(models: Mapping[str, object]) -> None:
    """Check that there is a model.

    Raises:
        ValueError: If there is none.
    """
    if not models:
        raise ValueError("there is no model to show")


def shared_level(intervals: Iterable[Interval]) -> str:
    """Return the level of the intervals in words, such as "95%"; empty when there is no interval.

    Raises:
        ValueError: If the levels differ, as one figure cannot name them both.
    """
    levels = {interval.level for interval in intervals}
    if len(levels) > 1:
        raise ValueError(f"intervals of different levels cannot share a figure: {sorted(levels)}")
    return "".join(f"{100 * level:g}%" for level in levels)


def save(figure: Figure, file: str | os.PathLike[str], *, dpi: float = DPI) -> None:
    """Write a figure, its words as they are; the suffix of ``file`` chooses the format (png, pdf, svg).

    Raises:
        ValueError: If Matplotlib does not know the suffix.
        DataError: If the file cannot be written.
    """
    take_words_as_they_are(figure)
    try:
        figure.savefig(file, dpi=dpi)
    except OSError as error:
        raise DataError(f"cannot write {os.fspath(file)}: {error.strerror}; check its folder") from error
