"""The explanation on paper: a radiograph with its MXA boxes, and class-activation maps of the top findings beside it.

The page is laid out in inches by hand, so that one pixel of the radiograph becomes a whole number of pixels of the
figure.
"""

import math
import textwrap
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from mxa.errors import ConfigError
from mxa.evaluation.figures.style import save
from mxa.evaluation.thresholds import OperatingPoint
from mxa.evaluation.tuning import stored_tuning
from mxa.explain.explanation import Explanation, Window, choose_findings, explain
from mxa.explain.regions import box_key, draw_boxes
from mxa.models.artifact import Classifier, fingerprint, load

MAX_PICTURES = 24
"""On one page; more would not be legible."""
MAX_FIGURE_PIXELS = 40_000_000
"""Of a whole figure; above that radiographs are drawn at less than their resolution, and their titles say so."""
SUFFIXES = (".png", ".pdf", ".svg")
FOR, AGAINST = "#F0882D", "#4FA8E8"
"""Orange and blue, which stay apart for colour-blind readers, bright enough for a radiograph's black."""

# Inches.
_SIDE = 5.4  # of a radiograph, the longer one
_BAND = 0.46  # for titles
_GAP = 0.2
_MARGIN = 0.15
_NARROWEST = 2.3  # for a title's sake
_BAR, _BAR_LABELS = 0.16, 0.6
_FOOT = 0.8
_MIN_DPI = 150
_SMALL, _TINY = 8, 7  # points
_NOT_SEEN: dict[str, Any] = {"facecolor": "#00000088", "edgecolor": "#9A9A9A", "hatch": "////", "linewidth": 0}
_RAMP = np.linspace(-1, 1, 513)
EVIDENCE = ListedColormap(
    [(*to_rgb(FOR if value > 0 else AGAINST), 0.75 * abs(value)) for value in _RAMP], name="evidence"
).with_extremes(bad=(0, 0, 0, 0))
"""Evidence against to evidence for a finding; the stronger, the less transparent."""


