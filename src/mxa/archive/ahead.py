"""Read pictures ahead of the model, in processes, in order, and never more than a few batches of them.

Processes and not threads: the decoders of JPEG 2000 and JPEG-LS hold the interpreter's lock from beginning to end
(94 % and 73 % of the time of reading a 4-megapixel file), so that threads would stop each other and the model. Besides,
a decoder that ends its process on a damaged file takes neither the run nor another picture with it.
"""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager

from mxa.archive.reading import FAILED, Picture
from mxa.archive.tree import Found
from mxa.processes import follow_parent
from mxa.quiet import quiet

_FOR_LIFE = ExitStack()
"""Of a reading process."""

Read = Callable[[Found], Picture]
Pending = tuple[Sequence[Found], "list[Future[Picture]]"]


def read_ahead(batches: Iterable[Sequence[Found]], read: Read, workers: int) -> Generator[list[Picture], None, None]:
    """Read each batch; while the caller works on one, the next ones are read.

    Args:
        batches: files, by batch; taken from as needed.
        read: reads one; it must be possible to pickle it.
        workers: processes; 0 reads in this one, when a batch is asked for.

    Yields:
        The pictures of each batch, in its order. At most ``1 + max(2 batches, 2 pictures per process)`` are waiting.
    """
    if workers == 0:
        for batch in batches:
            yield [read(found) for found in batch]
        return
    pool = _Pool(read, workers)
    waiting: deque[Pending] = deque()
    try:
        for batch in batches:
            waiting.append((batch, [pool.submit(found) for found in batch]))
            if len(waiting) > max(2, -(-2 * workers // len(batch))):
                yield pool.collect(*waiting.popleft())
        while waiting:
            yield pool.collect(*waiting.popleft())
    finally:
        pool.close()


class _Pool:
    """Reads in processes; those that die are replaced, and only the file at fault is given up."""

    def __init__(self, read: Read, workers: int) -> None:
        self._read = read
        self._workers = workers
        self._many: Executor = _processes(workers)
        self._single: Executor = _processes(1)

    def submit(self, found: Found) -> "Future[Picture]":
        with _sigint_blocked():
            try:
                return self._many.submit(self._read, found)
            except BrokenProcessPool:
                self._many = _processes(self._workers)
                return self._many.submit(self._read, found)

    def collect(self, batch: Sequence[Found], futures: "Sequence[Future[Picture]]") -> list[Picture]:
        """The results; when a process died, nobody knows of which file, so all that it left are read one at a time."""
        return [self._result(found, future) for found, future in zip(batch, futures, strict=True)]

    def close(self) -> None:
        for executor in (self._many, self._single):
            executor.shutdown(cancel_futures=True)

    def _result(self, found: Found, future: "Future[Picture]") -> Picture:
        try:
            return future.result()
        except BrokenProcessPool:
            return self._alone(found)

    def _alone(self, found: Found) -> Picture:
        try:
            with _sigint_blocked():
                future = self._single.submit(self._read, found)
            return future.result()
        except BrokenProcessPool:
            self._single = _processes(1)
            reason = "reading it ended the process (a decoder crashed, or memory ran out); fetch or export it again"
            return Picture(found.path, FAILED, reason)


def _processes(count: int) -> ProcessPoolExecutor:
    """Fresh interpreters: a forked one would inherit the locks of the runtime's threads. They start when needed."""
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_begin)


def _begin() -> None:
    """In each process: leave Ctrl-C to the parent, end when the parent is gone, and keep quiet about the files."""
    _FOR_LIFE.enter_context(quiet())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    follow_parent()


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """A process that starts meanwhile has it blocked from its first moment; here Ctrl-C comes a little later."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
