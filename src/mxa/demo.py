"""The whole way without any data: draw phantom radiographs, train without and with MXA and a teacher, score, report."""

import csv
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.figure import Figure

from mxa.data.augment import Augment
from mxa.data.options import DataOptions, read
from mxa.data.phantom import make_phantom
from mxa.data.table import Table
from mxa.errors import ConfigError
from mxa.evaluation import figures
from mxa.evaluation.files import write_charts
from mxa.evaluation.metrics import Evaluation
from mxa.evaluation.predictions import Predictions
from mxa.evaluation.report import Picture, Section, write_report
from mxa.explain.regions import shared_finding_figure
from mxa.labels import SUPPORT_DEVICES
from mxa.models.artifact import Classifier, load
from mxa.predict import predict_table
from mxa.preprocess import Preprocess
from mxa.training.config import KdConfig, ModelConfig, OptimConfig, TrainConfig
from mxa.training.run import train
from mxa.training.teacher_cache import fill_cache

log = logging.getLogger(__name__)

TEACHER = "DenseNet, small (teacher)"
DISTILLED = "EfficientViT-M0 + MXA + KD"
MODELS = {
    TEACHER: ModelConfig("densenet121", options={"growth_rate": 12, "block_config": [3, 6, 12, 8]}),
    "EfficientViT-M0": ModelConfig("efficientvit_m0"),
    "EfficientViT-M0 + MXA": ModelConfig("mxa_efficientvit_m0"),
    DISTILLED: ModelConfig("mxa_efficientvit_m0"),
}
RUNS = {
    TEACHER: "teacher",
    "EfficientViT-M0": "efficientvit_m0",
    "EfficientViT-M0 + MXA": "mxa_efficientvit_m0",
    DISTILLED: "mxa_efficientvit_m0_kd",
}
"""The runs' folders."""
SHOWN = "Pneumonia"
"""The finding that Figure 2's radiographs share."""
MIN_EPOCHS = 3
"""One warms up, one cools down, and one must lie between."""


def demo_config(
    model: ModelConfig, data: str, out: str, epochs: int = 5, seed: int = 0, kd: KdConfig | None = None
) -> TrainConfig:
    """The demo's training run: ``configs/phantom.yaml`` with these fields filled in.

    The paper's recipe at a scale that two CPU cores finish in minutes: M0 at 128 px, small batches, few epochs, and no
    augmentation, which would take longer than the training itself.
    """
    return TrainConfig(
        out=out,
        seed=seed,
        data=DataOptions(root=data, dataset="chexpert"),
        preprocess=Preprocess(size=128),
        augment=Augment(randaugment=""),
        model=model,
        optim=OptimConfig(
            epochs=epochs, batch_size=32, lr=1e-3, lr_batch_size=32, warmup_epochs=1, cooldown_epochs=1, ema_decay=0.998
        ),
        kd=kd or KdConfig(),
    )


def run_demo(out: Path, *, images: int = 5600, epochs: int = 5, seed: int = 0) -> Path:
    """Run the demo.

    Args:
        out: new folder: ``data/`` (phantom), one run per model, the teacher's logits, ``report.html``,
            ``metrics.json``, the figures as PNG.
        images: phantom images over all splits.
        epochs: of each model, at least :data:`MIN_EPOCHS`.
        seed: of data and training.

    Returns:
        The report, an HTML page.

    Raises:
        ConfigError: ``out`` exists, or the numbers are impossible.
        DataError: training failed.
    """
    if epochs < MIN_EPOCHS:
        raise ConfigError(f"--epochs is {epochs}; it must be at least {MIN_EPOCHS}: one warms up, one cools down")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists; choose another --out or remove it")
    log.info("drawing %d phantom radiographs", images)
    data = make_phantom(out / "data", images=images, seed=seed)
    models: dict[str, Classifier] = {}
    valid: dict[str, Evaluation] = {}
    taught = KdConfig(teacher=str(out / RUNS[TEACHER] / "model"), cache=str(out / "teacher_logits"))
    for name, model in MODELS.items():
        log.info("training %s", name)
        kd = taught if name == DISTILLED else None
        config = demo_config(model, str(data), str(out / RUNS[name]), epochs, seed, kd)
        if kd is not None:
            fill_cache(config)
        result = train(config)
        models[name], valid[name] = load(result.model), result.validation
    table = read(config.data).split("test")
    log.info("scoring %d held-out radiographs", len(table))
    predictions = {name: predict_table(model, table) for name, model in models.items()}
    return _report(out, table, models, predictions, valid)


