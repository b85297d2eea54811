"""Exponential moving average of the weights, with warm-up, safe to evaluate.

timm's ``ModelEmaV3`` does the averaging. :meth:`Ema.refresh` adds what is needed before the average may be scored: an
in-place update leaves timm's cached attention biases stale, and the wrong model would be scored without a word.

Without warm-up a decay of 0.99996 leaves 42% of the initial weights after the paper's 21,800 steps (spec, known mistake
11); with it the decay is at most ``1 - (1 + step) ** (-2 / 3)``.
"""

from timm.utils import ModelEmaV3
from torch import nn


class Ema(ModelEmaV3):
    """The average of a model's parameters and buffers.

    Args:
        model: the model to follow; copied.
        decay: the final decay.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, decay=decay, use_warmup=True)
        self.module.requires_grad_(False)
        self.module.train(model.training)

    def refresh(self) -> nn.Module:
        """The averaged model in eval mode; the switch from training mode drops timm's cached attention biases."""
        averaged: nn.Module = self.module.train().eval()
        return averaged
