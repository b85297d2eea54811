"""The networks that are compared: EfficientViT plain and with MXA, and DenseNet-121; each side has its model's name."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from limits import DEVICE, MATRIX, arithmetic_columns, describe_limit, matrix_product
from record import Table, positive
from timing import Job, interleaved

from mxa.data.loader import Batch
from mxa.labels import CHEXPERT14
from mxa.training.config import PRECISIONS

SIZES = ("m0", "m1", "m2", "m3", "m4", "m5")
LABELS = CHEXPERT14
DENSENET = "densenet121"
"""TorchXRayVision's DenseNet-121 has the layers of timm's; :mod:`mxa.models.xrv` loads its weights into them."""
COMPILED = ", compiled"
"""What is added to the name of a side whose network went through torch.compile."""


def add_options(parser: argparse.ArgumentParser, *, precision: str) -> None:
    """Which networks, and how they are run; ``precision`` is that option's default."""
    parser.add_argument("--sizes", nargs="+", default=["m0", "m2", "m5"], choices=SIZES)
    parser.add_argument("--image", type=positive, default=224, help="side of the pictures in pixels")
    parser.add_argument("--precision", default=precision, choices=PRECISIONS)
    parser.add_argument("--compile", action="store_true", help="time each network also compiled by torch.compile")
    parser.add_argument("--matrix", type=positive, default=MATRIX, help="side of the limit's matrices")


def model_names(sizes: Sequence[str]) -> list[str]:
    """timm's plain model and the one with MXA of each size, and the DenseNet."""
    return [name for size in sizes for name in (f"efficientvit_{size}", f"mxa_efficientvit_{size}")] + [DENSENET]


def references(sides: Iterable[str]) -> dict[str, dict[str, str]]:
    """MXA is compared with timm's plain model of its size, all with the DenseNet; compiled with compiled."""
    sides = list(sides)
    return {
        "timm's plain": {side: side.removeprefix("mxa_") for side in sides if side.startswith("mxa_")},
        DENSENET: {side: DENSENET + (COMPILED if side.endswith(COMPILED) else "") for side in sides},
    }


def random_batch(images: int, size: int) -> Batch:
    """Random pixels and labels on the device, a tenth of the labels masked."""
    draw = torch.Generator().manual_seed(0)
    shape = (images, len(LABELS))
    batch = Batch(
        torch.randint(0, 256, (images, 1, size, size), generator=draw, dtype=torch.uint8),
        (torch.rand(shape, generator=draw) < 0.2).float(),
        torch.rand(shape, generator=draw) < 0.9,
        torch.arange(images),
    )
    return Batch(*(part.to(DEVICE) for part in batch))


def uses_bf16(precision: str) -> bool:
    """Whether `mxa train` would compute in bf16 with this ``precision``."""
    return precision == "bf16" or (precision == "auto" and torch.cuda.is_available() and torch.cuda.is_bf16_supported())


def compare(
    title: str, sides: Mapping[str, Job], flop: Mapping[str, int], images: int, options: argparse.Namespace
) -> tuple[Table, dict[str, Any]]:
    """Time networks and, in turn with them, the limit of the device's arithmetic.

    Args:
        title: what is timed.
        sides: a call of each network.
        flop: what a call takes by the network's name; compiled or not makes no difference.
        images: per call.
        options: as parsed.

    Returns:
        The table, and the limit as plain JSON values.
    """
    dtype = torch.bfloat16 if uses_bf16(options.precision) else torch.float32
    timings = interleaved({**sides, "limit": matrix_product(options.matrix, dtype)}, options.rounds, options.seconds)
    limit = describe_limit(timings.pop("limit"), options.matrix, dtype)
    work = {side: flop[side.removesuffix(COMPILED)] for side in timings}
    columns = arithmetic_columns(timings, work, images, 1e9 * limit["gflop_per_s"]["median"])
    return Table(title, timings, images, references(timings), columns=columns), limit
