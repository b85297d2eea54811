"""RandAugment on batches against timm's, operation by operation and in distribution."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from timm.data.auto_augment import LEVEL_TO_ARG, NAME_TO_OP, rand_augment_transform

from mxa.data.batch_augment import MOVES, OPERATIONS, TONES, BatchAugmenter, RandAugment, uniform
from mxa.data.batch_tones import COUNTED, KNOWN
from mxa.errors import ConfigError

PAPER = RandAugment.parse("rand-m5-mstd0.2-inc2")
FILL = 114
SIDE = 48


def pictures(count: int, side: int = SIDE, seed: int = 0) -> np.ndarray:
    """Smooth pictures with noise, of different ranges of grey."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5)).astype(np.uint8)).resize((side, side), 3)
        pixels = np.asarray(coarse, float) * rng.uniform(0.2, 0.9) + rng.uniform(0, 25) + rng.normal(0, 4, (side, side))
        found.append(np.clip(pixels, 0, 255).astype(np.uint8))
        if k % 7 == 6:
            found[-1][:] = rng.integers(0, 256)  # a constant picture, which stretching leaves alone
    return np.stack(found)


def forced(monkeypatch: pytest.MonkeyPatch, name: str, level: float, sign: int) -> BatchAugmenter:
    """One layer that does one operation to every picture."""
    first = (OPERATIONS.index(name) + 0.5) / len(OPERATIONS)
    below = 0.9 if sign < 0 else 0.1

    def draws(seed: int, epoch: int, rows: np.ndarray, count: int) -> np.ndarray:
        return np.tile([first, 0.0, 0.5, below], (len(rows), 1))

    monkeypatch.setattr("mxa.data.batch_augment.uniform", draws)
    return BatchAugmenter(RandAugment(magnitude=level, layers=1), seed=0, fill=FILL)


def ours(augmenter: BatchAugmenter, pixels: np.ndarray, epoch: int = 0) -> np.ndarray:
    image = torch.from_numpy(pixels)[:, None]
    kept = image.clone()
    result = augmenter.apply(image, augmenter.plan(epoch, np.arange(len(pixels))))
    assert torch.equal(image, kept), "the input stays as it is"
    return result[:, 0].numpy()


