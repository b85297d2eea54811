"""Decode an image file to 8-bit grey, and refuse what would silently come out wrong."""

import math
import os

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from mxa.data.readable import Readable, name_of, opened
from mxa.errors import ConfigError, DataError

MIN_SIDE = 16  # pixels; nothing smaller can be a radiograph, but broken exports and placeholders are
WIDE_RANGES = ("full", "minmax")
_WIDE_MODES = {"I", "I;16", "I;16L", "I;16B", "I;16N"}
_NARROW_MODES = {"1", "L", "P", "RGB", "CMYK", "YCbCr"}
_ALPHA_MODES = {"LA", "PA", "RGBA"}


def read_grey(file: Readable, *, wide_range: str = "full", at_least: int | None = None) -> npt.NDArray[np.uint8]:
    """Read a JPEG, PNG or other image that Pillow knows as 8-bit grey.

    Colour becomes ITU-R 601 luma. An EXIF orientation is applied. An alpha channel that is opaque everywhere is
    dropped.

    Args:
        file: Its path, or a binary stream.
        wide_range: For images of 16 bits per pixel only. "full" maps 0..65535 to 0..255 (rounded), and refuses an
            image that uses only the lower half: 12-bit data in 16-bit storage would come out nearly black. "minmax"
            stretches the image's own lowest and highest value to 0 and 255.
        at_least: A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, several times as fast, as long as both sides
            keep this many pixels; None decodes in full. Other formats are always decoded in full.

    Returns:
        (H, W) uint8, H and W at least 16.

    Raises:
        ConfigError: If ``wide_range`` is unknown.
        DataError: If the file is missing, no image, damaged, animated, truly transparent, of floating-point pixels,
            too small or too large; the message names the file, the reason and what to do.
    """
    check_wide_range(wide_range)
    name = name_of(file)
    try:
        with opened(file) as stream, Image.open(stream) as image:
            _check_before_decoding(name, image)
            if at_least is not None and image.format == "JPEG" and min(image.size) >= 2 * at_least:
                _reduce(image, at_least)
            image.load()
            upright = ImageOps.exif_transpose(image)
            if upright.mode in _WIDE_MODES:
                return _narrow(name, np.asarray(upright), wide_range)
            return _luma(name, upright)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name) from error
    except FileNotFoundError:
        raise DataError(f"{name}: no such file; check the root folder and the path in the table") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise DataError(
            f"{name}: cannot be decoded ({_reason(file, error)}); fetch or export the file again"
        ) from error


def _reduce(image: Image.Image, at_least: int) -> None:
    """Let the JPEG decoder leave out the finest frequencies; Pillow takes the smallest size that covers the request."""
    factor = at_least / min(image.size)
    image.draft(None, (math.ceil(image.width * factor), math.ceil(image.height * factor)))


def check_wide_range(wide_range: str) -> None:
    """Refuse an unknown ``wide_range``, for callers who want to know before the first image.

    Raises:
        ConfigError: If it is none of :data:`WIDE_RANGES`.
    """
    if wide_range not in WIDE_RANGES:
        raise ConfigError(f"wide_range is {wide_range!r}; choose from {', '.join(WIDE_RANGES)}")


def _reason(file: Readable, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        with opened(file) as stream:
            if stream.seek(0, os.SEEK_END) == 0:
                return "the file is empty"
    return "not an image" if isinstance(error, UnidentifiedImageError) else str(error)


def _too_large(name: str) -> DataError:
    return DataError(
        f"{name}: more than {Image.MAX_IMAGE_PIXELS} pixels, far beyond any radiograph; remove it or save it smaller"
    )


def _check_before_decoding(name: str, image: Image.Image) -> None:
    """Refuse by what the file's header says, before memory is spent on its pixels."""
    width, height = image.size
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise _too_large(name)
    if min(width, height) < MIN_SIDE:
        raise DataError(
            f"{name}: only {width} x {height} pixels, at least {MIN_SIDE} a side are needed; "
            "replace this placeholder by the real image"
        )
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(f"{name}: holds more than one frame; save the radiograph as a single image")
    if image.mode == "F":
        raise DataError(f"{name}: floating-point pixels have no known range; save it as 8-bit or 16-bit grey")
    if image.mode not in _WIDE_MODES | _NARROW_MODES | _ALPHA_MODES:
        raise DataError(f"{name}: pixel type {image.mode!r} is not supported; save it as 8-bit or 16-bit grey")
    # Pillow keeps only the high byte of 16-bit colour: 12-bit data would turn black without a word.
    narrowed = image.mode not in _WIDE_MODES and any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    if narrowed or (image.mode in _WIDE_MODES and "transparency" in image.info):
        raise DataError(f"{name}: 16-bit colour or alpha is not supported; save it as 16-bit grey or as 8-bit")


def _luma(name: str, image: Image.Image) -> npt.NDArray[np.uint8]:
    """Convert an 8-bit image of any kind to (H, W) uint8."""
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        lowest = np.asarray(image.getchannel("A")).min()
        if lowest < 255:
            raise DataError(
                f"{name}: has transparent pixels (alpha down to {lowest}), so its grey values are ambiguous; "
                "flatten it onto a background"
            )
    if image.mode not in {"1", "L"}:
        image = image.convert("RGB")
    return np.array(image.convert("L"), dtype=np.uint8)


def _narrow(name: str, pixels: npt.NDArray[np.integer], wide_range: str) -> npt.NDArray[np.uint8]:
    """Reduce 16-bit pixels to (H, W) uint8."""
    values = pixels.astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise DataError(f"{name}: pixel values from {low} to {high} are no 16-bit grey; save it as 16-bit unsigned")
    if wide_range == "minmax":
        if low == high:
            raise DataError(f"{name}: all pixels are {low}; a constant image has no range to stretch, remove it")
        return np.asarray(np.rint((values - low) * (255 / (high - low))), dtype=np.uint8)
    if high < 2**15:
        raise DataError(
            f"{name}: 16-bit storage but the highest value is {high}, so it would come out nearly black; "
            'if the data are stored with fewer bits, use wide_range="minmax"'
        )
    return np.asarray((values + 128) // 257, dtype=np.uint8)  # value / 257, rounded
