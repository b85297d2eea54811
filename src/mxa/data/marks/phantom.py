"""Read the masks and boxes of the phantom's signs, see :func:`mxa.data.phantom.make_phantom`."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from mxa.data.csvfile import read_strict
from mxa.data.marks.marks import (
    BoolArray,
    EncodedMark,
    ImageBoxes,
    Mark,
    Marks,
    group_boxes,
    legal_boxes,
    part_boxes,
    paths_by_image,
)
from mxa.data.phantom.dataset import BOX_COLUMNS, ROOT
from mxa.data.table import Table
from mxa.errors import DataError
from mxa.labels import CHEXPERT14, NO_FINDING

_ROUNDING = 1e-5  # boxes.csv has five decimals
_SIGNS = sum(1 << j for j, finding in enumerate(CHEXPERT14) if finding != NO_FINDING)
_SIXTEEN_BITS = ("I;16", "I")  # the mode of a 16-bit grey PNG; older Pillows widen it


def find_phantom(folder: Path) -> Path | None:
    """Return the phantom's root, the folder itself or ``CheXpert-v1.0-small`` in it; None if it is no phantom."""
    for root in (folder, folder / ROOT):
        if any((root / name).is_file() for name in ("truth.csv", "boxes.csv")):
            return root
    return None


def read_phantom_marks(root: Path, table: Table) -> Marks:
    """Read the masks of the table's images, and their boxes from ``boxes.csv``.

    An image is matched by split, patient, study and view at the end of its path. Findings without a sign in an image
    have no mark there. Boxes and masks tell the same twice; that they agree is checked.

    Args:
        root: The phantom's root, with ``boxes.csv`` and ``masks/``.
        table: Images of the phantom.

    Returns:
        The marks, their masks packed until they are asked for; unmatched are the images of ``boxes.csv`` that the table
        does not hold, named without their ending.

    Raises:
        DataError: If the phantom was made without masks, a mask is missing or damaged, or ``boxes.csv`` is illegal or
            contradicts a mask.
    """
    if not (root / "masks").is_dir():
        raise DataError(f"{root}: no masks/ there; make the phantom with its masks")
    boxes = _read_boxes(root / "boxes.csv")
    paths = paths_by_image(table, _image_of)
    found = [mark for image, path in paths.items() for mark in _marks(root, image, path, boxes.get(image, {}))]
    return Marks.of_table("phantom masks", table, found, [image for image in boxes if image not in paths])


def _image_of(path: str) -> str:
    """Return split/patient/study/view, without the ending."""
    return "/".join(path.rsplit(".", 1)[0].split("/")[-4:])


def _read_boxes(path: Path) -> dict[str, ImageBoxes]:
    """Return image -> finding -> boxes, in the file's order."""
    raw = read_strict(path)
    if list(raw.columns) != list(BOX_COLUMNS):
        raise DataError(f"{path}: its columns are not {', '.join(BOX_COLUMNS)}; is it a phantom's boxes.csv?")
    corners = raw[list(BOX_COLUMNS[2:])].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    known = raw["Path"].notna() & raw["finding"].isin(CHEXPERT14.findings)
    wrong = ~legal_boxes(corners) | ~known.to_numpy()
    if wrong.any():
        line = raw.index[wrong][0]
        raise DataError(f"{path}:{line}: no box of a finding, 0 <= x1 < x2 <= 1: {raw.loc[line].tolist()}")
    return group_boxes(raw["Path"].map(_image_of), raw["finding"], corners)


def _marks(root: Path, image: str, path: str, boxes: ImageBoxes) -> Iterator[Mark]:
    """Make the marks of one image."""
    file = root / "masks" / f"{image}.png"
    pixels = _read_mask(file)
    for j, finding in enumerate(CHEXPERT14):
        mask = (pixels >> j & 1).astype(bool)
        parts = part_boxes(mask)
        listed = boxes.get(finding, np.empty((0, 4)))
        if parts.shape != listed.shape or not np.allclose(parts, listed, rtol=0, atol=_ROUNDING):
            raise DataError(
                f"{root / 'boxes.csv'}: its {len(listed)} boxes of {finding} in {image} are not those of the mask's "
                f"{len(parts)} parts in {file}; make the phantom anew"
            )
        if len(listed):
            yield EncodedMark(path, finding, listed, partial(_unpack, np.packbits(mask), mask.shape))


def _unpack(bits: npt.NDArray[np.uint8], shape: tuple[int, int]) -> BoolArray:
    """A mask from its bits, an eighth of its bytes."""
    return np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape).astype(bool)


def _read_mask(file: Path) -> npt.NDArray[np.int32]:
    """Return (h, w) int32, bit j set where finding j has its sign."""
    try:
        with Image.open(file) as image:
            image.load()
            mode, pixels = image.mode, np.array(image, dtype=np.int32)
    except FileNotFoundError:
        raise DataError(f"{file}: no such mask; is the table of this phantom?") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{file}: the mask cannot be decoded ({error})") from error
    if mode not in _SIXTEEN_BITS or (pixels & ~_SIGNS).any():
        raise DataError(f"{file}: not a phantom's mask, 16-bit grey with a bit for each of CheXpert's findings")
    return pixels
