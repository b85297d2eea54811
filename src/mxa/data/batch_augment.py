"""RandAugment on a whole batch at once, on whatever device it lies: timm's increasing set for one grey channel.

What happens to a picture is planned on the CPU from (seed, epoch, row) alone by counter-based random numbers, so it
depends neither on the batch that the picture is in, nor on workers, ranks or the device. Carrying the plan out is a few
tensor operations per layer: one sampling of all pictures that are moved, one look-up of all whose greys change.

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
import torch.nn.functional as nnf
from scipy.special import ndtri
from torch import Tensor

from mxa.errors import ConfigError

COUNTED = ("AutoContrast", "Equalize", "ContrastIncreasing")
"""Operations on grey values that depend on the picture's histogram."""
TONES = (
    *COUNTED,
    "Invert",
    "PosterizeIncreasing",
    "SolarizeIncreasing",
    "SolarizeAdd",
    "BrightnessIncreasing",
)
"""Operations that map each grey value to another."""
MOVES = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
OPERATIONS = (*TONES, *MOVES, "SharpnessIncreasing", "ColorIncreasing")
"""timm's increasing set; each is as likely as the others."""
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
                sets, a limit).
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
        return cls(
            magnitude=float(found.get("m", DENOMINATOR)),
            deviation=float(found.get("mstd", 0)),
            layers=int(found.get("n", 2)),
            probability=float(found.get("p", 0.5)),
        )


class Layer(NamedTuple):
    """What one layer does: pictures by number within the batch, and their parameters.

    Attributes:
        tone: (T,) pictures whose greys change.
        operation: (T,) index into :data:`TONES`.
        amount: (T,) their parameter (threshold, bits, addend or factor); 0 where there is none.
        move: (M,) pictures that are moved.
        matrix: (M, 2, 3) from output to input coordinates, both in [-1, 1].
        sharp: (K,) pictures that are sharpened or blurred.
        factor: (K,) by how much; 1 is no change.
        rest: pictures to which nothing happens.
        back: (B,) where each picture of the batch is in (rest, tone, move, sharp).
    """

    tone: Tensor
    operation: Tensor
    amount: Tensor
    move: Tensor
    matrix: Tensor
    sharp: Tensor
    factor: Tensor
    rest: Tensor
    back: Tensor


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
        names = np.array(OPERATIONS)[chosen]
        tone, move = done & np.isin(names, TONES), done & np.isin(names, MOVES)
        sharp = done & (names == "SharpnessIncreasing")
        factor = np.maximum(0.1, 1 + 0.9 * signed)
        groups = [np.flatnonzero(group) for group in (~(tone | move | sharp), tone, move, sharp)]
        return Layer(
            torch.from_numpy(groups[1]),
            torch.from_numpy(chosen[tone]),  # TONES come first among the operations
            torch.from_numpy(_amount(names[tone], level[tone], factor[tone])),
            torch.from_numpy(groups[2]),
            torch.from_numpy(_matrix(names[move], signed[move]).astype(np.float32)),
            torch.from_numpy(groups[3]),
            torch.from_numpy(factor[sharp].astype(np.float32)),
            torch.from_numpy(groups[0]),
            torch.from_numpy(np.argsort(np.concatenate(groups))),
        )

    def apply(self, image: Tensor, plan: list[Layer]) -> Tensor:
        """Carry a plan out.

        Args:
            image: (B, 1, S, S) uint8 on any device; it stays as it is.
            plan: of these pictures.

        Returns:
            (B, 1, S, S) uint8.
        """
        result = image
        for layer in plan:
            result = self._carry_out(result, layer)
        return result

    def _carry_out(self, image: Tensor, on_cpu: Layer) -> Tensor:
        layer = Layer(*(part.to(image.device, non_blocking=True) for part in on_cpu))
        # Whole pictures are copied to and fro: indexing by [] would do it byte by byte. All sizes are known on the CPU.
        parts = [image.index_select(0, layer.rest)]
        if len(layer.tone):
            counted = (on_cpu.operation < len(COUNTED)).nonzero().flatten().to(image.device, non_blocking=True)
            parts += [_change_tones(image.index_select(0, layer.tone), layer.operation, layer.amount, counted)]
        if len(layer.move):
            parts += [_move(image.index_select(0, layer.move), layer.matrix, self.fill)]
        if len(layer.sharp):
            parts += [_sharpen(image.index_select(0, layer.sharp), layer.factor)]
        return torch.cat(parts).index_select(0, layer.back)


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


def _amount(names: npt.NDArray[np.str_], level: FloatArray, factor: FloatArray) -> FloatArray:
    """The parameter of each operation on greys, from a level in [0, 1]; timm's ``LEVEL_TO_ARG``."""
    steps = {
        "PosterizeIncreasing": 4 - np.floor(level * 4),
        "SolarizeIncreasing": 256 - np.minimum(256, np.floor(level * 256)),
        "SolarizeAdd": np.minimum(128, np.floor(level * 110)),
        "ContrastIncreasing": factor,
        "BrightnessIncreasing": factor,
    }
    amount = np.zeros(len(names))
    for name, value in steps.items():
        amount = np.where(names == name, value, amount)
    return amount


