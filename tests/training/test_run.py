"""Training runs on a tiny data set: what they write, that they repeat, resume and refuse."""

import csv
import importlib.metadata
import json
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as lt
import numpy as np
import pytest
import timm
import torch
import yaml
from timm.scheduler import CosineLRScheduler

from conftest import interrupt_at, same_state, small_config, write_chexpert
from mxa.data.augment import Augment
from mxa.data.options import DataOptions, read
from mxa.errors import ArtifactError, ConfigError, DataError
from mxa.evaluation.predictions import read_csv
from mxa.evaluation.thresholds import Rule, choose_operating_point
from mxa.evaluation.tuning import Tuning
from mxa.labels import CHEXPERT14, LabelPolicy
from mxa.models.artifact import load
from mxa.predict import predict_table
from mxa.preprocess import Preprocess
from mxa.training.callbacks import TrainingInterrupted
from mxa.training.config import ModelConfig, OptimConfig, TrainConfig
from mxa.training.module import ClassifierModule
from mxa.training.region_watch import read_regions
from mxa.training.run import RunResult, state, train

OPTIM = OptimConfig(epochs=3, batch_size=8, lr_batch_size=8, warmup_epochs=1, cooldown_epochs=1, ema_decay=0.9)


@pytest.fixture
def config(tiny_chexpert: Path, tmp_path: Path) -> TrainConfig:
    return small_config(tiny_chexpert, tmp_path / "run", OPTIM)