def write_explanations(
    model: Path,
    files: Sequence[Path],
    out: Path,
    *,
    findings: Sequence[str] = (),
    count: int = 3,
    operating_point: str | None = None,
    views: Collection[str] = (),
    force: bool = False,
) -> list[Explanation]:
    """Explain image files with a saved model, and draw it.

    Args:
        model: folder of the saved model.
        files: image files, one row each.
        out: the figure's file, .png, .pdf or .svg; replaced if it is there.
        findings: whose maps are shown; the ``count`` most probable ones of each file where none is named.
        count: how many findings.
        operating_point: its name; None is "youden" where the model has it, and no decisions where it has not.
        views: of DICOM files, those that are accepted; empty are those that the model knows.
        force: accept other DICOM files, too; their titles say so.

    Raises:
        ConfigError: the suffix, a finding or the operating point is unknown, there are too many files or none, or the
            network has no exact class-activation maps.
        ArtifactError: the model cannot be loaded, or its operating points are garbled.
        DataError: a file cannot be read, or the figure cannot be written.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{out}: a figure is written as {', '.join(SUFFIXES)}; choose one of these suffixes")
    if not 0 < len(files) <= MAX_PICTURES:
        raise ConfigError(f"{len(files)} images do not fit on a page; give 1 to {MAX_PICTURES}")
    classifier = load(model)
    tuning = stored_tuning(classifier.tuning, classifier.labels, model)
    point = tuning.operating_points.get("youden") if operating_point is None else tuning.point(operating_point)
    explained = explain(classifier, files, views=views, force=force)
    figure = explanation_figure(
        classifier, explained, findings=findings, count=count, point=point, model_hash=fingerprint(model)
    )
    save(figure, out, dpi=figure.dpi)
    return explained


def explanation_figure(
    classifier: Classifier,
    explanations: Sequence[Explanation],
    *,
    findings: Sequence[str] = (),
    count: int = 3,
    point: OperatingPoint | None = None,
    model_hash: str = "",
) -> Figure:
    """Draw explanations, one row each.

    On the left is the radiograph with the boxes of each MXA stage's last block, each of its pixels at least one pixel
    of the figure, unless the figure would exceed :data:`MAX_FIGURE_PIXELS`. Beside it are the maps of some findings,
    laid over the radiograph, on one scale per row. What a crop left out is hatched.

    Save it at its own resolution: ``figure.savefig(file, dpi=figure.dpi)``.

    Args:
        classifier: the model that was explained.
        explanations: of at most :data:`MAX_PICTURES` radiographs.
        findings: whose maps are shown; the ``count`` most probable ones of each row where none is named.
        count: how many findings.
        point: thresholds to compare the probabilities with.
        model_hash: fingerprint of the model, see :func:`mxa.models.artifact.fingerprint`; its beginning is shown.

    Raises:
        ConfigError: a finding is unknown or named twice, or ``count`` is below 1.
        ValueError: there is no explanation, there are too many, or the operating point is of other findings.
    """
    if not 0 < len(explanations) <= MAX_PICTURES:
        raise ValueError(f"{len(explanations)} explanations do not fit on a page; give 1 to {MAX_PICTURES}")
    if point is not None and point.findings != classifier.labels.findings:
        raise ValueError(f"the operating point is of {point.findings}, the model of {classifier.labels.findings}")
    rows = [_Row(one, choose_findings(one, findings, count)) for one in explanations]
    page = _Page.of(rows)
    top = _MARGIN
    for row in rows:
        _draw_row(page, row, top, point)
        top += _BAND + row.height + _GAP
    _draw_foot(page, rows, _provenance(classifier, rows[0].explanation, point, model_hash))
    return page.figure


@dataclass(frozen=True)
class _Row:
    """One radiograph and its panels; all lengths in inches."""

    explanation: Explanation
    findings: tuple[str, ...]

    @property
    def picture(self) -> tuple[float, float]:
        """Width and height of the radiograph."""
        height, width = self.explanation.grey.shape
        return _SIDE * width / max(width, height), _SIDE * height / max(width, height)

    @property
    def panel(self) -> tuple[float, float]:
        """Width and height: two panels and a title are as high as the radiograph, unless that is flat."""
        width, height = self.picture
        share = max((height - _BAND) / 2 / height, 0.4)
        return share * width, share * height

    @property
    def height(self) -> float:
        """Of the radiograph or of two panels, whichever is more; without the title above them."""
        return max(self.picture[1], 2 * self.panel[1] + _BAND)

    @property
    def columns(self) -> int:
        """Of panels, two of which stand one below the other."""
        return math.ceil(len(self.findings) / 2)


@dataclass(frozen=True)
class _Page:
    """Where things are, in inches from the top left corner.

    Attributes:
        figure: the page.
        width: in inches.
        height: in inches.
        panels: left edge of the first column of panels.
        column: width of a column of panels, gap included.
        columns: how many.
    """

    figure: Figure
    width: float
    height: float
    panels: float
    column: float
    columns: int

    @classmethod
    def of(cls, rows: Sequence[_Row]) -> "_Page":
        panels = _MARGIN + max(_NARROWEST, *(row.picture[0] for row in rows)) + _GAP
        column = max(_NARROWEST, *(row.panel[0] for row in rows)) + _GAP
        columns = max(row.columns for row in rows)
        width = panels + columns * column + _BAR + _BAR_LABELS + _MARGIN
        height = _MARGIN + sum(_BAND + row.height + _GAP for row in rows) + _FOOT
        dpi = _resolution([row.explanation for row in rows], width * height)
        # Whole pixels, or everything would be shifted by a part of one.
        width, height = math.ceil(width * dpi) / dpi, math.ceil(height * dpi) / dpi
        return cls(Figure(figsize=(width, height), dpi=dpi), width, height, panels, column, columns)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes on whole pixels of the figure."""
        dpi = self.figure.dpi
        x, y, w, h = (round(inches * dpi) / dpi for inches in (left, self.height - top - height, width, height))
        return self.figure.add_axes((x / self.width, y / self.height, w / self.width, h / self.height))

    def text(self, left: float, top: float, text: str, **style: Any) -> None:
        """Write below and right of a point; the text is taken as it stands."""
        self.figure.text(left / self.width, 1 - top / self.height, text, ha="left", va="top", parse_math=False, **style)


