"""Read NIH ChestX-ray14: text-mined labels, official patient-disjoint test list, boxes for some findings.

Source: Wang et al., "ChestX-ray8: hospital-scale chest X-ray database and benchmarks on weakly-supervised
classification and localization of common thorax diseases", CVPR 2017; the NIH Clinical Center provides the data.

Layout: ``Data_Entry_2017*.csv``, ``train_val_list.txt``, ``test_list.txt``, optionally ``BBox_List_2017.csv``, and the
images in ``images/`` or in ``images_001/images/`` to ``images_012/images/``.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from mxa.data.csvfile import check_views, column_or_blank, parse_ages, parse_sexes, pick_valid, read_strict
from mxa.data.problems import Problem, report
from mxa.data.table import BOX_COLUMNS, Table, empty_boxes
from mxa.errors import ConfigError, DataError
from mxa.labels import NIH14, NO_FINDING, LabelPolicy, LabelSet, canonical

BOX_SIDE = 1024  # BBox_List_2017.csv counts pixels of the published 1024 x 1024 images, whatever the local copy's size
_NEEDED = ("Image Index", "Finding Labels", "Patient ID", "Follow-up #")
_KNOWN = frozenset((*NIH14.findings, NO_FINDING))
_HOW_TO_GET = "NIH ChestX-ray14 is published by the NIH Clinical Center"


def read_nih(
    root: str | Path,
    labels: LabelSet = NIH14,
    policy: LabelPolicy | None = None,
    *,
    valid_fraction: float = 0.1,
    seed: int = 0,
    views: Sequence[str] | None = None,
    projections: Sequence[str] | None = None,
    problems: list[Problem] | None = None,
) -> Table:
    """Read the official train/validation and test lists; some patients of the former become the validation split.

    A finding is 1 if it stands in "Finding Labels" and 0 if not; there is no uncertain or blank label. Findings that
    NIH does not label (of another label set) are marked as not annotated. Ages above 120 (NIH's first release has
    them) become unknown.

    Args:
        root: Folder of the layout above.
        labels: Findings to read; "No Finding" is one that NIH has.
        policy: Kept with the table, and without effect on labels of 0 and 1; None is the default policy.
        valid_fraction: Part of the train/validation patients that becomes "valid".
        seed: Seed of that choice, which does not depend on the order of the rows.
        views: Keep only these views; every NIH image is frontal. None keeps all.
        projections: Keep only these values of "View Position": "PA", "AP".
        problems: Collects unknown labels, bad boxes and odd ages, for a check; None raises on the first error.

    Returns:
        A table with the rows in the CSV's order, and the boxes of its images for the findings of the label set.

    Raises:
        ConfigError: If an option is wrong or NIH has none of the findings.
        DataError: If a file is missing, the lists and the CSV do not name the same images, or a row is illegal.
    """
    check_views(views)
    root = Path(root)
    csv_path = _data_entry(root)
    raw = read_strict(csv_path)
    if lost := [c for c in _NEEDED if c not in raw.columns]:
        raise DataError(f"{csv_path}: no column {', '.join(lost)}; is it NIH's Data_Entry_2017.csv?")
    values, annotated = _labels(csv_path, raw, labels, problems)
    frame = _metadata(csv_path, raw, _image_folders(root), problems)
    frame["split"] = _splits(root, csv_path, raw["Image Index"], frame["patient"], valid_fraction, seed)
    keep = np.ones(len(frame), dtype=bool)
    if views is not None:
        keep &= frame["view"].isin(list(views)).to_numpy()
    if projections is not None:
        keep &= frame["projection"].isin(list(projections)).to_numpy()
    if not keep.any():
        raise DataError(f"{csv_path}: no row is left after selecting views {views} and projections {projections}")
    frame = frame[keep].reset_index(drop=True)
    boxes = _boxes(root, frame["path"], labels, problems)
    return Table.build(frame, values[keep], annotated[keep], labels, policy or LabelPolicy(), root, "nih", boxes)


def _data_entry(root: Path) -> Path:
    found = sorted(root.glob("Data_Entry_2017*.csv"))
    if not found:
        raise DataError(f"{root}: no Data_Entry_2017*.csv there. {_HOW_TO_GET}")
    if len(found) > 1:
        raise DataError(f"{root}: holds {' and '.join(p.name for p in found)}; keep one, they differ in some labels")
    return found[0]


def _labels(
    path: Path, raw: pd.DataFrame, labels: LabelSet, problems: list[Problem] | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return (N, L) values and annotation mask. The few hundred distinct label strings are parsed once each."""
    has = np.array([finding in _KNOWN for finding in labels])
    if not has.any():
        raise ConfigError(f"NIH has none of the findings of label set {labels.name!r}: {', '.join(labels)}")
    codes, texts = pd.factorize(raw["Finding Labels"].fillna(""))
    values = np.zeros((len(texts), len(labels)), dtype=np.float32)
    unknown: dict[int, str] = {}
    for t, text in enumerate(texts):
        names = [canonical(name.strip(), "nih") for name in str(text).split("|")]
        if strangers := [name for name in names if name not in _KNOWN]:
            unknown[t] = strangers[0]
        for name in names:
            if name in labels.findings:
                values[t, labels.index(name)] = 1
    _report_unknown(path, raw, codes, unknown, problems)
    annotated = np.broadcast_to(has, (len(raw), len(labels))).copy()
    annotated[np.isin(codes, list(unknown))] = False
    return np.where(annotated, values[codes], np.float32(np.nan)), annotated


