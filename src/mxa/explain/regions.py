"""The boxes of the MXA blocks on radiographs: the paper's Figure 2, with the labels of its Table 1 underneath."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from mxa.data.decode import read_picture
from mxa.data.table import Table
from mxa.errors import ConfigError, DataError
from mxa.evaluation.localisation.located import last_blocks
from mxa.models.artifact import Classifier
from mxa.preprocess import Box

RED = "#e3000f"
STYLES: tuple[Literal[":", "--", "-"], ...] = (":", "--", "-")
"""Line style of stage 1, 2 and 3."""


@dataclass(frozen=True)
class RegionPicture:
    """One radiograph with the boxes that a model pooled.

    Attributes:
        grey: (H, W) uint8, the picture as it is on disk.
        boxes: block name (``stages.0.blocks.0``) to x1, y1, x2, y2 in pixels of ``grey``.
    """

    grey: npt.NDArray[np.uint8]
    boxes: dict[str, Box]


def find_regions(classifier: Classifier, files: Sequence[Path]) -> list[RegionPicture]:
    """Run the model on a few files and carry its boxes back to each file's own pixels.

    Raises:
        ConfigError: the model has no MXA block.
        DataError: a file cannot be read.
    """
    contract = classifier.preprocess
    pictures = [read_picture(file, wide_range=contract.wide_range) for file in files]
    resized = [contract.resize(grey, name=str(file)) for file, grey in zip(files, pictures, strict=True)]
    pixels = torch.from_numpy(np.stack(resized)[:, None])
    regions = classifier.regions(pixels)
    if not regions:
        raise ConfigError(f"{classifier.architecture.name} has no MXA block, so it has no regions to show")
    found = []
    for i, grey in enumerate(pictures):
        height, width = grey.shape
        own = {name: boxes[i].cpu() for name, boxes in regions.items()}
        found.append(RegionPicture(grey, contract.place(own, width, height)))
    return found


def shared_finding_figure(classifier: Classifier, table: Table, finding: str, count: int = 8) -> Figure:
    """The paper's Figure 2: frontal radiographs that share a finding, with the codes of all they have under them.

    Args:
        classifier: a model with MXA blocks.
        table: labelled images; the first ``count`` fitting ones are shown.
        finding: shared by all that are shown.
        count: how many at most.

    Raises:
        ConfigError: the model has no MXA block, or the label set lacks the finding.
        DataError: no frontal image of the table has the finding, or a file cannot be read.
    """
    column = table.labels.index(finding)
    frontal = (table.frame["view"] != "lateral").to_numpy()
    rows = np.flatnonzero(frontal & (table.target[:, column] > 0.5) & table.mask[:, column])[:count]
    if not len(rows):
        raise DataError(f"no frontal image has {finding}, so there is nothing to show; choose another finding")
    codes = np.array(table.labels.codes)
    captions = [f"{table.frame['patient'].iloc[row]}\n{' '.join(codes[table.target[row] > 0.5])}" for row in rows]
    files = table.files()
    return region_figure(find_regions(classifier, [files[row] for row in rows]), captions)


def region_figure(pictures: Sequence[RegionPicture], captions: Sequence[str], columns: int = 4) -> Figure:
    """A grid of radiographs with the last block's boxes of each stage in red.

    Args:
        pictures: what to show.
        captions: one per picture, shown under it.
        columns: pictures per row.
    """
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(2.6 * columns, 3.1 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.set_axis_off()
    for ax, picture, caption in zip(axes, pictures, captions, strict=False):
        ax.imshow(picture.grey, cmap="gray", vmin=0, vmax=255)
        draw_boxes(ax, picture.boxes)
        ax.set_title(caption, y=0, va="top", pad=-3, fontsize=7)  # below the picture
    key = box_key(picture.boxes for picture in pictures)
    figure.legend(handles=key, loc="outside lower center", ncols=len(key), fontsize=8, frameon=False)
    return figure


def draw_boxes(ax: Axes, boxes: Mapping[str, Box]) -> None:
    """Draw the last block's boxes of each stage on a picture that ``imshow`` put into the axes."""
    for stage, names in last_blocks(boxes).items():
        for x1, y1, x2, y2 in map(boxes.__getitem__, names):
            # Pixel (0, 0) is drawn centred on (0, 0): its edge lies at -0.5.
            corner = (x1 - 0.5, y1 - 0.5)
            ax.add_patch(
                Rectangle(corner, x2 - x1, y2 - y1, fill=False, edgecolor=RED, linestyle=_style(stage), linewidth=1.6)
            )


def box_key(boxes: Iterable[Mapping[str, Box]]) -> list[Line2D]:
    """A line for each stage that has a box in some picture, for a legend."""
    stages = sorted({stage for own in boxes for stage in last_blocks(own)})
    return [Line2D([], [], color=RED, linestyle=_style(stage), label=f"MXA box, stage {stage + 1}") for stage in stages]


def _style(stage: int) -> Literal[":", "--", "-"]:
    return STYLES[stage % len(STYLES)]
