"""A saved model on a labelled data set: predictions, metrics, ROC curves."""

import json
import logging
from pathlib import Path

from mxa.data.options import DataOptions, read
from mxa.data.table import Table
from mxa.errors import ConfigError
from mxa.evaluation.figures import roc_figure
from mxa.evaluation.metrics import Evaluation
from mxa.models.artifact import Classifier, load
from mxa.predict import predict_table
from mxa.training.provenance import split_otherwise

log = logging.getLogger(__name__)


def evaluate_model(model: Path, data: DataOptions, split: str, out: Path, workers: int = 0) -> Evaluation:
    """Score one split; writes ``metrics.json``, ``predictions.csv`` and ``roc.png`` into ``out``.

    Args:
        model: folder of a saved model; its findings are scored, those that the data do not annotate are masked.
        data: the data set; its ``labels`` field is not used.
        split: train, valid or test.
        out: made if missing; must not hold results yet.
        workers: loading processes.

    Raises:
        ConfigError: ``out`` holds results already.
        ArtifactError: the model cannot be loaded.
        DataError: the data set or the split cannot be read.
    """
    file = out / "metrics.json"
    if file.exists():
        raise ConfigError(f"{file} exists; choose another --out or remove it")
    classifier = load(model)
    table = read(data, labels=classifier.labels)
    _warn_if_foreign(classifier, table, split)
    part = table.split(split)
    predictions = predict_table(classifier, part, workers)
    result = predictions.evaluate(part.target, part.mask)
    out.mkdir(parents=True, exist_ok=True)
    predictions.write_csv(out / "predictions.csv")
    figure = roc_figure(
        {classifier.architecture.name: (predictions.probability, part.target, part.mask)}, classifier.labels
    )
    figure.savefig(out / "roc.png", dpi=110)
    file.write_text(json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return result


def _warn_if_foreign(classifier: Classifier, table: Table, split: str) -> None:
    """The same data set split otherwise than in training would score training images as validation."""
    if split == "valid" and split_otherwise(classifier.training, table):
        log.warning(
            "the table differs from the one that the model was trained with: its validation split may hold "
            "images that the model has "
            "trained on; give the training run's --valid_fraction, --split_seed, --views and --policy"
        )
