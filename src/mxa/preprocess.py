"""The preprocessing contract: how a radiograph becomes the network's input, in one object.

Training, evaluation, prediction, export and serving all call this object, and every saved model carries it, so that
none of them can disagree about size, aspect, interpolation or scaling. The steps, in order:

1. decode to one grey channel, 8 bits (:func:`mxa.data.images.read_grey`; ``wide_range`` says what 16-bit pixels mean),
2. fit to a square (``fit``) and resize to ``size`` x ``size`` (``interpolation``, with antialiasing), 8 bits again,
3. scale to ``(pixel / 255 - mean) / std`` (float, on the model's device).
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from mxa.errors import ConfigError, DataError

CONTRACT_VERSION = 1
FITS = ("squash", "crop", "pad")
WIDE_RANGES = ("full", "minmax")
_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}
INTERPOLATIONS = tuple(_FILTERS)

ArrayLike = TypeVar("ArrayLike")
Box = tuple[float, float, float, float]
"""x1, y1, x2, y2."""


@dataclass(frozen=True)
class Preprocess:
    """The contract's fields; the defaults are the paper's [6.2] and, for the scaling, ImageNet's grey statistics.

    Raises:
        ConfigError: a field has a value that the contract does not know.
    """

    size: int = 224
    """Width and height of the network's input in pixels."""
    fit: str = "squash"
    """How the picture becomes square: squash (both axes resized, the paper's), crop (the central square) or pad (black
    borders)."""
    interpolation: str = "bicubic"
    """bicubic (the paper's), bilinear, lanczos or box; all with antialiasing, as Pillow does it."""
    wide_range: str = "full"
    """16-bit pixels: full (0..65535 is black..white) or minmax (the picture's own minimum..maximum)."""
    mean: float = 0.449
    """Subtracted from pixel / 255. The mean of ImageNet's three channel means, so that pretrained weights see what they
    expect."""
    std: float = 0.226
    """Divides after the subtraction."""
    version: int = CONTRACT_VERSION
    """Version of the contract itself; a model with another one is refused."""

    def __post_init__(self) -> None:
        for name, allowed in (("fit", FITS), ("interpolation", INTERPOLATIONS), ("wide_range", WIDE_RANGES)):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"preprocess.{name} is {getattr(self, name)!r}; choose one of {', '.join(allowed)}")
        if not isinstance(self.size, int) or self.size < 16:
            raise ConfigError(f"preprocess.size is {self.size!r}; give the input's side in pixels, at least 16")
        if not _is_finite(self.mean):
            raise ConfigError(f"preprocess.mean is {self.mean!r}; it must be a finite number")
        if not _is_finite(self.std) or self.std <= 0:
            raise ConfigError(
                f"preprocess.std is {self.std!r}; it divides the pixels and must be a finite number, positive"
            )
        if self.version != CONTRACT_VERSION:
            raise ConfigError(
                f"preprocessing contract version {self.version!r} is unknown here (this mxa knows {CONTRACT_VERSION}); "
                "use the mxa version that wrote it"
            )

    def window(self, width: float, height: float) -> tuple[float, float, float, float]:
        """The part of the picture that the network sees, as left, top, right, bottom in the picture's pixels.

        With ``pad`` it reaches beyond the picture. A point (u, v) in [0, 1] of the network's input lies at
        (left + u (right - left), top + v (bottom - top)) of the picture.
        """
        if self.fit == "squash":
            return 0.0, 0.0, float(width), float(height)
        side = min(width, height) if self.fit == "crop" else max(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        if self.fit == "pad":  # a picture is put down at a whole pixel
            left, top = float(round(left)), float(round(top))
        return left, top, left + side, top + side

    def to_source(self, boxes: npt.NDArray[np.floating[Any]], width: int, height: int) -> npt.NDArray[np.float64]:
        """Boxes (..., 4) x1, y1, x2, y2 from [0, 1] of the input to the picture's pixels, cut at its edges."""
        left, top, right, bottom = self.window(width, height)
        scale = np.array([right - left, bottom - top, right - left, bottom - top])
        placed = np.asarray(boxes, dtype=np.float64) * scale + np.array([left, top, left, top])
        return np.clip(placed, 0, [width, height, width, height])

    def place(self, boxes: Mapping[str, npt.ArrayLike], width: int, height: int) -> dict[str, Box]:
        """Boxes (4,) by name, as :meth:`to_source` places them, as plain numbers."""
        placed: dict[str, Box] = {}
        for name, box in boxes.items():
            x1, y1, x2, y2 = self.to_source(np.asarray(box, dtype=np.float64), width, height).tolist()
            placed[name] = (x1, y1, x2, y2)
        return placed

    def resize(
        self, grey: npt.NDArray[np.uint8], *, extent: tuple[float, float] | None = None, name: str = "the picture"
    ) -> npt.NDArray[np.uint8]:
        """Fit and resize one picture.

        Args:
            grey: (H, W) uint8, any size.
            extent: width and height of the picture where it ends within the last column and row of ``grey``, as one
                that was decoded at a reduced size does (:func:`mxa.data.images.read_reduced`); None is W and H. A
                picture that is to be padded has none.
            name: how a message calls the picture.

        Returns:
            (size, size) uint8.

        Raises:
            DataError: the square around a picture to be padded would have more pixels than any picture may have.
            ValueError: a picture to be padded has an ``extent``.
        """
        height, width = grey.shape
        image = Image.fromarray(grey)
        left, top, right, bottom = self.window(*(extent or (width, height)))
        if self.fit == "pad":
            if extent is not None:
                raise ValueError("a picture is padded as a whole; decode it in full, without an extent")
            side = max(width, height)
            if Image.MAX_IMAGE_PIXELS is not None and side**2 > Image.MAX_IMAGE_PIXELS:
                raise DataError(
                    f"{name}: {width} x {height} pixels would be padded to {side} x {side}, more than "
                    f"{Image.MAX_IMAGE_PIXELS} in all; crop it, or use another preprocess.fit"
                )
            square = Image.new("L", (side, side))
            square.paste(image, (int(-left), int(-top)))
            image, (left, top, right, bottom) = square, (0.0, 0.0, float(side), float(side))
        resized = image.resize((self.size, self.size), _FILTERS[self.interpolation], box=(left, top, right, bottom))
        return np.array(resized)  # a copy: Pillow's own memory is read-only, which torch warns of

    def scale(self, pixels: ArrayLike) -> ArrayLike:
        """(pixel / 255 - mean) / std, elementwise, of a float array or tensor of pixels 0..255.

        One multiplication and one addition, written for NumPy and torch alike.
        """
        return pixels * (1 / (255 * self.std)) - self.mean / self.std  # type: ignore[operator, return-value]

    def pixel_fields(self) -> dict[str, Any]:
        """The fields that decide the 8-bit pixels of step 2; what is stored of pictures is of these."""
        return {name: value for name, value in asdict(self).items() if name not in {"mean", "std"}}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocess":
        """The inverse of :meth:`to_dict`.

        Raises:
            ConfigError: a field is missing or unknown, or has an unknown value.
        """
        known = {f.name for f in fields(cls)}
        if set(values) != known:
            raise ConfigError(
                f"preprocessing contract: missing {sorted(known - set(values))}, unknown "
                f"{sorted(set(values) - known)}; "
                "it must have exactly the fields " + ", ".join(sorted(known))
            )
        return cls(**values)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
