"""The picture shows the numbers of the rows, a line per block."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from mxa.evaluation.figures.style import save
from mxa.training.region_watch import BlockRegions
from mxa.training.region_watch_figure import regions_figure

BLOCKS = ("stages.0.blocks.0", "stages.1.blocks.0", "stages.1.blocks.1")
PANELS = {
    "Area": "area",
    "Boxes that are the whole map": "whole",
    "Centre, x": "x",
    "Centre, y": "y",
    "Moved since the first epoch": "moved",
    "Gradient / weights": "gradient_ratio",
}
NUMBERS = [name for name in BlockRegions.__dataclass_fields__ if name not in {"epoch", "block"}]


def rows(epochs: int) -> list[BlockRegions]:
    rng = np.random.default_rng(0)
    return [
        BlockRegions(epoch, block, *rng.uniform(0.02, 0.98, len(NUMBERS)).tolist())
        for epoch in range(epochs)
        for block in BLOCKS
    ]


def line(ax: Axes, label: str) -> np.ndarray:
    found = [one for one in ax.get_lines() if one.get_label() == label]
    assert len(found) == 1, label
    return np.array([found[0].get_xdata(), found[0].get_ydata()], dtype=float)


def panels(data: list[BlockRegions]) -> dict[str, Axes]:
    return {ax.get_title(): ax for ax in regions_figure(data).axes if ax.get_title()}


@pytest.mark.parametrize("epochs", [1, 5])
def test_each_panel_has_a_line_per_block(epochs: int) -> None:
    data = rows(epochs)
    drawn = panels(data)
    assert drawn.keys() == PANELS.keys() | {"Spread over the images"}
    for block in BLOCKS:
        own = [one for one in data if one.block == block]
        for title, name in PANELS.items():
            expected = [[one.epoch for one in own], [getattr(one, name) for one in own]]
            np.testing.assert_array_equal(line(drawn[title], block), expected)
        largest = [max(one.area_spread, one.x_spread, one.y_spread) for one in own]
        np.testing.assert_array_equal(line(drawn["Spread over the images"], block)[1], largest)
    backbone = [one.backbone_gradient_ratio for one in data if one.block == BLOCKS[0]]
    np.testing.assert_array_equal(line(drawn["Gradient / weights"], "backbone")[1], backbone)
    assert drawn["Gradient / weights"].get_yscale() == "log"


def test_the_limits_of_the_warning_are_drawn_and_in_sight() -> None:
    still = [replace(one, area_spread=0.0, x_spread=1e-4, y_spread=0.0) for one in rows(3)]
    drawn = panels(still)
    for title, limit in (("Area", 0.95), ("Spread over the images", 0.01)):
        assert set(line(drawn[title], "_limit")[1]) == {limit}
        low, high = drawn[title].get_ylim()
        assert low < limit < high


def test_the_key_names_every_line() -> None:
    (legend,) = [ax.get_legend() for ax in regions_figure(rows(2)).axes if ax.get_legend()]
    assert [text.get_text() for text in legend.get_texts()] == [*BLOCKS, "backbone", "limit of the warning"]


def test_without_gradients_the_panel_says_so(tmp_path: Path) -> None:
    blind = [replace(one, gradient_ratio=float("nan"), backbone_gradient_ratio=0.0) for one in rows(2)]
    figure = regions_figure(blind)
    panel = next(ax for ax in figure.axes if ax.get_title() == "Gradient / weights")
    assert [text.get_text() for text in panel.texts] == ["no gradients"]
    save(figure, tmp_path / "regions.png")
    assert (tmp_path / "regions.png").stat().st_size > 1000


def test_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match="no epoch"):
        regions_figure([])


def test_all_numbers_on_the_axes_are_of_one_size() -> None:
    """A logarithmic axis of less than a decade numbers its minor ticks."""
    figure = regions_figure(rows(2))
    (gradient,) = [ax for ax in figure.axes if ax.get_title() == "Gradient / weights"]
    sizes = {gradient.yaxis.get_tick_params(which=which)["labelsize"] for which in ("major", "minor")}
    assert len(sizes) == 1
