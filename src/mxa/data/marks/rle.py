"""COCO's compressed run-length encoding of masks, as pycocotools writes it.

A mask is read column by column; the lengths of its runs, first of zeros, then of ones, and so on, are a list of
numbers. From the fourth on a number is stored as the difference to the one two places before it. Each is written like
a signed LEB128 number, lowest digits first, but with 5 bits to a character: character code - 48 is 5 bits of the number
and, worth 32, whether more follow; the number is negative if bit 16 of its last character is set.

Source: ``rleToString`` and ``rleFrString`` in common/maskApi.c of github.com/cocodataset/cocoapi.
"""

import numpy as np
import numpy.typing as npt

from mxa.errors import DataError

_LONGEST = 7  # characters of a number: 35 bits, where pycocotools itself keeps 32


def decode_rle(counts: str, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Decode one mask.

    Args:
        counts: The encoded runs.
        height: Rows of the mask.
        width: Columns of the mask.

    Returns:
        (height, width) bool, in column-major memory.

    Raises:
        DataError: If there is a character that the encoding does not have, the last number breaks off, or the runs do
            not fill the size exactly.
    """
    runs = _runs(_numbers(counts))
    if (runs < 0).any():
        raise DataError(f"run {int(np.argmax(runs < 0))} of the mask has a negative length; the mask is damaged")
    if runs.sum() != height * width:
        raise DataError(f"the mask's runs have {runs.sum()} pixels, its size {height} x {width} has {height * width}")
    ones = np.arange(len(runs)) % 2 == 1
    return np.repeat(ones, runs).reshape((height, width), order="F")


def _numbers(counts: str) -> npt.NDArray[np.int64]:
    """Return the numbers as stored, differences not yet resolved."""
    codes = np.array([ord(character) for character in counts], dtype=np.int64) - 48
    if (foreign := (codes < 0) | (codes > 63)).any():
        at = int(np.argmax(foreign))
        raise DataError(f"character {at} of the mask, {counts[at]!r}, is none of COCO's compressed encoding")
    more = codes >= 32
    if not len(codes) or more[-1]:
        raise DataError("the mask is empty or breaks off within a number; the file is damaged")
    ends = np.flatnonzero(~more)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST:
        raise DataError(
            f"a number of the mask has {lengths.max()} characters, which is too long for the length of a run"
        )
    places = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    numbers = np.add.reduceat((codes & 31) << places, starts)
    return numbers - np.where(codes[ends] & 16, 1 << (5 * lengths), 0)


def _runs(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Resolve the differences: number i stands for run i - run (i - 2) from i = 3 on."""
    runs = numbers.copy()
    runs[1::2] = np.cumsum(numbers[1::2])
    runs[2::2] = np.cumsum(numbers[2::2])
    return runs
