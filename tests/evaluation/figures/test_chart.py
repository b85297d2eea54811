"""A drawn figure."""

import io

from matplotlib.figure import Figure
from PIL import Image

from mxa.evaluation.figures import Chart


def test_it_is_as_large_as_the_figure_at_150_dots_per_inch() -> None:
    chart = Chart.of(Figure(figsize=(2.5, 1.2), facecolor="#0072B2"))
    assert chart.width == 2.5
    with Image.open(io.BytesIO(chart.png)) as picture:
        assert (picture.format, picture.size) == ("PNG", (375, 180))
        assert picture.convert("RGB").getpixel((10, 10)) == (0x00, 0x72, 0xB2)
