"""What the CSVs of predictions, labels and human readers have in common, so that all of them are read alike.

A file has one row per image or study. One column names the rows, some are findings; what the others are is for
:mod:`mxa.evaluation.predictions`, :mod:`mxa.evaluation.reference` and :mod:`mxa.evaluation.readers` to say.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mxa.errors import DataError
from mxa.evaluation.metrics import FloatArray
from mxa.labels import CHEXPERT14, NIH14, LabelSet, canonical, label_set, map_columns

PLURAL = {"image": "images", "study": "studies"}
"""What a row may stand for, and how messages count it."""

_IMAGE_COLUMNS = ("path", "Path", "Image Index")
_STUDY_COLUMNS = ("study", "Study")
_CHEXPERT = r"(?:^|/)(((?:train|valid|test)/(patient\d+)/study\d+)(?:/[^/]+)?)/?$"
_SHOWN = 3  # names in an error message, so that a wrong file does not fill the screen


@dataclass(frozen=True)
class RowNames:
    """What names the N rows of a file.

    Attributes:
        key: As the file writes it; may occur more than once.
        unit: "image" or "study".
        study: "" where unknown.
        patient: The key where ``patients_known`` is False.
        patients_known: Whether patients come from a column or from CheXpert's paths.
        columns: The columns that this was read from.
    """

    key: tuple[str, ...]
    unit: str
    study: tuple[str, ...]
    patient: tuple[str, ...]
    patients_known: bool
    columns: frozenset[str]


def read_frame(file: Path) -> pd.DataFrame:
    """Read a CSV as text with the line numbers as index, see :func:`mxa.data.csvfile.read_strict`.

    Raises:
        DataError: If it cannot be read or has no row below the header.
    """
    from mxa.data.csvfile import read_strict  # to score arrays takes nothing of the data package

    frame = read_strict(file)
    if not len(frame):
        raise DataError(f"{file}: no row below the header")
    return frame


def row_names(frame: pd.DataFrame, source: Path) -> RowNames:
    """Find the columns that name the rows, and what they say of study and patient.

    Raises:
        DataError: If none does or several do; or a row has no name, or no patient though there is a column for it.
    """
    image, study = (one_column(frame, names, source) for names in (_IMAGE_COLUMNS, _STUDY_COLUMNS))
    column = image or study
    if column is None:
        raise DataError(
            f"{source}: no column names the rows; there must be one of "
            f"{', '.join((*_IMAGE_COLUMNS, *_STUDY_COLUMNS))}, but there are {', '.join(map(str, frame.columns))}"
        )
    key = filled(frame, column, source)
    places = chexpert_places(key)
    if image is not None and study is not None:
        studies = tuple(frame[study].fillna(""))
    elif places is not None:
        studies = tuple(places["study"])
    else:
        studies = ("",) * len(key) if study is None else key
    patient = one_column(frame, in_any_case(frame, "patient"), source)
    if patient is not None:
        patients = filled(frame, patient, source)
    else:
        patients = key if places is None else tuple(places["patient"])
    used = frozenset(name for name in (image, study, patient) if name is not None)
    known = patient is not None or places is not None
    return RowNames(key, "study" if image is None else "image", studies, patients, known, used)


def finding_columns(
    frame: pd.DataFrame, used: frozenset[str], labels: LabelSet | None, source: Path, *, others_allowed: bool
) -> tuple[LabelSet, list[str]]:
    """Find the findings among a file's columns.

    Args:
        frame: The file.
        used: Columns that are something else.
        labels: Findings that may occur; None stands for CheXpert's if they are enough, else NIH's, else both.
        source: The file, for messages.
        others_allowed: Whether there may be columns that are neither used nor findings.

    Returns:
        The findings that the file has, in the order of ``labels``, and the column of each.

    Raises:
        DataError: If there is none, two columns mean the same, or there are others that are not allowed.
    """
    candidates = [name for name in frame.columns if name not in used]
    named = {canonical(name) for name in candidates}
    known = _known_to_the_data_sets(named) if labels is None else labels
    unknown = [name for name in candidates if canonical(name) not in known.findings]
    expected = f"the findings are those of {known.name}: {', '.join(known)}"
    if unknown and not others_allowed:
        raise DataError(f"{source}: unknown columns {', '.join(map(repr, unknown))}; take them out; {expected}")
    if not named & set(known):
        raise DataError(f"{source}: no column is a finding; {expected}")
    try:
        index = map_columns(candidates, known)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
    return part_of(known, named), [candidates[i] for i in index if i >= 0]


def _known_to_the_data_sets(named: set[str]) -> LabelSet:
    both = tuple(dict.fromkeys((*CHEXPERT14, *NIH14)))
    for one in (CHEXPERT14, NIH14):
        if named & set(both) and named & set(both) <= set(one):
            return one
    return label_set(both)


def part_of(labels: LabelSet, findings: Iterable[str]) -> LabelSet:
    """Return the label set of some of the findings, in the set's order; the set itself if that is all of them."""
    wanted = set(findings)
    kept = [j for j, name in enumerate(labels) if name in wanted]
    if len(kept) == len(labels):
        return labels
    return LabelSet("custom", tuple(labels.findings[j] for j in kept), tuple(labels.codes[j] for j in kept))


