"""Predictions beside the truth, case by case: joined by name, and folded from images to studies where asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from mxa.data.table import Table
from mxa.errors import ConfigError, DataError
from mxa.evaluation.casefiles import PLURAL, comparable, part_of, require_unique, some
from mxa.evaluation.metrics import BoolArray, FloatArray
from mxa.evaluation.predictions import FilePredictions, Predictions
from mxa.evaluation.reference import Reference, reference_of
from mxa.labels import LabelSet

AGGREGATES = ("max", "mean")
"""How the probabilities of a study's images become the study's."""

_NOT_PREDICTED, _NOT_LABELLED = "not in the predictions", "not in the labels"


@dataclass(frozen=True, eq=False)
class Cases:
    """N images or studies with what was predicted and what is true.

    Attributes:
        key: N names, as the labels write them.
        unit: "image" or "study", what a case is.
        patient: N patients; each case its own where ``patients_known`` is False.
        study: N studies, "" where unknown.
        probability: (N, L) float64 in [0, 1].
        target: (N, L) float64, 0 or 1 where counted.
        mask: (N, L) bool, True where the target counts.
        labels: The L findings that are scored: those of predictions and labels, in the labels' order.
        frame: N rows of metadata, see :class:`mxa.evaluation.reference.Reference`.
        not_scored: Findings that only one side has, with the reason in words.
        logit: (N, L) float64 that ``probability`` came from, None where only probabilities are known.
        patients_known: Whether it is known which cases are of one patient.

    Raises:
        ValueError: If lengths or shapes do not fit together.
    """

    key: tuple[str, ...]
    unit: str
    patient: tuple[str, ...]
    study: tuple[str, ...]
    probability: FloatArray
    target: FloatArray
    mask: BoolArray
    labels: LabelSet
    frame: pd.DataFrame
    not_scored: Mapping[str, str]
    logit: FloatArray | None
    patients_known: bool

    def __post_init__(self) -> None:
        rows, shape = len(self.key), (len(self.key), len(self.labels))
        if not len(self.patient) == len(self.study) == len(self.frame) == rows:
            raise ValueError(
                f"{rows} keys, {len(self.patient)} patients, {len(self.study)} studies and {len(self.frame)} rows of "
                "metadata do not fit together"
            )
        for name in ("probability", "target", "mask", "logit"):
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise ValueError(f"{name} must be (cases, findings) = {shape}, got {array.shape}")

    def __len__(self) -> int:
        return len(self.key)

    @property
    def decisions_only(self) -> bool:
        """Whether every probability is 0 or 1, so that there is nothing to choose a threshold for."""
        return bool(np.isin(self.probability, (0, 1)).all())

    def scores(self) -> FloatArray:
        """Return (N, L) numbers that rank the cases: the logits, or the probabilities where no logit is known."""
        return self.probability if self.logit is None else self.logit

    def take(self, rows: npt.ArrayLike) -> "Cases":
        """Return some cases, in the order given.

        Args:
            rows: Row numbers, or a boolean array of length N.
        """
        index = np.asarray(rows)
        index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        return replace(
            self,
            key=_pick(self.key, index),
            patient=_pick(self.patient, index),
            study=_pick(self.study, index),
            probability=self.probability[index],
            target=self.target[index],
            mask=self.mask[index],
            frame=self.frame.iloc[index].reset_index(drop=True),
            logit=None if self.logit is None else self.logit[index],
        )

    def by_study(self, how: str) -> "Cases":
        """Return one case per study, in the order in which they first appear.

        A value of the metadata on which a study's images differ becomes "" (NaN for a number).

        Args:
            how: "max" or "mean" of the images' probabilities, per finding. The maximum keeps the logits; the mean has
                none.

        Raises:
            ConfigError: If the cases are studies already, or ``how`` is neither.
            DataError: If a case's study is unknown, or a study's images differ in labels or patient.
        """
        _require_aggregate(how)
        if self.unit == "study":
            raise ConfigError("the cases are studies already; leave --aggregate out")
        studies = _Studies(self.study, self.key, "the cases")
        target, mask = studies.labels(self.target, self.mask, self.labels)
        return Cases(
            key=studies.name,
            unit="study",
            patient=studies.patients(self.patient, self.patients_known),
            study=studies.name,
            probability=studies.aggregate(self.probability, how),
            target=target,
            mask=mask,
            labels=self.labels,
            frame=studies.frame(self.frame),
            not_scored=self.not_scored,
            logit=None if self.logit is None or how == "mean" else studies.aggregate(self.logit, how),
            patients_known=self.patients_known,
        )


def join(predictions: FilePredictions, reference: Reference, aggregate: str | None = None) -> Cases:
    """Put predictions and truth side by side; both must be of exactly the same images or studies.

    Names are compared as they are, except that a slash at the end does not count and that CheXpert's names are
    compared from train/, valid/ or test/ on, if all names of a file have that form. Labels by image are folded to
    studies where the predictions are by study. Patients and studies are the labels'; where the labels know none, the
    predictions'.

    Args:
        predictions: N images or studies.
        reference: The same ones, in any order.
        aggregate: "max" or "mean" folds predictions by image to studies; None leaves images.

    Returns:
        The cases in the reference's order, with the findings that both have.

    Raises:
        ConfigError: If ``aggregate`` is unknown, is needed (predictions by image, labels by study) or cannot be
            (predictions by study).
        DataError: If the two have no finding or no name in common, either has a case that the other does not or a
            case twice, or images cannot be folded (see :meth:`Cases.by_study`).
    """
    _check_units(predictions.unit, reference.unit, aggregate)
    if predictions.unit == "study" and reference.unit == "image":
        reference = _reference_by_study(reference)
    elif aggregate is not None and reference.unit == "study":
        predictions, aggregate = _predictions_by_study(predictions, aggregate), None
    cases = _beside(predictions, reference)
    return cases if aggregate is None else cases.by_study(aggregate)


def cases_of(predictions: Predictions, table: Table) -> Cases:
    """Put a model's own predictions beside the table that they were made for, in the table's order; logits are kept.

    Raises:
        ValueError: If the two have different findings.
        DataError: If they are not of the same images.
    """
    if predictions.labels.findings != table.labels.findings:
        raise ValueError(f"predictions of {predictions.labels.findings} for a table of {table.labels.findings}")
    reference = reference_of(table)
    ordered = predictions.join(reference.key)
    return Cases(
        key=reference.key,
        unit=reference.unit,
        patient=reference.patient,
        study=reference.study,
        probability=ordered.probability,
        target=reference.target,
        mask=reference.mask,
        labels=reference.labels,
        frame=reference.frame,
        not_scored={},
        logit=ordered.logit,
        patients_known=reference.patients_known,
    )


def find_rows(
    keys: Sequence[str], source: str, among: Sequence[str], among_source: str, unit: str
) -> npt.NDArray[np.int64]:
    """Find the rows of some names among others, compared as :func:`join` says.

    Args:
        keys: N names.
        source: Where they are from, for messages.
        among: The names to search.
        among_source: Where these are from.
        unit: "image" or "study", what the names are of.

    Returns:
        (N,) rows in ``among``, -1 for a name that is not there.

    Raises:
        DataError: If a name occurs twice on either side, or none is found.
    """
    wanted, there = comparable(keys), comparable(among)
    for names, where in ((wanted, source), (there, among_source)):
        require_unique(names, unit, where)
    rows = np.asarray(pd.Index(there, dtype=object).get_indexer(pd.Index(wanted, dtype=object)), dtype=np.int64)
    if not (rows >= 0).any():
        raise DataError(
            f"{source} and {among_source} have no {unit} in common: one has {some(keys[:1])!r}, the other "
            f"{some(among[:1])!r}; the names must be the same, letter by letter"
        )
    return rows


def _check_units(predicted: str, labelled: str, aggregate: str | None) -> None:
    if aggregate is not None:
        _require_aggregate(aggregate)
        if predicted == "study":
            raise ConfigError("the predictions are per study already; leave --aggregate out")
    elif predicted == "image" and labelled == "study":
        raise ConfigError("the predictions are per image, but the labels are per study: choose --aggregate max or mean")


def _require_aggregate(how: str) -> None:
    if how not in AGGREGATES:
        raise ConfigError(f"aggregate is {how!r}; choose from {', '.join(AGGREGATES)}")


def _beside(predictions: FilePredictions, reference: Reference) -> Cases:
    """Join two of the same unit."""
    labels, not_scored = _scored(predictions, reference)
    rows = _rows_of_the_same(predictions, reference)
    patient, patients_known = reference.patient, reference.patients_known
    if not patients_known and predictions.patients_known:
        patient, patients_known = _pick(predictions.patient, rows), True
    here, there = ([labels_of.index(name) for name in labels] for labels_of in (predictions.labels, reference.labels))
    return Cases(
        key=reference.key,
        unit=reference.unit,
        patient=patient,
        study=reference.study if any(reference.study) else _pick(predictions.study, rows),
        probability=predictions.probability[rows][:, here],
        target=reference.target[:, there],
        mask=reference.mask[:, there],
        labels=labels,
        frame=reference.frame,
        not_scored=not_scored,
        logit=None,
        patients_known=patients_known,
    )


def _scored(predictions: FilePredictions, reference: Reference) -> tuple[LabelSet, dict[str, str]]:
    """Return the findings that both have, and why each other one is not scored."""
    predicted, labelled = predictions.labels.findings, reference.labels.findings
    not_scored = {name: _NOT_PREDICTED for name in labelled if name not in predicted}
    not_scored |= {name: _NOT_LABELLED for name in predicted if name not in labelled}
    common = [name for name in labelled if name in predicted]
    if not common:
        raise DataError(
            f"{predictions.source} and {reference.source} have no finding in common: one has {', '.join(predicted)}, "
            f"the other {', '.join(labelled)}"
        )
    return part_of(reference.labels, common), not_scored


def _rows_of_the_same(predictions: FilePredictions, reference: Reference) -> npt.NDArray[np.int64]:
    """Return the row of the predictions for each row of the reference."""
    unit, many = reference.unit, PLURAL[reference.unit]
    rows = find_rows(reference.key, reference.source, predictions.key, predictions.source, unit)
    missing = [reference.key[i] for i in np.flatnonzero(rows < 0)]
    extra = [predictions.key[i] for i in np.setdiff1d(np.arange(len(predictions)), rows)]
    parts = [
        f"{len(names)} {what} ({some(names)})"
        for names, what in ((missing, "have no prediction"), (extra, "are predicted but have no labels"))
        if names
    ]
    if parts:
        raise DataError(
            f"{predictions.source} and {reference.source} must hold the same {many}: {'; '.join(parts)}; "
            "make one fit the other"
        )
    return rows


def _reference_by_study(reference: Reference) -> Reference:
    studies = _Studies(reference.study, reference.key, reference.source)
    target, mask = studies.labels(reference.target, reference.mask, reference.labels)
    return replace(
        reference,
        key=studies.name,
        unit="study",
        study=studies.name,
        patient=studies.patients(reference.patient, reference.patients_known),
        target=target,
        mask=mask,
        frame=studies.frame(reference.frame),
    )


def _predictions_by_study(predictions: FilePredictions, how: str) -> FilePredictions:
    studies = _Studies(predictions.study, predictions.key, predictions.source)
    return replace(
        predictions,
        key=studies.name,
        unit="study",
        study=studies.name,
        patient=studies.patients(predictions.patient, predictions.patients_known),
        probability=studies.aggregate(predictions.probability, how),
    )


class _Studies:
    """N rows by study, the S studies in the order in which they first appear.

    Attributes:
        name: S studies.
    """

    def __init__(self, study: Sequence[str], key: Sequence[str], source: str) -> None:
        unknown = [name for name, of in zip(key, study, strict=True) if not of]
        if unknown:
            raise DataError(
                f"{source}: the study of {len(unknown)} images is unknown ({some(unknown)}); add a study column, or "
                "score by image"
            )
        self._source = source
        self._of, names = pd.factorize(np.array(study, dtype=object))  # (N,) study of each row
        self.name = tuple(names)
        self._sizes = np.bincount(self._of, minlength=len(names))
        self._start = np.cumsum(self._sizes) - self._sizes  # (S,) where each begins when rows are sorted by study
        self._first = np.argsort(self._of, kind="stable")[self._start]  # (S,) its first row

    def aggregate(self, value: FloatArray, how: str) -> FloatArray:
        """Return (S, L) maximum or mean of (N, L); the order of a study's rows does not matter, to the last bit."""
        result = np.empty((len(self.name), value.shape[1]))
        for j, column in enumerate(value.T):
            # Sorted, so that equal sets of numbers have equal means and rank as ties.
            ordered = column[np.lexsort((column, self._of))]
            if how == "max":
                result[:, j] = np.maximum.reduceat(ordered, self._start)
            else:
                result[:, j] = np.add.reduceat(ordered, self._start) / self._sizes
        return result

    def labels(self, target: FloatArray, mask: BoolArray, labels: LabelSet) -> tuple[FloatArray, BoolArray]:
        """Return (S, L) targets and mask, on which all rows of a study must agree."""
        first = self._first[self._of]
        differ = (mask != mask[first]) | (mask & (target != target[first]))
        if differ.any():
            row, column = np.argwhere(differ)[0]
            raise DataError(
                f"{self._source}: the images of study {self.name[self._of[row]]} have different labels for "
                f"{labels.findings[column]}, so the study has none ({len(np.unique(self._of[differ.any(axis=1)]))} "
                "such studies); correct them, or score by image"
            )
        return target[self._first], mask[self._first]

    def patients(self, patient: Sequence[str], known: bool) -> tuple[str, ...]:
        """Return S patients, on which all rows of a study must agree; unknown ones are the studies."""
        if not known:
            return self.name
        names = np.array(patient, dtype=object)
        differ = np.flatnonzero(names != names[self._first][self._of])
        if len(differ):
            raise DataError(
                f"{self._source}: study {self.name[self._of[differ[0]]]} has images of several patients; give each "
                "study a name of its own"
            )
        return tuple(names[self._first])

    def frame(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return S rows of metadata, blank where the rows of a study differ."""
        columns = {name: self._same(frame[name].reset_index(drop=True)) for name in frame.columns}
        return pd.DataFrame(columns, index=pd.RangeIndex(len(self.name)))

    def _same(self, column: pd.Series) -> pd.Series:
        first = column.iloc[self._first[self._of]].reset_index(drop=True)
        differ = (column != first).to_numpy()  # also where all are NaN, which stays
        blank = np.bincount(self._of[differ], minlength=len(self.name)) > 0
        kept = column.iloc[self._first].reset_index(drop=True)
        return kept.mask(blank, np.nan if pd.api.types.is_numeric_dtype(column) else "")


def _pick(names: Sequence[str], rows: npt.NDArray[np.int64]) -> tuple[str, ...]:
    return tuple(names[i] for i in rows)
