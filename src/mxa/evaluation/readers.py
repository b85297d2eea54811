"""Human readers beside the model: sensitivity, specificity, and on which side of the model's ROC curve they lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from mxa.errors import ConfigError, DataError
from mxa.evaluation.casefiles import (
    PLURAL,
    RowNames,
    filled,
    finding_columns,
    in_any_case,
    numbers,
    one_column,
    place,
    read_frame,
    require_unique,
    row_names,
    some,
)
from mxa.evaluation.cases import Cases, find_rows
from mxa.evaluation.metrics import BoolArray, FloatArray, roc_curve
from mxa.labels import LabelSet


@dataclass(frozen=True, eq=False)
class Reader:
    """What one person, or a panel, decided.

    Attributes:
        name: Who; unique among the readers that are compared.
        key: N names of the images or studies that were read.
        unit: "image" or "study".
        decision: (N, L) bool, True where the finding was called present; False where it was not read.
        read: (N, L) bool, True where there is a decision.
        labels: The L findings of the file.
        source: The file, for messages.
    """

    name: str
    key: tuple[str, ...]
    unit: str
    decision: BoolArray
    read: BoolArray
    labels: LabelSet
    source: str


@dataclass(frozen=True)
class ReaderPoint:
    """One reader on one finding, over the cases that have both a label and a decision.

    Attributes:
        sensitivity: Share of the positives that the reader called positive, or None without positives.
        specificity: Share of the negatives that the reader called negative, or None without negatives.
        positives: Number of cases with the finding.
        negatives: Number of cases without it.
        under_curve: Whether (1 - specificity, sensitivity) lies strictly below the model's ROC curve of the same
            cases; None where the point or the curve is undefined.
        reason: Why something is None ("not read", "not annotated", "no positives", "no negatives"), else None.
    """

    sensitivity: float | None
    specificity: float | None
    positives: int
    negatives: int
    under_curve: bool | None
    reason: str | None


def read_readers(files: Sequence[Path], labels: LabelSet | None = None) -> list[Reader]:
    """Read the decisions of readers from CSVs: 0, 1 or blank (not read).

    The columns are those of :func:`mxa.evaluation.predictions.read_predictions`, and a reader column (in any case) if
    a file holds several readers; else the file's name without its ending is the reader's.

    Args:
        files: CSVs, plain or .gz.
        labels: The findings that may occur; None stands for CheXpert's and NIH's.

    Returns:
        The readers in the order in which they appear.

    Raises:
        DataError: If a file cannot be read, its columns do not name the rows or the findings, a cell is not 0, 1 or
            blank, a row has no reader, a reader has a case twice, or two files have a reader of the same name. The
            message names the line and column.
    """
    readers = [reader for file in files for reader in _read(Path(file), labels)]
    seen: dict[str, str] = {}
    for reader in readers:
        if reader.name in seen:
            raise DataError(
                f"{reader.source} and {seen[reader.name]} both have a reader called {reader.name!r}; rename one"
            )
        seen[reader.name] = reader.source
    return readers


def reader_points(reader: Reader, cases: Cases) -> dict[str, ReaderPoint]:
    """Compare one reader with truth and model, for each finding of the cases.

    The reader may have read only some of the cases and findings; the model's curve is that of the same ones. Findings
    that only the reader has are not compared.

    Raises:
        ConfigError: If the reader decided per study, but the cases are images.
        DataError: If the reader decided per image, but the cases are studies; or read something that is not among the
            cases, or a case twice under two spellings of its name.
    """
    part = cases.take(_rows_among(reader, cases))
    points = {}
    for j, name in enumerate(cases.labels):
        if name in reader.labels.findings:
            k = reader.labels.index(name)
            decision, read = reader.decision[:, k], reader.read[:, k]
        else:
            decision = read = np.zeros(len(part), dtype=bool)
        kept = read & part.mask[:, j]
        point = _point(decision[kept], part.target[kept, j] == 1, part.scores()[kept, j])
        points[name] = point if read.any() else ReaderPoint(None, None, 0, 0, None, "not read")
    return points


def count_under(points: Sequence[Mapping[str, ReaderPoint]]) -> dict[str, tuple[int, int]]:
    """Count, per finding, the readers below the model's curve, and the readers for whom that is defined.

    CheXpert's leaderboard states the first number as "Num Rads Below Curve".

    Args:
        points: What :func:`reader_points` gave for each reader.
    """
    counts: dict[str, tuple[int, int]] = {}
    for one in points:
        for name, point in one.items():
            under, total = counts.get(name, (0, 0))
            counts[name] = (under + (point.under_curve is True), total + (point.under_curve is not None))
    return counts


def below_curve(called: int, hits: int, score: FloatArray, target: BoolArray) -> bool:
    """Say whether a point lies strictly below the ROC curve, which is straight between its points.

    Where the curve rises vertically its upper end counts. All is done in whole numbers of cases, so a point on the
    curve is never called below it by rounding.

    Args:
        called: False positives of the point.
        hits: True positives of the point.
        score: (N,) finite; higher means more likely positive.
        target: (N,) bool, both classes present.
    """
    false_rate, true_rate, _ = roc_curve(score, target)
    false = np.rint(false_rate * np.count_nonzero(~target)).astype(np.int64)
    true = np.rint(true_rate * np.count_nonzero(target)).astype(np.int64)
    left = int(np.searchsorted(false, called, side="right")) - 1  # the last corner at or before the point
    if false[left] == called:
        return bool(hits < true[left])
    run, rise = false[left + 1] - false[left], true[left + 1] - true[left]
    return bool((hits - true[left]) * run < rise * (called - false[left]))


def _read(file: Path, labels: LabelSet | None) -> list[Reader]:
    frame = read_frame(file)
    rows = row_names(frame, file)
    column = one_column(frame, in_any_case(frame, "reader"), file)
    used = rows.columns if column is None else rows.columns | {column}
    if column is None:
        names = np.full(len(frame), file.name.removesuffix(".gz").removesuffix(".csv"), dtype=object)
    else:
        names = np.array(filled(frame, column, file), dtype=object)
    found, columns = finding_columns(frame, used, labels, file, others_allowed=False)
    decision, read = _decisions(frame[columns], file)
    codes, readers = pd.factorize(names)
    return [
        _one_reader(str(name), np.flatnonzero(codes == k), rows, decision, read, found, file)
        for k, name in enumerate(readers)
    ]


def _one_reader(
    name: str,
    rows_of: npt.NDArray[np.intp],
    rows: RowNames,
    decision: BoolArray,
    read: BoolArray,
    labels: LabelSet,
    file: Path,
) -> Reader:
    key = tuple(rows.key[i] for i in rows_of)
    require_unique(key, rows.unit, f"{file}, reader {name}")
    return Reader(name, key, rows.unit, decision[rows_of], read[rows_of], labels, str(file))


def _decisions(cells: pd.DataFrame, file: Path) -> tuple[BoolArray, BoolArray]:
    """Return (N, L) decisions, and where there is one."""
    value, read = numbers(cells), cells.notna().to_numpy()
    bad = read & ~np.isin(value, (0, 1))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise DataError(f"{place(cells, row, column, file)}; a decision is 0, 1 or blank (not read)")
    return value == 1, read


def _rows_among(reader: Reader, cases: Cases) -> npt.NDArray[np.int64]:
    """Return the case of each of the reader's rows."""
    if reader.unit == "study" and cases.unit == "image":
        raise ConfigError(
            f"reader {reader.name} decided per study, but the cases are images: choose --aggregate max or mean"
        )
    who = f"reader {reader.name} ({reader.source})"
    if reader.unit != cases.unit:
        raise DataError(f"{who} decided per image, but the cases are studies; give one decision per study")
    rows = find_rows(reader.key, who, cases.key, "the cases", cases.unit)
    strangers = [reader.key[i] for i in np.flatnonzero(rows < 0)]
    if strangers:
        raise DataError(
            f"{who}: {len(strangers)} {PLURAL[cases.unit]} are not among the cases ({some(strangers)}); take them out"
        )
    return rows


def _point(decision: BoolArray, target: BoolArray, score: FloatArray) -> ReaderPoint:
    positives, negatives = int(target.sum()), int((~target).sum())
    hits, called = int((decision & target).sum()), int((decision & ~target).sum())
    sensitivity = hits / positives if positives else None
    specificity = (negatives - called) / negatives if negatives else None
    if positives and negatives:
        return ReaderPoint(
            sensitivity, specificity, positives, negatives, below_curve(called, hits, score, target), None
        )
    reason = "no positives" if negatives else "no negatives" if positives else "not annotated"
    return ReaderPoint(sensitivity, specificity, positives, negatives, None, reason)
