"""What every reader does with a CSV: read it strictly, parse labels, ages and paths, split by patient."""

import csv
import gzip
import io
import os
import posixpath
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np
import numpy.typing as npt
import pandas as pd

from mxa.data.problems import Problem, report
from mxa.errors import ConfigError, DataError

OLDEST = 120  # years; NIH's first release has ages up to 414
VIEWS = ("frontal", "lateral")
_BLANK = ["", "nan", "NaN"]
_YEARS_PER_UNIT = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_SEXES = {"m": "M", "male": "M", "f": "F", "female": "F"}


def read_strict(path: Path, numbers: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV (plain or .gz) as text columns; a row with too few or too many fields is refused, not padded.

    Padding matters here: a download that broke off would otherwise end in blank labels, and blank means negative.

    Args:
        path: The file.
        numbers: Columns whose type may be guessed (labels), which is faster than parsing text later.

    Returns:
        One row per line that is not empty. The index is the line number, the header being line 1 (as long as no field
        holds a line break). Blank cells are missing values.

    Raises:
        DataError: If the file is absent, empty, not UTF-8 text, has a column twice, a row of another length than the
            header, lines that end in CR alone, or a field beyond the limit of Python's csv.
    """
    raw = _read_bytes(path)
    try:
        header = _header(path, raw)
        _check_field_counts(path, raw, len(header))
        dtype: dict[str, type] = {name: str for name in header if name not in numbers}
        frame = pd.read_csv(
            io.BytesIO(raw),
            encoding="utf-8-sig",
            dtype=dtype,
            keep_default_na=False,
            na_values=_BLANK,
            skip_blank_lines=False,
            index_col=False,
            low_memory=False,
        )
    except (UnicodeDecodeError, pd.errors.ParserError) as error:
        raise DataError(f"{path}: not a readable CSV ({error})") from error
    except csv.Error as error:
        raise DataError(
            f"{path}: not a readable CSV ({error}); a line must end in LF or CR LF, every quote be closed, and a field "
            f"have no more than {csv.field_size_limit()} characters"
        ) from error
    frame.index = pd.RangeIndex(2, len(frame) + 2)
    return frame.dropna(how="all")


def _read_bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix == ".gz" else raw
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def _header(path: Path, raw: bytes) -> list[str]:
    try:
        line = raw.split(b"\n", 1)[0].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a UTF-8 text file ({error})") from error
    header = next(csv.reader([line.rstrip("\r")]), [])
    if not any(header):
        raise DataError(f"{path}: the first line is empty; it must name the columns")
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise DataError(f"{path}: column {', '.join(twice)} is there twice; keep one")
    return header


def _check_field_counts(path: Path, raw: bytes, expected: int) -> None:
    """Refuse rows that are shorter or longer than the header; pandas pads the short ones in silence."""
    if b'"' in raw:
        rows = csv.reader(io.StringIO(raw.decode("utf-8-sig", errors="replace")))
        counts = [(rows.line_num, len(fields)) for fields in rows if fields]
        wrong = [(line, n) for line, n in counts if n != expected]
    else:
        text = np.frombuffer(raw if raw.endswith(b"\n") else raw + b"\n", dtype=np.uint8)
        ends = np.flatnonzero(text == ord("\n"))
        commas = np.searchsorted(np.flatnonzero(text == ord(",")), ends)
        fields = np.diff(commas, prepend=0) + 1
        length = np.diff(ends, prepend=-1) - 1
        length -= (length > 0) & (text[ends - 1] == ord("\r"))
        wrong = [(int(i) + 1, int(fields[i])) for i in np.flatnonzero((fields != expected) & (length > 0))]
    if wrong:
        line, n = wrong[0]
        raise DataError(f"{path}: line {line} has {n} fields, the header has {expected}; is the file complete?")


def parse_labels(
    frame: pd.DataFrame, columns: Sequence[str], source: str, problems: list[Problem] | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Turn label columns into numbers.

    Args:
        frame: What :func:`read_strict` gave (the index holds line numbers).
        columns: K label columns.
        source: File name for messages.
        problems: Collects illegal labels; None raises on the first.

    Returns:
        Labels (N, K) float32: 1, 0, -1 or NaN (blank or illegal); and (N, K) bool, False where a label is illegal, so
        that a table made in spite of it does not take it for blank.

    Raises:
        DataError: If a label is not 1, 0, -1 or blank and nobody collects.
    """
    values = np.empty((len(frame), len(columns)), dtype=np.float32)
    legal = np.ones(values.shape, dtype=bool)
    lines = frame.index.to_numpy()
    found: list[Problem] = []
    for k, column in enumerate(columns):
        cells = frame[column]
        numbers = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        illegal = ~np.isin(numbers, (1, 0, -1)) & cells.notna().to_numpy()
        for i in np.flatnonzero(illegal):
            text = f"column {column!r} is {cells.iloc[i]}; a label is 1, 0, -1 (uncertain) or blank"
            found.append(Problem("error", "illegal label", source, int(lines[i]), "", text))
        values[:, k], legal[:, k] = np.where(illegal, np.nan, numbers), ~illegal
    report(sorted(found, key=lambda p: p.row), problems)
    return values, legal


def parse_ages(cells: pd.Series, source: str, problems: list[Problem] | None) -> npt.NDArray[np.float64]:
    """Turn ages into years: "58", "058Y", "013M", "006W" and "021D" (DICOM age strings) are understood.

    An age below 0 or above 120 years, or one that is no age at all, becomes NaN and a warning for whoever collects.

    Returns:
        (N,) float64 years, NaN where unknown.
    """
    years = np.array(pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan))  # writable
    written = cells.notna().to_numpy()
    odd = np.flatnonzero(np.isnan(years) & written)
    if len(odd):
        parts = cells.iloc[odd].str.strip().str.extract(r"^(\d{1,3})([YMWD])$")
        unit = parts[1].map(_YEARS_PER_UNIT).to_numpy(dtype=np.float64, na_value=np.nan)
        years[odd] = pd.to_numeric(parts[0]).to_numpy(dtype=np.float64, na_value=np.nan) * unit
    impossible = written & ~((years >= 0) & (years <= OLDEST))
    years[impossible] = np.nan
    lines = cells.index.to_numpy()
    found = [
        Problem("warning", "illegal age", source, int(lines[i]), "", f"{cells.iloc[i]} is taken for unknown")
        for i in np.flatnonzero(impossible)
    ]
    report(found, problems)
    return years


