"""From images to predictions: a whole table, or loose files."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mxa.data.decode import decode
from mxa.data.loader import EpochSampler, RadiographDataset, make_loader
from mxa.data.table import Table
from mxa.errors import DataError
from mxa.evaluation.metrics import sigmoid
from mxa.evaluation.predictions import Predictions
from mxa.labels import LabelSet
from mxa.models.artifact import Classifier

BATCH_SIZE = 64
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})
"""What counts as an image inside a folder."""


def predict_table(classifier: Classifier, table: Table, workers: int = 0) -> Predictions:
    """Score every image of a table, in its order.

    Args:
        classifier: the model.
        table: N images.
        workers: loading processes.

    Raises:
        DataError: an image cannot be read; the message names it.
    """
    return predict_dataset(classifier, RadiographDataset(table, classifier.preprocess), table, workers)


def predict_dataset(classifier: Classifier, dataset: RadiographDataset, table: Table, workers: int = 0) -> Predictions:
    """Score a table's images from a dataset that may hold them decoded already."""
    sampler = EpochSampler(len(table), shuffle=False)
    loader = make_loader(dataset, sampler, BATCH_SIZE, workers=workers)
    logits = torch.cat([classifier.logits(batch.image).cpu() for batch in loader])
    return Predictions.from_logit(table.frame["path"], table.frame["patient"], logits.numpy(), table.labels)


@dataclass(frozen=True)
class FilePrediction:
    """One loose file: its L logits, or why it could not be scored.

    Attributes:
        path: the file.
        logit: (L,) float32, None where the file failed.
        error: the reason, empty where it did not.
    """

    path: Path
    logit: npt.NDArray[np.float32] | None
    error: str


def find_files(sources: Sequence[Path]) -> list[Path]:
    """The image files among files and folders (searched in depth), in a stable order.

    Raises:
        DataError: a source does not exist, or a folder holds no image; loose files are taken whatever their name.
    """
    found: list[Path] = []
    for source in sources:
        if source.is_dir():
            inside = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
            if not inside:
                raise DataError(f"{source} holds no image ({', '.join(sorted(SUFFIXES))})")
            found += inside
        elif source.exists():
            found.append(source)
        else:
            raise DataError(f"{source} does not exist")
    return list(dict.fromkeys(found))


def predict_files(classifier: Classifier, files: Sequence[Path]) -> Iterator[FilePrediction]:
    """Score loose files, a batch at a time; a file that cannot be read gives its reason instead of a score."""
    for start in range(0, len(files), BATCH_SIZE):
        part = files[start : start + BATCH_SIZE]
        pixels: list[npt.NDArray[np.uint8]] = []
        errors: dict[Path, str] = {}
        for path in part:
            try:
                pixels.append(decode(path, classifier.preprocess))
            except DataError as error:
                errors[path] = str(error)
        scored = iter(classifier.logits(torch.from_numpy(np.stack(pixels)[:, None])).cpu().numpy() if pixels else [])
        for path in part:
            if path in errors:
                yield FilePrediction(path, None, errors[path])
            else:
                yield FilePrediction(path, next(scored), "")


def write_predictions(scored: Iterable[FilePrediction], labels: LabelSet, out: Path) -> int:
    """Write path, probabilities by finding and error, a row as soon as it is scored.

    Returns:
        The number of files that failed; their probabilities are blank.

    Raises:
        DataError: the output's folder does not exist.
    """
    if not out.parent.is_dir():
        raise DataError(f"{out} cannot be written: its folder does not exist; make it first")
    failed = 0
    with out.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", *labels, "error"])
        for one in scored:
            blank = [""] * len(labels)
            cells = blank if one.logit is None else [f"{p:.9g}" for p in sigmoid(one.logit)]
            writer.writerow([one.path, *cells, one.error])
            failed += one.logit is None
    return failed
