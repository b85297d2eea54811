"""Predictions as one plain table: a model's own, with their CSV, and those of anybody's CSV."""

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from mxa.errors import DataError
from mxa.evaluation.casefiles import finding_columns, numbers, place, read_frame, require_unique, row_names, some
from mxa.evaluation.files import write_text
from mxa.evaluation.metrics import (
    Evaluation,
    FloatArray,
    evaluate,
    evaluate_probability,
    require_finite,
    require_probability,
    sigmoid,
)
from mxa.labels import LabelSet

_OF_PREDICT = frozenset(
    {
        *("sop_instance_uid", "status", "reason", "boxes", "notes", "operating_point", "calibration"),
        *("model_hash", "contract_version", "width", "height"),
    }
)
"""What :mod:`mxa.archive.rows` writes beside path and findings."""

_BESIDE_A_FINDING = (":logit", ":decision")


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says about N images.

    Attributes:
        path: N image paths as the table names them; they identify the rows, so each occurs once.
        patient: N patient identifiers, for resampling by patient.
        probability: (N, L) in [0, 1], float64.
        labels: The L findings in column order.
        logit: (N, L) finite float64 that ``probability`` came from, or None when only probabilities are known. It is
            kept because loss and ranking are exact in it, while a probability rounds to 1 from a logit of 37 on.

    Raises:
        ValueError: If lengths or shapes do not fit together.
        DataError: If a path occurs twice or a probability is outside [0, 1].
    """

    path: tuple[str, ...]
    patient: tuple[str, ...]
    probability: FloatArray
    labels: LabelSet
    logit: FloatArray | None = None

    def __post_init__(self) -> None:
        shape = (len(self.path), len(self.labels))
        if len(self.patient) != len(self.path):
            raise ValueError(f"{len(self.path)} paths, but {len(self.patient)} patients")
        for name, array in (("probability", self.probability), ("logit", self.logit)):
            if array is not None and array.shape != shape:
                raise ValueError(f"{name} must be (images, findings) = {shape}, got {array.shape}")
        require_probability(self.probability)
        require_unique(self.path, "image", "the predictions")

    @classmethod
    def from_logit(
        cls, path: Iterable[str], patient: Iterable[str], logit: npt.ArrayLike, labels: LabelSet
    ) -> "Predictions":
        """Build predictions from (N, L) logits of any float type.

        Raises:
            ValueError: If lengths or shapes do not fit together.
            DataError: If a path occurs twice or a logit is not finite.
        """
        z = np.array(logit, dtype=np.float64)
        require_finite(z, "logit")
        return cls(tuple(path), tuple(patient), sigmoid(z), labels, z)

    def __len__(self) -> int:
        return len(self.path)

    def join(self, paths: Sequence[str]) -> "Predictions":
        """Return the same predictions in the order of ``paths``, so that row i fits row i of a table of targets.

        Raises:
            DataError: If ``paths`` has a path twice, or the two do not hold the same paths; the message says how many
                are missing or left over and names the first ones.
        """
        require_unique(paths, "image", "the table")
        row = {path: i for i, path in enumerate(self.path)}
        missing = [path for path in paths if path not in row]
        wanted = set(paths)
        extra = [path for path in self.path if path not in wanted]
        if missing or extra:
            parts = [
                f"{len(names)} {what} ({some(names)})"
                for names, what in ((missing, "have no prediction"), (extra, "are predicted but not in the table"))
                if names
            ]
            raise DataError(f"predictions and table must hold the same images: {'; '.join(parts)}")
        order = [row[path] for path in paths]
        return Predictions(
            tuple(paths),
            tuple(self.patient[i] for i in order),
            self.probability[order],
            self.labels,
            None if self.logit is None else self.logit[order],
        )

    def evaluate(self, target: npt.ArrayLike, mask: npt.ArrayLike) -> Evaluation:
        """Score against (N, L) targets in the same row order, from the logits where they are known.

        Raises:
            ValueError: See :func:`mxa.evaluation.metrics.evaluate`.
            DataError: See :func:`mxa.evaluation.metrics.evaluate`.
        """
        if self.logit is not None:
            return evaluate(self.logit, target, mask, self.labels)
        return evaluate_probability(self.probability, target, mask, self.labels)

    def write_csv(self, file: str | os.PathLike[str]) -> None:
        """Write path, patient and the findings' probabilities, with the digits that give the float64 back bit for bit.

        The file appears whole or not at all: it is written beside its place and then moved there.

        Raises:
            DataError: If the file cannot be written, such as into a missing folder.
        """
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("path", "patient", *self.labels))
        # Python writes a float with the fewest digits that give it back.
        for path, patient, row in zip(self.path, self.patient, self.probability.tolist(), strict=True):
            writer.writerow((path, patient, *row))
        write_text(file, stream.getvalue())


@dataclass(frozen=True, eq=False)
class FilePredictions:
    """What a CSV says about N images or studies.

    Attributes:
        key: N names of the rows as the file writes them, each once.
        unit: "image" or "study", what a row stands for.
        study: N studies, "" where unknown.
        patient: N patients; the key itself where ``patients_known`` is False.
        patients_known: Whether the file says which rows are of one patient.
        probability: (N, L) in [0, 1], float64.
        labels: The L findings that the file has.
        source: The file, for messages.

    Raises:
        ValueError: If lengths or shapes do not fit together.
        DataError: If a key occurs twice or a probability is outside [0, 1].
    """

    key: tuple[str, ...]
    unit: str
    study: tuple[str, ...]
    patient: tuple[str, ...]
    patients_known: bool
    probability: FloatArray
    labels: LabelSet
    source: str = "the predictions"

    def __post_init__(self) -> None:
        rows = len(self.key)
        if not len(self.study) == len(self.patient) == rows or self.probability.shape != (rows, len(self.labels)):
            raise ValueError(
                f"{rows} keys, {len(self.study)} studies, {len(self.patient)} patients and probabilities of shape "
                f"{self.probability.shape} for {len(self.labels)} findings do not fit together"
            )
        require_probability(self.probability)
        require_unique(self.key, self.unit, self.source)

    def __len__(self) -> int:
        return len(self.key)


def read_predictions(file: str | os.PathLike[str], labels: LabelSet | None = None) -> FilePredictions:
    """Read a CSV (plain or .gz) of probabilities, or of decisions as 0 and 1.

    The rows are named by one column: path, Path or Image Index (images), or study or Study (studies). With an image
    column, a study column says to which study each image belongs. A patient column (in any case) may be there, and the
    columns that ``mxa predict`` writes beside probabilities. Every other column is a finding, under its own name or an
    alias; there may be any of them, in any order.

    Args:
        file: The CSV.
        labels: The findings that may occur; None stands for CheXpert's and NIH's.

    Returns:
        The rows in the file's order, the findings in the order of ``labels``.

    Raises:
        DataError: If the file cannot be read or has no row; the columns do not name the rows or the findings, or name
            them twice; a column is unknown; a row was not predicted (its error or reason is not blank), has no name or
            has another row's; or a value is not a number in [0, 1]. The message names the line and column.
    """
    source = Path(file)
    frame = read_frame(source)
    rows = row_names(frame, source)
    beside = _beside(frame)
    for column in ("error", "reason"):
        if column in beside:
            _require_no_errors(frame[column], rows.key, source)
    used = rows.columns | beside
    found, columns = finding_columns(frame, used, labels, source, others_allowed=False)
    probability = _probabilities(frame[columns], source)
    return FilePredictions(
        rows.key, rows.unit, rows.study, rows.patient, rows.patients_known, probability, found, str(source)
    )


def read_csv(file: str | os.PathLike[str], labels: LabelSet) -> Predictions:
    """Read what :meth:`Predictions.write_csv` wrote: path, patient and every finding of ``labels``, in any order.

    Raises:
        DataError: If a column is missing, or for a reason of :func:`read_predictions`.
    """
    found = read_predictions(file, labels)
    present = {"image": {"path"}, "study": set[str]()}[found.unit] | set(found.labels)
    present |= {"patient"} if found.patients_known else set()
    missing = [name for name in ("path", "patient", *labels) if name not in present]
    if missing:
        raise DataError(
            f"{file}: the columns must be path, patient and the {len(labels)} findings of {labels.name}; "
            f"missing: {', '.join(map(repr, missing))}"
        )
    return Predictions(found.key, found.patient, found.probability, labels)


def _beside(frame: pd.DataFrame) -> frozenset[str]:
    """The columns that only ``mxa predict`` writes; "error" it wrote formerly."""
    names = {str(name) for name in frame.columns}
    beside = names & {"error"}
    if names >= _OF_PREDICT:
        beside |= _OF_PREDICT
        beside |= {name for finding in names for end in _BESIDE_A_FINDING if (name := finding + end) in names}
    return frozenset(beside)


def _require_no_errors(errors: pd.Series, key: Sequence[str], source: Path) -> None:
    failed = np.flatnonzero(errors.notna().to_numpy())
    if len(failed):
        first = int(failed[0])
        raise DataError(
            f"{source}: {len(failed)} rows have an error in place of a prediction, the first {key[first]}: "
            f"{errors.iloc[first]}; predict them again, or take them out of predictions and labels"
        )


def _probabilities(cells: pd.DataFrame, source: Path) -> FloatArray:
    """Return (N, L) probabilities, or name the first cell that is none."""
    value = numbers(cells)
    bad = ~((value >= 0) & (value <= 1))  # NaN is bad, too
    if bad.any():
        row, column = np.argwhere(bad)[0]
        if not isinstance(cells.iloc[row, column], str):
            why = "a probability cannot be left out"
        elif np.isnan(value[row, column]):
            why = "which is not a number"
        else:
            why = "which is not between 0 and 1; if these are logits, apply a sigmoid once"
        raise DataError(f"{place(cells, row, column, source)}, {why}")
    return value
