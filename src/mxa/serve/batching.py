"""Score the pictures of several requests together, in one thread."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mxa.predictor import Runtime

Scores = tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.float32]]]


@dataclass(frozen=True)
class _Job:
    pixels: npt.NDArray[np.uint8]
    scores: "Future[Scores]" = field(default_factory=Future)


class Batching:
    """A :class:`mxa.predictor.Runtime` whose calls wait a moment for each other and are executed together.

    Each caller gets its own pictures' scores, as from a call of its own up to rounding. An error of the runtime goes to
    every caller of the batch.

    Args:
        runtime: executes; from one thread only.
        size: pictures of a batch at most, unless one caller brings more.
        seconds: how long the first of a batch waits for others.
        observe: called with the pictures of each batch.
    """

    def __init__(
        self, runtime: Runtime, size: int, seconds: float, observe: Callable[[int], None] = lambda pictures: None
    ) -> None:
        self.name = runtime.name
        self._runtime, self._size, self._seconds, self._observe = runtime, size, seconds, observe
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="mxa-score", daemon=True)
        self._thread.start()

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> Scores:
        """Score (B, 1, S, S) uint8 pixels.

        Raises:
            RuntimeError: it is closed.
        """
        job = _Job(pixels)
        with self._lock:
            if self._closed:
                raise RuntimeError("the scoring thread is closed")
            self._jobs.put(job)
        return job.scores.result()

    @property
    def alive(self) -> bool:
        """Whether calls are still executed."""
        return self._thread.is_alive() and not self._closed

    def close(self) -> None:
        """Execute what waits, then end the thread."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while batch := self._take():
            self._score(batch)

    def _take(self) -> list[_Job]:
        """The next batch; empty at the end."""
        first = self._jobs.get()
        if first is None:
            return []
        batch, pictures, until = [first], len(first.pixels), time.monotonic() + self._seconds
        while pictures < self._size:
            try:
                job = self._jobs.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if job is None:
                self._jobs.put(None)  # for the next call
                break
            batch.append(job)
            pictures += len(job.pixels)
        return batch

    def _score(self, batch: Sequence[_Job]) -> None:
        try:
            logits, boxes = self._runtime(np.concatenate([job.pixels for job in batch]))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the callers must know, and the thread must go on
            for job in batch:
                job.scores.set_exception(error)
            return
        self._observe(len(logits))
        start = 0
        for job in batch:
            rows = slice(start, start + len(job.pixels))
            job.scores.set_result((logits[rows], {block: corners[rows] for block, corners in boxes.items()}))
            start = rows.stop
