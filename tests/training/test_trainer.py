"""What the trainer is told, and that Lightning's question before every batch is gone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.strategies import DDPStrategy

from mxa.errors import ConfigError
from mxa.training.config import OptimConfig, TrainConfig
from mxa.training.trainer import make_trainer

CONFIG = TrainConfig(optim=OptimConfig(batch_size=8, accumulate=2))


def test_nobody_is_asked_before_a_batch(tmp_path: Path) -> None:
    """It would wait for the device at every step; the method must exist, or overriding it does nothing."""
    assert callable(_TrainingEpochLoop._broadcast_sigterm_tensor)
    trainer = make_trainer(replace(CONFIG, out=str(tmp_path)), [], 5)
    assert trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor() is None  # type: ignore[func-returns-value]


def test_the_trainer_does_what_the_configuration_says(tmp_path: Path) -> None:
    trainer = make_trainer(replace(CONFIG, out=str(tmp_path), devices=2), [], 5)
    assert trainer.accumulate_grad_batches == 2
    assert trainer.world_size == 2
    assert isinstance(trainer.strategy, DDPStrategy)
    assert trainer.strategy._ddp_kwargs["broadcast_buffers"] is False
    assert not list(tmp_path.iterdir()), "nothing is written before the run begins"


@pytest.mark.skipif(torch.cuda.device_count() != 1, reason="needs exactly one GPU")
def test_more_devices_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="devices is 2"):
        make_trainer(replace(CONFIG, out=str(tmp_path), devices=2), [], 5)
