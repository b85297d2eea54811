"""Read CheXpert: the 14 findings with uncertainty labels, in the official folder layout.

Source: Irvin et al., "CheXpert: a large chest radiograph dataset with uncertainty labels and expert comparison",
AAAI 2019.

Layout: ``CheXpert-v1.0/`` or ``CheXpert-v1.0-small/`` with ``train.csv``, ``valid.csv``, ``train/`` and ``valid/``.
The test set was published later, as ``test/`` with a CSV of either images (``test_labels.csv``, column Path) or studies
(``groundtruth.csv``, column Study), both without sex, age and view.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from mxa.data.csvfile import (
    check_views,
    column_or_blank,
    parse_ages,
    parse_labels,
    parse_sexes,
    read_strict,
)
from mxa.data.problems import Problem, report
from mxa.data.table import SPLITS, Table
from mxa.errors import ConfigError, DataError
from mxa.labels import ALIASES, CHEXPERT14, LabelPolicy, LabelSet, map_columns

FOLDERS = ("CheXpert-v1.0", "CheXpert-v1.0-small")
TEST_FILES = ("test.csv", "test_labels.csv", "groundtruth.csv")
_META = ("Path", "Study", "Sex", "Age", "Frontal/Lateral", "AP/PA")
_IMAGE = re.compile(r"(?:^|/)((?:train|valid|test)/((patient\d+)/study\d+)/[^/]+)$")
_STUDY = re.compile(r"(?:^|/)((?:train|valid|test)/patient\d+/study\d+)/?$")
_SUFFIXES = {".jpg", ".jpeg", ".png"}
_HOW_TO_GET = "CheXpert is given out by Stanford AIMI (registration) as CheXpert-v1.0 or CheXpert-v1.0-small"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ParsedCsv:
    """The rows of one CheXpert CSV: metadata (the table's columns), values and annotated (N, L)."""

    frame: pd.DataFrame
    values: npt.NDArray[np.float32]
    annotated: npt.NDArray[np.bool_]


def read_chexpert(
    root: str | Path,
    labels: LabelSet = CHEXPERT14,
    policy: LabelPolicy | None = None,
    *,
    views: Sequence[str] | None = None,
    projections: Sequence[str] | None = None,
    splits: Sequence[str] = SPLITS,
    problems: list[Problem] | None = None,
) -> Table:
    """Read CheXpert's own splits into one table.

    Whatever stands before ``train/``, ``valid/`` or ``test/`` in the Path column is dropped, and the rest is looked
    for beside the CSV. Findings that CheXpert does not label (of another label set) are marked as not annotated. An
    age above 120 becomes unknown.

    Args:
        root: The folder with ``train.csv``, or the one above it.
        labels: Findings to read.
        policy: Uncertain and blank labels; None is the default policy.
        views: Keep only "frontal" or "lateral" images; None keeps both.
        projections: Keep only these values of the AP/PA column, such as ("PA",); lateral images have none. A test set
            without that column, as it is published, is left out with a warning.
        splits: Splits to read. "test" is read when it is there; asked for alone, it must be.
        problems: Collects illegal labels, bad paths and the like, for a check; None raises on the first.

    Returns:
        A table with the rows in the CSVs' order, train first.

    Raises:
        ConfigError: If an option is unknown, or CheXpert has none of the findings.
        DataError: If the folder or a CSV is missing or incomplete, a finding has no column, or a row is illegal.
    """
    check_views(views)
    if not splits or isinstance(splits, str) or set(splits) - set(SPLITS):
        raise ConfigError(f"splits is {splits!r}; give a list of {', '.join(SPLITS)}")
    folder = find_folder(Path(root))
    parts = [
        _select(parse_chexpert_csv(path, labels, split, problems=problems), path, views, projections)
        for split, path in _csv_files(folder, splits)
    ]
    frame = pd.concat([p.frame for p in parts], ignore_index=True)
    if not len(frame):
        raise DataError(f"{folder}: no row is left after selecting views {views} and projections {projections}")
    values = np.concatenate([p.values for p in parts])  # noqa: PD011 - a ParsedCsv, not a frame
    annotated = np.concatenate([p.annotated for p in parts])
    return Table.build(frame, values, annotated, labels, policy or LabelPolicy(), folder, "chexpert")


def find_folder(root: Path) -> Path:
    """Return the folder that holds CheXpert's CSVs: the root itself or a CheXpert folder in it.

    Raises:
        DataError: If there is none, or both sizes lie side by side.
    """
    names = ("train.csv", "valid.csv", *TEST_FILES)
    found = [f for f in (root, *(root / name for name in FOLDERS)) if any((f / n).is_file() for n in names)]
    if found and found[0] == root:
        return root
    if not found:
        raise DataError(
            f"{root}: neither train.csv nor valid.csv there, nor in {' or '.join(FOLDERS)} below it. {_HOW_TO_GET}"
        )
    if len(found) > 1:
        raise DataError(f"{root}: holds {' and '.join(f.name for f in found)}; name one of them as the root")
    return found[0]


def _csv_files(folder: Path, splits: Sequence[str]) -> list[tuple[str, Path]]:
    """Return (split, CSV) in the order train, valid, test."""
    files = []
    for split in (s for s in SPLITS if s in splits):
        candidates = TEST_FILES if split == "test" else (f"{split}.csv",)
        path = next((folder / name for name in candidates if (folder / name).is_file()), None)
        if path is not None:
            files.append((split, path))
        elif split != "test" or set(splits) == {"test"}:
            raise DataError(f"{folder}: {' or '.join(candidates)} is missing. {_HOW_TO_GET}")
    return files


def parse_chexpert_csv(
    csv_path: str | Path,
    labels: LabelSet = CHEXPERT14,
    split: str = "train",
    *,
    root: str | Path | None = None,
    problems: list[Problem] | None = None,
) -> ParsedCsv:
    """Read one CheXpert CSV (plain or .gz); no image is opened.

    Args:
        csv_path: The file. With a Study instead of a Path column, a study's images are looked up below ``root``.
        labels: L findings.
        split: Split of all its rows.
        root: Folder that the images are in; None is the CSV's own.
        problems: Collects illegal rows; None raises on the first.

    Returns:
        The N rows.

    Raises:
        ConfigError: If CheXpert has none of the findings.
        DataError: If the file, a finding's column or a study's images are missing, or a row is illegal.
    """
    path = Path(csv_path)
    raw = read_strict(path, numbers=_finding_names())
    columns, index = _label_columns(path, raw, labels)
    raw = _locate(path, raw, Path(root) if root is not None else path.parent, problems)
    values = np.full((len(raw), len(labels)), np.nan, dtype=np.float32)
    annotated = np.zeros(values.shape, dtype=bool)
    places = np.flatnonzero(index >= 0)
    names = [columns[index[j]] for j in places]
    values[:, places], annotated[:, places] = parse_labels(raw, names, path.name, problems)
    return ParsedCsv(_metadata(path, raw, split, problems), values, annotated)


def _finding_names() -> list[str]:
    return [*CHEXPERT14.findings, *ALIASES["chexpert"]]


def _label_columns(path: Path, raw: pd.DataFrame, labels: LabelSet) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return the label columns and, for each finding, its place among them or -1."""
    columns = [c for c in raw.columns if c not in _META]
    try:
        index = map_columns(columns, labels, "chexpert")
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    lost = [f for f, i in zip(labels, index, strict=True) if i < 0 and f in CHEXPERT14.findings]
    if lost:
        raise DataError(f"{path}: no column {', '.join(lost)}; pass a label set without it to do without this finding")
    if (index < 0).all():
        raise ConfigError(f"CheXpert has none of the findings of label set {labels.name!r}: {', '.join(labels)}")
    return columns, index


def _locate(path: Path, raw: pd.DataFrame, root: Path, problems: list[Problem] | None) -> pd.DataFrame:
    """Add the columns path, patient and study, one row per image; rows that lead nowhere are reported and left out."""
    if "Path" in raw.columns:
        # A plain loop: it takes half of the time of pandas' str.extract.
        parts = [_split_path(text) for text in raw["Path"].fillna("").tolist()]
        odd = np.array([not image for image, _, _ in parts], dtype=bool)
        _report_odd_paths(path, raw["Path"], odd, problems)
        return _with_places(raw, parts)[~odd]
    if "Study" in raw.columns:
        studies = raw["Study"].str.extract(_STUDY, expand=False)
        _report_odd_paths(path, raw["Study"], studies.isna().to_numpy(), problems)
        return _images_of_studies(path, raw, studies.dropna(), root, problems)
    raise DataError(f"{path}: has neither a Path nor a Study column, so its rows cannot be matched to images")


def _split_path(text: str) -> tuple[str, str, str]:
    """Return image, study and patient, from the split's folder on; blanks if the path is not CheXpert's."""
    match = _IMAGE.search(text)
    return (match[1], match[2], match[3]) if match else ("", "", "")


def _with_places(raw: pd.DataFrame, parts: list[tuple[str, str, str]]) -> pd.DataFrame:
    images, studies, patients = zip(*parts, strict=True) if parts else ((), (), ())
    return raw.assign(path=list(images), study=list(studies), patient=list(patients))


def _report_odd_paths(path: Path, cells: pd.Series, odd: npt.NDArray[np.bool_], problems: list[Problem] | None) -> None:
    lines = cells.index.to_numpy()
    found = []
    for i in np.flatnonzero(odd):
        text = "" if pd.isna(cells.iloc[i]) else str(cells.iloc[i])
        outside = text.startswith("/") or ".." in text.split("/")
        kind = "no path" if not text else "path outside the root" if outside else "unknown path"
        message = f"{text!r} is not train/, valid/ or test/ followed by patient, study and image"
        found.append(Problem("error", kind, path.name, int(lines[i]), text, message))
    report(found, problems)


def _images_of_studies(
    path: Path, raw: pd.DataFrame, studies: pd.Series, root: Path, problems: list[Problem] | None
) -> pd.DataFrame:
    """Give every image of a study the study's labels."""
    lines: list[int] = []
    images: list[str] = []
    found = []
    for line, study in studies.items():
        folder = root / study
        names = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES) if folder.is_dir() else []
        if not names:
            message = f"no image in {folder}; {_HOW_TO_GET}, the test set separately"
            found.append(Problem("error", "missing image", path.name, int(str(line)), study, message))
        lines += [int(str(line))] * len(names)
        images += [f"{study}/{name}" for name in names]
    report(found, problems)
    return _with_places(raw.loc[lines], [_split_path(image) for image in images])


