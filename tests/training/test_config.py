"""Every shipped configuration, the paper's numbers, and the errors of wrong options."""

from pathlib import Path

import pytest
import yaml

from conftest import REPOSITORY
from mxa.cli.shared import from_namespace
from mxa.cli.training import _train_parser
from mxa.demo import MODELS, demo_config
from mxa.errors import ConfigError
from mxa.models.xrv import CONTRACT
from mxa.training.config import KdConfig, ModelConfig, OptimConfig, TrainConfig, since_then

# A grid's files are of another kind: tests/reproduce/test_reproduce_config.py.
CONFIGS = sorted(file for file in (REPOSITORY / "configs").glob("*.yaml") if not file.stem.startswith("reproduce"))


def load(file: Path, *overrides: str) -> TrainConfig:
    parser = _train_parser()
    return from_namespace(TrainConfig, parser, parser.parse_args(["--config", str(file), *overrides]))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_every_shipped_config_loads(file: Path) -> None:
    assert isinstance(load(file), TrainConfig)


def test_there_are_the_promised_configs() -> None:
    promised = {"paper", "baseline", "mxa", "mxa_kd", "densenet121", "densenet121_finetune", "phantom", "nih1000"}
    assert promised <= {file.stem for file in CONFIGS}


def test_the_papers_numbers() -> None:
    config = load(REPOSITORY / "configs" / "paper.yaml")
    optim = config.optim
    assert (optim.epochs, optim.batch_size, optim.weight_decay, optim.lr, optim.min_lr) == (50, 512, 0.025, 1e-3, 1e-5)
    assert (optim.warmup_epochs, optim.cooldown_epochs, optim.agc, optim.ema_decay) == (5, 10, 0.02, 0.99996)
    assert config.augment.randaugment == "rand-m5-mstd0.2-inc2"
    assert (config.augment.horizontal_flip, config.augment.crop_min_area, config.augment.erase) == (0, 1, 0)
    assert (config.preprocess.size, config.preprocess.interpolation) == (224, "bicubic")
    assert config.data.policy.uncertain == "u-ones"


def test_the_papers_config_is_the_default() -> None:
    assert load(REPOSITORY / "configs" / "paper.yaml") == TrainConfig()


def test_baseline_differs_from_mxa_in_the_model_alone() -> None:
    baseline, ours = (load(REPOSITORY / "configs" / f"{name}.yaml").to_dict() for name in ("baseline", "mxa"))
    assert baseline.pop("model")["name"] == "efficientvit_m5"
    assert ours.pop("model")["name"] == "mxa_efficientvit_m5"
    assert baseline == ours


def test_mxa_kd_differs_from_mxa_in_the_teacher_alone() -> None:
    distilled, ours = (load(REPOSITORY / "configs" / f"{name}.yaml").to_dict() for name in ("mxa_kd", "mxa"))
    kd = distilled.pop("kd")
    assert (kd["type"], kd["alpha"], kd["tau"], kd["dynamic_weights"]) == ("soft", 0.5, 1.0, True)
    assert kd["teacher"] == "teachers/densenet121-res224-chex"
    assert (kd["no_finding"], kd["full_weight_untaught"], kd["teach_masked"]) == ("product", False, False)
    assert ours.pop("kd")["teacher"] == ""
    assert distilled == ours


def test_finetuning_has_torchxrayvisions_scaling() -> None:
    config = load(REPOSITORY / "configs" / "densenet121_finetune.yaml")
    assert (config.preprocess.mean, config.preprocess.std) == (CONTRACT.mean, CONTRACT.std)


def test_teachers_come_singly_and_in_lists() -> None:
    file = REPOSITORY / "configs" / "mxa_kd.yaml"
    assert KdConfig().teachers == ()
    assert load(file, "--kd.teacher", "one").kd.teachers == ("one",)
    assert load(file, "--kd.teacher", "[one, two]").kd.teachers == ("one", "two")


