"""The finished grid in numbers: mean and spread over the seeds, and paired intervals of what each change brings.

Two kinds of uncertainty. *Over seeds*: standard deviation, and for the mean a t interval; they say how much another
initialisation and order would change things, on these test images. *Over patients*: the bootstrap of the seed-averaged
difference, the same drawings for both cells; it says how much other test patients would. For a difference there is also
the interval over both, see :mod:`mxa.reproduce.gain`.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from mxa.data.options import read
from mxa.data.table import Table
from mxa.evaluation.bootstrap import Bootstrap, Draws
from mxa.evaluation.intervals import Interval
from mxa.evaluation.metrics import FloatArray
from mxa.evaluation.predictions import Predictions, read_csv
from mxa.labels import LabelSet
from mxa.models.artifact import load
from mxa.models.cost import forward_flop
from mxa.reproduce.config import ReproduceConfig
from mxa.reproduce.gain import Gain

FIGURES = ("loss", "accuracy", "f1_micro", "auroc_micro", "auroc_macro")


@dataclass(frozen=True, eq=False)
class Areas:
    """Bootstrapped AUROCs of one run, or their paired differences between two."""

    micro: Bootstrap
    macro: Bootstrap
    findings: Bootstrap

    def group(self, columns: Sequence[int]) -> Bootstrap:
        """The mean over some of the findings, as a single column."""
        return self.findings.take(columns).macro()

    def minus(self, other: "Areas") -> "Areas":
        """Paired differences."""
        return Areas(self.micro.minus(other.micro), self.macro.minus(other.macro), self.findings.minus(other.findings))


@dataclass(frozen=True, eq=False)
class Gains:
    """Paired differences of two cells, per seed."""

    runs: tuple[Areas, ...]

    @property
    def micro(self) -> Gain:
        """Of all labels pooled."""
        return Gain(tuple(run.micro for run in self.runs))

    @property
    def macro(self) -> Gain:
        """Of the mean over the findings."""
        return Gain(tuple(run.macro for run in self.runs))

    def finding(self, column: int) -> Gain:
        """Of one finding."""
        return self.group([column])

    def group(self, columns: Sequence[int]) -> Gain:
        """Of the mean over some of the findings."""
        return Gain(tuple(run.group(columns) for run in self.runs))


@dataclass(frozen=True, eq=False)
class CellSummary:
    """One cell.

    Attributes:
        key: of the cell.
        title: its name in tables.
        runs: per seed the figures of the scored split, as :meth:`mxa.evaluation.metrics.Evaluation.to_dict` gives them,
            by the labels of the grid's base.
        areas: per seed.
        epochs: per seed the validation micro AUROC of the raw weights after each epoch.
        images_per_s: training speed, median over epochs and seeds.
        parameters: of the network.
        flop: of the network for one image, see :func:`mxa.models.cost.forward_flop`.
    """

    key: str
    title: str
    runs: tuple[dict[str, Any], ...]
    areas: tuple[Areas, ...]
    epochs: tuple[tuple[float, ...], ...]
    images_per_s: float
    parameters: int
    flop: int

    def values(self, figure: str, finding: str | None = None) -> FloatArray:
        """(seeds,) of a figure, or of a finding's AUROC; NaN where undefined."""
        rows = self.runs if finding is None else [run["findings"][finding] for run in self.runs]
        return np.array([row[figure] for row in rows], dtype=np.float64)  # None becomes NaN

    def gains(self, other: "CellSummary") -> "Gains":
        """What this cell brings over another one of the same seeds."""
        return Gains(tuple(one.minus(two) for one, two in zip(self.areas, other.areas, strict=True)))


@dataclass(frozen=True, eq=False)
class Summary:
    """The whole grid.

    Attributes:
        cells: in the grid's order.
        table: the scored split.
        labels: L findings.
    """

    cells: dict[str, CellSummary]
    table: Table
    labels: LabelSet


def summarise(config: ReproduceConfig) -> Summary:
    """Read the finished runs.

    Raises:
        DataError: the data or a run's predictions cannot be read, or do not fit each other.
    """
    table = read(config.shared().data).split(config.split)
    patients = table.frame["patient"].tolist()
    draws = Draws(patients, replicates=config.replicates)
    cells = {key: _cell(config, key, table, draws) for key in config.cells}
    return Summary(cells, table, table.labels)


def _cell(config: ReproduceConfig, key: str, table: Table, draws: Draws) -> CellSummary:
    folders = [Path(config.run(key, seed).out) for seed in config.seeds]
    predicted = [_predictions(folder / config.split / "predictions.csv", table) for folder in folders]
    histories = [_history(folder) for folder in folders]
    model = load(folders[0] / "model")
    return CellSummary(
        key,
        config.title(key),
        tuple(one.evaluate(table.target, table.mask).to_dict() for one in predicted),
        tuple(_areas(one.probability, table, draws) for one in predicted),
        tuple(tuple(float(row["val/auroc_micro"]) for row in rows) for rows in histories),
        float(np.median([float(row["images_per_s"]) for rows in histories for row in rows])),
        sum(parameter.numel() for parameter in model.model.parameters()),
        forward_flop(model.model, model.preprocess.size),
    )


def _history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _predictions(file: Path, table: Table) -> Predictions:
    """In the table's order. Its labels score all cells alike: a cell's own policy may take uncertain ones otherwise."""
    return read_csv(file, table.labels).join(table.frame["path"].tolist())


def _areas(score: FloatArray, table: Table, draws: Draws) -> Areas:
    findings = draws.auroc(score, table.target, table.mask)
    return Areas(draws.auroc_micro(score, table.target, table.mask), findings.macro(), findings)


def over_seeds(values: FloatArray, level: float = 0.95) -> Interval | None:
    """Mean of the seeds with the t interval of that mean; a single seed has none: the ends are then the value.

    Returns None where a seed's value is undefined.
    """
    if np.isnan(values).any():
        return None
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, mean, mean, level)
    reach = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * stats.sem(values))
    return Interval(mean, mean - reach, mean + reach, level)
