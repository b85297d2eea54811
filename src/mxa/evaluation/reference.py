"""The truth as a file: labels and metadata of images or studies, from anybody's CSV or from a data set's table."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from mxa.data.csvfile import VIEWS, parse_ages, parse_labels, parse_sexes
from mxa.data.problems import Problem
from mxa.data.table import Table
from mxa.errors import DataError
from mxa.evaluation.casefiles import RowNames, chexpert_places, finding_columns, read_frame, require_unique, row_names
from mxa.evaluation.metrics import BoolArray, FloatArray
from mxa.labels import LabelPolicy, LabelSet

# What the columns of the metadata are called in a table, and in CheXpert's files.
_COLUMNS: Mapping[str, str] = {"sex": "Sex", "age": "Age", "view": "Frontal/Lateral", "projection": "AP/PA"}
_UNCERTAIN, _BLANK = 2, 3  # in Table.states()


@dataclass(frozen=True, eq=False)
class Reference:
    """What is known to be true of N images or studies.

    Attributes:
        key: N names of the rows as the file writes them, each once.
        unit: "image" or "study", what a row stands for.
        study: N studies, "" where unknown.
        patient: N patients; the key itself where ``patients_known`` is False.
        target: (N, L) float64, 0 or 1 where counted.
        mask: (N, L) bool, True where the target counts.
        labels: The L findings.
        frame: N rows of metadata. Of sex ("M", "F" or ""), age (years, NaN unknown), view ("frontal", "lateral" or
            "") and projection ("AP", "PA", ... or "") those that the source has; every other column as text, "" where
            blank.
        uncertain: How many labels the source calls uncertain (-1).
        blank: How many labels are blank.
        patients_known: Whether the source says which rows are of one patient.
        source: The file or data set, for messages.

    Raises:
        ValueError: If lengths or shapes do not fit together.
        DataError: If a key occurs twice.
    """

    key: tuple[str, ...]
    unit: str
    study: tuple[str, ...]
    patient: tuple[str, ...]
    target: FloatArray
    mask: BoolArray
    labels: LabelSet
    frame: pd.DataFrame
    uncertain: int
    blank: int
    patients_known: bool
    source: str = "the labels"

    def __post_init__(self) -> None:
        rows, shape = len(self.key), (len(self.key), len(self.labels))
        if not len(self.study) == len(self.patient) == len(self.frame) == rows:
            raise ValueError(
                f"{rows} keys, {len(self.study)} studies, {len(self.patient)} patients and {len(self.frame)} rows of "
                "metadata do not fit together"
            )
        if self.target.shape != shape or self.mask.shape != shape:
            raise ValueError(f"target and mask must be {shape}, got {self.target.shape} and {self.mask.shape}")
        require_unique(self.key, self.unit, self.source)

    def __len__(self) -> int:
        return len(self.key)


def read_reference(
    file: str | os.PathLike[str], labels: LabelSet | None = None, policy: LabelPolicy | None = None
) -> Reference:
    """Read a CSV (plain or .gz) of labels: 1, 0, -1 (uncertain) or blank.

    CheXpert's own files are read as they come: valid.csv, test_labels.csv and groundtruth.csv. The rows are named as
    in :func:`mxa.evaluation.predictions.read_predictions`. Patients come from a patient column (in any case), else
    from CheXpert's paths if every row has one, else each row counts as a patient of its own. Studies likewise, but
    they stay unknown. Sex, age, view and projection become what a :class:`mxa.data.table.Table` makes of them: what
    is none of its values is unknown.

    Args:
        file: The CSV.
        labels: The findings that may occur; None stands for CheXpert's if they are enough, else NIH's, else both.
        policy: What uncertain and blank labels become, without its randomness (``policy.hardened()``); None is the
            default policy.

    Returns:
        The rows in the file's order, with the findings that the file has, in the order of ``labels``.

    Raises:
        DataError: If the file cannot be read or has no row; no column names the rows or none is a finding, or two
            columns mean the same; a row has no name, no patient though there is a column for it, or another row's
            name; or a label is illegal. The message names the line and column.
        ConfigError: If the policy names a finding that ``labels`` does not have.
    """
    source = Path(file)
    raw = read_frame(source)
    rows = row_names(raw, source)
    found, columns = finding_columns(raw, rows.columns, labels, source, others_allowed=True)
    problems: list[Problem] = []
    values, _ = parse_labels(raw, columns, str(source), problems)
    if problems:
        more = f" (and {len(problems) - 1} more labels)" if len(problems) > 1 else ""
        raise DataError(f"{problems[0]}{more}")
    target, mask = _policy_for(found, labels, policy).apply(values, np.ones(values.shape, dtype=bool), found)
    return Reference(
        key=rows.key,
        unit=rows.unit,
        study=rows.study,
        patient=rows.patient,
        target=target.astype(np.float64),
        mask=mask,
        labels=found,
        frame=_metadata(raw, rows, columns, source),
        uncertain=int((values == -1).sum()),
        blank=int(np.isnan(values).sum()),
        patients_known=rows.patients_known,
        source=str(source),
    )


def reference_of(table: Table) -> Reference:
    """Return what a data set's table knows, row by row; targets and mask are the table's own.

    Patients count as unknown if each row's patient is its path, which is what a reader without a patient column writes;
    a study is unknown where it is the path, as where there is no study column.
    CheXpert's studies are named with their split, as in :func:`read_reference`, so that files by study fit.

    Raises:
        DataError: If a path occurs twice.
    """
    frame, states = table.frame, table.states()
    places = chexpert_places(frame["path"].tolist())
    studies = frame["study"].where(frame["study"] != frame["path"], "") if places is None else places["study"]
    return Reference(
        key=tuple(frame["path"]),
        unit="image",
        study=tuple(studies),
        patient=tuple(frame["patient"]),
        target=table.target.astype(np.float64),
        mask=table.mask,
        labels=table.labels,
        frame=frame[list(_COLUMNS)].reset_index(drop=True),
        uncertain=int((states == _UNCERTAIN).sum()),
        blank=int((states == _BLANK).sum()),
        patients_known=bool((frame["patient"] != frame["path"]).any()),
        source=f"{table.dataset} at {table.root}",
    )


def _policy_for(found: LabelSet, labels: LabelSet | None, policy: LabelPolicy | None) -> LabelPolicy:
    """Harden a policy, and leave out what it says of findings that may occur but do not."""
    hard = (policy or LabelPolicy()).hardened()
    for finding in hard.per_finding:
        (labels or found).index(finding)
    return replace(hard, per_finding={name: p for name, p in hard.per_finding.items() if name in found.findings})


def _metadata(raw: pd.DataFrame, rows: RowNames, findings: list[str], source: Path) -> pd.DataFrame:
    """Return the columns that are neither name nor finding, the known ones in the table's terms."""
    others = [name for name in raw.columns if name not in rows.columns and name not in findings]
    named = {name: name for name in others}
    for name, chexpert in _COLUMNS.items():
        if name in named and chexpert in named:
            raise DataError(f"{source}: the columns {name} and {chexpert} say the same; keep one of them")
        if chexpert in named:
            named[chexpert] = name
    columns = {name: _in_the_tables_terms(raw[column], name, source) for column, name in named.items()}
    return pd.DataFrame(columns, index=raw.index).reset_index(drop=True)


def _in_the_tables_terms(cells: pd.Series, name: str, source: Path) -> pd.Series:
    if name == "age":
        return pd.Series(parse_ages(cells, str(source), None), index=cells.index)
    # An index that pandas wrote has no name, so it was not read as text.
    text = cells.astype(str).where(cells.notna(), "").str.strip()
    if name == "sex":
        return parse_sexes(text)
    if name == "view":
        return text.str.lower().where(text.str.lower().isin(VIEWS), "")
    return text