def _matrix(names: npt.NDArray[np.str_], signed: FloatArray) -> FloatArray:
    """(M, 2, 3) affine maps in [-1, 1] from levels in [-1, 1]; Pillow shears about the upper left corner."""
    matrix = np.zeros((len(names), 2, 3))
    angle = np.where(names == "Rotate", np.radians(-30 * signed), 0)
    shear_x, shear_y, right, down = (
        np.where(names == name, reach * signed, 0)
        for name, reach in (("ShearX", 0.3), ("ShearY", 0.3), ("TranslateXRel", 0.45), ("TranslateYRel", 0.45))
    )
    matrix[:, 0, 0] = matrix[:, 1, 1] = np.cos(angle)
    matrix[:, 0, 1] = np.sin(angle) + shear_x
    matrix[:, 1, 0] = -np.sin(angle) + shear_y
    matrix[:, 0, 2] = shear_x + 2 * right
    matrix[:, 1, 2] = shear_y + 2 * down
    return matrix


def _move(image: Tensor, matrix: Tensor, fill: int) -> Tensor:
    """(M, 1, S, S) uint8 sampled at the places that the matrices say."""
    # Zeros from outside become the fill.
    pixels = image.float().sub_(fill)
    grid = _grid(matrix, image.shape[-1])
    moved = nnf.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved.add_(fill).round_().to(torch.uint8)


def _grid(matrix: Tensor, size: int) -> Tensor:
    """(M, 2, 3) -> (M, size, size, 2) places in [-1, 1].

    ``affine_grid`` multiplies matrices for it. A place is a number of the column plus one of the row; as complex
    numbers both coordinates are added at once, ten times as fast.
    """
    centres = (2 * torch.arange(size, device=matrix.device, dtype=matrix.dtype) + 1) / size - 1
    columns = matrix[:, None, :, 0] * centres[:, None]
    rows = matrix[:, None, :, 1] * centres[:, None] + matrix[:, None, :, 2]
    return torch.view_as_real(torch.view_as_complex(rows)[:, :, None] + torch.view_as_complex(columns)[:, None, :])


def _sharpen(image: Tensor, factor: Tensor) -> Tensor:
    """(K, 1, S, S) uint8 blended with Pillow's SMOOTH filter, which leaves the border as it is."""
    pixels = image.float()
    # The filter is ones around a five, over 13: three columns, three rows, and four times the middle.
    across = pixels[..., :-2] + pixels[..., 1:-1] + pixels[..., 2:]
    total = across[..., :-2, :] + across[..., 1:-1, :] + across[..., 2:, :] + 4 * pixels[..., 1:-1, 1:-1]
    smooth = pixels.clone()
    smooth[..., 1:-1, 1:-1] = torch.floor(total / 13 + 0.5)
    return _blend(smooth, pixels, factor[:, None, None, None])


def _change_tones(image: Tensor, operation: Tensor, amount: Tensor, counted: Tensor) -> Tensor:
    """(T, 1, S, S) uint8 through a table of 256 greys for each picture; ``counted`` ones need their histogram."""
    flat = image.flatten(1)
    histogram = torch.ones(len(flat), 256, dtype=torch.float64, device=image.device)
    if len(counted):
        histogram.index_copy_(0, counted, _histogram(flat.index_select(0, counted)))
    return _tables(histogram, operation, amount).gather(1, flat.long()).view_as(image)


def _histogram(flat: Tensor) -> Tensor:
    """(T, P) uint8 -> (T, 256) float64, how many pixels have each grey."""
    places = torch.arange(len(flat), device=flat.device)[:, None] * 256 + flat
    return torch.bincount(places.flatten(), minlength=256 * len(flat)).view(-1, 256).double()


def _tables(histogram: Tensor, operation: Tensor, amount: Tensor) -> Tensor:
    """(T, 256) uint8: every operation's table, and each picture's own taken from them; Pillow's arithmetic."""
    grey = torch.arange(256, device=histogram.device, dtype=torch.float64).expand_as(histogram)
    value = amount[:, None].double()
    mean = torch.floor((histogram * grey).sum(1, keepdim=True) / histogram.sum(1, keepdim=True) + 0.5)
    kept = 2.0 ** (8 - value.clamp(0, 8))
    tables = torch.stack(
        [
            _stretch(histogram, grey),
            _equalise(histogram, grey),
            _blend(mean, grey, value).double(),
            255 - grey,
            torch.floor(grey / kept) * kept,
            torch.where(grey < value, grey, 255 - grey),
            torch.where(grey < 128, (grey + value).clamp(max=255), grey),
            _blend(torch.zeros_like(grey), grey, value).double(),
        ]
    )
    return tables[operation, torch.arange(len(histogram), device=histogram.device)].to(torch.uint8)


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


def _blend(start: Tensor, end: Tensor, factor: Tensor) -> Tensor:
    """ImageEnhance: start + factor (end - start), cut to 0..255 and down to whole greys."""
    single = (start + factor.to(torch.float32) * (end - start).to(torch.float32)).clamp(0, 255)
    return torch.floor(single).to(torch.uint8)