def _resolution(explanations: Iterable[Explanation], area: float) -> float:
    """Dots per inch: a whole number of them per pixel of the largest radiograph, if the figure does not get too large.

    Args:
        explanations: all that are on the page.
        area: of the page in square inches.
    """
    largest = max(max(one.grey.shape) for one in explanations)
    dpi = math.ceil(_MIN_DPI * _SIDE / largest) * largest / _SIDE
    return min(dpi, math.sqrt(MAX_FIGURE_PIXELS / area))


def _draw_row(page: _Page, row: _Row, top: float, point: OperatingPoint | None) -> None:
    one = row.explanation
    below = top + _BAND
    ax = page.axes(_MARGIN, below, *row.picture)
    drawn = _SIDE * page.figure.dpi / max(one.grey.shape)
    whole = drawn > 0.999  # inches times dots per inch are no whole numbers
    # Matplotlib's own choice would smooth where a product is off a whole number by rounding.
    _draw_radiograph(ax, one, "nearest" if whole else "antialiased")
    draw_boxes(ax, one.boxes)
    _draw_notes(ax, one.notes, _fitting(row.picture[0]))
    size = f"{one.grey.shape[1]} x {one.grey.shape[0]} pixels" + ("" if whole else f", drawn at {drawn:.0%}")
    _title(ax, [_ending(one.name, _fitting(page.panels - _MARGIN)), size])
    width, height = row.panel
    scale = float(np.abs(one.maps[[one.labels.index(finding) for finding in row.findings]]).max()) or 1.0
    for i, finding in enumerate(row.findings):
        lower, column = divmod(i, row.columns)
        ax = page.axes(page.panels + column * page.column, below + lower * (height + _BAND), width, height)
        _draw_radiograph(ax, one, "antialiased")
        ax.imshow(one.heat(finding), cmap=EVIDENCE, norm=Normalize(-scale, scale), aspect="auto")
        text = f"{finding}\n{_how_sure(one, finding, point)}"
        _title(ax, [textwrap.fill(line, _fitting(page.column)) for line in text.splitlines()])
    _draw_scale(page.axes(page.panels + page.columns * page.column, below, _BAR, row.height), scale)


def _draw_radiograph(ax: Axes, one: Explanation, interpolation: Literal["nearest", "antialiased"]) -> None:
    ax.set_axis_off()
    # As colours: a colour map would round some greys to their neighbours.
    ax.imshow(np.repeat(one.grey[:, :, None], 3, axis=2), aspect="auto", interpolation=interpolation)
    for left, top, right, bottom in _not_seen(one.window, *one.grey.shape[::-1]):
        ax.add_patch(Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, **_NOT_SEEN))


def _draw_notes(ax: Axes, notes: Sequence[str], width: int) -> None:
    """What the file's reader had to say, on the picture itself, where it cannot be missed."""
    if notes:
        ax.text(
            0.01,
            0.01,
            "\n".join(textwrap.fill(note, width) for note in notes),
            transform=ax.transAxes,
            va="bottom",
            fontsize=_TINY,
            color="white",
            parse_math=False,
            bbox={"facecolor": "#000000B0", "edgecolor": "none", "pad": 2},
        )


def _not_seen(window: Window, width: int, height: int) -> list[Window]:
    """The bands of a picture outside the window."""
    left, top, right, bottom = window
    bands = [(0, 0, left, height), (right, 0, width, height), (0, 0, width, top), (0, bottom, width, height)]
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in bands if x1 < x2 and y1 < y2]


