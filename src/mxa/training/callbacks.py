"""What happens around the training steps: progress, stopping politely, history.

What watches the MXA blocks' regions is in :mod:`mxa.training.region_watch`.
"""

import csv
import logging
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as lt
import numpy as np
import torch
from lightning.pytorch.callbacks import TQDMProgressBar

from mxa.errors import MxaError
from mxa.training.module import ClassifierModule, prefix, summary

log = logging.getLogger(__name__)

AGREE_STEPS = 20
"""Processes that train together ask each other this often whether one was told to stop: asking waits for the device."""
SAME_REQUEST = 1.0
"""Seconds within which a second signal to stop is the first once more."""


class TrainingInterrupted(MxaError):
    """Training was stopped from outside and left a checkpoint to go on from."""


class StopPolitely(lt.Callback):
    """On Ctrl-C or a termination signal: finish the step, save ``last.ckpt``, raise :class:`TrainingInterrupted`.

    Stopping inside a step could save an optimiser that has updated half of the weights. A second signal is the usual,
    immediate stop; the run then resumes from the last epoch's end. One that follows within :data:`SAME_REQUEST` is the
    first once more: a terminal and a scheduler tell all processes, and a grid then tells those that it has started. A
    signal during validation waits for the next training step.

    Args:
        checkpoint: where to save.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self._asked_at: float | None = None
        self._previous: dict[int, Any] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals for a while; around ``Trainer.fit``, which restores the handlers that it found itself."""
        self._previous = self._take()
        try:
            yield
        finally:
            self._give_back()
            self._previous = {}

    def _take(self) -> dict[int, Any]:
        """Listen, if this thread can; gives the handlers that did so far."""
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_train_start(self, trainer: lt.Trainer, pl_module: lt.LightningModule) -> None:
        """Listen alone.

        Lightning has put a handler before ours meanwhile that talks to the other processes at once, which waits for
        ever where one is busy with something else, such as a checkpoint.
        """
        if self._asked_at is None:
            self._take()

    def on_train_batch_end(self, trainer: lt.Trainer, *args: Any) -> None:
        """Between two steps is the time to stop; after an epoch's last one, its validation comes first."""
        done = trainer.fit_loop.batch_idx + 1
        if trainer.is_last_batch or done % trainer.accumulate_grad_batches:
            return
        if self._all_agree(trainer, now=trainer.global_step % AGREE_STEPS == 0):
            # "Weights only" would leave the optimiser's state out; it is not torch.load's option of that name.
            trainer.save_checkpoint(self.checkpoint, weights_only=False)
            self._stop(trainer)

    def on_train_epoch_start(self, trainer: lt.Trainer, pl_module: lt.LightningModule) -> None:
        """The last epoch's end has left its checkpoint."""
        if self._all_agree(trainer, now=True) and trainer.current_epoch > 0:
            self._stop(trainer)

    def _all_agree(self, trainer: lt.Trainer, *, now: bool) -> bool:
        """Whether any process was asked to stop; several processes talk about it only ``now`` and then."""
        asked = self._asked_at is not None
        if trainer.world_size == 1:
            return asked
        return now and bool(trainer.strategy.reduce_boolean_decision(asked, all=False))

    def _stop(self, trainer: lt.Trainer) -> None:
        raise TrainingInterrupted(
            f"training stopped in epoch {trainer.current_epoch}, after step {trainer.global_step}; "
            f"{self.checkpoint} is saved: run the same command with --resume to go on"
        )

    def _ask(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
            log.warning("stopping after this step (again to stop at once)")
        elif now - self._asked_at > SAME_REQUEST:
            self._give_back()
            signal.raise_signal(number)

    def _give_back(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class SeedEachBatch(lt.Callback):
    """Seed what a batch draws at random (dropout, shaken boxes) by the run's seed, process, epoch and batch.

    A resumed run then draws what it would have drawn, and each process for itself.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: lt.Trainer, pl_module: lt.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Before its forward pass; no device is waited for."""
        mixed = np.random.SeedSequence([self.seed, trainer.global_rank, trainer.current_epoch, batch_idx])
        torch.manual_seed(int(mixed.generate_state(1, np.uint64)[0]))


class EpochRows:
    """A CSV file of rows that begin with their epoch; a resumed run goes on in it.

    Args:
        file: the file; it is made with the first row.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def read(self) -> list[dict[str, str]]:
        """All rows; none where there is no file yet."""
        if not self.file.exists():
            return []
        with self.file.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    def rewind(self, epoch: int) -> None:
        """Drop what a resumed run repeats: the rows of this epoch and of those after it."""
        kept = [row for row in self.read() if int(row["epoch"]) < epoch]
        self.file.unlink(missing_ok=True)
        self.append(*kept)

    def append(self, *rows: Mapping[str, object]) -> None:
        """Add rows of the same columns."""
        if not rows:
            return
        fresh = not self.file.exists()
        with self.file.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
            if fresh:
                writer.writeheader()
            writer.writerows(rows)


class History(lt.Callback):
    """One CSV row per epoch: learning rate, losses, images/s, validation of raw and averaged weights, teacher.

    Args:
        file: ``history.csv`` of the run; a resumed run goes on in it.
    """

    def __init__(self, file: Path) -> None:
        self.rows = EpochRows(file)
        self._start = 0.0
        self._images = 0
        self._rate = 0.0

    def on_train_start(self, trainer: lt.Trainer, pl_module: lt.LightningModule) -> None:
        """A resumed run repeats the epochs after its checkpoint: drop their rows. It may begin inside an epoch."""
        self._start_clock()
        if trainer.is_global_zero:
            self.rows.rewind(trainer.current_epoch)

    def on_train_epoch_start(self, trainer: lt.Trainer, pl_module: lt.LightningModule) -> None:
        """Every epoch has its own speed."""
        self._start_clock()

    def _start_clock(self) -> None:
        self._start, self._images = time.monotonic(), 0

    def on_train_batch_end(
        self, trainer: lt.Trainer, pl_module: lt.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count."""
        self._images += len(batch.row) * trainer.world_size

    def on_validation_start(self, trainer: lt.Trainer, pl_module: lt.LightningModule) -> None:
        """Training of this epoch is over: stop its clock."""
        self._rate = self._images / max(time.monotonic() - self._start, 1e-9)

    def on_train_epoch_end(self, trainer: lt.Trainer, pl_module: lt.LightningModule) -> None:
        """Write the row, on the first process."""
        assert isinstance(pl_module, ClassifierModule)
        if not trainer.is_global_zero:
            return
        row: dict[str, float] = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "train/loss": float(trainer.callback_metrics["train/loss_epoch"]),
            "images_per_s": round(self._rate, 1),
        }
        for key in ("train/base_loss", "train/distill_loss", "train/region_loss"):
            if key in trainer.callback_metrics:
                row[key] = float(trainer.callback_metrics[key])
        for name, result in pl_module.evaluations.items():
            row |= {f"{prefix(name)}/{key}": value for key, value in summary(result).items()}
        self.rows.append(row | pl_module.kd_figures())
        shown = ", ".join(f"{key} {value:.4g}" for key, value in list(row.items())[2:])
        log.info("epoch %d of %s: %s", row["epoch"] + 1, trainer.max_epochs, shown)


class ProgressBar(TQDMProgressBar):
    """Loss, learning rate, images/s and the time left of the whole run, refreshed every few batches."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=10)
        self._began: tuple[float, int] | None = None

    def get_metrics(self, trainer: lt.Trainer, pl_module: lt.LightningModule) -> dict[str, Any]:
        """What stands behind the bar; asked for only when the bar is drawn."""
        now, step = time.monotonic(), trainer.global_step
        if self._began is None:
            self._began = (now, step)
        metrics: dict[str, Any] = {"lr": f"{trainer.optimizers[0].param_groups[0]['lr']:.2g}"}
        if "train/loss_step" in trainer.callback_metrics:
            metrics["loss"] = f"{float(trainer.callback_metrics['train/loss_step']):.4f}"
        done = step - self._began[1]
        if done > 0:
            per_step = (now - self._began[0]) / done
            assert isinstance(pl_module, ClassifierModule)
            left = int((int(trainer.estimated_stepping_batches) - step) * per_step)
            metrics["images/s"] = f"{pl_module.optim.batch_size / per_step:.0f}"
            metrics["left"] = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
        return metrics
