"""A whole training step by the project's own training module, without a trainer."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from limits import DEVICE
from networks import LABELS
from torch import Tensor, nn

from mxa.data.loader import Batch
from mxa.preprocess import Preprocess
from mxa.training.config import OptimConfig
from mxa.training.distillation import Distiller
from mxa.training.module import ClassifierModule


class UnattachedModule(ClassifierModule):
    """Without a trainer there is nobody to log to."""

    def log(self, *args: Any, **kwargs: Any) -> None:
        """Drop it."""

    def log_dict(self, *args: Any, **kwargs: Any) -> None:
        """Drop it."""


def make_module(
    network: nn.Module, optim: OptimConfig, distiller: Distiller | None = None, *, compiled: bool = False
) -> UnattachedModule:
    """The training module of a network, on the device and ready to train."""
    module = UnattachedModule(network, Preprocess(), optim, LABELS, [], distiller, compiled=compiled)
    module.to(DEVICE).train()
    module.on_fit_start()
    return module


def make_step(module: UnattachedModule, batch: Batch, *, bf16: bool) -> Callable[[], None]:
    """What Lightning does with a batch that is on the device already.

    Forward, masked loss, backward, adaptive gradient clipping, optimiser, moving average; neither augmentation nor
    learning rate schedule.

    Args:
        module: the network with its optimiser's options.
        batch: the same in each step.
        bf16: compute under bf16 autocast, as ``precision: bf16`` does.
    """
    optimiser = _optimiser(module)

    def forward_backward() -> Tensor:
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=bf16):
            loss = module.training_step(batch, 0)
        optimiser.zero_grad()
        loss.backward()
        module.configure_gradient_clipping(optimiser)
        return loss

    def step() -> None:
        module.optimizer_step(0, 0, optimiser, forward_backward)

    return step


def _optimiser(module: UnattachedModule) -> torch.optim.Optimizer:
    """The module's own; its schedule asks the trainer for the run's length, and leaves it at the warm-up's start."""
    trainer: Any = SimpleNamespace(estimated_stepping_batches=100 * module.optim.epochs)
    module.trainer = trainer
    optimiser: torch.optim.Optimizer = module.configure_optimizers()["optimizer"]
    module.trainer = None
    return optimiser
