"""Predict an archive: read ahead, score, write row by row, and go on after a kill as if nothing had happened.

Batches are always the same pictures, whether a run is interrupted or not, so that an output that was resumed has the
same bytes as one that was not.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from mxa.archive.ahead import read_ahead
from mxa.archive.reading import Picture, Reader
from mxa.archive.rows import Columns, Rows
from mxa.archive.sources import Sources
from mxa.archive.state import State, extended
from mxa.archive.summary import Summary, left_out
from mxa.archive.tree import Found, Tally
from mxa.archive.writers import SUFFIXES, Writer, open_writer
from mxa.data.dicom import VIEWS, check_views
from mxa.errors import ConfigError, DataError
from mxa.predictor import BATCH_SIZE, Predictor
from mxa.version import __version__

MOST_WORKERS = 32

Batch = Sequence[Found]
Progress = Callable[[int], object]
"""Called with the number of new rows."""


@dataclass(frozen=True)
class ArchiveOptions:
    """How to predict; the fields are the options of ``mxa predict``.

    Raises:
        ConfigError: a value makes no sense.
    """

    operating_point: str | None = None
    """Name of the operating point that decides, such as youden; "" takes no decisions, None is what the model says."""
    calibration: str | None = None
    """Kind of the calibration of the probabilities: temperature, platt or isotonic; "" for none, None is what the model
    says."""
    views: tuple[str, ...] | None = None
    """Of DICOM files, those that are accepted; None are those that the model knows."""
    force: bool = False
    """Accept DICOM files that are no chest radiograph of these views; the notes say why they would be refused."""
    logits: bool = False
    """Write the network's own outputs, too."""
    batch_size: int = BATCH_SIZE
    """Pictures that are scored and written at once."""
    workers: int | None = None
    """Reading processes; None is one per processor, at most 32; 0 reads in this process, between batches."""
    resume: bool = False
    """Go on with an output that was interrupted; begin it where there is none."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}; give at least 1")
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"workers is {self.workers}; give 0 or more")
        if self.views is not None:
            check_views(self.views)

    def of(self, predictor: Predictor) -> "ArchiveOptions":
        """The same with what the model says where nothing is asked for."""
        tuning = predictor.tuning
        return replace(
            self,
            operating_point=tuning.operating_point if self.operating_point is None else self.operating_point,
            calibration=tuning.calibration if self.calibration is None else self.calibration,
            views=predictor.views if self.views is None else self.views,
        )


def predict_archive(
    predictor: Predictor,
    sources: Sources,
    out: Path,
    options: ArchiveOptions | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Write a row for every picture of an archive.

    Memory does not grow with the archive. Beside the output stands its state, ``OUT.state.json``, which says what was
    asked and how far it has come. Ctrl-C ends the run after its batch; a second one ends it at once. After either, or
    any other end, ``resume`` goes on.

    Reading processes import the caller's main module: a script must call this below ``if __name__ == "__main__"``, or
    with ``workers=0``.

    Args:
        predictor: the model.
        sources: where the pictures are.
        out: the output, named ``.csv``, ``.jsonl`` or ``.parquet``; the last is a folder of parts.
        options: how to predict; None for the defaults.
        progress: called after each batch.

    Returns:
        What came of it; pictures that cannot be read have a row with the reason.

    Raises:
        ConfigError: an option, a source or the output's name is wrong, the output exists, or the run cannot go on.
        DataError: there is no picture at all, or the output cannot be written.
        ArtifactError: the model gives logits that are not finite.
    """
    options = (options or ArchiveOptions()).of(predictor)
    rows = Rows(predictor, options.operating_point or "", options.calibration or "", options.logits)
    sources.check()
    state_file = Path(f"{out}.state.json")
    state = _begin(out, state_file, _settings(predictor, sources, options), options.resume)
    tally, earlier = Tally(), state.rows
    batches = _batches(sources.find(tally), options.batch_size)
    _skip(batches, state)
    first = next(batches, None)
    if first is None and not state.rows:
        raise DataError("; ".join(["nothing to predict", *left_out(tally)]))
    if not state.rows:
        state.write(state_file)  # so that no output is ever without one
    columns = Columns.of(rows)
    began = time.perf_counter()
    with closing(open_writer(out, columns, state.rows, state.size, options.batch_size)) as writer:
        batches = batches if first is None else chain([first], batches)
        read = read_ahead(
            batches, Reader(predictor.preprocess, options.views or VIEWS, options.force), _workers(options)
        )
        with closing(read), _interrupted() as stopped:
            _work(read, rows, writer, state, state_file, progress or (lambda new: None), stopped)
    seconds = time.perf_counter() - began
    return Summary(out, state.rows, earlier, state.statuses, state.reasons, tally, seconds, state.finished)


