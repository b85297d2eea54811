"""A figure that has been drawn: once, for its file and for the page alike."""

import io
from dataclasses import dataclass

from matplotlib.figure import Figure

DPI = 150


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
        """Draw a figure, at 150 dots per inch."""
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=DPI)
        return cls(stream.getvalue(), figure.get_figwidth())
