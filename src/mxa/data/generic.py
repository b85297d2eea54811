"""Read any CSV with one row per image: the caller names the columns."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from mxa.data.csvfile import (
    VIEWS,
    column_or_blank,
    parse_ages,
    parse_labels,
    parse_sexes,
    pick_valid,
    read_strict,
    relative_paths,
)
from mxa.data.problems import Problem, report
from mxa.data.table import SPLITS, Table
from mxa.errors import ConfigError, DataError
from mxa.labels import CHEXPERT14, LabelPolicy, LabelSet, map_columns

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "test": "test",
}


@dataclass(frozen=True)
class _Columns:
    """Names of the metadata columns, None where there is none."""

    path: str
    patient: str | None
    study: str | None
    split: str | None
    sex: str | None
    age: str | None
    view: str | None
    projection: str | None


def read_csv(
    csv_path: str | Path,
    root: str | Path,
    labels: LabelSet = CHEXPERT14,
    policy: LabelPolicy | None = None,
    *,
    path_column: str,
    patient_column: str | None = None,
    study_column: str | None = None,
    split_column: str | None = None,
    sex_column: str | None = None,
    age_column: str | None = None,
    view_column: str | None = None,
    projection_column: str | None = None,
    finding_columns: Mapping[str, str] | None = None,
    split: str = "train",
    valid_fraction: float = 0.0,
    seed: int = 0,
    problems: list[Problem] | None = None,
) -> Table:
    """Read a table whose columns the caller names. Labels are 1, 0, -1 (uncertain) or blank.

    Without a patient column every image counts as its own patient: a split by patient is then one by image, and two
    images of one person may fall on both sides. Views other than frontal and lateral, and sexes other than male and
    female, are unknown.

    Args:
        csv_path: The file, plain or .gz, UTF-8.
        root: Folder that the paths are relative to.
        labels: Findings to read.
        policy: Uncertain and blank labels; None is the default policy.
        path_column: Image files: relative to ``root``, or absolute below it.
        patient_column: Patients.
        study_column: Studies; None makes each image its own study.
        split_column: train, valid (or val, validation) or test.
        sex_column: "M", "F", "male" or "female" in any case.
        age_column: Years, or DICOM age strings such as "058Y".
        view_column: "frontal" or "lateral" in any case.
        projection_column: "AP", "PA" and so on.
        finding_columns: Column of each finding that is annotated; findings not named there count as not annotated.
            None expects a column for every finding, under its own name or a known alias.
        split: Split of all rows when there is no split column.
        valid_fraction: Part of the patients that goes from train to valid, chosen by ``seed``; only without a split
            column.
        seed: Seed of that choice.
        problems: Collects illegal labels, bad paths and splits, for a check; None raises on the first.

    Returns:
        A table with the rows in the file's order.

    Raises:
        ConfigError: If a named column is not there (the message lists those that are), or options contradict one
            another.
        DataError: If the file is missing or incomplete, a finding has no column, or a row is illegal.
    """
    if split not in SPLITS:
        raise ConfigError(f"csv.only_split (split) is {split!r}; choose from {', '.join(SPLITS)}")
    if valid_fraction and (split_column is not None or split != "train"):
        raise ConfigError("valid_fraction takes patients from train, so it excludes split_column and any other split")
    columns = _Columns(
        path_column,
        patient_column,
        study_column,
        split_column,
        sex_column,
        age_column,
        view_column,
        projection_column,
    )
    csv_path, root = Path(csv_path), Path(root)
    raw = read_strict(csv_path)
    _check_columns(csv_path, raw, columns)
    names = _finding_columns(csv_path, raw, labels, finding_columns, columns)
    paths = relative_paths(raw[path_column], root, csv_path.name, problems)
    splits = _splits(csv_path, raw, split_column, split, problems)
    raw = raw[raw.index.isin(paths.index) & (splits != "")]
    if not len(raw):
        raise DataError(f"{csv_path}: no usable row below the header")
    frame = _metadata(csv_path, raw, paths[raw.index], splits[raw.index], columns, problems)
    frame.loc[pick_valid(frame["patient"], valid_fraction, seed), "split"] = "valid"
    values, annotated = _labels(csv_path, raw, labels, names, problems)
    return Table.build(frame, values, annotated, labels, policy or LabelPolicy(), root, "csv")


def _check_columns(path: Path, raw: pd.DataFrame, columns: _Columns) -> None:
    for role, name in vars(columns).items():
        if name is not None and name not in raw.columns:
            raise ConfigError(f"csv.{role} ({role}_column) is {name!r}, but {path} has only: {', '.join(raw.columns)}")


def _finding_columns(
    path: Path, raw: pd.DataFrame, labels: LabelSet, given: Mapping[str, str] | None, columns: _Columns
) -> dict[str, str]:
    """Return finding -> column for the annotated findings."""
    if given is not None:
        for finding, column in given.items():
            labels.index(finding)
            if column not in raw.columns:
                raise ConfigError(
                    f"csv.findings (finding_columns) names {column!r} for {finding}, but {path} has only: "
                    f"{', '.join(raw.columns)}"
                )
        if not given:
            raise ConfigError("csv.findings (finding_columns) is empty; name the column of at least one finding")
        return dict(given)
    candidates = [c for c in raw.columns if c not in vars(columns).values()]
    index = map_columns(candidates, labels)
    if lost := [f for f, i in zip(labels, index, strict=True) if i < 0]:
        raise DataError(
            f"{path}: no column {', '.join(lost)}; name them in csv.findings (finding_columns), or choose labels "
            "without them"
        )
    return {finding: candidates[i] for finding, i in zip(labels, index, strict=True)}


def _splits(
    path: Path, raw: pd.DataFrame, column: str | None, default: str, problems: list[Problem] | None
) -> pd.Series:
    """Return each row's split, "" where it was illegal and a check collects that."""
    if column is None:
        return pd.Series(default, index=raw.index, dtype=str)
    written = column_or_blank(raw, column)
    splits = written.str.lower().map(_SPLIT_NAMES)
    illegal = splits.isna().to_numpy()
    lines = raw.index.to_numpy()
    found = []
    for i in np.flatnonzero(illegal):
        message = f"column {column!r} is {written.iloc[i]!r}; a split is train, valid or test"
        found.append(Problem("error", "illegal split", path.name, int(lines[i]), "", message))
    report(found, problems)
    return splits.fillna("")


