"""Find what is wrong with a data set before training does.

An "error" makes training refuse: the numbers would be wrong (a patient on both sides of a split, a file that cannot
be read). A "warning" lets it run: the data are odd or a result will be undefined (CheXpert's validation set, for
example, has no positive Fracture, so its AUC does not exist). ``mxa data check`` counts both as wrong.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from mxa.data.csvfile import OLDEST
from mxa.data.decode import read_picture
from mxa.data.images import check_wide_range
from mxa.data.problems import Problem, Severity
from mxa.data.table import Table
from mxa.errors import ConfigError, DataError

__all__ = ["Problem", "check_dataset", "table_problems"]
_BATCH = 1024  # images handed to the workers at a time, so that memory does not grow with the data set


def table_problems(table: Table, required: Sequence[str] = ("train", "valid")) -> list[Problem]:
    """Check a table alone: no file is touched. Training calls this and refuses on any error.

    Errors are a required split without rows, a path twice, a patient in two splits. Warnings are a finding that no row
    annotates, a finding without positive targets in a split that annotates it, an age below 0 or above 120.

    Args:
        table: The table.
        required: Splits that must have rows.

    Returns:
        The problems, errors and warnings mixed, in a fixed order.
    """
    return [
        *_empty_splits(table, required),
        *_duplicate_paths(table.frame),
        *_shared_patients(table.frame),
        *_findings_without_positives(table),
        *_impossible_ages(table.frame),
    ]


def check_dataset(
    table: Table,
    *,
    pixels: bool = True,
    workers: int = 2,
    wide_range: str = "full",
    required: Sequence[str] = ("train", "valid"),
    progress: Callable[[int, int], None] | None = None,
) -> list[Problem]:
    """Check a table and its files.

    Adds to :func:`table_problems`: missing images, and with ``pixels`` unreadable ones and equal pixels under
    different paths (an error across splits, a warning within one). Illegal rows are not in a table at all: read it
    with ``problems=[...]`` to collect those.

    Args:
        table: The table.
        pixels: Decode every image; without it only the files' presence is checked.
        workers: Threads that decode (decoding does not hold Python's lock).
        wide_range: As in :func:`mxa.data.images.read_grey`, what the data are going to be read with.
        required: Splits that must have rows.
        progress: Called with (images done, images in all) after each image.

    Returns:
        The problems, those of the table first, then those of files in the table's order, then equal pixels.

    Raises:
        ConfigError: If ``workers`` is below 1, ``wide_range`` is unknown, or a DICOM file needs a package that is not
            installed.
    """
    if workers < 1:
        raise ConfigError(f"workers is {workers}; give at least 1")
    check_wide_range(wide_range)
    rows = np.flatnonzero(~table.frame["path"].duplicated().to_numpy())
    problems = table_problems(table, required)
    same: dict[bytes, list[int]] = {}
    for done, (row, result) in enumerate(_inspect_all(table, rows, pixels, workers, wide_range), start=1):
        if isinstance(result, bytes):
            same.setdefault(result, []).append(row)
        elif result is not None:
            kind, reason = result
            problems.append(_at(table.frame, row, "error", kind, reason))
        if progress is not None:
            progress(done, len(rows))
    return [*problems, *_equal_pixels(table.frame, same)]


# What looking at one file gives: its pixels' digest, or (kind, reason) of a problem, or None for a file that is there.
_Result = bytes | tuple[str, str] | None


def _inspect_all(
    table: Table, rows: npt.NDArray[np.int64], pixels: bool, workers: int, wide_range: str
) -> Iterator[tuple[int, _Result]]:
    """Look at the files of some rows, in order."""
    files = table.files()
    inspect = partial(_inspect, pixels=pixels, wide_range=wide_range)
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(rows), _BATCH):
            batch = [int(row) for row in rows[start : start + _BATCH]]
            yield from zip(batch, pool.map(inspect, [files[row] for row in batch]), strict=True)


def _inspect(path: Path, pixels: bool, wide_range: str) -> _Result:
    try:
        there = path.is_file()
    except OSError as error:
        return "missing image", f"{path} cannot be looked for ({error.strerror})"
    if not there:
        return "missing image", f"{path} does not exist"
    if not pixels:
        return None
    try:
        image = read_picture(path, wide_range=wide_range)
    except DataError as error:
        return "unreadable image", str(error)
    # The shape counts: the same bytes in another shape are another picture.
    digest = hashlib.blake2b(str(image.shape).encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.digest()


def _at(frame: pd.DataFrame, row: int, severity: Severity, kind: str, message: str) -> Problem:
    """Make a problem of one row."""
    path, source, line = frame["path"].iloc[row], frame["source"].iloc[row], frame["row"].iloc[row]
    return Problem(severity, kind, str(source), int(line), str(path), message)


def _place(frame: pd.DataFrame, row: int) -> str:
    return f"{frame['path'].iloc[row]} ({frame['source'].iloc[row]}:{frame['row'].iloc[row]})"


def _equal_pixels(frame: pd.DataFrame, same: dict[bytes, list[int]]) -> list[Problem]:
    """One problem per group of paths with the same pixels."""
    problems = []
    for rows in (rows for rows in same.values() if len(rows) > 1):
        splits = sorted(set(frame["split"].iloc[rows]))
        others = ", ".join(_place(frame, row) for row in rows[1:])
        severity: Severity = "error" if len(splits) > 1 else "warning"
        message = f"{frame['path'].iloc[rows[0]]} has the same pixels as {others}; splits: {', '.join(splits)}"
        problems.append(_at(frame, rows[0], severity, "duplicate pixels", message))
    return problems


def _empty_splits(table: Table, required: Sequence[str]) -> list[Problem]:
    present = list(table.splits)
    return [
        Problem("error", "empty split", "", 0, "", f"{table.dataset} has no {split!r} rows, only {present}")
        for split in required
        if split not in present
    ]


def _duplicate_paths(frame: pd.DataFrame) -> list[Problem]:
    path = frame["path"]
    first = {path.iloc[row]: row for row in reversed(np.flatnonzero(path.duplicated(keep=False).to_numpy()))}
    return [
        _at(
            frame, row, "error", "duplicate path", f"{path.iloc[row]} is already {_place(frame, first[path.iloc[row]])}"
        )
        for row in np.flatnonzero(path.duplicated().to_numpy()).tolist()
    ]


def _shared_patients(frame: pd.DataFrame) -> list[Problem]:
    """One problem per patient in more than one split, at the patient's first row outside the first split."""
    pairs = frame[["patient", "split"]].drop_duplicates()
    shared = pairs[pairs["patient"].duplicated(keep=False)]
    problems = []
    for patient, group in shared.groupby("patient", sort=False):
        message = (
            f"patient {patient} is in {' and '.join(group['split'])}, the first time at {_place(frame, group.index[0])}"
        )
        problems.append(_at(frame, int(group.index[1]), "error", "patient in two splits", message))
    return problems


def _findings_without_positives(table: Table) -> list[Problem]:
    nowhere = ~table.annotated.any(axis=0)
    problems = [
        Problem("warning", "no labels", "", 0, "", f"{finding} is annotated in no row, it cannot be learnt or scored")
        for finding in np.array(table.labels.findings)[nowhere]
    ]
    positive = (table.target > 0.5) & table.mask
    for split in table.splits:
        rows = (table.frame["split"] == split).to_numpy()
        missing = table.annotated[rows].any(axis=0) & ~positive[rows].any(axis=0)
        problems += [
            Problem("warning", "no positives", "", 0, "", f"{finding} has no positive among {rows.sum()} {split} rows")
            for finding in np.array(table.labels.findings)[missing]
        ]
    return problems


def _impossible_ages(frame: pd.DataFrame) -> list[Problem]:
    age = frame["age"].to_numpy(dtype=float)
    return [
        _at(frame, row, "warning", "illegal age", f"{age[row]:g} years")
        for row in np.flatnonzero((age < 0) | (age > OLDEST)).tolist()
    ]