def test_the_demo_is_the_phantom_config() -> None:
    file = REPOSITORY / "configs" / "phantom.yaml"
    assert demo_config(MODELS["EfficientViT-M0 + MXA"], "ROOT", "OUT") == load(
        file, "--data.root", "ROOT", "--out", "OUT"
    )


def test_command_line_overrides_the_file() -> None:
    config = load(REPOSITORY / "configs" / "mxa.yaml", "--optim.epochs", "20", "--model.options.mxa_reduction", "8")
    assert config.optim.epochs == 20
    assert config.model.options == {"mxa_reduction": 8}
    assert config.model.name == "mxa_efficientvit_m5"


def test_the_resolved_configuration_reads_back(tmp_path: Path) -> None:
    from mxa.training.run import _plain

    config = load(REPOSITORY / "configs" / "nih1000.yaml")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(_plain(config.to_dict())))
    assert load(tmp_path / "config.yaml") == config


def test_learning_rate_scales_with_the_batch() -> None:
    assert OptimConfig(batch_size=128).lr_scale == 0.25


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: OptimConfig(epochs=0), "optim.epochs"),
        (lambda: OptimConfig(lr=-1), "optim.lr"),
        (lambda: OptimConfig(ema_decay=1.0), "optim.ema_decay"),
        (lambda: OptimConfig(epochs=10), "optim.warmup_epochs"),
        (lambda: OptimConfig(region_lr=-0.1), "optim.region_lr"),
        (lambda: OptimConfig(region_lr=float("nan")), "optim.region_lr"),
        (lambda: OptimConfig(region_area=-1), "optim.region_area"),
        (lambda: OptimConfig(region_warmup_epochs=-1), "optim.region_warmup_epochs"),
        (lambda: OptimConfig(region_warmup_epochs=50), "optim.region_warmup_epochs is 50; it must be less than epochs"),
        (lambda: TrainConfig(precision="fp8"), "precision"),
        (lambda: TrainConfig(workers=-2), "workers"),
        (lambda: TrainConfig(cache_gib=-1), "cache_gib"),
        (lambda: TrainConfig(cache_gib=float("inf")), "cache_gib"),
        (lambda: OptimConfig(lr=float("inf")), "optim.lr"),
        (lambda: TrainConfig(seed=-1), "seed is -1"),
        (lambda: ModelConfig(pretrained=True, warm_start="x"), "model.warm_start"),
        (lambda: KdConfig(type="mixed"), "kd.type"),
        (lambda: KdConfig(alpha=1.5), "kd.alpha"),
        (lambda: KdConfig(tau=0), "kd.tau"),
        (lambda: KdConfig(type="hard", tau=2.0), "kd.tau"),
        (lambda: KdConfig(no_finding="mean"), "kd.no_finding"),
        (lambda: KdConfig(cache="x"), "kd.cache"),
        (lambda: KdConfig(teacher="t", regions=-1), "kd.regions"),
        (lambda: KdConfig(regions=1), "kd.regions is 1, but kd.teacher is not given"),
        (lambda: KdConfig(teacher="t", cache="x", regions=1), "kd.regions is 1, but a cache holds logits alone"),
    ],
)
def test_wrong_values_are_named(make: object, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        make()  # type: ignore[operator]


def test_what_was_stored_before_an_option_existed_gets_its_default() -> None:
    config = TrainConfig(optim=OptimConfig(lr=0.5), model=ModelConfig(options={"drop_rate": 0.1}))
    stored = config.to_dict()
    del stored["compile"], stored["optim"]["agc"]
    stored["data"]["policy"]["per_finding"] = {"Edema": "u-ones"}
    wanted = config.to_dict()
    wanted["data"]["policy"]["per_finding"] = {"Edema": "u-ones"}
    assert since_then(stored) == wanted
    assert since_then({**stored, "odd": 1}) == {**wanted, "odd": 1}
