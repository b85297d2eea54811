"""Decode and resize radiographs to the contract's pixels: one file, or a whole table at once into memory.

Pictures of a data set are taken as its table has them: a DICOM file may show any view.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mxa.data.dicom import VIEWS, is_dicom, read_dicom
from mxa.data.images import read_grey, read_reduced
from mxa.preprocess import Preprocess

Progress = Callable[[int, int], None]


OVERSAMPLING = 2
"""A JPEG decoded at reduced size keeps at least this many times the contract's pixels on each side."""


def read_picture(path: Path, *, wide_range: str) -> npt.NDArray[np.uint8]:
    """One file of a data set, DICOM or what Pillow knows, to (H, W) uint8.

    Args:
        path: the file.
        wide_range: what 16-bit pixels of other files than DICOM mean, see :func:`mxa.data.images.read_grey`.

    Raises:
        DataError: the file is missing or is not a readable radiograph; the message names it.
        ConfigError: a DICOM file needs a package that is not installed, or ``wide_range`` is unknown.
    """
    if is_dicom(path):
        return read_dicom(path, views=VIEWS).pixels
    return read_grey(path, wide_range=wide_range)


def decode(path: Path, preprocess: Preprocess, *, reduced: bool = False) -> npt.NDArray[np.uint8]:
    """One file to (size, size) uint8.

    Args:
        path: the file.
        preprocess: the contract.
        reduced: decode large JPEGs at a reduced size, which is faster and changes a pixel by a grey level here and
            there. Pictures that are padded are decoded in full: they are put down at whole pixels.

    Raises:
        DataError: the file is missing or is not a readable radiograph, or would be padded to too large a square; the
            message names it.
        ConfigError: a DICOM file needs a package that is not installed.
    """
    extent = None
    if reduced and preprocess.fit != "pad" and not is_dicom(path):
        at_least = OVERSAMPLING * preprocess.size
        grey, extent = read_reduced(path, at_least=at_least, wide_range=preprocess.wide_range)
    else:
        grey = read_picture(path, wide_range=preprocess.wide_range)
    return preprocess.resize(grey, extent=extent, name=str(path))


def decode_all(
    paths: Sequence[Path], preprocess: Preprocess, workers: int | None = None, progress: Progress | None = None
) -> npt.NDArray[np.uint8]:
    """All files to one (N, size, size) uint8 array, N size^2 bytes, each file read once.

    Threads do: Pillow releases the interpreter's lock while it decodes and resizes.

    Args:
        paths: N files.
        preprocess: the contract.
        workers: threads; None is one per processor.
        progress: called with (done, total) now and then.

    Raises:
        DataError: the first file that cannot be read, in the order of ``paths``.
    """
    pixels = np.empty((len(paths), preprocess.size, preprocess.size), dtype=np.uint8)

    def fill(row: int) -> None:
        pixels[row] = decode(paths[row], preprocess)

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        try:
            for done, _ in enumerate(pool.map(fill, range(len(paths))), start=1):
                if progress is not None and (done % 50 == 0 or done == len(paths)):
                    progress(done, len(paths))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return pixels
