"""How much arithmetic a job does, and how fast the device does arithmetic at best."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from math import prod
from typing import Any

import torch
from timing import Timing
from torch.utils.flop_counter import FlopCounterMode

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
MATRIX = 8192 if DEVICE.type == "cuda" else 2048
"""Side of the square matrices: large enough that memory does not hold the product up."""


def count_flop(job: Callable[[], object]) -> int:
    """Floating point operations of the convolutions and matrix products in one call; a multiply-add is two.

    Everything else (normalisation, activations, sampling, the optimiser) is not counted.
    """
    with FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: _convolution_backward}
    ) as counter:
        job()
    return int(counter.get_total_flops())


def _convolution_backward(
    gradient: list[int], image: list[int], weight: list[int], *rest: object, out_shape: object = None, **_: object
) -> int:
    """Operations of a convolution's gradients; torch's own formula forgets the groups.

    Each of both gradients (of the input, of the weight) takes as many as the convolution itself: a weight of one group,
    (C_out, C_in / groups, height, width), over all places of the output.
    """
    transposed, groups_and_mask = bool(rest[4]), rest[-1]
    places = (image if transposed else gradient)[2:]
    assert isinstance(groups_and_mask, (list, tuple))
    return 2 * gradient[0] * prod(places) * prod(weight) * sum(map(bool, groups_and_mask[:2]))


def matrix_product(side: int, dtype: torch.dtype) -> Callable[[], object]:
    """A product of two square matrices: 2 side^3 operations."""
    a, b = (torch.randn(side, side, device=DEVICE, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def arithmetic_columns(
    timings: Mapping[str, Timing], flop: Mapping[str, int], images: int, limit: float
) -> dict[str, dict[str, float]]:
    """How far each side is from the device's arithmetic.

    Args:
        timings: the sides.
        flop: of one call of each side.
        images: per call.
        limit: operations per second at best.
    """
    reached = {side: flop[side] / timing.spread.median for side, timing in timings.items()}
    return {
        "GFLOP/image": {side: flop[side] / images / 1e9 for side in timings},
        "GFLOP/s": {side: rate / 1e9 for side, rate in reached.items()},
        "% of the limit": {side: 100 * rate / limit for side, rate in reached.items()},
    }


def describe_limit(timing: Timing, side: int, dtype: torch.dtype) -> dict[str, Any]:
    """The device's arithmetic at best, as the JSON keeps it.

    Args:
        timing: of a matrix product.
        side: of its matrices.
        dtype: of its matrices.
    """
    rate = timing.per_second(2 * side**3 / 1e9)
    return {"what": f"product of two {side} x {side} matrices, {dtype}", "gflop_per_s": asdict(rate)}
