"""Reading ahead: in order, never far, and over the death of a process."""

import itertools
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mxa.archive import ahead
from mxa.archive.ahead import read_ahead
from mxa.archive.reading import FAILED, OK, Picture
from mxa.archive.tree import Found


def batches(count: int, size: int):
    paths = iter(range(count)) if count else itertools.count()
    while batch := tuple(Found(str(i)) for i in itertools.islice(paths, size)):
        yield batch


@dataclass(frozen=True)
class Deadly:
    """Ends its process on two files; on a third, far from them, only the first time, as when memory runs out."""

    marks: Path

    def __call__(self, found: Found) -> Picture:
        if found.path in {"3", "30"}:
            os._exit(9)
        if found.path == "16" and not (self.marks / "once").exists():
            (self.marks / "once").touch()
            os._exit(9)
        return Picture(found.path, OK, str(os.getpid()))


def test_a_death_costs_only_the_file_at_fault(tmp_path: Path) -> None:
    pictures = [one for batch in read_ahead(batches(34, 4), Deadly(tmp_path), 2) for one in batch]
    assert [one.path for one in pictures] == [str(i) for i in range(34)]
    assert [one.path for one in pictures if one.status == FAILED] == ["3", "30"]
    assert "ended the process" in pictures[3].reason
    assert str(os.getpid()) not in {one.reason for one in pictures}


def test_without_processes_it_reads_here() -> None:
    def read(found: Found) -> Picture:
        return Picture(found.path, OK, str(os.getpid()))

    result = list(read_ahead(batches(5, 2), read, 0))
    assert [len(batch) for batch in result] == [2, 2, 1]
    assert {one.reason for batch in result for one in batch} == {str(os.getpid())}


@pytest.mark.parametrize(("size", "workers", "most"), [(4, 2, 3), (4, 0, 1), (1, 3, 7), (2, 4, 5)])
def test_never_more_than_a_few_batches_are_alive(
    monkeypatch: pytest.MonkeyPatch, size: int, workers: int, most: int
) -> None:
    """Of an archive without end: what is alive is counted, at every read and at every batch."""
    monkeypatch.setattr(ahead, "_processes", ThreadPoolExecutor)
    lock, alive, peak, taken = threading.Lock(), [0], [0], [0]

    def died() -> None:
        with lock:
            alive[0] -= 1

    def read(found: Found) -> Picture:
        pixels = np.zeros((8, 8), np.uint8)
        weakref.finalize(pixels, died)
        with lock:
            alive[0] += 1
            peak[0] = max(peak[0], alive[0])
        return Picture(found.path, OK, pixels=pixels)

    def counted():
        for batch in batches(0, size):
            taken[0] += 1
            yield batch

    stream = read_ahead(counted(), read, workers)
    for given in range(1, 40):
        batch = next(stream)
        assert [one.path for one in batch] == [str(i) for i in range((given - 1) * size, given * size)]
        assert taken[0] - given < most
        del batch
    stream.close()
    # One batch is in the caller's hands while the next one is collected.
    assert 0 < peak[0] <= (most + 1) * size