def _report_unknown(
    path: Path,
    raw: pd.DataFrame,
    codes: npt.NDArray[np.intp],
    unknown: dict[int, str],
    problems: list[Problem] | None,
) -> None:
    lines = raw.index.to_numpy()
    found = []
    for i in np.flatnonzero(np.isin(codes, list(unknown))):
        message = (
            f"'Finding Labels' has {unknown[int(codes[i])]!r}, which is none of NIH's 14 findings or {NO_FINDING!r}"
        )
        image = str(raw["Image Index"].iloc[i])
        found.append(Problem("error", "illegal label", path.name, int(lines[i]), image, message))
    report(found, problems)


def _image_folders(root: Path) -> dict[str, str]:
    """Return image name -> folder relative to the root, for every image on disk."""
    numbered = [f"{p.name}/images" for p in sorted(root.glob("images_[0-9][0-9][0-9]"))]
    places: dict[str, str] = {}
    for folder in ["images", *numbered]:
        if (root / folder).is_dir():
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    places.setdefault(entry.name, folder)
    return places


def _metadata(path: Path, raw: pd.DataFrame, places: dict[str, str], problems: list[Problem] | None) -> pd.DataFrame:
    image = raw["Image Index"]
    bad = image.isna() | image.str.contains(r"[/\\]|^\.*$", na=False)
    if bad.any():
        line = int(np.flatnonzero(bad.to_numpy())[0])
        raise DataError(f"{path}:{raw.index.to_numpy()[line]}: {image.iloc[line]!r} is not the name of an image file")
    patient = column_or_blank(raw, "Patient ID")
    age = np.full(len(raw), np.nan)
    if "Patient Age" in raw.columns:
        age = parse_ages(raw["Patient Age"], path.name, problems)
    # An image that is not on disk is named as if it lay in images/; `mxa data check` reports it missing.
    return pd.DataFrame(
        {
            "path": [f"{places.get(name, 'images')}/{name}" for name in image],
            "patient": patient,
            "study": patient + "/" + column_or_blank(raw, "Follow-up #"),
            "view": "frontal",
            "projection": column_or_blank(raw, "View Position"),
            "sex": parse_sexes(column_or_blank(raw, "Patient Gender")),
            "age": age,
            "source": path.name,
            "row": raw.index.to_numpy(dtype=np.int64),
        }
    ).reset_index(drop=True)