def _metadata(path: Path, raw: pd.DataFrame, split: str, problems: list[Problem] | None) -> pd.DataFrame:
    """Return the table's metadata; the published test labels lack all of it, there the view is in the image name."""
    view = column_or_blank(raw, "Frontal/Lateral").str.lower()
    if "Frontal/Lateral" not in raw.columns:
        view = raw["path"].str.extract(r"_(frontal|lateral)\.[^./]+$")[0].fillna("")
    age = parse_ages(raw["Age"], path.name, problems) if "Age" in raw.columns else np.full(len(raw), np.nan)
    return pd.DataFrame(
        {
            "path": raw["path"],
            "patient": raw["patient"],
            "study": raw["study"],
            "view": view.where(view.isin(["frontal", "lateral"]), ""),
            "projection": column_or_blank(raw, "AP/PA"),
            "sex": parse_sexes(column_or_blank(raw, "Sex")),
            "age": age,
            "split": split,
            "source": path.name,
            "row": raw.index.to_numpy(dtype=np.int64),
        }
    ).reset_index(drop=True)


def _select(parsed: ParsedCsv, path: Path, views: Sequence[str] | None, projections: Sequence[str] | None) -> ParsedCsv:
    """Keep the rows of the wanted views and projections."""
    keep = np.ones(len(parsed.frame), dtype=bool)
    if views is not None:
        keep &= parsed.frame["view"].isin(list(views)).to_numpy()
    if projections is not None and len(keep):
        if (parsed.frame["projection"] == "").all():
            problem = f"{path}: has no AP/PA values, so projections cannot be chosen"
            if (parsed.frame["split"] != "test").any():
                raise DataError(f"{problem}; leave data.projections out")
            log.warning("%s; this split is left out", problem)
        keep &= parsed.frame["projection"].isin(list(projections)).to_numpy()
    values = parsed.values[keep]  # noqa: PD011 - a ParsedCsv, not a frame
    return ParsedCsv(parsed.frame[keep].reset_index(drop=True), values, parsed.annotated[keep])