def _report(
    out: Path,
    table: Table,
    models: Mapping[str, Classifier],
    predictions: Mapping[str, Predictions],
    valid: Mapping[str, Evaluation],
) -> Path:
    """The numbers as JSON, the figures as PNG, and both in one page."""
    labels = table.labels
    test = {name: one.evaluate(table.target, table.mask) for name, one in predictions.items()}
    numbers = {split: {n: e.to_dict() for n, e in found.items()} for split, found in (("valid", valid), ("test", test))}
    (out / "metrics.json").write_text(json.dumps(numbers, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    made = {
        "roc": figures.roc_figure(
            {name: (one.probability, table.target, table.mask) for name, one in predictions.items()}, labels
        ),
        "auroc": figures.auc_bars(test, labels),
        "training": figures.training_curves({name: _history(out / RUNS[name]) for name in models}),
        "regions": _regions(models[DISTILLED], table),
    }
    drawn = {name: figures.Chart.of(figure) for name, figure in made.items()}
    write_charts(out, drawn)
    split = (
        f"All figures above are of the test split: {len(table)} images of {table.frame['patient'].nunique()} patients, "
        "none of whom was seen in training or in choosing the epoch. On the validation split, which chose the epoch: "
        + "; ".join(f"{name} macro AUROC {_number(one.auroc_macro)}" for name, one in valid.items())
        + ". The last model is the third, distilled from the first. One seed and a drawn data set: a difference "
        "between the models here says nothing about real ones."
    )
    sections = [
        Section("What was scored", (split,)),
        Section("ROC curves", (Picture(drawn["roc"], "ROC per finding on the test split"),)),
        Section("AUROC per finding", (Picture(drawn["auroc"], "AUROC per finding on the test split"),)),
        Section(
            "Where the MXA blocks look",
            (Picture(drawn["regions"], f"Test radiographs with {SHOWN}; boxes of the last MXA block of each stage"),),
        ),
        Section("Training", (Picture(drawn["training"], "Loss and AUROC over the epochs (validation: raw weights)"),)),
    ]
    report = out / "report.html"
    write_report(report, "mxa demo: phantom radiographs", test, labels, sections, _provenance(models, table))
    return report


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _history(run: Path) -> list[dict[str, float]]:
    """The run's history under the names that the figure knows; with a teacher the loss on the labels alone."""
    with (run / "history.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    loss = "train/base_loss" if "train/base_loss" in rows[0] else "train/loss"
    names = {"epoch": "epoch", loss: "train_loss", "val/loss": "val_loss", "val/auroc_macro": "val_auroc"}
    return [{new: float(row[old]) for old, new in names.items()} for row in rows]


def _regions(classifier: Classifier, table: Table) -> Figure:
    """Figure 2; a very small phantom may have nobody with the finding, but somebody with support devices."""
    present = (table.target > 0.5) & (table.frame["view"] == "frontal").to_numpy()[:, None]
    finding = SHOWN if present[:, table.labels.index(SHOWN)].any() else SUPPORT_DEVICES
    return shared_finding_figure(classifier, table, finding)


def _provenance(models: Mapping[str, Classifier], table: Table) -> dict[str, str]:
    training = next(iter(models.values())).training
    config = training["config"]
    packages = training["environment"]["packages"]
    return {
        "command": " ".join(training["environment"]["command"]),
        "data": f"{training['data']['images']} images; label table {table.fingerprint()[:16]} (test split)",
        "training": f"{config['optim']['epochs']} epochs, batch {config['optim']['batch_size']}, "
        f"{config['preprocess']['size']} px, seed {config['seed']}",
        "weights": "; ".join(f"{name}: {model.training['weights']}" for name, model in models.items()),
        "versions": f"mxa {training['environment']['mxa']}, " + ", ".join(f"{k} {v}" for k, v in packages.items()),
        "machine": f"{training['environment']['platform']}, {training['environment']['processors']} processors, "
        f"{torch.get_num_threads()} threads",
    }