def chexpert_places(keys: Sequence[str]) -> pd.DataFrame | None:
    """Split CheXpert's paths and study names; whatever stands before train/, valid/ or test/ does not count.

    Returns:
        N rows of place (patient, study and, if there is one, image, below the split's folder's parent), study and
        patient; None unless every key has the form ``train|valid|test/patientNNN/studyN[/image]``.
    """
    places = pd.Series(list(keys), dtype=str).str.extract(_CHEXPERT)
    places.columns = pd.Index(["place", "study", "patient"])
    return None if places.isna().to_numpy().any() else places


def comparable(keys: Sequence[str]) -> list[str]:
    """Return keys as they are compared between files: CheXpert's by their place, others as they are.

    A slash at the end never counts.
    """
    places = chexpert_places(keys)
    if places is not None:
        return places["place"].tolist()
    return pd.Series(list(keys), dtype=str).str.rstrip("/").tolist()


def numbers(cells: pd.DataFrame) -> FloatArray:
    """Return (N, K) text cells as the nearest float64; NaN where a cell is blank or no number."""
    value = np.full(cells.shape, np.nan)
    for k in range(cells.shape[1]):
        column = cells.iloc[:, k]
        # pandas' parser refuses what is no number, but may miss the last bit; NumPy's does not.
        good = pd.to_numeric(column, errors="coerce").notna().to_numpy()
        value[good, k] = column.to_numpy(dtype=object)[good].astype(np.float64)
    return value


def place(cells: pd.DataFrame, row: int, column: int, source: Path) -> str:
    """Return the first part of a message about a cell: file, line, column and what stands there."""
    text = cells.iloc[row, column]
    says = repr(text) if isinstance(text, str) else "blank"
    return f"{source}, line {cells.index[row]}: {cells.columns[column]} is {says}"


def require_unique(keys: Sequence[str], unit: str, where: str) -> None:
    """Check that every image or study has one row.

    Raises:
        DataError: If not; the message says how many occur again and names the first ones.
    """
    series = pd.Series(list(keys), dtype=str)
    repeated = series[series.duplicated()].unique().tolist()
    if repeated:
        raise DataError(
            f"{where}: {len(repeated)} {PLURAL[unit]} occur more than once ({some(repeated)}); one row per {unit}"
        )


def some(names: Sequence[str]) -> str:
    """Return the first names, for a message."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def one_column(frame: pd.DataFrame, names: Sequence[str], source: Path) -> str | None:
    """Return which of the names is a column, None if none is.

    Raises:
        DataError: If several are.
    """
    present = [name for name in frame.columns if name in names]
    if len(present) > 1:
        raise DataError(f"{source}: the columns {' and '.join(present)} say the same; keep one of them")
    return present[0] if present else None


def in_any_case(frame: pd.DataFrame, name: str) -> list[str]:
    """Return the columns with this name, in capitals or not."""
    return [str(column) for column in frame.columns if str(column).lower() == name]


def filled(frame: pd.DataFrame, column: str, source: Path) -> tuple[str, ...]:
    """Return a text column that may not have blanks.

    Raises:
        DataError: If it has; the message names the first line.
    """
    blank = np.flatnonzero(frame[column].isna().to_numpy())
    if len(blank):
        more = f" (and in {len(blank) - 1} more rows)" if len(blank) > 1 else ""
        raise DataError(f"{place(frame[[column]], int(blank[0]), 0, source)}{more}; fill it in or take the row out")
    return tuple(frame[column])