def _metadata(
    path: Path,
    raw: pd.DataFrame,
    paths: pd.Series,
    splits: pd.Series,
    columns: _Columns,
    problems: list[Problem] | None,
) -> pd.DataFrame:
    view = column_or_blank(raw, columns.view).str.lower()
    patient = column_or_blank(raw, columns.patient)
    study = column_or_blank(raw, columns.study)
    age = np.full(len(raw), np.nan) if columns.age is None else parse_ages(raw[columns.age], path.name, problems)
    return pd.DataFrame(
        {
            "path": paths,
            # A blank patient must not make one patient of all such rows.
            "patient": patient.where(patient != "", paths),
            "study": study.where(study != "", paths),
            "view": view.where(view.isin(VIEWS), ""),
            "projection": column_or_blank(raw, columns.projection),
            "sex": parse_sexes(column_or_blank(raw, columns.sex)),
            "age": age,
            "split": splits,
            "source": path.name,
            "row": raw.index.to_numpy(dtype=np.int64),
        }
    ).reset_index(drop=True)


def _labels(
    path: Path, raw: pd.DataFrame, labels: LabelSet, names: Mapping[str, str], problems: list[Problem] | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    values = np.full((len(raw), len(labels)), np.nan, dtype=np.float32)
    annotated = np.zeros(values.shape, dtype=bool)
    places = [labels.index(finding) for finding in names]
    values[:, places], annotated[:, places] = parse_labels(raw, list(names.values()), path.name, problems)
    return values, annotated