def _work(
    read: Iterable[list[Picture]],
    rows: Rows,
    writer: Writer,
    state: State,
    state_file: Path,
    progress: Progress,
    stopped: Callable[[], bool],
) -> None:
    """Score and write until the pictures end or somebody stops it. The state never says more than is on disk."""
    for pictures in read:
        records = rows.score(pictures)
        on_disk = writer.append(records)
        state.count(records)
        state.digest = extended(state.digest, [one.path for one in pictures])
        if on_disk:
            state.size = writer.size
            state.write(state_file)
        progress(len(records))
        if stopped():
            break
    else:
        state.finished = True
    writer.finish()
    state.size = writer.size
    state.write(state_file)


def _settings(predictor: Predictor, sources: Sources, options: ArchiveOptions) -> dict[str, Any]:
    """All that decides what the rows hold."""
    return {
        "mxa": __version__,
        "model_hash": predictor.model_hash,
        "model_notes": list(predictor.notes),
        "runtime": predictor.runtime.name,
        "findings": list(predictor.labels),
        "preprocess": predictor.preprocess.to_dict(),
        "operating_point": options.operating_point,
        "calibration": options.calibration,
        "views": list(options.views or ()),
        "force": options.force,
        "logits": options.logits,
        "batch_size": options.batch_size,
        "sources": list(sources.paths),
        "list": sources.listed,
        **_place(sources),
    }


def _place(sources: Sources) -> dict[str, str]:
    """The folder that relative paths start from, where there may be any: those of a list come one by one."""
    relative = sources.listed or not all(Path(path).is_absolute() for path in sources.paths)
    return {"working_directory": str(Path.cwd())} if relative else {}


def _begin(out: Path, state_file: Path, settings: dict[str, Any], resume: bool) -> State:
    """A new state, or the one that is to go on."""
    if out.suffix not in SUFFIXES:
        raise ConfigError(f"{out}: its name must end in {', '.join(SUFFIXES)}, which chooses the format")
    if not out.parent.is_dir():
        raise ConfigError(f"{out} cannot be written: its folder does not exist; make it first")
    if not resume:
        if out.exists():
            raise ConfigError(f"{out} exists; go on with it by --resume, or choose another --out")
        return State(settings)
    if not out.exists() and not state_file.exists():
        return State(settings)
    state = State.read(state_file)
    state.require(settings, state_file)
    if state.rows and not out.exists():
        raise ConfigError(f"{out} is gone, but {state_file} is there; remove it to start again")
    return state


def _batches(found: Iterator[Found], size: int) -> Iterator[Batch]:
    while batch := tuple(islice(found, size)):
        yield batch


def _skip(batches: Iterator[Batch], state: State) -> None:
    """Pass by what has its row already, and make sure that it is the same as then."""
    passed, digest = 0, ""
    while passed < state.rows and (batch := next(batches, None)):
        passed += len(batch)
        digest = extended(digest, [found.path for found in batch])
    if passed != state.rows or digest != state.digest or (state.finished and next(batches, None) is not None):
        raise ConfigError(
            "the sources do not give the same files as when the output was begun, so that it cannot go on; choose "
            "another --out"
        )


def _workers(options: ArchiveOptions) -> int:
    return min(os.cpu_count() or 1, MOST_WORKERS) if options.workers is None else options.workers


@contextmanager
def _interrupted() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed; a second one does what the first would have done.

    Only the main thread can listen to it, and a process that runs in the background may have been told not to.
    """
    pressed = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in {None, signal.SIG_IGN}:
        yield pressed.is_set
        return

    def press(number: int, frame: object) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)
