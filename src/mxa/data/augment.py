"""What augmentation there is, and that of single pictures on the CPU: timm's RandAugment [6.2] and three named extras.

:mod:`mxa.data.batch_augment` does RandAugment on whole batches instead. Every picture's randomness comes from (seed,
epoch, row) alone, so that it depends neither on the number of workers nor on the order of loading.

The extras are off because of what they do to a radiograph's labels (spec, known mistake 10): a flip moves the heart to
the other side, a random crop and an erased patch can remove a finding whose label stays.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from mxa.errors import ConfigError

IMPLEMENTATIONS = ("batch", "timm")
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Augment:
    """What happens to a training picture; the defaults are the paper's.

    Raises:
        ConfigError: a probability or area is outside its range.
    """

    randaugment: str = "rand-m5-mstd0.2-inc2"
    """timm's RandAugment string, or empty for none."""
    implementation: str = "batch"
    """batch (a whole batch at once on the model's device; as timm's, moves bilinear) or timm (timm's own, picture by
    picture in the loading processes; the extras below need it)."""
    horizontal_flip: float = 0.0
    """Probability of mirroring left and right. The heart changes sides: off by default."""
    crop_min_area: float = 1.0
    """Smallest area of a random resized crop, a fraction of the picture's; 1 is no cropping. Findings can be cut away:
    off by default."""
    erase: float = 0.0
    """Probability of erasing a random patch (2 to 33% of the area). Findings can be erased: off by default."""

    def __post_init__(self) -> None:
        if self.implementation not in IMPLEMENTATIONS:
            raise ConfigError(
                f"augment.implementation is {self.implementation!r}; choose one of {', '.join(IMPLEMENTATIONS)}"
            )
        for name in ("horizontal_flip", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"augment.{name} is {getattr(self, name)!r}; it is a probability, from 0 to 1")
        if not 0 < self.crop_min_area <= 1:
            raise ConfigError(
                f"augment.crop_min_area is {self.crop_min_area!r}; it is a fraction of the area, over 0, at most 1"
            )

        if self.implementation == "batch" and self._has_extras:
            raise ConfigError("flips, crops and erasing are done picture by picture: give augment.implementation: timm")

    @property
    def is_off(self) -> bool:
        """True where training pictures pass unchanged."""
        return not self.randaugment and not self._has_extras

    @property
    def by_picture(self) -> bool:
        """True where the loading processes change single pictures."""
        return self.implementation == "timm" and not self.is_off

    @property
    def by_batch(self) -> bool:
        """True where whole batches are changed on the model's device."""
        return self.implementation == "batch" and not self.is_off

    @property
    def _has_extras(self) -> bool:
        return not (self.horizontal_flip == 0 and self.crop_min_area == 1 and self.erase == 0)


@contextmanager
def _global_seeds(rng: np.random.Generator) -> Iterator[None]:
    """timm draws from the two global generators: seed them from ours, and give the caller's states back afterwards."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(int(rng.integers(2**63)))
    np.random.seed(int(rng.integers(2**32)))  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


class Augmenter:
    """Applies an :class:`Augment` to single pictures.

    Args:
        augment: what to do.
        seed: with epoch and row it decides every draw.
        fill: grey value 0..255 for pixels that come in from outside.

    Raises:
        ConfigError: timm does not understand the RandAugment string.
    """

    def __init__(self, augment: Augment, seed: int, fill: int) -> None:
        self.augment = augment
        self.seed = seed
        self.fill = fill
        self._randaugment = _timm_randaugment(augment.randaugment, fill) if augment.randaugment else None

    def __call__(self, pixels: Pixels, epoch: int, row: int) -> Pixels:
        """(S, S) uint8 -> (S, S) uint8."""
        rng = np.random.default_rng((self.seed, epoch, row))
        if self.augment.crop_min_area < 1:
            pixels = _random_resized_crop(pixels, rng, self.augment.crop_min_area)
        if rng.random() < self.augment.horizontal_flip:
            pixels = np.ascontiguousarray(pixels[:, ::-1])
        if self._randaugment is not None:
            with _global_seeds(rng):
                pixels = np.asarray(self._randaugment(Image.fromarray(pixels)))
        if rng.random() < self.augment.erase:
            pixels = _erase(pixels, rng, self.fill)
        return pixels


def _timm_randaugment(spec: str, fill: int) -> Callable[[Image.Image], Image.Image]:
    from timm.data.auto_augment import rand_augment_transform

    try:
        transform: Callable[[Image.Image], Image.Image] = rand_augment_transform(spec, {"img_mean": fill})
    except (AssertionError, ValueError, KeyError) as error:
        raise ConfigError(
            f"augment.randaugment is {spec!r}, which timm does not understand ({error}); "
            "the paper's is 'rand-m5-mstd0.2-inc2', empty is none"
        ) from error
    return transform


def _patch(rng: np.random.Generator, side: int, low: float, high: float) -> tuple[int, int, int, int]:
    """A random rectangle (top, left, height, width) of a square: area in [low, high], aspect 3/4 to 4/3, cut to fit."""
    area = rng.uniform(low, high) * side * side
    aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    height = int(np.clip(round(np.sqrt(area / aspect)), 1, side))
    width = int(np.clip(round(np.sqrt(area * aspect)), 1, side))
    return int(rng.integers(side - height + 1)), int(rng.integers(side - width + 1)), height, width


def _random_resized_crop(pixels: Pixels, rng: np.random.Generator, min_area: float) -> Pixels:
    side = pixels.shape[0]
    top, left, height, width = _patch(rng, side, min_area, 1.0)
    box = (left, top, left + width, top + height)
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC, box=box))


def _erase(pixels: Pixels, rng: np.random.Generator, fill: int) -> Pixels:
    top, left, height, width = _patch(rng, pixels.shape[0], 0.02, 0.33)
    erased = pixels.copy()
    erased[top : top + height, left : left + width] = fill
    return erased
