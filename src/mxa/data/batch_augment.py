"""RandAugment on a whole batch at once, on whatever device it lies: timm's increasing set for one grey channel.

What happens to a picture is planned on the CPU from (seed, epoch, row) alone by counter-based random numbers, so it
depends neither on the batch that the picture is in, nor on workers, ranks or the device. Carrying the plan out is a few
tensor operations per layer for each kind of change: a look-up of greys (:mod:`mxa.data.batch_tones`), rows or columns
that slide, a rotation (:mod:`mxa.data.batch_moves`).

Against timm's own (:mod:`mxa.data.augment`, ``implementation: timm``), picture by picture:

- the operations, their probability and the distribution of their magnitudes are the same; "Color" does nothing to grey;
- operations on grey values are equal to the bit;
- moves are bilinear, where timm chooses bilinear or bicubic at random.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import ndtri
from torch import Tensor

from mxa.data.batch_moves import rotate, slide, slides
from mxa.data.batch_tones import COUNTED, KNOWN, counted_tables, known_tables, look_up, sharpen
from mxa.errors import ConfigError

TONES = (*COUNTED, *KNOWN)
MOVES = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
OPERATIONS = (*TONES, *MOVES, "SharpnessIncreasing", "ColorIncreasing")
"""timm's increasing set; each is as likely as the others."""
_GROUPS = [
    np.isin(OPERATIONS, group)
    for group in (
        KNOWN,
        COUNTED,
        ("Rotate",),
        ("ShearX", "TranslateXRel"),
        ("ShearY", "TranslateYRel"),
        ("SharpnessIncreasing",),
    )
]
_SHEARS = np.isin(OPERATIONS, ("ShearX", "ShearY"))
DENOMINATOR = 10.0
"""The magnitude of the strongest change."""
DRAWS = 4
"""Random numbers of a picture in each layer: operation, whether, magnitude, sign."""

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RandAugment:
    """The numbers in a string such as timm's ``rand-m5-mstd0.2-inc2``.

    Attributes:
        magnitude: mean magnitude, 10 is the strongest.
        deviation: standard deviation of the magnitudes.
        layers: operations per picture.
        probability: with which each is carried out.
    """

    magnitude: float
    deviation: float = 0.0
    layers: int = 2
    probability: float = 0.5

    @classmethod
    def parse(cls, text: str) -> "RandAugment":
        """Read the string.

        Raises:
            ConfigError: it is not timm's, or asks for what is not done here (the set that does not increase, other
                sets, a limit, magnitudes that are evenly distributed).
        """
        parts = text.split("-")
        matches = [re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", part) for part in parts[1:]]
        found: dict[str, str] = {match[1]: match[2] for match in matches if match}
        known = {"m", "mstd", "n", "p", "inc"}
        if parts[0] != "rand" or len(found) != len(parts) - 1 or set(found) - known or float(found.get("inc", 0)) < 1:
            raise ConfigError(
                f"augment.randaugment is {text!r}; on whole batches it is rand-mM[-mstdS][-nN][-pP]-inc1, such as the "
                "paper's 'rand-m5-mstd0.2-inc2'; empty is none, and augment.implementation: timm knows more"
            )
        layers, deviation = float(found.get("n", 2)), float(found.get("mstd", 0))
        if layers < 1 or not layers.is_integer():
            raise ConfigError(
                f"augment.randaugment is {text!r}; n is the number of operations per picture, a whole number of at "
                "least 1"
            )
        if deviation > 100:
            raise ConfigError(
                f"augment.randaugment is {text!r}; to timm an mstd over 100 stands for evenly distributed magnitudes, "
                "which are not done on whole batches; give at most 100, or augment.implementation: timm"
            )
        return cls(
            magnitude=float(found.get("m", DENOMINATOR)),
            deviation=deviation,
            layers=int(layers),
            probability=float(found.get("p", 0.5)),
        )


class Layer(NamedTuple):
    """What one layer does: groups of pictures, by number within the batch, and their parameters; others stay.

    Attributes:
        known: (T,) pictures whose greys change by a table known beforehand.
        table: (T, 256) uint8, those tables.
        counted: (C,) pictures whose greys change by a table made from their histogram.
        operation: (C,) index into :data:`COUNTED`.
        contrast: (C,) factor.
        turned: (R,) pictures that are rotated.
        turn: (R,) by how much, -1 to 1.
        across: (A,) pictures whose rows are moved.
        right: (A, 2) as :func:`mxa.data.batch_moves.slides`.
        down: (D,) pictures whose columns are moved.
        below: (D, 2) as ``right``.
        sharp: (K,) pictures that are sharpened or blurred.
        sharpness: (K,) factor; 1 is no change.
    """

    known: Tensor
    table: Tensor
    counted: Tensor
    operation: Tensor
    contrast: Tensor
    turned: Tensor
    turn: Tensor
    across: Tensor
    right: Tensor
    down: Tensor
    below: Tensor
    sharp: Tensor
    sharpness: Tensor


class BatchAugmenter:
    """Plans and carries out RandAugment.

    Args:
        spec: numbers of the augmentation.
        seed: with epoch and row it decides every draw.
        fill: grey value 0..255 for what comes in from outside a picture.
    """

    def __init__(self, spec: RandAugment, seed: int, fill: int) -> None:
        self.spec, self.seed, self.fill = spec, seed, fill

    def plan(self, epoch: int, rows: npt.ArrayLike) -> list[Layer]:
        """What happens to the pictures of a batch.

        Args:
            epoch: number of the epoch.
            rows: (B,) rows of the table.
        """
        draws = uniform(self.seed, epoch, np.asarray(rows), self.spec.layers * DRAWS)
        return [self._layer(part) for part in np.split(draws, self.spec.layers, axis=1)]

    def _layer(self, draw: FloatArray) -> Layer:
        chosen = np.minimum((draw[:, 0] * len(OPERATIONS)).astype(np.int64), len(OPERATIONS) - 1)
        done = draw[:, 1] <= self.spec.probability
        level = np.clip(self.spec.magnitude + self.spec.deviation * ndtri(draw[:, 2]), 0, DENOMINATOR) / DENOMINATOR
        signed = np.where(draw[:, 3] > 0.5, -level, level)
        factor = np.maximum(0.1, 1 + 0.9 * signed)
        known, counted, turned, across, down, sharp = (np.flatnonzero(done & own[chosen]) for own in _GROUPS)
        arrays = (
            known,
            known_tables(chosen[known] - len(COUNTED), level[known], factor[known]),
            counted,
            chosen[counted],
            factor[counted],
            turned,
            signed[turned].astype(np.float32),
            across,
            slides(_SHEARS[chosen[across]], signed[across]),
            down,
            slides(_SHEARS[chosen[down]], signed[down]),
            sharp,
            factor[sharp].astype(np.float32),
        )
        return Layer(*map(torch.from_numpy, arrays))

    def apply(self, image: Tensor, plan: list[Layer]) -> Tensor:
        """Carry a plan out.

        Args:
            image: (B, 1, S, S) uint8 on any device; it stays as it is.
            plan: of these pictures.

        Returns:
            (B, 1, S, S) uint8.
        """
        result = image.clone(memory_format=torch.contiguous_format)
        for layer in plan:
            self._carry_out(result, layer)
        return result

    def _carry_out(self, image: Tensor, on_cpu: Layer) -> None:
        """In place: each group is taken out, changed and put back. All sizes are known on the CPU."""
        layer = Layer(*(part.to(image.device, non_blocking=True) for part in on_cpu))
        if len(layer.known):
            _put(image, layer.known, look_up(image.index_select(0, layer.known), layer.table))
        if len(layer.counted):
            counted = image.index_select(0, layer.counted)
            _put(image, layer.counted, look_up(counted, counted_tables(counted, layer.operation, layer.contrast)))
        if len(layer.turned):
            _put(image, layer.turned, rotate(image.index_select(0, layer.turned), layer.turn, self.fill))
        if len(layer.across) + len(layer.down):
            lying = image.index_select(0, layer.down).transpose(2, 3)
            rows = torch.cat([image.index_select(0, layer.across), lying])
            slid = slide(rows, torch.cat([layer.right, layer.below]), self.fill)
            _put(image, layer.across, slid[: len(layer.across)])
            _put(image, layer.down, slid[len(layer.across) :].transpose(2, 3))
        if len(layer.sharp):
            _put(image, layer.sharp, sharpen(image.index_select(0, layer.sharp), layer.sharpness))


def _put(image: Tensor, where: Tensor, part: Tensor) -> None:
    """Pictures into a batch, (K, 1, S, S) into (B, 1, S, S); by words of eight bytes, as [] goes byte by byte."""
    whole, pieces = image.flatten(1), part.flatten(1)
    if whole.shape[1] % 8 == 0:
        whole, pieces = whole.view(torch.int64), pieces.view(torch.int64)
    whole.index_copy_(0, where, pieces)


def uniform(seed: int, epoch: int, rows: npt.NDArray[np.int64], count: int) -> FloatArray:
    """(B, count) numbers in (0, 1), each a function of (seed, epoch, row, its place) alone.

    SplitMix64 as a counter-based generator (Steele et al., OOPSLA 2014).
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        start = _mix(_mix(np.uint64(seed) + golden) ^ np.uint64(epoch))
        own = _mix(start + (rows.astype(np.uint64) + np.uint64(1)) * golden)
        bits = _mix(own[:, None] + np.arange(1, count + 1, dtype=np.uint64) * golden)
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def _mix(x: "np.uint64 | npt.NDArray[np.uint64]") -> "npt.NDArray[np.uint64]":
    """SplitMix64's finaliser."""
    z = np.asarray(x, dtype=np.uint64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