def _draw_scale(ax: Axes, scale: float) -> None:
    """What the colours mean, on a radiograph's dark grey."""
    ax.set_facecolor("#303030")
    ax.imshow(
        np.linspace(scale, -scale, 512)[:, None],
        cmap=EVIDENCE,
        norm=Normalize(-scale, scale),
        extent=(0, 1, -scale, scale),
        aspect="auto",
    )
    ax.set_xticks([])
    ax.yaxis.tick_right()
    ax.yaxis.set_label_position("right")
    ax.tick_params(labelsize=_TINY)
    ax.set_ylabel("evidence for the finding, logits", fontsize=_TINY)
    ax.set_title("for", fontsize=_TINY, pad=3)
    ax.set_xlabel("against", fontsize=_TINY, labelpad=3)


def _draw_foot(page: _Page, rows: Sequence[_Row], lines: Sequence[str]) -> None:
    """The key, and below it what a reader must know."""
    explanations = [row.explanation for row in rows]
    key: list[Any] = box_key(one.boxes for one in explanations)
    if any(_not_seen(one.window, *one.grey.shape[::-1]) for one in explanations):
        key.append(Patch(label="not seen by the network", **_NOT_SEEN))
    top = page.height - _FOOT
    if key:
        page.figure.legend(
            handles=key,
            loc="upper left",
            bbox_to_anchor=(_MARGIN / page.width, 1 - top / page.height),
            ncols=len(key),
            fontsize=_SMALL,
            frameon=False,
            borderpad=0,
            borderaxespad=0,
        )
    width = int((page.width - 2 * _MARGIN) * 17)
    page.text(
        _MARGIN, top + 0.26, "\n".join(textwrap.fill(line, width) for line in lines), fontsize=_TINY, color="#444444"
    )


def _provenance(
    classifier: Classifier, explanation: Explanation, point: OperatingPoint | None, fingerprint: str
) -> list[str]:
    contract = classifier.preprocess
    rows, columns = explanation.maps.shape[1:]
    model = classifier.architecture.name + (f" {fingerprint[:12]}" if fingerprint else "")
    thresholds = f"thresholds: {point.rule}" if point else "no thresholds"
    return [
        f"{model}; contract {contract.version}: {contract.size} px, {contract.fit}, {contract.interpolation}; "
        f"probabilities uncalibrated, {thresholds}",
        f"Class-activation maps of {columns} x {rows} cells, smoothed; a map's mean over what the network saw is the "
        "finding's logit. Neither maps nor boxes are outlines of a finding",
        "Research software, not for clinical use",
    ]


def _how_sure(one: Explanation, finding: str, point: OperatingPoint | None) -> str:
    """The probability, and on which side of the threshold it is."""
    j = one.labels.index(finding)
    probability = float(one.probability[j])
    if point is None:
        return f"{probability:.2f}"
    threshold = point.thresholds[j]
    if threshold is None:
        return f"{probability:.2f}, no threshold ({point.rule})"
    above = "above" if probability > threshold else "not above"
    # As many decimals as it takes to tell them apart; a threshold may lie a hair below 0.
    for decimals in (2, 3, 4):
        shown, limit = f"{probability:.{decimals}f}", f"{max(threshold, 0.0):.{decimals}f}"
        if shown != limit:
            break
    return f"{shown}, {above} {limit} ({point.rule})"


def _title(ax: Axes, lines: Sequence[str]) -> None:
    ax.set_title("\n".join(lines), loc="left", fontsize=_SMALL, pad=3, linespacing=1.15, parse_math=False)


def _fitting(inches: float) -> int:
    """Letters of a title that fit."""
    return int(inches * 15)


def _ending(name: str, length: int) -> str:
    """A path's end tells more than its beginning."""
    return name if len(name) <= length else f"…{name[1 - length :]}"
