"""RandAugment's moves for a whole batch: bilinear, with a grey that comes in from outside.

A shear or a shift moves whole rows, or whole columns, along themselves: each output pixel lies between two neighbours
in its row, at the same distance for the row. That is a copy of rows and a weighted mean, which takes less time than
sampling the plane; only a rotation needs that.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as nnf
from torch import Tensor

from mxa.data.batch_tones import to_grey

SHEAR, SHIFT, DEGREES = 0.3, 0.45, 30
"""The strongest moves: per pixel, per side, and of a rotation."""

FloatArray = npt.NDArray[np.float64]


def slides(sheared: npt.NDArray[np.bool_], signed: FloatArray) -> npt.NDArray[np.float32]:
    """(M, 2) shift and slope of shears, and of shifts, by levels of -1 to 1.

    What is at x of row y in the result comes from x + shift + slope y, all in parts of the picture's side (of columns
    likewise): Pillow shears about the upper left corner.
    """
    return np.stack([np.where(sheared, 0, SHIFT * signed), np.where(sheared, SHEAR * signed, 0)], 1).astype(np.float32)


def slide(image: Tensor, amount: Tensor, fill: int) -> Tensor:
    """Rows of (M, 1, S, S) uint8 moved along themselves by amounts (M, 2) of :func:`slides`."""
    count, side = len(image), image.shape[-1]
    centre = (torch.arange(side, device=image.device, dtype=amount.dtype) + 0.5) / side
    place = (amount[:, :1] + amount[:, 1:] * centre) * side
    whole = place.floor()
    # A margin on both sides, so that a row with its surroundings is one piece of memory wherever it starts.
    margin = int(side * max(SHEAR, SHIFT)) + 2
    canvas = image.new_full((count, side, side + 2 * margin), fill)
    canvas[..., margin : margin + side] = image[:, 0]
    first = torch.arange(count * side, device=image.device) * canvas.shape[-1] + margin + whole.long().flatten()
    pieces = canvas.flatten().unfold(0, side + 1, 1).index_select(0, first).view(count, side, side + 1).float()
    between = torch.lerp(pieces[..., :-1], pieces[..., 1:], (place - whole)[..., None])
    return to_grey(between.round_())[:, None]


def rotate(image: Tensor, level: Tensor, fill: int) -> Tensor:
    """(M, 1, S, S) uint8 turned about their centres by levels (M,) of -1 to 1."""
    angle = torch.deg2rad(-DEGREES * level)
    cosine, sine = angle.cos(), angle.sin()
    matrix = torch.stack([torch.stack([cosine, sine], 1), torch.stack([-sine, cosine], 1)], 1)
    # Zeros from outside become the fill.
    pixels = image.float().sub_(fill)
    grid = _grid(matrix, image.shape[-1])
    turned = nnf.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return to_grey(turned.add_(fill).round_())


def _grid(matrix: Tensor, size: int) -> Tensor:
    """(M, 2, 2) -> (M, size, size, 2) places in [-1, 1].

    ``affine_grid`` multiplies matrices for it. A place is a number of the column plus one of the row; as complex
    numbers both coordinates are added at once, ten times as fast.
    """
    centres = (2 * torch.arange(size, device=matrix.device, dtype=matrix.dtype) + 1) / size - 1
    columns = (matrix[:, None, :, 0] * centres[:, None]).contiguous()
    rows = (matrix[:, None, :, 1] * centres[:, None]).contiguous()
    return torch.view_as_real(torch.view_as_complex(rows)[:, :, None] + torch.view_as_complex(columns)[:, None, :])
