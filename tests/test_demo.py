"""The demo refuses what cannot end well before it draws anything; test_readme runs it whole."""

from pathlib import Path

import pytest

from mxa.cli.training import COMMANDS
from mxa.demo import MIN_EPOCHS, MODELS, demo_config, run_demo
from mxa.errors import ConfigError

MODEL = MODELS["EfficientViT-M0"]


@pytest.mark.parametrize("epochs", [-1, 0, 1, MIN_EPOCHS - 1])
def test_too_few_epochs_are_refused_before_anything_is_drawn(tmp_path: Path, epochs: int) -> None:
    with pytest.raises(ConfigError, match=rf"--epochs is {epochs}; it must be at least 3"):
        run_demo(tmp_path / "demo", epochs=epochs)
    assert not list(tmp_path.iterdir())


def test_the_least_epochs_are_those_that_training_takes() -> None:
    assert demo_config(MODEL, "data", "out", MIN_EPOCHS).optim.epochs == MIN_EPOCHS
    with pytest.raises(ConfigError, match=r"warmup_epochs is 1; it must be less than"):
        demo_config(MODEL, "data", "out", MIN_EPOCHS - 1)


def test_the_overview_says_what_it_trains() -> None:
    assert "without and with MXA and a teacher" in COMMANDS["demo"].help
    assert len(MODELS) == 4


def test_what_is_there_already_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, tmp_path):
        with pytest.raises(ConfigError, match=rf"{out.name} exists; choose another --out or remove it"):
            run_demo(out)
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file]
