"""Augmentation inside training: the planned pictures, on both paths, also after an interruption."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conftest import interrupt_at, same_state, small_config
from mxa.data.augment import Augment, Augmenter
from mxa.data.decode import decode_all
from mxa.data.loader import Batch
from mxa.data.options import read
from mxa.errors import ConfigError
from mxa.models.artifact import load
from mxa.training.callbacks import TrainingInterrupted
from mxa.training.config import OptimConfig, TrainConfig
from mxa.training.loaders import batch_augmenter, fill
from mxa.training.module import ClassifierModule
from mxa.training.run import train

OPTIM = OptimConfig(epochs=2, batch_size=8, lr_batch_size=8, warmup_epochs=0, cooldown_epochs=0)


@pytest.fixture
def config(tiny_chexpert: Path, tmp_path: Path) -> TrainConfig:
    return replace(small_config(tiny_chexpert, tmp_path / "run", OPTIM), augment=Augment())


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, Batch]]:
    """Every batch that the model is given, in training and validation."""
    found: list[tuple[str, int, Batch]] = []

    def watch(name: str) -> None:
        original: Callable[..., object] = getattr(ClassifierModule, name)

        def step(self: ClassifierModule, batch: Batch, batch_idx: int) -> object:
            found.append((name, self.current_epoch, batch))
            return original(self, batch, batch_idx)

        monkeypatch.setattr(ClassifierModule, name, step)

    watch("training_step")
    watch("validation_step")
    return found


def pictures(config: TrainConfig, split: str) -> torch.Tensor:
    return torch.from_numpy(decode_all(read(config.data).split(split).files(), config.preprocess))[:, None]


def test_training_sees_the_plan_of_epoch_and_row_and_validation_the_picture(
    config: TrainConfig, seen: list[tuple[str, int, Batch]]
) -> None:
    train(config)
    raw = {"training_step": pictures(config, "train"), "validation_step": pictures(config, "valid")}
    augmenter = batch_augmenter(config)
    assert augmenter is not None
    changed = 0
    for name, epoch, batch in seen:
        expected = raw[name][batch.row]
        if name == "training_step":
            plain = expected
            expected = augmenter.apply(expected, augmenter.plan(epoch, batch.row.numpy()))
            changed += int((expected != plain).flatten(1).any(1).sum())
        assert torch.equal(batch.image, expected)
    trained = [epoch for name, epoch, _ in seen if name == "training_step"]
    assert trained == [0] * 5 + [1] * 5
    assert 30 < changed < 75, "three in four of 80 pictures, less those that Color was drawn for"


def test_timms_path_is_still_there(config: TrainConfig, seen: list[tuple[str, int, Batch]]) -> None:
    config = replace(config, augment=Augment(implementation="timm"), workers=0)
    assert batch_augmenter(config) is None
    train(config)
    raw = pictures(config, "train")
    own = Augmenter(config.augment, config.seed, fill(config))
    for name, epoch, batch in seen:
        if name == "training_step":
            for image, row in zip(batch.image, batch.row.tolist(), strict=True):
                assert (image[0].numpy() == own(raw[row, 0].numpy(), epoch, row)).all()


def test_an_interrupted_run_goes_on_with_the_same_pictures(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load(train(config).model).model.state_dict()
    again = replace(config, out=str(tmp_path / "again"))
    with monkeypatch.context() as patch:
        interrupt_at(patch, 7)
        with pytest.raises(TrainingInterrupted):
            train(again)
    assert same_state(load(train(again, resume=True).model).model.state_dict(), whole)


def test_a_string_that_is_not_understood_is_refused_before_anything_is_written(config: TrainConfig) -> None:
    with pytest.raises(ConfigError, match=r"augment\.randaugment is 'rand-m5'"):
        train(replace(config, augment=Augment(randaugment="rand-m5")))
    assert not Path(config.out).exists()
