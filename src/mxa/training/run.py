"""One training run, from a configuration to a saved model and its validation figures.

The run's folder holds::

    config.yaml        the resolved configuration
    environment.json   versions, machine, source revision, command
    data.json          data fingerprint, counts per split and finding
    teacher.json       with distillation: the teacher, what it teaches, its own figures on the validation split
    history.csv        one row per epoch
    regions.csv        with MXA: where its blocks look on the validation images, one row per epoch and block
    regions.png        the same as a picture
    tensorboard/       the same for TensorBoard, where it is installed
    checkpoints/       last.ckpt (to resume), best-raw.ckpt, best-ema.ckpt
    validation/        metrics.json and predictions.csv of the saved model
    model/             the artefact, for mxa.load, mxa evaluate and mxa predict
"""

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as lt
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from mxa.data.check import table_problems
from mxa.data.loader import RadiographDataset, ResumableLoader
from mxa.data.options import read
from mxa.data.problems import Problem
from mxa.data.table import Table
from mxa.errors import ConfigError, DataError
from mxa.evaluation.cases import cases_of
from mxa.evaluation.figures.style import save as save_figure
from mxa.evaluation.files import write_json
from mxa.evaluation.metrics import Evaluation
from mxa.evaluation.predictions import Predictions
from mxa.evaluation.tuning import tune
from mxa.models.artifact import CONFIG_FILE, Architecture, Classifier, load, save
from mxa.predict import predict_dataset
from mxa.training.callbacks import History, SeedEachBatch, StopPolitely
from mxa.training.config import TrainConfig, since_then
from mxa.training.distillation import Distiller, make_distiller, open_teacher
from mxa.training.distributed import Place, disbanding, from_first, with_shared_batch_norm
from mxa.training.initial import initial_model
from mxa.training.loaders import batch_augmenter, make_loaders
from mxa.training.module import ClassifierModule, kinds_of_weights, prefix
from mxa.training.provenance import environment
from mxa.training.region_watch import WatchRegions, last_epoch, read_regions, to_record, warn_if_the_same
from mxa.training.region_watch_figure import regions_figure
from mxa.training.trainer import make_trainer


@dataclass(frozen=True)
class RunResult:
    """What a finished run gives.

    Attributes:
        folder: the run's folder.
        model: the saved model's folder inside it.
        validation: the saved model on the validation split.
    """

    folder: Path
    model: Path
    validation: Evaluation


def train(config: TrainConfig, *, resume: bool = False) -> RunResult:
    """Train, validate and save one model.

    Args:
        config: everything about the run.
        resume: go on from the run folder's ``checkpoints/last.ckpt``; the configuration must be the one it was started
            with.

    Raises:
        ConfigError: the run folder exists (or, with ``resume``, has no checkpoint, another configuration or another
            teacher), or an option is wrong.
        ArtifactError: the teacher, its cache or the model to start from cannot be loaded.
        DataError: the data are broken (or, with ``resume``, have changed), or the loss became infinite or NaN.
        TrainingInterrupted: stopped from outside; a checkpoint is left.
    """
    with disbanding():
        return _train(config, resume)


