"""Adaptive gradient clipping: timm's on the CPU, and the same for all units at once on an accelerator.

Brock et al., "High-Performance Large-Scale Image Recognition Without Normalization", ICML 2021, eq. 3.

timm walks over the parameters, ten small operations for each; on an accelerator those thousands of launches take longer
than the arithmetic. At once, all units lie in one row of numbers, and a step is a few dozen operations however many
parameters there are. On the CPU, where a launch costs nothing and copying does, timm's walk is the faster one.
"""

from collections.abc import Iterable
from itertools import chain

import torch
from timm.utils import adaptive_clip_grad
from torch import Tensor, nn

EPS = 1e-3
"""A unit's weight norm counts as at least this, so that units that start at zero can move."""
TINY = 1e-6


class AdaptiveClip:
    """Clips a unit's gradient norm to ``factor`` times its weight norm.

    A unit is what makes one output: a row of a weight with two or more dimensions, or a whole vector or number.

    Args:
        parameters: what is clipped.
        factor: the largest ratio of the norms, positive.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], factor: float) -> None:
        self.parameters = list(parameters)
        self.factor = factor
        self._sizes = [p.numel() for p in self.parameters]
        units = [1 if p.ndim <= 1 else len(p) for p in self.parameters]
        lengths = [[size // count] * count for size, count in zip(self._sizes, units, strict=True)]
        self._lengths = torch.tensor(list(chain.from_iterable(lengths)), dtype=torch.long)

    def __call__(self) -> None:
        """Scale the gradients in place; nothing waits for the device."""
        if self.parameters and self.parameters[0].device.type != "cpu":
            self.at_once()
        else:
            adaptive_clip_grad(self.parameters, self.factor, EPS)

    @torch.no_grad()
    def at_once(self) -> None:
        """The accelerator's way, on any device.

        Raises:
            ValueError: a parameter has no gradient.
        """
        gradients = [_row(p.grad, p) for p in self.parameters]
        flat = torch.cat(gradients)
        if self._lengths.device != flat.device:
            self._lengths = self._lengths.to(flat.device)
        limit = self._norms(torch.cat([_row(p.data, p) for p in self.parameters])).clamp(min=EPS) * self.factor
        norm = self._norms(flat)
        scale = torch.where(norm < limit, 1, limit / norm.clamp(min=TINY))
        flat *= torch.repeat_interleave(scale, self._lengths, output_size=len(flat))
        torch._foreach_copy_(gradients, list(flat.split(self._sizes)))

    def _norms(self, flat: Tensor) -> Tensor:
        """(N,) numbers -> (U,) Euclidean norms of the units."""
        return torch.segment_reduce(flat.square(), "sum", lengths=self._lengths, unsafe=True).sqrt()


def _row(values: Tensor | None, parameter: nn.Parameter) -> Tensor:
    """All numbers in the order of memory, as a view; a unit's numbers are neighbours in either memory order."""
    if values is None:
        raise ValueError(f"a parameter of shape {tuple(parameter.shape)} has no gradient to clip")
    if values.ndim == 4 and not values.is_contiguous():
        values = values.permute(0, 2, 3, 1)
    return values.view(-1)