def parse_sexes(cells: pd.Series) -> pd.Series:
    """Return "M", "F" or "" (anything that is not male or female, such as CheXpert's "Unknown")."""
    return cells.str.strip().str.lower().map(_SEXES).fillna("")


def relative_paths(cells: pd.Series, root: Path, source: str, problems: list[Problem] | None) -> pd.Series:
    """Make paths relative to a root, with forward slashes, and refuse those that lead out of it.

    Args:
        cells: Paths, relative to the root or absolute inside it.
        root: The folder.
        source: File name for messages.
        problems: Collects bad rows, which are then left out; None raises on the first.

    Returns:
        The good paths, with their line numbers as index.

    Raises:
        DataError: If a path is blank or leads out of the root and nobody collects.
    """
    paths = cells.fillna("")
    # Nearly all paths are plain; only the others are worth a look in Python.
    special = paths.str.contains(r"^$|^\s|\s$|\\|^/|^[A-Za-z]:|//|(?:^|/)\.\.?(?:/|$)", regex=True).to_numpy(dtype=bool)
    lines = cells.index.to_numpy()
    base = PurePath(os.path.normpath(root.absolute())).as_posix()
    found: list[Problem] = []
    fixed: dict[int, str] = {}
    for i in np.flatnonzero(special):
        line, text = int(lines[i]), str(paths.iloc[i])
        relative = _inside(text, base)
        if relative is None:
            kind = "path outside the root" if text.strip() else "no path"
            found.append(Problem("error", kind, source, line, text, f"{text!r} is no file below {root}"))
        else:
            fixed[line] = relative
    report(found, problems)
    if fixed:
        paths = paths.copy()
        paths.loc[list(fixed)] = list(fixed.values())
    return paths.drop(index=[p.row for p in found])


def _inside(text: str, base: str) -> str | None:
    """Return the path relative to the root's absolute path, or None if it leads elsewhere."""
    path = posixpath.normpath(text.strip().replace("\\", "/")) if text.strip() else "."
    path = path.removeprefix(base.rstrip("/") + "/")
    outside = path in {".", ".."} or path.startswith(("../", "/")) or path[1:2] == ":"
    return None if outside else path


def column_or_blank(frame: pd.DataFrame, name: str | None) -> pd.Series:
    """Return a text column without missing values, or blanks where there is no such column."""
    if name is None or name not in frame.columns:
        return pd.Series("", index=frame.index, dtype=str)
    return frame[name].fillna("").str.strip()


def pick_valid(patients: pd.Series, fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """Choose the rows of some patients for validation.

    The choice depends on the set of patients, the fraction and the seed, not on the order of the rows.

    Args:
        patients: (N,) patient of each row.
        fraction: Part of the patients, in [0, 1); above 0 at least one is chosen.
        seed: Seed of the choice.

    Returns:
        (N,) bool.

    Raises:
        ConfigError: If the fraction is not in [0, 1).
        DataError: If there are fewer than two patients to split.
    """
    if not 0 <= fraction < 1:
        raise ConfigError(f"valid_fraction is {fraction}; give a number of at least 0 and below 1")
    if fraction == 0:
        return np.zeros(len(patients), dtype=bool)
    names = np.array(sorted(patients.unique()))
    if len(names) < 2:
        raise DataError(f"cannot take validation patients from {len(names)} patient; set valid_fraction to 0")
    count = min(max(1, round(fraction * len(names))), len(names) - 1)
    chosen = names[np.random.default_rng(seed).permutation(len(names))[:count]]
    return patients.isin(chosen).to_numpy()


def check_views(views: Sequence[str] | None) -> None:
    """Refuse view names other than frontal and lateral.

    Raises:
        ConfigError: If there is one, or ``views`` is a string or empty.
    """
    if views is not None and (isinstance(views, str) or not views or set(views) - set(VIEWS)):
        raise ConfigError(f"views is {views!r}; give None (all) or a list of {', '.join(VIEWS)}")