def _train(config: TrainConfig, resume: bool) -> RunResult:
    folder = Path(config.out)
    problems: list[Problem] = []
    table = read(config.data, problems=problems)
    check_trainable(table, config, problems)
    keepers = {name: _keep_best(folder, name) for name in kinds_of_weights(config.optim)}
    stopper = StopPolitely(folder / "checkpoints" / "last.ckpt")
    steps = len(table.split("train")) // config.optim.batch_size
    watchers = [History(folder / "history.csv"), WatchRegions(folder / "regions.csv")]
    seeding = SeedEachBatch(config.seed)
    trainer = make_trainer(config, [*watchers, *keepers.values(), stopper, seeding], steps)
    place = Place(trainer.global_rank, trainer.world_size)
    checkpoint = _checkpoint(folder, config) if resume else None
    if place.first and not resume:  # the others may find what the first has begun
        _refuse_existing(folder)
    module, training, validation = _prepare(config, table, place)
    provenance = _describe_data(table, config)
    if checkpoint:
        _refuse_changes(folder, provenance, module.distiller)
        training.load_state_dict(_loader_state(checkpoint))
    elif place.first:
        _open_folder(folder, config, provenance, module.distiller)
    with stopper.listening(), _without_lightnings_remarks():
        trainer.fit(module, training, validation, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    finished = _finish(config, table, module, keepers, provenance, validation.dataset) if place.first else None
    return from_first(finished)


def _prepare(
    config: TrainConfig, table: Table, place: Place
) -> tuple[ClassifierModule, ResumableLoader, ResumableLoader]:
    """The network with its teacher, and the loaders of training and validation."""
    teacher = open_teacher(config, table)
    lt.seed_everything(config.seed, verbose=False)
    network = initial_model(config.model, table.labels, config.preprocess)
    if config.sync_batch_norm:
        network = with_shared_batch_norm(network)
    training, validation = make_loaders(config, table, place)
    datasets = training.dataset, validation.dataset
    distiller = None if teacher is None else make_distiller(config, teacher, table, *datasets)
    files = table.split("train").frame["path"].tolist()
    augmenter = batch_augmenter(config)
    module = ClassifierModule(
        network, config.preprocess, config.optim, table.labels, files, distiller, augmenter, config.compile
    )
    return module, training, validation


@contextmanager
def _without_lightnings_remarks() -> Iterator[None]:
    """Warnings that speak to Lightning's developers, of checkpoints that must be there, or of figures that agree."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*recommended to use .*sync_dist=True")
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
        # Until torch 2.14 it has no other name.
        warnings.filterwarnings("ignore", message=r"`broadcast_buffers` is deprecated")
        warnings.filterwarnings("ignore", message=r".*Checkpoint directory .* exists and is not empty")
        yield


def state(config: TrainConfig) -> Literal["new", "started", "finished"]:
    """How far a run is, for whoever starts many and goes on with them later.

    What a kill left half-made is cleared away: a model that was being saved or scored (its checkpoints are there), or a
    folder that has no checkpoint yet.

    Raises:
        ConfigError: the folder is of another configuration, or is no run's.
    """
    folder = Path(config.out)
    if not folder.exists() or not any(folder.iterdir()):
        return "new"
    if not (folder / "config.yaml").is_file():
        _refuse_existing(folder)
    _refuse_other_config(folder, config)
    if (folder / "model" / CONFIG_FILE).is_file() and (folder / "validation" / "metrics.json").is_file():
        return "finished"
    shutil.rmtree(folder / "model", ignore_errors=True)
    if (folder / "checkpoints" / "last.ckpt").is_file():
        return "started"
    shutil.rmtree(folder)
    return "new"


def check_trainable(table: Table, config: TrainConfig, found: Sequence[Problem] = ()) -> None:
    """Refuse a table that cannot be trained on or validated.

    Args:
        table: the table; its images are not touched.
        config: the run.
        found: what the reader found wrong already.

    Raises:
        DataError: the table has errors (``mxa data check`` lists them), the training split is smaller than a batch, or
            no finding of the validation split has both positives and negatives, so that no epoch could be called the
            best.
    """
    errors = [problem for problem in [*found, *table_problems(table)] if problem.severity == "error"]
    if errors:
        shown = "; ".join(str(problem) for problem in errors[:3])
        raise DataError(
            f"the {config.data.dataset} table has {len(errors)} errors: {shown}; "
            f"`mxa data check {config.data.root} --dataset {config.data.dataset}` lists them all"
        )
    training, validation = table.split("train"), table.split("valid")
    if len(training) < config.optim.batch_size:
        raise DataError(
            f"the training split has {len(training)} images, fewer than one batch; lower optim.batch_size "
            f"({config.optim.batch_size})"
        )
    if len(validation) < config.processes:
        raise DataError(
            f"the validation split has {len(validation)} images, fewer than there are processes ({config.processes}); "
            "lower devices or nodes"
        )
    positive = ((validation.target > 0.5) & validation.mask).any(axis=0)
    negative = ((validation.target <= 0.5) & validation.mask).any(axis=0)
    if not (positive & negative).any():
        raise DataError(
            "no finding of the validation split has both positives and negatives; the best epoch cannot be chosen on it"
        )


def _as_yaml(config: TrainConfig) -> str:
    return yaml.safe_dump(_plain(config.to_dict()), sort_keys=False, allow_unicode=True)


def _refuse_existing(folder: Path) -> None:
    """Refuse to write over another run."""
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} exists; choose another --out, remove it, or go on with it by --resume")


def _checkpoint(folder: Path, config: TrainConfig) -> Path:
    """What to go on from, if the run was started with this configuration."""
    checkpoint = folder / "checkpoints" / "last.ckpt"
    if (folder / "model").exists():
        raise ConfigError(
            f"{folder / 'model'} exists: this run is finished; remove that folder to save its model again"
        )
    if not checkpoint.is_file():
        raise ConfigError(f"{checkpoint} does not exist; nothing to resume: start without --resume")
    _refuse_other_config(folder, config)
    return checkpoint


def _refuse_other_config(folder: Path, config: TrainConfig) -> None:
    stored = folder / "config.yaml"
    if _plain(since_then(yaml.safe_load(stored.read_text(encoding="utf-8")))) != _plain(config.to_dict()):
        raise ConfigError(
            f"the configuration differs from {stored}; resume with the options the run was started with, or use "
            "another out"
        )


def _refuse_changes(folder: Path, provenance: Mapping[str, Any], distiller: Distiller | None) -> None:
    """Going on with other data or another teacher under the same names would be neither run."""
    if _read_json(folder / "data.json")["fingerprint"] != provenance["fingerprint"]:
        raise DataError(f"the data have changed since {folder} was started; start anew with another out")
    if distiller is not None:
        stored = [one["fingerprint"] for one in _read_json(folder / "teacher.json")["teachers"]]
        if stored != [one["fingerprint"] for one in distiller.description["teachers"]]:
            raise ConfigError(
                f"kd.teacher is another model than the one that {folder} was started with; start anew with another out"
            )


def _open_folder(folder: Path, config: TrainConfig, provenance: Mapping[str, Any], distiller: Distiller | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(_as_yaml(config), encoding="utf-8")
    write_json(folder / "environment.json", environment())
    write_json(folder / "data.json", provenance)
    if distiller is not None:
        write_json(folder / "teacher.json", distiller.description)


def _plain(value: Any) -> Any:
    """Tuples to lists, mappings to dicts: what YAML writes without tags."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _keep_best(folder: Path, weights: str) -> ModelCheckpoint:
    return ModelCheckpoint(
        folder / "checkpoints",
        filename=f"best-{weights}",
        monitor=f"{prefix(weights)}/auroc_macro",
        mode="max",
        save_weights_only=True,
        auto_insert_metric_name=False,
        enable_version_counter=False,
    )


def _finish(
    config: TrainConfig,
    table: Table,
    module: ClassifierModule,
    keepers: Mapping[str, ModelCheckpoint],
    provenance: Mapping[str, Any],
    validation: RadiographDataset,
) -> RunResult:
    """Choose weights, operating points and calibrations on validation, save, and score the saved model from disk."""
    folder, part = Path(config.out), table.split("valid")
    architecture = Architecture(config.model.name, dict(config.model.options))
    states = {name: _state(Path(keeper.best_model_path), name) for name, keeper in keepers.items()}
    scores: dict[str, Evaluation] = {}
    predicted: dict[str, Predictions] = {}
    for name, weights in states.items():
        module.model.load_state_dict(weights)
        candidate = Classifier(module.model.train().eval(), architecture, table.labels, config.preprocess, {})
        predicted[name] = predict_dataset(candidate, validation, part)
        scores[name] = predicted[name].evaluate(part.target, part.mask)
    selected = max(scores, key=lambda name: scores[name].auroc_macro or 0.0)
    module.model.load_state_dict(states[selected])
    training = {
        "config": _plain(config.to_dict()),
        "data": dict(provenance),
        "environment": environment(),
        "weights": selected,
        "validation": {name: result.to_dict() for name, result in scores.items()},
    }
    if module.distiller is not None:
        training["distillation"] = module.distiller.description
    training |= _conclude_regions(folder)
    fitted_on = {"dataset": table.dataset, "split": "valid", "images": len(part), "fingerprint": part.fingerprint()}
    tuning = tune(cases_of(predicted[selected], part), fitted_on=fitted_on)
    model = save(
        Classifier(module.model, architecture, table.labels, config.preprocess, training, tuning.to_dict()),
        folder / "model",
        {name: weights for name, weights in states.items() if name != selected},
    )
    predictions = predict_dataset(load(model), validation, part)  # what was saved, not what is in memory
    result = predictions.evaluate(part.target, part.mask)
    (folder / "validation").mkdir(exist_ok=True)
    predictions.write_csv(folder / "validation" / "predictions.csv")
    write_json(folder / "validation" / "metrics.json", result.to_dict())  # the last file of a run, whole or not at all
    return RunResult(folder, model, result)


def _conclude_regions(folder: Path) -> dict[str, Any]:
    """Draw what the MXA blocks' regions did, warn where they tell nothing; the last epoch's for the model's record."""
    rows = read_regions(folder / "regions.csv")
    if not rows:
        return {}
    save_figure(regions_figure(rows), folder / "regions.png")
    last = last_epoch(rows)
    warn_if_the_same(last)
    return {"regions": {"epoch": last[0].epoch, "weights": "raw", "blocks": to_record(last)}}


def _state(checkpoint: Path, weights: str) -> dict[str, Tensor]:
    """The network's weights from one of the best checkpoints."""
    start = "model." if weights == "raw" else "ema.module."
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    return {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}


def _loader_state(checkpoint: Path) -> dict[str, int]:
    """Where the training loader was. Lightning itself restores it only after it has fetched the first batch."""
    loops = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["loops"]
    state: dict[str, int] = loops["fit_loop"]["state_dict"]["combined_loader"][0]
    return state


def _describe_data(table: Table, config: TrainConfig) -> dict[str, Any]:
    return {
        "dataset": table.dataset,
        "fingerprint": table.fingerprint(),
        "policy": _plain(config.to_dict())["data"]["policy"],
        "images": {split: len(table.split(split)) for split in table.splits},
        "patients": {split: int(table.split(split).frame["patient"].nunique()) for split in table.splits},
        "counts": {split: table.split(split).counts().to_dict("index") for split in table.splits},
    }


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
