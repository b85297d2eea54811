"""Tables of greys and sharpening of whole batches; tests/data/test_batch_augment.py compares each with timm's."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from mxa.data.batch_tones import (
    COUNTED,
    KNOWN,
    _histogram,
    _scattered,
    counted_tables,
    known_tables,
    look_up,
    sharpen,
    to_grey,
)


def pictures(count: int, side: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([rng.normal(rng.uniform(60, 190), 25, (side, side)).clip(0, 255) for _ in range(count)]).astype(
        np.uint8
    )


def test_operations_of_a_batch_do_not_mix() -> None:
    """Known tables in any order are the rows that each has alone."""
    rng = np.random.default_rng(1)
    operation, level = rng.integers(len(KNOWN), size=40), rng.uniform(0, 0.99, 40)
    together = known_tables(operation, level, 1 + 0.9 * level)
    for k in range(40):
        alone = known_tables(operation[k : k + 1], level[k : k + 1], 1 + 0.9 * level[k : k + 1])
        np.testing.assert_array_equal(together[k], alone[0])
    assert len({row.tobytes() for row in together}) > 20


@pytest.mark.parametrize("side", [32, 45])
def test_counted_tables_are_pillows(side: int) -> None:
    pixels = pictures(6, side)
    factor = np.array([0.4, 0.9, 1.0, 1.2, 1.5, 1.9])
    for number, name in enumerate(COUNTED):
        image = torch.from_numpy(pixels)[:, None]
        tables = counted_tables(image, torch.full((6,), number), torch.from_numpy(factor))
        found = look_up(image, tables)[:, 0].numpy()
        for k, one in enumerate(map(Image.fromarray, pixels)):
            expected = {
                "AutoContrast": lambda one=one: ImageOps.autocontrast(one),
                "Equalize": lambda one=one: ImageOps.equalize(one),
                "ContrastIncreasing": lambda one=one, k=k: ImageEnhance.Contrast(one).enhance(factor[k]),
            }[name]()
            np.testing.assert_array_equal(found[k], np.asarray(expected))


def test_greys_are_counted_alike_on_every_device() -> None:
    flat = torch.from_numpy(pictures(4, 20)).flatten(1)
    expected = np.stack([np.bincount(one, minlength=256) for one in flat.numpy()])
    np.testing.assert_array_equal(_histogram(flat).numpy(), expected)
    np.testing.assert_array_equal(_scattered(flat).numpy(), expected)


def test_sharpening_is_pillows() -> None:
    pixels = pictures(5, 31)
    factor = [0.1, 0.6, 1.0, 1.4, 1.9]
    found = sharpen(torch.from_numpy(pixels)[:, None], torch.tensor(factor))[:, 0].numpy()
    for k, one in enumerate(map(Image.fromarray, pixels)):
        np.testing.assert_array_equal(found[k], np.asarray(ImageEnhance.Sharpness(one).enhance(factor[k])))


def test_greys_are_cut_not_rounded() -> None:
    assert to_grey(torch.tensor([0.0, 0.99, 1.0, 254.999, 255.0])).tolist() == [0, 0, 1, 254, 255]
