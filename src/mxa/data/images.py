"""Decode an image file to 8-bit grey, and refuse what would silently come out wrong."""

import math
import os
import struct

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from mxa.data.readable import Readable, name_of, opened
from mxa.errors import ConfigError, DataError

MIN_SIDE = 16  # pixels; nothing smaller can be a radiograph, but broken exports and placeholders are
WIDE_RANGES = ("full", "minmax")
_WIDE_MODES = {"I", "I;16", "I;16L", "I;16B", "I;16N"}
_NARROW_MODES = {"1", "L", "P", "RGB", "CMYK", "YCbCr"}
_ALPHA_MODES = {"LA", "PA", "RGBA"}
DECODING_ERRORS = (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, TypeError, struct.error)
"""What Pillow raises on damaged files."""
_TURNS = {  # by EXIF orientation; 1 stays as it is
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PHOTOMETRIC, _MIN_IS_WHITE = 262, 0  # TIFF 6.0, PhotometricInterpretation

Grey = npt.NDArray[np.uint8]
Extent = tuple[float, float]


def read_grey(file: Readable, *, wide_range: str = "full") -> Grey:
    """Read a JPEG, PNG or other image that Pillow knows as 8-bit grey.

    Colour becomes ITU-R 601 luma. An EXIF orientation is applied. An alpha channel that is opaque everywhere is
    dropped.

    Args:
        file: Its path, or a binary stream.
        wide_range: For images of 16 bits per pixel only. "full" maps 0..65535 to 0..255 (rounded), and refuses an
            image that uses only the lower half: 12-bit data in 16-bit storage would come out nearly black. "minmax"
            stretches the image's own lowest and highest value to 0 and 255.

    Returns:
        (H, W) uint8, H and W at least 16.

    Raises:
        ConfigError: If ``wide_range`` is unknown.
        DataError: If the file is missing, no image, damaged, animated, truly transparent, of floating-point pixels,
            too small or too large; the message names the file, the reason and what to do.
    """
    return _read(file, wide_range, None)[0]


def read_reduced(file: Readable, *, at_least: int, wide_range: str = "full") -> tuple[Grey, Extent | None]:
    """As :func:`read_grey`, but a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, several times as fast.

    Args:
        file: Its path, or a binary stream.
        at_least: Pixels that both sides keep.
        wide_range: As there.

    Returns:
        (H, W) uint8, and width and height of the picture in these pixels, for
        :meth:`mxa.preprocess.Preprocess.resize`: a width of 1001 at 1/4 is 250.25, so that of the last of 251 columns
        only a quarter is picture. The latter is None for what is decoded in full: other formats, small pictures, and
        those with an EXIF orientation, which would have their part of a column elsewhere.

    Raises:
        ConfigError: As there.
        DataError: As there.
    """
    return _read(file, wide_range, at_least)


def _read(file: Readable, wide_range: str, at_least: int | None) -> tuple[Grey, Extent | None]:
    check_wide_range(wide_range)
    name = name_of(file)
    try:
        with opened(file) as stream, Image.open(stream) as image:
            _check_before_decoding(name, image)
            inverted = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _MIN_IS_WHITE
            extent = None if at_least is None else _reduce(image, at_least)
            turned = upright(image)
            if turned.mode in _WIDE_MODES:
                return _narrow(name, np.asarray(turned), wide_range, inverted), extent
            return _luma(name, turned), extent
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name) from error
    except FileNotFoundError:
        raise DataError(f"{name}: no such file; check the root folder and the path in the table") from None
    except DECODING_ERRORS as error:
        raise DataError(
            f"{name}: cannot be decoded ({_reason(file, error)}); fetch or export the file again"
        ) from error


def _reduce(image: Image.Image, at_least: int) -> Extent | None:
    """Let the JPEG decoder leave out the finest frequencies; Pillow takes the smallest size that covers the request."""
    if image.format != "JPEG" or min(image.size) < 2 * at_least or _turn(image) is not None:
        return None
    factor = at_least / min(image.size)
    drafted = image.draft(None, (math.ceil(image.width * factor), math.ceil(image.height * factor)))
    return None if drafted is None else drafted[1][2:]


def upright(image: Image.Image) -> Image.Image:
    """The picture as its EXIF orientation turns it, its pixels loaded.

    Of EXIF nothing else is read or written: Pillow's own ``exif_transpose`` fails where any other tag is odd.
    """
    image.load()
    turn = _turn(image)
    return image if turn is None else image.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))


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


def _luma(name: str, image: Image.Image) -> Grey:
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


def _narrow(name: str, pixels: npt.NDArray[np.integer], wide_range: str, inverted: bool) -> Grey:
    """Reduce 16-bit pixels to (H, W) uint8. Pillow leaves those inverted that a TIFF file stores so."""
    values = pixels.astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise DataError(f"{name}: pixel values from {low} to {high} are no 16-bit grey; save it as 16-bit unsigned")
    if wide_range == "minmax":
        if low == high:
            raise DataError(f"{name}: all pixels are {low}; a constant image has no range to stretch, remove it")
        grey = np.asarray(np.rint((values - low) * (255 / (high - low))), dtype=np.uint8)
    elif high < 2**15:
        raise DataError(
            f"{name}: 16-bit storage but the highest value is {high}, so it would come out nearly "
            f"{'white' if inverted else 'black'}; "
            'if the data are stored with fewer bits, use wide_range="minmax"'
        )
    else:
        grey = np.asarray((values + 128) // 257, dtype=np.uint8)  # value / 257, rounded
    return 255 - grey if inverted else grey
