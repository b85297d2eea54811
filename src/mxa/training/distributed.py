"""One run on several processes: who this one is, and what the processes tell each other.

Lightning starts the processes (or torchrun or SLURM do, see docs/training.md) and averages the gradients. What is left
to do here: averages that must be taken over the images of all processes, and validation figures of all rows.
"""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

Shared = TypeVar("Shared")


class Place(NamedTuple):
    """A process among those of its run.

    Attributes:
        rank: its number, from 0.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that writes files and speaks."""
        return self.rank == 0


ALONE = Place()


def with_shared_batch_norm(network: nn.Module) -> nn.Module:
    """The network with batch norm over the images of all processes; weights and their names stay.

    By timm's conversion: torch's, which is Lightning's too, puts a bare batch norm in the place of those of timm's that
    apply the activation as well (DenseNets, EfficientNets), and the network is without it.
    """
    converted: nn.Module = convert_sync_batchnorm(network)
    return converted


def processes() -> int:
    """How many processes are joined now."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def together() -> bool:
    """Whether several are."""
    return processes() > 1


@contextmanager
def disbanding() -> Iterator[None]:
    """Disband the group of processes that the work inside has formed, also where it fails.

    Lightning leaves gloo's group to the end of the process. A thread of it may then still hold a tensor of the last
    exchange, and cannot give it back to an interpreter that has ended: "terminate called without an active exception",
    and a good run has failed. A group that nobody holds any more waits for its threads instead, so that nothing inside
    may be kept: call a function. One who has joined a group of his own keeps it.
    """
    if not dist.is_available() or dist.is_initialized():
        yield
        return
    # The first DistributedDataParallel imports this module, whose functions keep the group that they find as default.
    import torch.distributed.nn  # noqa: F401

    try:
        yield
    finally:
        if dist.is_initialized():
            gc.collect()
            dist.destroy_process_group()


def total(values: Tensor) -> Tensor:
    """The sum over all processes, without gradient; the tensor itself where there is one process."""
    if not together():
        return values
    values = values.detach().clone()
    dist.all_reduce(values)
    return values


def average_buffers(module: nn.Module) -> None:
    """Give all processes the mean of their floating-point buffers, such as batch norm's statistics, in place.

    Each process has seen its own share of the images; the mean has seen all.
    """
    if not together():
        return
    buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
    if buffers:
        flat = torch.cat([buffer.detach().flatten() for buffer in buffers])
        dist.all_reduce(flat)
        means = (flat / dist.get_world_size()).split([buffer.numel() for buffer in buffers])
        torch._foreach_copy_(buffers, [mean.view_as(buffer) for mean, buffer in zip(means, buffers, strict=True)])


def gather_rows(rows: npt.NDArray[np.int64], values: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """All processes' rows on every process, in the table's order.

    Args:
        rows: (n,) rows of the table that this process has; no row is on two processes.
        values: arrays (n, ...) of these rows.

    Returns:
        The arrays of all N rows.

    Raises:
        ValueError: a row came twice.
    """
    parts = everybodys((rows, dict(values)))
    order = np.concatenate([part for part, _ in parts])
    by_row = np.argsort(order, kind="stable")
    if (np.diff(order[by_row]) == 0).any():
        raise ValueError("a row came from two processes, or twice from one")
    return {name: np.concatenate([part[name] for _, part in parts])[by_row] for name in values}


def everybodys(value: Shared) -> list[Shared]:
    """What each process has, on every process, by rank."""
    if not together():
        return [value]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def from_first(value: Shared | None) -> Shared:
    """What the first process has, on every process; the others wait for it."""
    if together():
        box = [value]
        dist.broadcast_object_list(box, src=0)
        value = box[0]
    assert value is not None
    return value
