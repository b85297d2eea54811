"""A drawn figure."""

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from mxa.evaluation.figures import Chart, Curve, ForestRow, forest_figure, roc_panels, save
from mxa.evaluation.intervals import Interval

ODD = "$10k_$20k"
"""Matplotlib would read it as mathematics, and fail."""


def test_it_is_as_large_as_the_figure_at_150_dots_per_inch() -> None:
    chart = Chart.of(Figure(figsize=(2.5, 1.2), facecolor="#0072B2"))
    assert chart.width == 2.5
    with Image.open(io.BytesIO(chart.png)) as picture:
        assert (picture.format, picture.size) == ("PNG", (375, 180))
        assert picture.convert("RGB").getpixel((10, 10)) == (0x00, 0x72, 0xB2)


def odd_figures() -> list[Figure]:
    """The names that users give, wherever they stand."""
    one, line = Interval(0.8, 0.7, 0.9, 0.95), np.array([0.0, 1.0])
    rows = [ForestRow(ODD, one, ODD, ODD), ForestRow("other", None, ODD)]
    curve = Curve(line, line, "0.500", 1, 2, points={"$r_$x": (0.5, 0.5)})
    return [forest_figure({ODD: rows}, f"AUROC of a$_$ minus {ODD}", 0.5), roc_panels({ODD: curve})]


def test_words_between_dollars_are_words(tmp_path: Path) -> None:
    for figure in odd_figures():
        Chart.of(figure)
        assert not any(text.get_parse_math() for text in figure.findobj(Text) if "$" in text.get_text())
        assert sum("$" in text.get_text() for text in figure.findobj(Text)) >= 2
    for k, figure in enumerate(odd_figures()):
        save(figure, tmp_path / f"{k}.png")
        assert not any(text.get_parse_math() for text in figure.findobj(Text) if "$" in text.get_text())
