"""Augmentation: timm's own, repeatable, and off where it must be off."""

import random

import numpy as np
import pytest
from PIL import Image
from timm.data.auto_augment import rand_augment_transform

from mxa.data.augment import Augment, Augmenter
from mxa.errors import ConfigError

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)


def test_the_same_seed_epoch_and_row_give_the_same_picture() -> None:
    augmenter = Augmenter(Augment(), seed=3, fill=114)
    again = Augmenter(Augment(), seed=3, fill=114)
    pictures = [[one(PICTURE, epoch, row) for epoch in range(3) for row in range(8)] for one in (augmenter, again)]
    assert all((a == b).all() for a, b in zip(*pictures, strict=True))
    assert len({picture.tobytes() for picture in pictures[0]}) > 15


def test_another_seed_gives_other_pictures() -> None:
    one, other = (Augmenter(Augment(), seed=seed, fill=114) for seed in (0, 1))
    assert any((one(PICTURE, 0, row) != other(PICTURE, 0, row)).any() for row in range(8))


def test_randaugment_is_timms_with_its_globals_seeded() -> None:
    augmenter = Augmenter(Augment(), seed=5, fill=114)
    rng = np.random.default_rng((5, 2, 9))
    rng.random()  # the flip's draw
    random.seed(int(rng.integers(2**63)))
    np.random.seed(int(rng.integers(2**32)))  # noqa: NPY002
    expected = rand_augment_transform("rand-m5-mstd0.2-inc2", {"img_mean": 114})(Image.fromarray(PICTURE))
    assert (augmenter(PICTURE, 2, 9) == np.asarray(expected)).all()


def test_global_random_states_are_left_alone() -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = random.random(), np.random.random()  # noqa: NPY002
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    Augmenter(Augment(), seed=0, fill=0)(PICTURE, 0, 0)
    assert (random.random(), np.random.random()) == expected  # noqa: NPY002


def test_named_extras_are_off_by_default() -> None:
    off = Augment(randaugment="")
    assert off.is_off
    assert (Augmenter(off, 0, 0)(PICTURE, 0, 0) == PICTURE).all()
    for name, value in (("horizontal_flip", 0.5), ("crop_min_area", 0.5), ("erase", 0.5)):
        assert not Augment(**{"randaugment": "", "implementation": "timm", name: value}).is_off


def test_flip() -> None:
    always = Augmenter(Augment(randaugment="", implementation="timm", horizontal_flip=1.0), 0, 0)
    assert (always(PICTURE, 0, 0) == PICTURE[:, ::-1]).all()
    half = Augmenter(Augment(randaugment="", implementation="timm", horizontal_flip=0.5), 0, 0)
    flipped = sum((half(PICTURE, 0, row) != PICTURE).any() for row in range(400))
    assert 160 < flipped < 240


def test_erase_fills_a_patch_of_the_stated_area() -> None:
    augmenter = Augmenter(Augment(randaugment="", implementation="timm", erase=1.0), 0, fill=7)
    bright = np.full((100, 100), 200, np.uint8)
    for row in range(100):
        erased = augmenter(bright, 0, row)
        share = (erased == 7).mean()
        assert 0.015 < share < 0.36
        ys, xs = np.nonzero(erased == 7)
        assert (erased[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1] == 7).all()


def test_crop_keeps_the_size_and_the_stated_area() -> None:
    ramp = np.tile(np.arange(100, dtype=np.uint8) * 2, (100, 1))
    augmenter = Augmenter(Augment(randaugment="", implementation="timm", crop_min_area=0.25), 0, 0)
    widths = []
    for row in range(100):
        cropped = augmenter(ramp, 0, row)
        assert cropped.shape == (100, 100)
        widths.append((float(cropped[50, -1]) - float(cropped[50, 0])) / 198)
    assert min(widths) > 0.4
    assert min(widths) < 0.7
    assert max(widths) > 0.9


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"horizontal_flip": 1.5}, "augment.horizontal_flip"),
        ({"erase": -0.1}, "augment.erase"),
        ({"crop_min_area": 0.0}, "augment.crop_min_area"),
    ],
)
def test_wrong_values_are_named(options: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Augment(**options)  # type: ignore[arg-type]


def test_a_misspelt_randaugment_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"augment\.randaugment is 'rend-m5'"):
        Augmenter(Augment(randaugment="rend-m5"), 0, 0)


def test_extras_need_the_path_that_does_them() -> None:
    for extra in ({"horizontal_flip": 0.5}, {"crop_min_area": 0.5}, {"erase": 0.1}):
        with pytest.raises(ConfigError, match=r"give augment\.implementation: timm"):
            Augment(**extra)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"augment\.implementation is 'gpu'; choose one of batch, timm"):
        Augment(implementation="gpu")


def test_where_it_happens() -> None:
    assert (Augment().by_batch, Augment().by_picture) == (True, False)
    timm = Augment(implementation="timm")
    assert (timm.by_batch, timm.by_picture) == (False, True)
    off = Augment(randaugment="")
    assert (off.by_batch, off.by_picture, off.is_off) == (False, False, True)