def timms(name: str, level: float, sign: int, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """timm's own operation; it negates where a random number is above one half."""
    monkeypatch.setattr(random, "random", lambda: 0.9 if sign < 0 else 0.1)
    arguments = LEVEL_TO_ARG[name](level, {}) if LEVEL_TO_ARG[name] else ()
    options = {"fillcolor": FILL, "resample": Image.Resampling.BILINEAR}
    return np.stack([np.asarray(NAME_TO_OP[name](Image.fromarray(p), *arguments, **dict(options))) for p in pixels])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("level", [0.0, 2.6, 5.0, 7.5, 10.0])
@pytest.mark.parametrize("name", [*TONES, "SharpnessIncreasing", "ColorIncreasing"])
def test_greys_are_timms_to_the_bit(name: str, level: float, sign: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if (name, level) == ("PosterizeIncreasing", 10):
        pytest.skip("Pillow refuses to keep no bit at all")
    pixels = pictures(15)
    found = ours(forced(monkeypatch, name, level, sign), pixels)
    np.testing.assert_array_equal(found, timms(name, level, sign, pixels, monkeypatch))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("level", [0.0, 2.6, 5.0, 10.0])
@pytest.mark.parametrize("name", MOVES)
def test_moves_are_timms_to_a_grey_level(name: str, level: float, sign: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Except where a border falls between pixels: Pillow cuts there, we blend with the fill."""
    pixels = pictures(6)
    found = ours(forced(monkeypatch, name, level, sign), pixels).astype(int)
    expected = timms(name, level, sign, pixels, monkeypatch).astype(int)
    difference = np.abs(found - expected)
    assert (difference <= 2).mean() > 0.93
    assert np.median(difference) <= 1
    if level:
        assert (np.abs(expected - pixels.astype(int)) > 5).mean() > 0.1, "it moved"


def test_the_plan_has_timms_frequencies_and_magnitudes() -> None:
    """Each operation as often as the others, half of them done, magnitudes normal, signs even."""
    rows = np.arange(30_000)
    layers = BatchAugmenter(PAPER, seed=4, fill=FILL).plan(7, rows)
    assert len(layers) == 2
    for layer in layers:
        share = len(rows) * 0.5 / len(OPERATIONS)
        counted = Counter(COUNTED[k] for k in layer.operation.tolist())
        known = Counter(table.tobytes() for table in layer.table.numpy())
        assert known[bytes(range(255, -1, -1))] == pytest.approx(share, rel=0.1), "Invert has one table for all levels"
        sheared = [int((moved[:, 1] != 0).sum()) for moved in (layer.right, layer.below)]
        slid = [len(moved) - number for moved, number in zip((layer.right, layer.below), sheared, strict=True)]
        counts = [*counted.values(), len(layer.turned), *sheared, *slid, len(layer.sharp)]
        assert len(counts) == len(OPERATIONS) - len(KNOWN) - 1
        assert stats.chisquare(counts).pvalue > 1e-3
        assert np.mean(counts) == pytest.approx(share, rel=0.03)
        assert abs(len(layer.known) - len(KNOWN) * share) < 4 * np.sqrt(len(KNOWN) * share)
        factor = layer.sharpness.numpy()
        assert abs((factor > 1).mean() - 0.5) < 0.06
        magnitude = np.abs(factor - 1) / 0.9 * 10
        assert magnitude.mean() == pytest.approx(5, abs=0.03)
        assert magnitude.std() == pytest.approx(0.2, abs=0.02)


def test_affine_parameters_cover_timms_ranges() -> None:
    """Level 5: 15 degrees, 0.15 of shear, 0.225 of the side, either way."""
    (layer,) = BatchAugmenter(RandAugment(5, 0.2, layers=1, probability=1), seed=1, fill=FILL).plan(0, range(20_000))
    groups = {"degrees": (30 * layer.turn.numpy().astype(float), 15)}
    for axis, moved in (("x", layer.right.numpy().astype(float)), ("y", layer.below.numpy().astype(float))):
        sheared = moved[:, 1] != 0
        assert not moved[sheared, 0].any(), "a shear holds the corner"
        groups |= {f"shear {axis}": (moved[sheared, 1], 0.15), f"shift {axis}": (moved[~sheared, 0], 0.225)}
    for name, (values, expected) in groups.items():
        assert len(values) > 1000, name
        assert np.abs(values).mean() == pytest.approx(expected, rel=0.01), name
        assert abs((values > 0).mean() - 0.5) < 0.05, name


def test_brightness_and_spread_change_as_with_timm() -> None:
    """Of the same pictures: mean grey, its change and the pixels' spread, in distribution."""
    pixels = np.repeat(pictures(20, side=32)[:6], 250, axis=0)
    found = ours(BatchAugmenter(PAPER, seed=2, fill=FILL), pixels).astype(float)
    transform = rand_augment_transform("rand-m5-mstd0.2-inc2", {"img_mean": FILL})
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    expected = np.stack([np.asarray(transform(Image.fromarray(p))) for p in pixels]).astype(float)
    for of in (lambda x: x.mean((1, 2)), lambda x: (x - pixels).mean((1, 2)), lambda x: x.std((1, 2))):
        assert stats.ks_2samp(of(found), of(expected)).pvalue > 1e-3
    unchanged = [(x == pixels).all((1, 2)).mean() for x in (found, expected)]
    assert unchanged[0] == pytest.approx(unchanged[1], abs=0.05)


def test_a_picture_is_augmented_alike_in_every_batch() -> None:
    pixels = pictures(24)
    augmenter = BatchAugmenter(PAPER, seed=3, fill=FILL)
    whole = ours(augmenter, pixels, epoch=5)
    order = np.random.default_rng(0).permutation(24)
    for part in (order[:7], order[7:]):
        image = torch.from_numpy(pixels[part])[:, None]
        result = augmenter.apply(image, augmenter.plan(5, part))[:, 0].numpy()
        np.testing.assert_array_equal(result, whole[part])


def test_seed_epoch_and_row_each_matter() -> None:
    pixels = np.repeat(pictures(1), 40, axis=0)
    base = ours(BatchAugmenter(PAPER, seed=0, fill=FILL), pixels)
    assert not (base == base[0]).all(), "rows differ"
    for seed, epoch in ((1, 0), (0, 1)):
        assert not np.array_equal(ours(BatchAugmenter(PAPER, seed=seed, fill=FILL), pixels, epoch), base)
    np.testing.assert_array_equal(ours(BatchAugmenter(PAPER, seed=0, fill=FILL), pixels), base)


def test_random_numbers_are_even_and_unrelated() -> None:
    draws = uniform(0, 0, np.arange(20_000), 8)
    assert ((draws > 0) & (draws < 1)).all()
    for k in range(8):
        assert stats.kstest(draws[:, k], "uniform").pvalue > 1e-4
    others = [uniform(0, 1, np.arange(20_000), 1), uniform(1, 0, np.arange(20_000), 1), draws[1:, :1], draws[:, 1:2]]
    for other in others:
        n = len(other)
        assert abs(np.corrcoef(draws[:n, 0], other[:, 0])[0, 1]) < 4 / np.sqrt(n)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same_batch_up_to_rounding() -> None:
    pixels = torch.from_numpy(pictures(64))[:, None]
    augmenter = BatchAugmenter(PAPER, seed=0, fill=FILL)
    plan = augmenter.plan(0, np.arange(64))
    here, there = augmenter.apply(pixels, plan), augmenter.apply(pixels.cuda(), plan).cpu()
    assert (here.int() - there.int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rand-m5-mstd0.2-inc2", RandAugment(5, 0.2)),
        ("rand-m9-n3-p0.7-inc1", RandAugment(9, 0, 3, 0.7)),
        ("rand-inc1", RandAugment(10)),
        ("rand-m5-n1-mstd100-inc1", RandAugment(5, 100, 1)),
    ],
)
def test_timms_strings_are_read(text: str, expected: RandAugment) -> None:
    assert RandAugment.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rand-m5-n0-inc1", "a whole number of at least 1"),
        ("rand-m5-n1.5-inc1", "a whole number of at least 1"),
        ("rand-m5-mstd101-inc1", "evenly distributed magnitudes.*augment.implementation: timm"),
    ],
)
def test_numbers_that_mean_something_else_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"augment\.randaugment is '{text}'; .*{message}"):
        RandAugment.parse(text)


@pytest.mark.parametrize(
    "text", ["rand-m5", "rand-m5-inc0", "rend-m5-inc1", "rand-m5-mmax20-inc1", "rand-tweights-inc1", "rand-x"]
)
def test_what_is_not_done_here_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"augment\.randaugment is '.*augment\.implementation: timm knows more"):
        RandAugment.parse(text)


@pytest.mark.parametrize("side", [30, 45])
def test_sides_that_are_not_whole_words_work(side: int) -> None:
    """Pictures are moved by words of eight bytes where their size allows it."""
    pixels = pictures(40, side)
    augmenter = BatchAugmenter(PAPER, seed=3, fill=FILL)
    whole = ours(augmenter, pixels)
    assert 0.2 < (whole != pixels).any((1, 2)).mean() < 0.95
    for row in range(40):
        alone = augmenter.apply(torch.from_numpy(pixels[row])[None, None], augmenter.plan(0, [row]))
        np.testing.assert_array_equal(alone[0, 0].numpy(), whole[row])
