"""Moves of whole batches against a loop over pixels in float64 and against SciPy."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from mxa.data.batch_moves import DEGREES, SHEAR, SHIFT, rotate, slide, slides

FILL = 114


def noise(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(side).integers(0, 256, (count, side, side)).astype(np.uint8)


def by_pixel(pixels: np.ndarray, shift: float, slope: float) -> np.ndarray:
    """Each pixel from its two neighbours; what lies outside is the fill."""
    side = len(pixels)
    found = np.empty(pixels.shape)
    for y in range(side):
        row = {x: float(pixels[y, x]) for x in range(side)}
        for x in range(side):
            place = x + side * (shift + slope * (y + 0.5) / side)
            left = int(np.floor(place))
            near = place - left
            found[y, x] = (1 - near) * row.get(left, FILL) + near * row.get(left + 1, FILL)
    return found


@pytest.mark.parametrize("side", [16, 17])
@pytest.mark.parametrize("level", [-1.0, -0.37, 0.0, 0.01, 0.5, 1.0])
@pytest.mark.parametrize("sheared", [True, False])
def test_rows_slide_as_pixel_by_pixel(side: int, level: float, *, sheared: bool) -> None:
    pixels = noise(3, side)
    amount = slides(np.full(3, sheared), np.full(3, level))
    found = slide(torch.from_numpy(pixels)[:, None], torch.from_numpy(amount), FILL)[:, 0].numpy()
    shift, slope = (0, SHEAR * level) if sheared else (SHIFT * level, 0)
    expected = np.stack([by_pixel(one, shift, slope) for one in pixels])
    assert np.abs(found - expected).max() <= 0.5 + 1e-3


def test_each_picture_slides_by_its_own_amount() -> None:
    pixels = torch.from_numpy(noise(2, 20))[:, None]
    amount = torch.from_numpy(slides(np.array([True, False]), np.array([0.7, -0.4])))
    both = slide(pixels, amount, FILL)
    for k in range(2):
        assert torch.equal(both[k : k + 1], slide(pixels[k : k + 1], amount[k : k + 1], FILL))


@pytest.mark.parametrize("level", [-1.0, -0.3, 0.0, 0.5, 1.0])
def test_a_rotation_is_scipys(level: float) -> None:
    """Inside; at the border SciPy blends with the fill as we do, one pixel further out."""
    pixels = noise(2, 33)
    found = rotate(torch.from_numpy(pixels)[:, None], torch.full((2,), level), FILL)[:, 0].numpy()
    for one, own in zip(pixels, found, strict=True):
        expected = ndimage.rotate(
            one.astype(float), DEGREES * level, reshape=False, order=1, mode="grid-constant", cval=FILL
        )
        assert np.abs(own - expected).max() <= 0.5 + 2e-3
