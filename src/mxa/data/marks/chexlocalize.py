"""Read CheXlocalize: radiologists' masks of ten findings on CheXpert's validation and test images.

Source: Saporta et al., "Benchmarking saliency methods for chest X-ray interpretation", Nature Machine Intelligence
2022; Stanford AIMI provides the data.

Layout of ``gt_segmentations_val.json`` and ``gt_segmentations_test.json``: image -> finding -> mask, such as
``{"patient64541_study1_view1_frontal": {"Cardiomegaly": {"size": [h, w], "counts": "..."}, ...}, ...}``. All ten
findings are there; one that is not marked has a mask of zeros.
"""

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from mxa.data.marks.marks import EncodedMark, Mark, Marks, part_boxes, paths_by_image, unmatched_images
from mxa.data.marks.rle import decode_rle
from mxa.data.table import Table
from mxa.errors import DataError
from mxa.labels import canonical

FINDINGS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Lesion",
    "Lung Opacity",
    "Edema",
    "Consolidation",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Support Devices",
)
_IMAGE = re.compile(r"patient\d+_study\d+_view\d+_[a-z]+")
_PATH = re.compile(r"(?:^|/)(patient\d+)/(study\d+)/(view\d+_[a-z]+)\.[^./]+$")
_WHICH_FILE = "give gt_segmentations_val.json or gt_segmentations_test.json"


def read_chexlocalize(source: Path, table: Table) -> Marks:
    """Read the masks of the table's images.

    An image is matched by patient, study and view at the end of its path. A mask's boxes are those of its connected
    parts. A mask of zeros gives no mark.

    Args:
        source: ``gt_segmentations_val.json`` or ``gt_segmentations_test.json``.
        table: Images of CheXpert.

    Returns:
        The marks; their masks are decoded when asked for.

    Raises:
        DataError: If the file is not of this layout, a mask of the table's images is damaged, or the table holds none
            of the file's images.
    """
    images = _read_json(source)
    if not isinstance(images, dict) or not images:
        raise DataError(f"{source}: holds no images with masks; {_WHICH_FILE}")
    if strangers := [image for image in images if not _IMAGE.fullmatch(image)]:
        raise DataError(f"{source}: {strangers[0]!r} is no image of CheXpert; {_WHICH_FILE}")
    paths = paths_by_image(table, _image_of)
    unmatched = unmatched_images(source, images, paths)
    found = (mark for image, path in paths.items() if image in images for mark in _marks(source, image, images, path))
    return Marks.of_table("CheXlocalize", table, found, unmatched)


def _read_json(source: Path) -> Any:
    try:
        return json.loads(source.read_bytes(), object_pairs_hook=_without_repetition)
    except (OSError, ValueError) as error:  # ValueError: neither text nor JSON, or a name twice
        raise DataError(f"{source}: cannot be read as JSON ({error})") from error


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict, but not as json does, which keeps the last of two values of one name and says nothing."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return values


def _image_of(path: str) -> str:
    match = _PATH.search(path)
    return "_".join(match.groups()) if match else ""


def _marks(source: Path, image: str, images: dict[str, Any], path: str) -> Iterator[Mark]:
    """Make the marks of one image."""
    masks = images[image]
    if not isinstance(masks, dict):
        raise DataError(f"{source}: {image} has no findings with masks; {_WHICH_FILE}")
    names: dict[str, str] = {}
    for name, encoded in masks.items():
        place = f"{source}: {image}, {name!r}"
        finding = canonical(name, "chexpert")
        if finding not in FINDINGS:
            raise DataError(f"{place} is none of CheXlocalize's findings; {_WHICH_FILE}")
        if finding in names:
            raise DataError(f"{place} is the same finding as {names[finding]!r}; keep one")
        names[finding] = name
        counts, size = _encoded(place, encoded)
        try:
            boxes = part_boxes(decode_rle(counts, *size))
        except DataError as error:
            raise DataError(f"{place}: {error}") from error
        if len(boxes):
            yield EncodedMark(path, finding, boxes, partial(decode_rle, counts, *size))


def _encoded(place: str, encoded: object) -> tuple[str, tuple[int, int]]:
    """Return a mask's counts and its height and width."""
    if isinstance(encoded, dict) and set(encoded) == {"size", "counts"}:
        counts, size = encoded["counts"], encoded["size"]
        whole = isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)
        if whole and isinstance(counts, str):
            return counts, (size[0], size[1])
    raise DataError(f"{place} is no mask with size [height, width] and compressed counts; {_WHICH_FILE}")
