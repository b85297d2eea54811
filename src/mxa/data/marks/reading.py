"""Pick the reader of marks."""

from pathlib import Path

from mxa.data.marks.chexlocalize import read_chexlocalize
from mxa.data.marks.marks import Marks
from mxa.data.marks.nih_boxes import read_nih_boxes
from mxa.data.marks.phantom import find_phantom, read_phantom_marks
from mxa.data.table import Table
from mxa.errors import DataError


def read_marks(source: Path, table: Table) -> Marks:
    """Read where findings are marked in a table's images.

    Marks of images that the table does not hold are left out and named in ``unmatched``; so are marks of findings that
    its label set does not have. A log message counts both.

    Args:
        source: A phantom's folder, NIH's ``BBox_List_2017.csv`` (or ``.csv.gz``), or CheXlocalize's
            ``gt_segmentations_val.json`` or ``gt_segmentations_test.json``.
        table: The images.

    Returns:
        The marks.

    Raises:
        DataError: If the source is none of the three, is damaged, or none of its images is in the table.
    """
    source = Path(source)
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    if source.is_dir():
        if (root := find_phantom(source)) is not None:
            return read_phantom_marks(root, table)
    elif source.suffix == ".json":
        return read_chexlocalize(source, table)
    elif source.name.endswith((".csv", ".csv.gz")):
        return read_nih_boxes(source, table)
    raise DataError(
        f"{source}: holds no marks that are known here; give a phantom's folder (boxes.csv and masks/), NIH's "
        "BBox_List_2017.csv or CheXlocalize's gt_segmentations_val.json or gt_segmentations_test.json"
    )
