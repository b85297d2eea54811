"""Lightning's trainer for a run: devices, processes, precision, logging."""

import importlib.util
import sys
from pathlib import Path

import lightning as lt
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from mxa.errors import ConfigError
from mxa.training.callbacks import ProgressBar
from mxa.training.config import TrainConfig


def make_trainer(config: TrainConfig, callbacks: list[Callback], steps: int) -> lt.Trainer:
    """The trainer; nothing is written and no process started before its ``fit``.

    Args:
        config: the run.
        callbacks: those of the run; a last checkpoint, and a progress bar on a terminal, are added.
        steps: optimiser steps of an epoch.

    Raises:
        ConfigError: there are not as many devices, or whoever started this process started another number of them.
    """
    _check_launch(config)
    folder = Path(config.out)
    last = ModelCheckpoint(folder / "checkpoints", filename="last", save_top_k=1, enable_version_counter=False)
    shown = config.progress and sys.stdout.isatty()
    logger: Logger | bool = False
    if importlib.util.find_spec("tensorboard"):
        logger = TensorBoardLogger(folder, name="tensorboard", version="")
    if config.sync_batch_norm and not torch.cuda.is_available():
        raise ConfigError("sync_batch_norm needs GPUs, and there is none here; leave it out")
    try:
        trainer = lt.Trainer(
            max_epochs=config.optim.epochs,
            accelerator="auto",
            devices=config.devices,
            num_nodes=config.nodes,
            # Batch norm's statistics are averaged before each validation; until then each process keeps its own.
            strategy=DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
            if config.processes > 1
            else "auto",
            accumulate_grad_batches=config.optim.accumulate,
            precision="bf16-mixed" if _in_bf16(config) else "32-true",
            callbacks=[*callbacks, last, *([ProgressBar()] if shown else [])],
            logger=logger,
            enable_progress_bar=shown,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            log_every_n_steps=min(10, steps * config.optim.accumulate),
        )
    except MisconfigurationException as error:
        raise ConfigError(f"devices is {config.devices!r}: {error}") from error
    _leave_stopping_to_us(trainer)
    return trainer


def _leave_stopping_to_us(trainer: lt.Trainer) -> None:
    """Before each batch Lightning asks the first process for signals and waits for the device to hear the answer.

    :class:`mxa.training.callbacks.StopPolitely` asks all processes, and seldom.
    """
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _ask_nobody  # type: ignore[method-assign]


def _ask_nobody() -> None:
    """Instead of Lightning's question."""


def _in_bf16(config: TrainConfig) -> bool:
    if config.precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return config.precision == "bf16"


def _check_launch(config: TrainConfig) -> None:
    """Processes that do not know of each other would all train the whole run into one folder."""
    if TorchElasticEnvironment.detect():
        name, started = "torchrun", TorchElasticEnvironment().world_size()
    elif SLURMEnvironment.detect():
        name, started = "SLURM", SLURMEnvironment().world_size()
    else:
        return
    if started != config.processes:
        raise ConfigError(
            f"{name} has started {started} processes, but devices x nodes is {config.processes}; make them equal"
        )
