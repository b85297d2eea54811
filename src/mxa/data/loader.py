"""From the label table to batches: dataset, sampler, loader.

A batch carries raw 8-bit pixels; the model's side scales them on its own device. Which images form a batch depends on
the seed, the epoch and the batch size only.
"""

import signal
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mxa.data.augment import Augmenter
from mxa.data.decode import decode
from mxa.data.table import Table
from mxa.preprocess import Preprocess

Key = tuple[int, int]
"""(epoch, row): what a sampler asks a dataset for, so that workers know the epoch without being told."""


class Batch(NamedTuple):
    """One batch of B images with L labels.

    Attributes:
        image: (B, 1, S, S) uint8.
        target: (B, L) float32 in [0, 1], 0 where masked.
        mask: (B, L) bool, True where the target counts.
        row: (B,) int64, row of each image in the table.
    """

    image: Tensor
    target: Tensor
    mask: Tensor
    row: Tensor


class RadiographDataset(Dataset[Batch]):
    """Rows of a table as batches.

    Args:
        table: N images with targets and masks.
        preprocess: the contract.
        pixels: uint8 decoded beforehand: (N, S, S) of :func:`mxa.data.decode.decode_all`, or the whole memory map of
            a pack; None decodes each image when asked.
        augmenter: changes single pictures, or None.
        positions: (N,) row of each image in a pack's memory map; None where ``pixels`` has the table's own order.
    """

    def __init__(
        self,
        table: Table,
        preprocess: Preprocess,
        pixels: npt.NDArray[np.uint8] | None = None,
        augmenter: Augmenter | None = None,
        positions: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.preprocess = preprocess
        self.augmenter = augmenter
        self.files = table.files()
        self.target = torch.from_numpy(table.target)
        self.mask = torch.from_numpy(table.mask)
        self.pixels = None if pixels is None else torch.from_numpy(pixels)
        self.positions = None if positions is None else torch.from_numpy(positions)
        self._mapped = _where_mapped(pixels)
        if self.pixels is not None and self._mapped is None:
            # Worker processes see it without a copy, whether they are forked or spawned; a memory map is shared anyway.
            self.pixels.share_memory_()

    def __getstate__(self) -> dict[str, Any]:
        """A memory map goes to another process by its file's name; as a tensor all of it would be copied."""
        return self.__dict__ if self._mapped is None else self.__dict__ | {"pixels": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._mapped is not None:
            self.pixels = torch.from_numpy(np.memmap(dtype=np.uint8, mode="c", **self._mapped))

    def __len__(self) -> int:
        return len(self.files)

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """One whole batch: without augmentation a single indexing of the decoded pixels."""
        rows = torch.tensor([row for _, row in keys])
        image = self.decoded(rows)
        if self.augmenter is not None:
            pictures = zip(image.numpy(), keys, strict=True)
            image = torch.from_numpy(np.stack([self.augmenter(picture, *key) for picture, key in pictures]))
        return Batch(image.unsqueeze(1), self.target[rows], self.mask[rows], rows)

    def decoded(self, rows: Tensor) -> Tensor:
        """(B,) rows -> (B, S, S) uint8 as the contract makes them, before any augmentation.

        Raises:
            DataError: an image that is decoded now cannot be read.
        """
        if self.pixels is None:
            return torch.from_numpy(np.stack([decode(self.files[row], self.preprocess) for row in rows.tolist()]))
        # index_select copies whole rows; indexing by [] gathers byte by byte, ten times as slow.
        return self.pixels.index_select(0, rows if self.positions is None else self.positions[rows])


def _where_mapped(pixels: npt.NDArray[np.uint8] | None) -> dict[str, Any] | None:
    """What opens a memory map again; None for other arrays."""
    # A part of a map keeps the whole one's file and offset, and could not be found again by them.
    if isinstance(pixels, np.memmap) and not isinstance(pixels.base, np.ndarray):
        return {"filename": pixels.filename, "offset": pixels.offset, "shape": pixels.shape}
    return None


class EpochSampler(Sampler[Key]):
    """(epoch, row) keys of one process: in order, or shuffled anew each epoch by (seed, epoch).

    Without ``step`` the processes deal the rows out among them: each row comes once, and some processes may get one row
    more. With it the order is cut into steps of that many rows, a last, smaller one is left out, and each process gets
    its share of every step: which rows form a step does not depend on the number of processes.

    Args:
        length: number of rows N.
        shuffle: shuffled or in order.
        seed: of the shuffling.
        step: rows of a training step over all processes, a multiple of ``world``; 0 takes every row.
        rank: this process, from 0.
        world: number of processes.
    """

    def __init__(
        self, length: int, shuffle: bool, seed: int = 0, *, step: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        if step % world:
            raise ValueError(f"a step of {step} rows cannot be shared equally by {world} processes")
        self.length, self.shuffle, self.seed = length, shuffle, seed
        self.step, self.rank, self.world = step, rank, world
        self.epoch = 0
        self._skip = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls it."""
        self.epoch = epoch

    def start_at(self, epoch: int, images: int) -> None:
        """Leave out this process's first ``images`` of that one epoch: where an interrupted training goes on."""
        self._skip = (epoch, images)

    def __len__(self) -> int:
        if self.step:
            return self.length // self.step * (self.step // self.world)
        return len(range(self.rank, self.length, self.world))

    def __iter__(self) -> Iterator[Key]:
        order = np.arange(self.length)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(order)
        skipped = self._skip[1] if self._skip[0] == self.epoch else 0
        return ((self.epoch, int(row)) for row in self._share(order)[skipped:])

    def _share(self, order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """This process's rows of the whole order."""
        if not self.step:
            return order[self.rank :: self.world]
        steps = order[: self.length // self.step * self.step]
        return steps.reshape(-1, self.world, self.step // self.world)[:, self.rank].ravel()


def _as_batch(batch: Any) -> Batch:
    """The dataset has made the batch already (:meth:`RadiographDataset.__getitems__`)."""
    return batch


class ResumableLoader(DataLoader[Batch]):
    """A data loader that can go on in the middle of an epoch.

    Lightning saves its ``state_dict`` in checkpoints. Prefetching makes the loader itself a bad judge of how far
    training has come, so the trainer's side says it with :meth:`mark`.
    """

    dataset: RadiographDataset
    sampler: EpochSampler

    def mark(self, epoch: int, batches: int) -> None:
        """Say that ``batches`` of this epoch are trained."""
        self._position = (epoch, batches)

    def state_dict(self) -> dict[str, int]:
        """The position last marked."""
        epoch, batches = getattr(self, "_position", (0, 0))
        return {"epoch": epoch, "batches": batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after that position; after an epoch's last batch that is the next epoch."""
        epoch, batches = state["epoch"], state["batches"]
        if batches >= len(self):
            epoch, batches = epoch + 1, 0
        self.sampler.set_epoch(epoch)
        self.sampler.start_at(epoch, batches * (self.batch_size or 1))


def make_loader(
    dataset: RadiographDataset,
    sampler: EpochSampler,
    batch_size: int,
    *,
    workers: int = 0,
    drop_last: bool = False,
    forked: bool = True,
) -> ResumableLoader:
    """A loader of :class:`Batch`.

    Args:
        dataset: the rows.
        sampler: their order.
        batch_size: images per batch on this process.
        workers: loading processes; 0 loads in this one.
        drop_last: leave out a last, smaller batch (training: batch norm wants equal batches).
        forked: start the loading processes as copies of this one, the quickest way. Not where it talks to others by
            threads: a copy may inherit a lock that one of them held, and wait for it for ever.
    """
    return ResumableLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=_as_batch,
        pin_memory=torch.cuda.is_available(),
        drop_last=drop_last,
        persistent_workers=workers > 0,
        multiprocessing_context=None if forked or not workers else "spawn",
        worker_init_fn=_outlast_a_signal,
    )


def _outlast_a_signal(worker: int) -> None:
    """A loading process goes on when the whole group is told to stop: which batch is the last, training decides.

    A terminal's Ctrl-C and a scheduler's termination signal reach it too; ended by them, it would take training along.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _not_again)  # the second one may come from a training process that waits in vain


def _not_again(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