@pytest.fixture(scope="module")
def whole(tiny_chexpert: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A run of ``config``, for looking at. Do not change its files."""
    return train(small_config(tiny_chexpert, tmp_path_factory.mktemp("whole") / "run", OPTIM))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load(folder / "model").model.state_dict())


def test_a_run_leaves_everything(whole: RunResult, config: TrainConfig) -> None:
    folder = whole.folder
    assert yaml.safe_load((folder / "config.yaml").read_text())["optim"]["epochs"] == 3
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["packages"]["torch"] == importlib.metadata.version("torch")
    data = json.loads((folder / "data.json").read_text())
    assert data["images"] == {"train": 40, "valid": 16, "test": 12}
    assert data["fingerprint"] == read(config.data).fingerprint()
    with (folder / "history.csv").open() as stream:
        history = list(csv.DictReader(stream))
    assert [row["epoch"] for row in history] == ["0", "1", "2"]
    assert {"lr", "train/loss", "images_per_s", "val/auroc_macro", "val_ema/auroc_macro"} <= set(history[0])
    assert any((folder / "tensorboard").glob("events*"))
    assert {file.name for file in (folder / "checkpoints").iterdir()} == {"last.ckpt", "best-raw.ckpt", "best-ema.ckpt"}
    metrics = json.loads((folder / "validation" / "metrics.json").read_text())
    assert metrics == whole.validation.to_dict()


def test_the_saved_model_is_the_one_that_was_scored(whole: RunResult, config: TrainConfig) -> None:
    table = read(config.data).split("valid")
    loaded = load(whole.model)
    written = read_csv(whole.folder / "validation" / "predictions.csv", CHEXPERT14)
    np.testing.assert_allclose(predict_table(loaded, table).probability, written.probability, atol=1e-6)
    assert written.evaluate(table.target, table.mask).auroc_macro == pytest.approx(whole.validation.auroc_macro)


def test_the_better_weights_are_selected_and_the_others_kept(whole: RunResult, config: TrainConfig) -> None:
    stored = json.loads((whole.model / "config.json").read_text())
    validation = stored["training"]["validation"]
    selected = stored["training"]["weights"]
    other = ({"raw", "ema"} - {selected}).pop()
    assert validation[selected]["auroc_macro"] >= validation[other]["auroc_macro"]
    assert validation[selected]["auroc_macro"] == pytest.approx(whole.validation.auroc_macro)
    table = read(config.data).split("valid")
    kept = predict_table(load(whole.model, weights=other), table).evaluate(table.target, table.mask)
    assert kept.auroc_macro == pytest.approx(validation[other]["auroc_macro"])


def test_validation_in_training_equals_the_saved_figures(whole: RunResult) -> None:
    """The best epoch's row in the history and the evaluation from disk are two ways to the same number."""
    with (whole.folder / "history.csv").open() as stream:
        history = list(csv.DictReader(stream))
    validation = json.loads((whole.model / "config.json").read_text())["training"]["validation"]
    for name, prefix in (("raw", "val"), ("ema", "val_ema")):
        best = max(float(row[f"{prefix}/auroc_macro"]) for row in history)
        assert validation[name]["auroc_macro"] == pytest.approx(best, abs=1e-6)


def test_it_learns(config: TrainConfig, tmp_path: Path) -> None:
    root = write_chexpert(tmp_path / "more", {"train": 120, "valid": 30})
    longer = replace(config, data=DataOptions(root=str(root)), optim=replace(OPTIM, epochs=5))
    assert train(longer).validation.auroc_macro > 0.8


def test_seed_decides_everything(config: TrainConfig, tmp_path: Path) -> None:
    one, again, other = (
        train(replace(config, out=str(tmp_path / name), seed=seed)).folder
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert same_state(weights(one), weights(again))
    assert not same_state(weights(one), weights(other))


def test_loading_processes_and_cache_change_nothing(config: TrainConfig, tmp_path: Path) -> None:
    augmented = replace(config, augment=Augment(), optim=replace(OPTIM, epochs=2, warmup_epochs=0, cooldown_epochs=0))
    runs = [
        train(replace(augmented, out=str(tmp_path / name), workers=workers, cache_gib=gib)).folder
        for name, workers, gib in (("a", 0, 4.0), ("b", 2, 4.0), ("c", 2, 0.0))
    ]
    assert same_state(weights(runs[0]), weights(runs[1]))
    assert same_state(weights(runs[0]), weights(runs[2]))


@pytest.mark.parametrize("step", [3, 5, 8])
def test_resuming_gives_the_uninterrupted_run(
    whole: RunResult, config: TrainConfig, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """5 batches per epoch: in the middle of the first epoch, at its end, in the middle of the second."""
    interrupt_at(monkeypatch, step)
    with pytest.raises(TrainingInterrupted, match="--resume"):
        train(config)
    monkeypatch.undo()
    resumed = train(config, resume=True).folder
    assert same_state(weights(whole.folder), weights(resumed))
    histories = [(folder / "history.csv").read_text().splitlines() for folder in (whole.folder, resumed)]
    assert [len(lines) for lines in histories] == [4, 4]
    assert [line.split(",")[-1] for line in histories[0]] == [line.split(",")[-1] for line in histories[1]]
    with (resumed / "history.csv").open(newline="") as stream:
        assert all(float(row["images_per_s"]) > 0 for row in csv.DictReader(stream)), "also of the epoch it began in"
    regions = [(folder / "regions.csv").read_text() for folder in (whole.folder, resumed)]
    assert regions[0].count("\n") == 1 + 3 * 6, "three epochs of M0's six blocks"
    assert regions[0] == regions[1]


@pytest.mark.parametrize(
    ("step", "changes"),
    [
        (5, {"optim": replace(OPTIM, region_lr=3.0, region_warmup_epochs=1.2)}),
        (8, {"optim": replace(OPTIM, region_lr=3.0, region_warmup_epochs=1.2)}),
        (8, {"model": ModelConfig("mxa_efficientvit_m0", options={"mxa_jitter": 0.2})}),
        (5, {"model": ModelConfig("resnet10t", options={"drop_rate": 0.3})}),
    ],
    ids=["regions' rate of 0, before it rises", "and after", "shaken boxes", "dropout"],
)
def test_resuming_with_what_has_a_state_of_its_own(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, changes: dict[str, Any]
) -> None:
    config = replace(config, **changes)
    whole = train(replace(config, out=str(tmp_path / "whole"))).folder
    interrupt_at(monkeypatch, step)
    with pytest.raises(TrainingInterrupted):
        train(config)
    monkeypatch.undo()
    assert same_state(weights(whole), weights(train(config, resume=True).folder))


def test_the_regions_wait_for_their_epoch(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    def look(self: ClassifierModule) -> None:
        seen.append({name: parameter.detach().clone() for name, parameter in self.model.named_parameters()})

    monkeypatch.setattr(ClassifierModule, "on_train_start", look)
    monkeypatch.setattr(ClassifierModule, "on_validation_start", look)
    train(replace(config, optim=replace(OPTIM, region_warmup_epochs=2)))
    regions = [name for name in seen[0] if ".mixer.mxa.region." in name]
    assert len(regions) == 6 * 5
    assert all(torch.equal(seen[0][name], seen[2][name]) for name in regions)
    # At 64 pixels the last stage's map has one pixel: nothing says where to look there.
    assert all(not torch.equal(seen[2][name], seen[3][name]) for name in regions if "stages.2" not in name)
    for name in (
        "patch_embed.conv1.conv.weight",
        "stages.0.blocks.0.mixer.mxa.channel.w1.weight",
        "head.linear.weight",
    ):
        assert not torch.equal(seen[0][name], seen[1][name]), name


def test_a_prior_makes_boxes_smaller(config: TrainConfig, tmp_path: Path) -> None:
    areas = []
    for weight in (0.0, 3.0):
        out = tmp_path / f"prior-{weight}"
        train(replace(config, out=str(out), optim=replace(config.optim, region_lr=20.0, region_area=weight)))
        areas.append([row.area for row in read_regions(out / "regions.csv")][-6:])
    assert (np.array(areas[1]) < np.array(areas[0]) - 1e-3).all(), areas


def test_a_rate_for_regions_that_a_model_does_not_have_is_refused(config: TrainConfig) -> None:
    plain = replace(config, model=ModelConfig(name="efficientvit_m0"))
    for options in ({"region_lr": 0.5}, {"region_warmup_epochs": 1}, {"region_area": 0.1}):
        with pytest.raises(ConfigError, match=r"optim\.region_lr is .* the model has no region predictor"):
            train(replace(plain, optim=replace(OPTIM, **options)))
    assert not Path(config.out).exists()


def test_signals_are_given_back(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    interrupt_at(monkeypatch, 2)
    with pytest.raises(TrainingInterrupted):
        train(config)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("pause", "raised"), [(0.0, TrainingInterrupted), (1.5, SystemExit)])
def test_a_second_signal_stops_at_once_unless_it_is_the_first_once_more(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, pause: float, raised: type[BaseException]
) -> None:
    """A grid's runs hear of Ctrl-C from the terminal and from their grid. (Lightning makes an exit of the second.)"""
    original = ClassifierModule.training_step

    def training_step(self: ClassifierModule, *arguments: object) -> object:
        if self.global_step == 2:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(pause)
            signal.raise_signal(signal.SIGINT)
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ClassifierModule, "training_step", training_step)
    with pytest.raises(raised):
        train(config)
    assert (Path(config.out) / "checkpoints" / "last.ckpt").exists() == (raised is TrainingInterrupted)


def test_a_loss_that_is_not_finite_names_the_images(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    original = ClassifierModule._see
    seen: list[int] = []

    def see(self: ClassifierModule, image: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        seen.append(1)
        logits, boxes = original(self, image)
        return logits * float("nan") if len(seen) == 4 else logits, boxes

    monkeypatch.setattr(ClassifierModule, "_see", see)
    with pytest.raises(DataError, match=r"NaN in epoch 0 near step 3.*train/patient\d+/study1/view") as caught:
        train(config)
    assert str(caught.value).count("/study1/") == 8


def test_the_schedule_is_the_papers() -> None:
    """Per update here, per epoch in timm's script: the same rate at each epoch's start."""
    optim = OptimConfig()
    per_epoch = 7
    module = ClassifierModule(torch.nn.Linear(2, 14), Preprocess(), optim, CHEXPERT14, [])
    module.trainer = type("Trainer", (), {"estimated_stepping_batches": optim.epochs * per_epoch})()  # type: ignore[assignment]
    scheduler = module.configure_optimizers()["lr_scheduler"]["scheduler"]
    reference = CosineLRScheduler(
        torch.optim.SGD([torch.zeros(1)], lr=1e-3), t_initial=40, lr_min=1e-5, warmup_t=5, warmup_lr_init=1e-6
    )
    for epoch in range(optim.epochs):
        scheduler.step_update(epoch * per_epoch)
        reference.step(epoch)
        rates = [group["lr"] for group in scheduler.optimizer.param_groups]
        assert rates == pytest.approx([reference.optimizer.param_groups[0]["lr"]] * len(rates), rel=1e-9)
    assert scheduler.optimizer.param_groups[0]["lr"] == pytest.approx(1e-5)


def test_weight_decay_spares_norms_biases_and_attention_biases() -> None:
    model = timm.create_model("mxa_efficientvit_m0", in_chans=1, num_classes=14)
    module = ClassifierModule(model, Preprocess(), OptimConfig(), CHEXPERT14, [])
    module.trainer = type("Trainer", (), {"estimated_stepping_batches": 50})()  # type: ignore[assignment]
    decays = {
        id(p): group["weight_decay"]
        for group in module.configure_optimizers()["optimizer"].param_groups
        for p in group["params"]
    }
    assert len(decays) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        spared = parameter.ndim < 2 or "attention_biases" in name
        assert decays[id(parameter)] == (0 if spared else 0.025), name


def test_clipping_against_a_loop() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    module = ClassifierModule(model, Preprocess(), OptimConfig(agc=0.02), CHEXPERT14, [])
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter) * 5
    before = [parameter.grad.clone() for parameter in model.parameters()]
    module.configure_gradient_clipping(None)
    weight, grad = model[0].weight.detach(), before[0]
    for unit in range(4):
        limit = max(weight[unit].norm().item(), 1e-3) * 0.02
        expected = grad[unit] * (limit / grad[unit].norm()) if grad[unit].norm() > limit else grad[unit]
        torch.testing.assert_close(model[0].weight.grad[unit], expected)
    assert torch.equal(model[1].weight.grad, before[2]), "the head is not clipped"


def test_a_warm_start_takes_weights_and_head(
    whole: RunResult, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = whole.model
    started: list[dict[str, torch.Tensor]] = []
    monkeypatch.setattr(
        lt.Trainer, "fit", lambda self, module, *a, **k: started.append(module.model.state_dict()) or stop()
    )
    again = replace(config, out=str(tmp_path / "warm"), model=replace(config.model, warm_start=str(source)))
    with pytest.raises(StopIteration):
        train(again)
    assert same_state(dict(load(source).model.state_dict()), started[0])
    fewer = replace(again, out=str(tmp_path / "fewer"), data=replace(config.data, labels=["Edema", "Fracture"]))
    with pytest.raises(StopIteration):
        train(fewer)
    assert started[1]["head.linear.weight"].shape == (2, 192)
    assert torch.equal(
        started[1]["stages.0.blocks.0.mixer.mxa.region.conv.weight"],
        started[0]["stages.0.blocks.0.mixer.mxa.region.conv.weight"],
    )


def stop() -> None:
    raise StopIteration


def test_a_warm_start_from_another_network_is_refused(whole: RunResult, config: TrainConfig, tmp_path: Path) -> None:
    source = whole.model
    other = replace(
        config, out=str(tmp_path / "other"), model=ModelConfig(name="efficientvit_m0", warm_start=str(source))
    )
    with pytest.raises(ConfigError, match=r"warm_start is a mxa_efficientvit_m0"):
        train(other)


def test_smooth_labels_train_and_validation_stays_hard(config: TrainConfig) -> None:
    smooth = replace(config, data=replace(config.data, policy=LabelPolicy(uncertain="u-ones-smooth")))
    assert train(smooth).validation.auroc_macro is not None


def break_table(root: Path, change: Callable[[list[str]], list[str]], file: str = "train.csv") -> None:
    path = root / "CheXpert-v1.0-small" / file
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [*lines, lines[1]], "mxa data check"),
        (lambda lines: lines[:6], "fewer than one batch"),
    ],
)
def test_a_broken_table_is_refused(
    config: TrainConfig, tmp_path: Path, change: Callable[[list[str]], list[str]], message: str
) -> None:
    root = write_chexpert(tmp_path / "broken", {"train": 10, "valid": 4})
    break_table(root, change)
    with pytest.raises(DataError, match=message):
        train(replace(config, data=DataOptions(root=str(root))))


def test_a_validation_split_without_both_classes_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    root = write_chexpert(tmp_path / "flat", {"train": 10, "valid": 4})
    break_table(
        root,
        lambda lines: [
            lines[0],
            *(line.replace("1.0,", "0.0,").replace("1.0", "0.0").replace("v0.0", "v1.0") for line in lines[1:]),
        ],
        "valid.csv",
    )
    with pytest.raises(DataError, match="both positives and negatives"):
        train(replace(config, data=DataOptions(root=str(root))))


def test_an_existing_run_is_not_overwritten(config: TrainConfig) -> None:
    Path(config.out).mkdir()
    (Path(config.out) / "something").touch()
    with pytest.raises(ConfigError, match="--resume"):
        train(config)


def test_resume_needs_a_checkpoint_and_the_same_configuration(config: TrainConfig) -> None:
    with pytest.raises(ConfigError, match="nothing to resume"):
        train(config, resume=True)
    finished = train(config)
    with pytest.raises(ConfigError, match="this run is finished"):
        train(config, resume=True)
    shutil.rmtree(finished.model)
    with pytest.raises(ConfigError, match="configuration differs"):
        train(replace(config, seed=9), resume=True)
    data = Path(config.out) / "data.json"
    told = data.read_text()
    data.write_text(told.replace(read(config.data).fingerprint(), "0" * 64))
    with pytest.raises(DataError, match="the data have changed"):
        train(config, resume=True)
    data.write_text(told)
    stored = Path(config.out) / "config.yaml"
    options = yaml.safe_load(stored.read_text())
    del options["compile"], options["optim"]["region_area"]
    stored.write_text(yaml.safe_dump(options))  # as before these options existed
    with pytest.raises(ConfigError, match="configuration differs"):
        train(replace(config, optim=replace(config.optim, region_area=0.1)), resume=True)
    assert train(config, resume=True).validation == finished.validation


def test_a_missing_image_stops_before_training(config: TrainConfig, tmp_path: Path) -> None:
    root = write_chexpert(tmp_path / "missing", {"train": 10, "valid": 4})
    gone = root / "CheXpert-v1.0-small/train/patient00003/study1/view2_lateral.jpg"
    gone.unlink()
    with pytest.raises(DataError, match=r"patient00003/study1/view2_lateral\.jpg"):
        train(replace(config, data=DataOptions(root=str(root))))


def test_alternative_weights_must_exist(config: TrainConfig) -> None:
    result = train(replace(config, optim=replace(OPTIM, ema_decay=0.0)))
    with pytest.raises(ArtifactError, match=r"lists no model-ema.safetensors"):
        load(result.model, weights="ema")


def test_bf16_trains(config: TrainConfig) -> None:
    assert train(replace(config, precision="bf16")).validation.auroc_macro is not None


@pytest.fixture(scope="module")
def finished(tiny_chexpert: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """The configuration of a finished run of one epoch; copy its folder before changing it."""
    optim = replace(OPTIM, epochs=1, warmup_epochs=0, cooldown_epochs=0, ema_decay=0.0)
    one = small_config(tiny_chexpert, tmp_path_factory.mktemp("finished") / "run", optim)
    train(one)
    return one


def test_a_trained_model_has_operating_points_and_calibrations(finished: TrainConfig) -> None:
    """Chosen on the validation split, of the model's own predictions, and of nothing else."""
    model = Path(finished.out) / "model"
    tuning = Tuning.from_dict(load(model).tuning, CHEXPERT14)
    assert list(tuning.operating_points) == ["youden", "f1", "sensitivity=0.9", "specificity=0.9"]
    assert list(tuning.calibrations) == ["temperature", "platt", "isotonic"]
    valid = read(finished.data).split("valid")
    assert tuning.fitted_on == {
        "dataset": "chexpert",
        "split": "valid",
        "images": 16,
        "fingerprint": valid.fingerprint(),
    }
    predicted = read_csv(Path(finished.out) / "validation" / "predictions.csv", CHEXPERT14)
    for name, point in tuning.operating_points.items():
        expected = choose_operating_point(Rule.parse(name), predicted.probability, valid.target, valid.mask, CHEXPERT14)
        np.testing.assert_allclose(point.array(), expected.array(), atol=1e-6)
        assert point.reasons == expected.reasons
    assert "youden" in (model / "README.md").read_text()


def test_test_labels_choose_nothing(finished: TrainConfig, tiny_chexpert: Path, tmp_path: Path) -> None:
    """The same run beside other test labels and without test images gives the same model and thresholds."""
    root = shutil.copytree(tiny_chexpert, tmp_path / "data") / "CheXpert-v1.0-small"
    (root / "test.csv").write_text((root / "test.csv").read_text().replace(",0.0", ",1.0"))
    again = replace(finished, data=DataOptions(root=str(tmp_path / "data")), out=str(tmp_path / "run"))
    model = train(again).model
    assert same_state(weights(tmp_path / "run"), weights(Path(finished.out)))
    assert load(model).tuning == load(Path(finished.out) / "model").tuning


def copied(finished: TrainConfig, tmp_path: Path) -> TrainConfig:
    """A copy of the finished run in a folder of its own; its configuration names the folder, so it is rewritten."""
    moved = replace(finished, out=str(tmp_path / "copy"))
    shutil.copytree(finished.out, moved.out)
    stored = Path(moved.out) / "config.yaml"
    stored.write_text(stored.read_text().replace(finished.out, moved.out))
    return moved


@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # the folder is a copy
def test_how_far_a_run_is(finished: TrainConfig, tmp_path: Path) -> None:
    assert state(replace(finished, out=str(tmp_path / "nothing"))) == "new"
    (tmp_path / "empty").mkdir()
    assert state(replace(finished, out=str(tmp_path / "empty"))) == "new"
    assert state(finished) == "finished"
    one = copied(finished, tmp_path)
    folder = Path(one.out)
    assert state(one) == "finished"
    (folder / "model" / "config.json").unlink()
    assert state(one) == "started", "a model that was being saved is saved again from its checkpoint"
    assert not (folder / "model").exists()
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    assert state(one) == "started"
    assert train(one, resume=True).model == folder / "model"
    assert state(one) == "finished"
    shutil.rmtree(folder / "validation")
    assert state(one) == "started", "killed between saving the model and scoring it"
    assert train(one, resume=True).validation is not None
    assert state(one) == "finished"
    shutil.rmtree(folder / "model")
    (folder / "checkpoints" / "last.ckpt").unlink()
    assert state(one) == "new", "a run that was killed before its first checkpoint starts anew"
    assert not folder.exists()


def test_a_run_of_another_configuration_is_left_alone(finished: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"differs from .*config\.yaml"):
        state(replace(finished, seed=9))
    assert state(finished) == "finished"
    mine = tmp_path / "mine"
    (mine / "model").mkdir(parents=True)
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"mine exists; choose another --out"):
        state(replace(finished, out=str(mine)))
    assert (mine / "notes.txt").read_text() == "mine"
    assert (mine / "model").is_dir()
