"""Read NIH's ``BBox_List_2017.csv``: radiologists' boxes of eight findings on 880 images of ChestX-ray14.

Source: Wang et al., "ChestX-ray8", CVPR 2017, section 3.2; the NIH Clinical Center provides the file.
"""

import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from mxa.data.marks.marks import FloatArray, Mark, Marks, group_boxes, legal_boxes, paths_by_image, unmatched_images
from mxa.data.nih import BOX_SIDE
from mxa.data.table import Table
from mxa.errors import DataError
from mxa.labels import NIH14, canonical

_HEADER = ["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]"]
_FIELDS = 9  # of NIH's header, of which the last three are blank


def read_nih_boxes(source: Path, table: Table) -> Marks:
    """Read the boxes of the table's images.

    An image is matched by its file name. All boxes of a finding in an image become one mark. None of the 984 published
    boxes leaves the picture, so none is cut.

    Args:
        source: ``BBox_List_2017.csv`` or ``BBox_List_2017.csv.gz``: image, finding, and x, y, w, h in pixels of the
            published 1024 x 1024 images, whatever the size of the copy at hand.
        table: Images of NIH ChestX-ray14.

    Returns:
        The marks, without masks.

    Raises:
        DataError: If the file is not of this layout, a row is illegal (the message gives its line), or the table holds
            none of the file's images.
    """
    raw = _read_rows(source)
    listed = group_boxes(_images(source, raw), _findings(source, raw), _boxes(source, raw))
    paths = paths_by_image(table, lambda path: path.rsplit("/", 1)[-1])
    unmatched = unmatched_images(source, listed, paths)
    found = [
        Mark(path, finding, boxes, None)
        for image, path in paths.items()
        for finding, boxes in listed.get(image, {}).items()
    ]
    return Marks.of_table(f"NIH boxes ({source.name})", table, found, unmatched)


def _read_rows(source: Path) -> pd.DataFrame:
    """Return the six columns as text, blank cells as "", with the line numbers as index.

    The header has nine fields, three of them blank; the rows have nine or, in some copies, six. That is what
    :func:`mxa.data.csvfile.read_strict` is made to refuse.
    """
    try:
        raw = pd.read_csv(
            source,
            header=None,
            names=range(_FIELDS),
            dtype=str,
            na_filter=False,
            skip_blank_lines=False,
        )
    except FileNotFoundError:
        raise DataError(f"{source}: no such file") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:  # ValueError: no text, empty, or a row of ten fields
        raise DataError(f"{source}: not a readable box list ({error})") from error
    raw.index = pd.RangeIndex(1, len(raw) + 1)
    if raw.head(1)[range(len(_HEADER))].to_numpy().tolist() != [_HEADER]:
        raise DataError(f"{source}: the first line is not {','.join(_HEADER)}; is it NIH's BBox_List_2017.csv?")
    rows = raw.iloc[1:]
    rows = rows[(rows != "").any(axis=1)]
    _refuse(source, rows, (rows[range(len(_HEADER), _FIELDS)] != "").any(axis=1), "more than six fields")
    return rows


def _refuse(source: Path, rows: pd.DataFrame, wrong: "pd.Series[bool]", what: str) -> None:
    if wrong.any():
        line = rows.index[wrong.to_numpy()][0]
        raise DataError(f"{source}:{line}: {what}: {','.join(rows.loc[line].tolist()).rstrip(',')}")


def _images(source: Path, rows: pd.DataFrame) -> "pd.Series[str]":
    _refuse(source, rows, rows[0].str.contains(r"[/\\]|^\s*$"), "no image's file name")
    return rows[0]


def _findings(source: Path, rows: pd.DataFrame) -> "pd.Series[str]":
    findings = rows[1].map(lambda name: canonical(name, "nih"))
    _refuse(source, rows, ~findings.isin(NIH14.findings), "none of NIH's findings")
    return findings


def _boxes(source: Path, rows: pd.DataFrame) -> FloatArray:
    """Return (n, 4) x1, y1, x2, y2 in [0, 1]."""
    numbers = rows[[2, 3, 4, 5]].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    boxes = np.concatenate([numbers[:, :2], numbers[:, :2] + numbers[:, 2:]], axis=1) / BOX_SIDE
    wrong = pd.Series(~legal_boxes(boxes), index=rows.index)
    _refuse(source, rows, wrong, f"no box x, y, w, h with an area inside {BOX_SIDE} x {BOX_SIDE} pixels")
    return boxes
