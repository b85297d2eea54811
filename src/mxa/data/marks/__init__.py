"""Where findings are marked, by hand or by construction: the truth that localisation is scored against.

Modules: ``marks`` (the data structure), ``phantom``, ``nih_boxes`` and ``chexlocalize`` (one reader each), ``rle``
(COCO's compressed masks), ``reading`` (picks the reader).
"""

from mxa.data.marks.marks import Mark, Marks
from mxa.data.marks.reading import read_marks

__all__ = ["Mark", "Marks", "read_marks"]