def _splits(
    root: Path, csv_path: Path, images: pd.Series, patients: pd.Series, valid_fraction: float, seed: int
) -> npt.NDArray[np.str_]:
    """Return each row's split by the official lists, with some of train_val's patients in valid."""
    train_val, test = (_read_list(root / name) for name in ("train_val_list.txt", "test_list.txt"))
    both = train_val & test
    _refuse(both, f"{root}: {{}} image(s) are in train_val_list.txt and in test_list.txt, such as {{}}")
    known = set(images)
    _refuse(known - train_val - test, f"{csv_path}: {{}} image(s) are in neither list beside it, such as {{}}")
    _refuse((train_val | test) - known, f"{csv_path}: {{}} listed image(s) have no row, such as {{}}")
    in_train_val = images.isin(train_val).to_numpy()
    split = np.where(in_train_val, "train", "test").astype("<U5")
    if in_train_val.any():
        rows = np.flatnonzero(in_train_val)
        split[rows[pick_valid(patients.iloc[rows], valid_fraction, seed)]] = "valid"
    return split


def _refuse(images: set[str], message: str) -> None:
    if images:
        raise DataError(message.format(len(images), min(images)))


def _read_list(path: Path) -> set[str]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; it comes with the data set. {_HOW_TO_GET}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a UTF-8 text file ({error}); save it as UTF-8") from error
    return {line.strip() for line in text.splitlines() if line.strip()}


def _boxes(root: Path, paths: pd.Series, labels: LabelSet, problems: list[Problem] | None) -> pd.DataFrame:
    """Read the boxes, if the file is there, of images in the table and findings in the label set."""
    path = root / "BBox_List_2017.csv"
    if not path.is_file():
        return empty_boxes()
    try:
        # NIH's header has more names than the rows have fields, and splits "[x,y,w,h]" at its commas: go by position.
        raw = pd.read_csv(path, header=None, skiprows=1, usecols=range(6), dtype=str, na_filter=False)
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{path}: not a readable box list ({error})") from error
    numbers = raw[[2, 3, 4, 5]].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    corner, size = numbers[:, :2], numbers[:, 2:]
    high = corner + size
    # One pixel of slack: NIH's own boxes are fractions of scaled-down annotations.
    legal = ((corner >= -1) & (size > 0) & (high <= BOX_SIDE + 1)).all(axis=1)
    findings = raw[1].map(lambda name: canonical(name, "nih"))
    known = findings.isin(NIH14.findings).to_numpy()
    _report_boxes(path, raw, legal, known, problems)
    path_of = dict(zip(paths.str.rsplit("/", n=1).str[-1], paths, strict=True))
    corners = np.clip(np.concatenate([corner, high], axis=1) / BOX_SIDE, 0, 1)
    boxes = pd.DataFrame(corners, columns=list(BOX_COLUMNS[2:]))
    boxes.insert(0, "finding", findings)
    boxes.insert(0, "path", raw[0].map(path_of))
    kept = boxes[legal & boxes["path"].notna().to_numpy() & boxes["finding"].isin(labels.findings).to_numpy()]
    return kept.reset_index(drop=True) if len(kept) else empty_boxes()


def _report_boxes(
    path: Path,
    raw: pd.DataFrame,
    legal: npt.NDArray[np.bool_],
    known: npt.NDArray[np.bool_],
    problems: list[Problem] | None,
) -> None:
    found = []
    for i in np.flatnonzero(~(legal & known)).tolist():
        image, finding, *numbers = raw.iloc[i].tolist()
        message = f"x, y, w, h = {', '.join(numbers)}" if known[i] else f"{finding!r} is none of NIH's 14 findings"
        found.append(Problem("error", "illegal box", path.name, i + 2, image, message))
    report(found, problems)
