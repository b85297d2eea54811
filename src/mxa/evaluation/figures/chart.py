"""A figure that has been drawn: once, for its file and for the page alike."""

import io
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.text import Text

DPI = 150


def take_words_as_they_are(figure: Figure) -> None:
    """Keep Matplotlib from reading text between two "$" as mathematics.

    Findings, groups, models, readers and files are called what users call them.
    """
    for text in figure.findobj(Text):
        text.set_parse_math(False)


@dataclass(frozen=True)
class Chart:
    """A drawn figure.

    Attributes:
        png: the PNG file's bytes.
        width: how wide it was drawn, in inches.
    """

    png: bytes
    width: float

    @classmethod
    def of(cls, figure: Figure) -> "Chart":
        """Draw a figure, at 150 dots per inch; see :func:`take_words_as_they_are`."""
        take_words_as_they_are(figure)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=DPI)
        return cls(stream.getvalue(), figure.get_figwidth())
