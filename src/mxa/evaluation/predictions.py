"""Predictions as one plain table, one row per image, and their CSV: path, patient, then one probability per finding."""

import contextlib
import csv
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mxa.errors import DataError
from mxa.evaluation.metrics import (
    Evaluation,
    evaluate,
    evaluate_probability,
    require_finite,
    require_probability,
    sigmoid,
)
from mxa.labels import LabelSet

FloatArray = npt.NDArray[np.float64]

_KEYS = ("path", "patient")
_SHOWN = 3  # names in an error message, so that a wrong file does not fill the screen


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
        _require_unique(self.path, "the predictions")

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
        _require_unique(paths, "the table")
        row = {path: i for i, path in enumerate(self.path)}
        missing = [path for path in paths if path not in row]
        wanted = set(paths)
        extra = [path for path in self.path if path not in wanted]
        if missing or extra:
            parts = [
                f"{len(names)} {what} ({_some(names)})"
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
        target = Path(file)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with part.open("w", encoding="utf-8", newline="") as stream:
                writer = csv.writer(stream, lineterminator="\n")
                writer.writerow((*_KEYS, *self.labels))
                # Python writes a float with the fewest digits that give it back.
                for path, patient, row in zip(self.path, self.patient, self.probability.tolist(), strict=True):
                    writer.writerow((path, patient, *row))
            part.replace(target)
        except OSError as error:
            raise DataError(f"cannot write {target}: {error.strerror}; check its folder") from error
        finally:
            with contextlib.suppress(OSError):  # gone already unless something failed
                part.unlink()


def read_csv(file: str | os.PathLike[str], labels: LabelSet) -> Predictions:
    """Read a predictions CSV: the columns path, patient and each finding of ``labels``, in any order.

    Raises:
        DataError: If the file cannot be read; a column is missing, unknown or there twice; a row is too short or too
            long, or its path occurs twice; or a value is not a number in [0, 1]. The message names the line or
            the path.
    """
    source = Path(file)
    try:
        with source.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            header = next(reader, [])
            # Blank lines, such as a last one, are no rows.
            lines = [(reader.line_num, row) for row in reader if row]
    except OSError as error:
        raise DataError(f"cannot read {source}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{source} is not a CSV file in UTF-8: {error}") from error
    _require_columns(header, labels, source)
    for number, row in lines:
        if len(row) != len(header):
            raise DataError(f"{source}, line {number}: {len(row)} values, but the header has {len(header)} columns")
    column = {name: j for j, name in enumerate(header)}
    path, patient = (tuple(row[column[key]] for _, row in lines) for key in _KEYS)
    _require_unique(path, str(source))
    probability = np.empty((len(lines), len(labels)), dtype=np.float64)
    for i, (number, row) in enumerate(lines):
        for j, name in enumerate(labels):
            probability[i, j] = _probability(row[column[name]], name, f"{source}, line {number}")
    return Predictions(path, patient, probability, labels)


def _probability(text: str, finding: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise DataError(f"{where}: {finding} is {text!r}, which is not a number") from None
    if not 0 <= value <= 1:  # also refuses NaN
        raise DataError(f"{where}: {finding} is {text!r}, which is not a probability between 0 and 1")
    return value


def _require_columns(header: Sequence[str], labels: LabelSet, source: Path) -> None:
    expected = (*_KEYS, *labels)
    problems = [
        f"{what}: {', '.join(map(repr, names))}"
        for what, names in (
            ("missing", [name for name in expected if name not in header]),
            ("unknown", [name for name in header if name not in expected]),
            ("there twice", sorted({name for name in header if header.count(name) > 1})),
        )
        if names
    ]
    if problems:
        raise DataError(
            f"{source}: the columns must be path, patient and the {len(labels)} findings of {labels.name}; "
            + "; ".join(problems)
        )


def _require_unique(paths: Sequence[str], where: str) -> None:
    repeated = [path for path, count in Counter(paths).items() if count > 1]
    if repeated:
        raise DataError(f"{where}: {len(repeated)} paths occur more than once ({_some(repeated)}); one row per image")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
