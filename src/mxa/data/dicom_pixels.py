"""From stored values to the 8-bit grey that a viewer shows, 0 = black: the greyscale pipeline of DICOM.

The steps (PS3.3 C.7.6.3, C.11.1, C.11.2, PS3.4 N.2) change every pixel by its value alone. So they are carried out on
all 256 or 65536 values that a pixel can have, in float64, rounded once at the end, and the picture is looked up.

Which of several is taken: a modality LUT before a rescale (the standard allows only one of them), a VOI LUT before a
window, the first LUT or window of several. MONOCHROME1 alone decides on inversion; PresentationLUTShape says the same
thing again (PS3.3 C.7.6.1.1: IDENTITY goes with MONOCHROME2, INVERSE with MONOCHROME1), and where it contradicts,
:func:`mxa.data.dicom.read_dicom` refuses the file.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mxa.data.dicom_header import Header, quote
from mxa.data.dicom_stored import Stored

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

WINDOWS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_LUMA = (("Red", 0.299), ("Green", 0.587), ("Blue", 0.114))  # ITU-R BT.601


def to_grey(stored: Stored) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """Decode and convert one image.

    Returns:
        (H, W) uint8, 0 = black, and what the reader of the result should know of the conversion.

    Raises:
        ConfigError: a decoder is missing.
        DataError: the pixels or the elements that describe them are damaged, or the outcome is one even grey.
    """
    values = stored.decode()
    notes: list[str] = []
    if stored.samples == 3:
        grey = np.array(Image.fromarray(values.astype(np.uint8)).convert("L"))
        shown = np.unique(grey)
    else:
        pattern = values.view(f"u{values.dtype.itemsize}")
        used = np.zeros(256**values.dtype.itemsize, dtype=bool)
        used[pattern] = True
        table, padded = _table(stored, np.arange(used.size, dtype=pattern.dtype).view(values.dtype), used, notes)
        grey, shown = table[pattern], table[used & ~padded]
    if shown.min() == shown.max():
        raise stored.header.error(
            f"all pixels come out as the same grey ({shown[0]}); its exposure or its window is broken, leave it out"
        )
    return grey, tuple(notes)


def _table(
    stored: Stored, levels: npt.NDArray[Any], used: Flags, notes: list[str]
) -> tuple[npt.NDArray[np.uint8], Flags]:
    """The 8-bit grey of every level, and which levels are padding.

    Args:
        stored: the image.
        levels: all values that its pixels can have, by their bit pattern.
        used: which of them occur.
        notes: gets what is worth knowing.
    """
    padded = _padding(stored, levels, notes)
    shown = used & ~padded
    if not shown.any():
        raise stored.header.error("all pixels are padding; leave it out of the list of images")
    if stored.grey:
        brightness = _voi(stored.header, _modality(stored, levels), shown, notes)
        if stored.photometric == "MONOCHROME1":
            brightness = 1 - brightness
    else:
        brightness = _palette_luma(stored, levels.astype(np.float64))
    grey = np.rint(255 * brightness).astype(np.uint8)
    grey[padded] = 0
    return grey, padded


def _padding(stored: Stored, levels: npt.NDArray[Any], notes: list[str]) -> Flags:
    """Which stored values are padding, from PixelPaddingValue to PixelPaddingRangeLimit (PS3.3 C.7.5.1.1.2)."""
    first = stored.header.word("PixelPaddingValue")
    last = stored.header.word("PixelPaddingRangeLimit")
    if first is None and last is not None:
        raise stored.header.error("it has a PixelPaddingRangeLimit without PixelPaddingValue; export the file again")
    if first is None:
        return np.zeros(levels.shape, dtype=bool)
    low, high = sorted(_signed(value, stored.signed) for value in (first, first if last is None else last))
    lowest = -(2 ** (stored.bits_stored - 1)) if stored.signed else 0
    if low >= lowest + 2**stored.bits_stored or high < lowest:
        notes.append(f"PixelPaddingValue lies outside of the pixels' {stored.bits_stored} bits and masks nothing")
    return (levels >= low) & (levels <= high)


def _signed(word: int, signed: bool) -> int:
    return word - 2**16 if signed and word >= 2**15 else word


@dataclass(frozen=True)
class _Lut:
    """A lookup table (PS3.3 C.11.1.1.1, C.11.2.1.1): values below the first and above the last get its ends."""

    first: int
    bits: int
    entries: Floats

    def __call__(self, values: Floats) -> Floats:
        index = np.clip(np.rint(values) - self.first, 0, self.entries.size - 1)
        return self.entries[index.astype(np.int64)]

    @property
    def highest(self) -> int:
        return 2**self.bits - 1


def _lut(item: Header, signed: bool, prefix: str = "LUT") -> _Lut:
    """Read the table of a sequence item, or one of a palette.

    Args:
        item: has the elements.
        signed: whether the values that are looked up can be negative, which decides on the sign of the first of them.
        prefix: how the names of the two elements begin.
    """
    descriptor = [int(word) for word in item.words(f"{prefix}Descriptor")]
    if len(descriptor) != 3 or not 8 <= descriptor[2] <= 16:
        raise item.damaged(f"{prefix}Descriptor")
    count, first, bits = descriptor[0] or 2**16, _signed(descriptor[1], signed), descriptor[2]
    words = item.words(f"{prefix}Data")
    if (
        words.size == (count + 1) // 2 and words.size != count and bits == 8
    ):  # two entries in a word, the low byte first
        words = np.stack([words & 0xFF, words >> 8], axis=-1).ravel()[:count]
    if words.size != count or int(words.max()) >= 2**bits:
        raise item.damaged(f"{prefix}Data")
    return _Lut(first, bits, words.astype(np.float64))


def _modality(stored: Stored, levels: npt.NDArray[Any]) -> Floats:
    """Modality LUT or rescale (PS3.3 C.11.1): stored values to whatever the window speaks of."""
    header, values = stored.header, levels.astype(np.float64)
    for item in header.items("ModalityLUTSequence")[:1]:
        return _lut(item, stored.signed)(values)
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    if slope is None and intercept is None:
        return values
    if slope is None or intercept is None:
        raise header.error("only one of RescaleSlope and RescaleIntercept is there; export the file again")
    with np.errstate(over="ignore"):
        values = values * slope + intercept
    if not (np.abs(values) < 1e100).all():
        raise header.damaged("RescaleSlope")
    return values


def _voi(header: Header, values: Floats, shown: Flags, notes: list[str]) -> Floats:
    """VOI LUT, window or, with neither, the range of the shown values (PS3.3 C.11.2): 0 is lowest, 1 is highest."""
    luts = header.items("VOILUTSequence")
    centers, widths = header.numbers("WindowCenter"), header.numbers("WindowWidth")
    if bool(centers) != bool(widths):
        raise header.error("only one of WindowCenter and WindowWidth is there; export the file again")
    if luts:
        lut = _lut(luts[0], signed=bool(values.min() < 0))
        brightness = lut(values) / lut.highest
        several = len(luts), "VOI LUTs"
    elif centers:
        brightness = _window(header, values, centers[0], widths[0])
        several = len(centers), "windows"
    else:
        low, high = values[shown].min(), values[shown].max()
        notes.append("no window and no VOI LUT: stretched from its lowest to its highest value")
        return np.clip((values - low) / (high - low), 0, 1) if low < high else np.zeros_like(values)
    if several[0] > 1:
        notes.append(f"the first of {several[0]} {several[1]}")
    if brightness[shown].max() < 0.5:
        notes.append("its window or VOI LUT reaches only the lower half of the range")
    return brightness


def _window(header: Header, x: Floats, center: float, width: float) -> Floats:
    """The window functions of PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID) and C.11.2.1.3.2 (LINEAR_EXACT)."""
    function = header.text("VOILUTFunction") or "LINEAR"
    if function not in WINDOWS:
        raise header.error(
            f"VOILUTFunction {quote(function)} is unknown (known: {', '.join(WINDOWS)}); export it again"
        )
    if width <= 0 or (function == "LINEAR" and width < 1):
        raise header.error(f"WindowWidth {width:g} is too small for a {function} window; set a window and export again")
    with np.errstate(over="ignore"):  # far from the window, where the outcome is 0 or 1 anyway
        if function == "SIGMOID":
            return np.asarray(1 / (1 + np.exp(-4 * (x - center) / width)))
        if function == "LINEAR":
            center, width = center - 0.5, width - 1
        if width == 0:  # LINEAR of width 1 is a step
            return np.where(x > center, 1.0, 0.0)
        return np.clip((x - center) / width + 0.5, 0, 1)


def _palette_luma(stored: Stored, levels: Floats) -> Floats:
    """The luma of every colour of the palette (PS3.3 C.7.6.3.1.5)."""
    luma = np.zeros_like(levels)
    for colour, weight in _LUMA:
        lut = _lut(stored.header, stored.signed, f"{colour}PaletteColorLookupTable")
        luma += weight * lut(levels) / lut.highest
    return np.clip(luma, 0, 1)
