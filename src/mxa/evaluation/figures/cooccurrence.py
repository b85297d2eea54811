"""Which findings go together, in truth and in the predictions."""

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from mxa.evaluation.metrics import FloatArray
from mxa.labels import LabelSet

_COLOURS = "cividis"  # perceptually uniform, and made for colour-blind readers
_CELL = 0.3  # inches
_UNDEFINED = "#DDDDDD"


def cooccurrence_figure(truth: npt.ArrayLike, predicted: npt.ArrayLike, labels: LabelSet) -> Figure:
    """Draw two heat maps side by side, in percent: what goes together in truth, and what the predictions make of it.

    Row i, column j: of the images that truly have finding i, the share that truly have j (left) or are predicted to
    have j (right). The diagonal at the right is thus the sensitivity.

    Args:
        truth: (L, L) in [0, 1]; NaN where the share is undefined (no image has i, or j is not scored).
        predicted: (L, L), likewise.
        labels: The L findings; their codes name rows and columns.

    Raises:
        ValueError: If a shape is not (L, L), or a share is outside [0, 1].
    """
    shares = {"truth": np.asarray(truth, dtype=np.float64), "predicted": np.asarray(predicted, dtype=np.float64)}
    for name, share in shares.items():
        if share.shape != (len(labels), len(labels)):
            raise ValueError(f"{name} must be {(len(labels), len(labels))} for {labels.name}, got {share.shape}")
        if ((share < 0) | (share > 1)).any():
            raise ValueError(f"{name} has a share outside [0, 1]")
    side = max(_CELL * len(labels), 1.5)
    figure = Figure(figsize=(2 * side + 1.6, side + 0.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _draw(left, shares["truth"], labels)
    image = _draw(right, shares["predicted"], labels)
    left.set_title("Truth", fontsize=9)
    right.set_title("Predictions (diagonal: sensitivity)", fontsize=9)
    left.set_ylabel("Cases that truly have ...", fontsize=9)
    left.set_xlabel("... and truly have", fontsize=9)
    right.set_xlabel("... and are predicted to have", fontsize=9)
    bar = figure.colorbar(image, ax=[left, right], shrink=0.8, pad=0.01)
    bar.set_label("Share of the row's cases (%)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def _draw(ax: Axes, share: FloatArray, labels: LabelSet) -> AxesImage:
    colours = colormaps[_COLOURS]
    image = ax.imshow(100 * share, cmap=colours, vmin=0, vmax=100)
    for (i, j), value in np.ndenumerate(share):
        if np.isnan(value):
            place = (j - 0.5, i - 0.5)
            ax.add_patch(Rectangle(place, 1, 1, facecolor=_UNDEFINED, edgecolor="white", hatch="////", linewidth=0))
        colour = "black" if np.isnan(value) or _luminance(colours(float(value))) > 0.4 else "white"
        ax.text(j, i, _percent(value), ha="center", va="center", fontsize=6.5, color=colour)
    ax.set_xticks(range(len(labels)), labels.codes, fontsize=7, rotation=90)
    ax.set_yticks(range(len(labels)), labels.codes, fontsize=7)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return image


def _percent(share: float) -> str:
    """Return a whole percentage; only nothing is "0" and only all is "100"."""
    if np.isnan(share):
        return "–"
    if 0 < share < 0.005:
        return "<1"
    return ">99" if 0.995 <= share < 1 else f"{100 * share:.0f}"


def _luminance(colour: tuple[float, float, float, float]) -> float:
    red, green, blue, _ = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue
