"""RandAugment's operations on greys for a whole batch: equal to Pillow's to the bit.

Each maps a picture's 256 greys to others by a table. Most tables are known beforehand (:func:`known_tables`); those of
:data:`COUNTED` come from the picture's histogram (:func:`counted_tables`). Sharpening is a filter.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

KNOWN = ("Invert", "PosterizeIncreasing", "SolarizeIncreasing", "SolarizeAdd", "BrightnessIncreasing")
"""Operations whose table of greys is the same for every picture."""
COUNTED = ("AutoContrast", "Equalize", "ContrastIncreasing")
"""Operations whose table depends on the picture's histogram."""

FloatArray = npt.NDArray[np.float64]


def known_tables(operation: npt.NDArray[np.int64], level: FloatArray, factor: FloatArray) -> npt.NDArray[np.uint8]:
    """(T, 256): what each of T operations makes of every grey; timm's ``LEVEL_TO_ARG``.

    Args:
        operation: (T,) index into :data:`KNOWN`.
        level: (T,) magnitudes, 0 to 1.
        factor: (T,) of brightness; 1 is no change.
    """
    grey = np.arange(256.0)
    level = level[:, None]
    kept = 2.0 ** (8 - np.maximum(0, 4 - np.floor(level * 4)))
    tables = (
        255 - grey,
        np.floor(grey / kept) * kept,
        np.where(grey < 256 - np.minimum(256, np.floor(level * 256)), grey, 255 - grey),
        np.where(grey < 128, np.minimum(255, grey + np.minimum(128, np.floor(level * 110))), grey),
        np.clip(np.float32(grey) * np.float32(factor[:, None]), 0, 255),
    )
    return np.choose(operation[:, None], tables).astype(np.uint8)


def look_up(image: Tensor, tables: Tensor) -> Tensor:
    """(T, 1, S, S) uint8 through each picture's own table (T, 256)."""
    flat = image.flatten(1)
    return tables.gather(1, flat.long()).view_as(image)


def counted_tables(image: Tensor, operation: Tensor, factor: Tensor) -> Tensor:
    """(C, 256) uint8 for pictures (C, 1, S, S) uint8; Pillow's arithmetic.

    Args:
        image: the pictures.
        operation: (C,) index into :data:`COUNTED`.
        factor: (C,) of contrast; 1 is no change.
    """
    histogram = _histogram(image.flatten(1))
    grey = torch.arange(256, device=image.device, dtype=torch.float64).expand_as(histogram)
    mean = torch.floor((histogram * grey).sum(1, keepdim=True) / histogram.sum(1, keepdim=True) + 0.5)
    tables = torch.stack([_stretch(histogram, grey), _equalise(histogram, grey), _blend(mean, grey, factor[:, None])])
    return to_grey(tables[operation, torch.arange(len(histogram), device=image.device)])


def _histogram(flat: Tensor) -> Tensor:
    """(C, P) uint8 -> (C, 256) float64, how many pixels have each grey."""
    if flat.device.type != "cpu":
        return _scattered(flat)
    # 32 bits hold the places of eight million pictures, and are counted in half the time of 64.
    places = torch.arange(len(flat), device=flat.device, dtype=torch.int32)[:, None] * 256 + flat
    return torch.bincount(places.flatten(), minlength=256 * len(flat)).view(-1, 256).double()


def _scattered(flat: Tensor) -> Tensor:
    """As :func:`_histogram`; slower on the CPU, but an accelerator need not be waited for."""
    one = torch.ones((), dtype=torch.int32, device=flat.device).expand_as(flat)
    found = torch.zeros(len(flat), 256, dtype=torch.int32, device=flat.device)
    return found.scatter_add_(1, flat.long(), one).double()


def _stretch(histogram: Tensor, grey: Tensor) -> Tensor:
    """ImageOps.autocontrast: the darkest pixel to 0, the brightest to 255."""
    present = histogram > 0
    low = torch.where(present, grey, 255.0).amin(1, keepdim=True)
    high = torch.where(present, grey, 0.0).amax(1, keepdim=True)
    scale = torch.full_like(low, 255) / (high - low).clamp(min=1)  # 255 / tensor would multiply by a rounded inverse
    stretched = torch.trunc(grey * scale - low * scale).clamp(0, 255)
    return torch.where(high > low, stretched, grey)


def _equalise(histogram: Tensor, grey: Tensor) -> Tensor:
    """ImageOps.equalize: an even histogram, as far as whole greys allow."""
    present = histogram > 0
    brightest = torch.where(present, grey, -1.0).argmax(1, keepdim=True)
    step = torch.floor((histogram.sum(1, keepdim=True) - histogram.gather(1, brightest)) / 255)
    below = histogram.cumsum(1) - histogram
    table = torch.floor((torch.floor(step / 2) + below) / step.clamp(min=1)).clamp(max=255)
    return torch.where((step > 0) & (present.sum(1, keepdim=True) > 1), table, grey)


def sharpen(image: Tensor, factor: Tensor) -> Tensor:
    """(K, 1, S, S) uint8 blended with Pillow's SMOOTH filter, which leaves the border as it is, by factors (K,)."""
    whole = image.to(torch.int16)  # sums are at most 13 x 255; half the bytes of single precision
    # The filter is ones around a five, over 13: three columns, three rows, and four times the middle.
    across = whole[..., :-2] + whole[..., 1:-1] + whole[..., 2:]
    total = across[..., :-2, :] + across[..., 1:-1, :] + across[..., 2:, :] + 4 * whole[..., 1:-1, 1:-1]
    pixels = image.float()
    smooth = pixels.clone()
    smooth[..., 1:-1, 1:-1] = total.float().div_(13).add_(0.5).floor_()
    return to_grey(_blend(smooth, pixels, factor[:, None, None, None]))


def _blend(start: Tensor, end: Tensor, factor: Tensor) -> Tensor:
    """ImageEnhance in single precision: start + factor (end - start), cut to 0..255."""
    return (end - start).to(torch.float32).mul_(factor.to(torch.float32)).add_(start).clamp_(0, 255)


def to_grey(pixels: Tensor) -> Tensor:
    """0..255 to uint8, cutting fractions; by way of int16, which the CPU does four times as fast."""
    return pixels.to(torch.int16).to(torch.uint8)
