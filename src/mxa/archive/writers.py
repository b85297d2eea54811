"""Append rows to a CSV, JSON Lines or Parquet output so that a kill at any moment loses no more than the last ones."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from mxa.archive.rows import Columns, json_line
from mxa.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

SUFFIXES = (".csv", ".jsonl", ".parquet")
PART_ROWS = 4096
"""A Parquet part has at least as many rows, except the last one."""

_UNFINISHED = ".unfinished"  # readers of Parquet folders leave out names with a dot

Records = Sequence[Mapping[str, Any]]


class Writer(Protocol):
    """Takes rows, batch by batch."""

    size: int
    """Bytes of a text output that are on disk; else 0."""

    def append(self, records: Records) -> bool:
        """Add a batch; whether all rows so far are on disk now."""
        ...

    def finish(self) -> None:
        """Bring all rows to disk."""
        ...

    def close(self) -> None:
        """Give the output free, whatever is on disk."""
        ...


def open_writer(out: Path, columns: Columns, rows: int, size: int, batch_size: int) -> Writer:
    """Open a new output or one that is to go on; rows beyond those that are given are cut off.

    Args:
        out: ends in one of :data:`SUFFIXES`. A Parquet output is a folder of parts.
        columns: of the table.
        rows: that are on disk; 0 for a new output.
        size: of a text output, the bytes that they take.
        batch_size: of all batches but the last one.

    Raises:
        ConfigError: the output is shorter than that, or another process is writing it.
        DataError: it cannot be written.
    """
    try:
        if out.suffix == ".parquet":
            return _Parquet(out, columns, rows, -(-PART_ROWS // batch_size) * batch_size)
        if out.suffix == ".jsonl":
            return _Text(out, json_line, "", size)
        return _Text(out, lambda record: columns.csv_line(columns.flat(record)), columns.csv_line(columns.names), size)
    except OSError as error:
        raise _unwritable(out, error) from error


class _Text:
    """Whole lines, appended."""

    def __init__(self, out: Path, line: Callable[[Mapping[str, Any]], str], header: str, size: int) -> None:
        self._out = out
        self._line = line
        self._file: BinaryIO = out.open("r+b" if out.exists() else "xb")
        try:
            _lock(self._file.fileno(), out)
            if self._file.seek(0, os.SEEK_END) < size:
                raise ConfigError(f"{out} is shorter than its state says; remove both to start again")
            self._file.truncate(size)
            self._file.seek(size)
            self.size = size
            if not size:
                self._write(header)
        except BaseException:
            self._file.close()
            raise

    def append(self, records: Records) -> bool:
        self._write("".join(map(self._line, records)))
        return True

    def finish(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()

    def _write(self, text: str) -> None:
        try:
            self._file.write(text.encode("utf-8"))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _unwritable(self._out, error) from error
        self.size = self._file.tell()


class _Parquet:
    """A folder of parts, each of which appears whole."""

    size = 0

    def __init__(self, out: Path, columns: Columns, rows: int, part_rows: int) -> None:
        self._out = out
        self._columns = columns
        self._part_rows = part_rows
        self._tables: list[pa.Table] = []
        out.mkdir(exist_ok=True)
        self._folder = os.open(out, os.O_RDONLY) if os.name == "posix" else None
        try:
            if self._folder is not None:
                _lock(self._folder, out)
            self._number, rest = divmod(rows, part_rows)
            self._go_on(rest)
        except BaseException:
            self.close()
            raise

    def append(self, records: Records) -> bool:
        self._tables.append(self._columns.table(records))
        if sum(len(table) for table in self._tables) < self._part_rows:
            return False
        self.finish()
        self._tables.clear()
        self._number += 1
        return True

    def finish(self) -> None:
        if self._tables:
            self._write_part()

    def close(self) -> None:
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    def _part(self, number: int) -> Path:
        return self._out / f"part-{number:06}.parquet"

    def _go_on(self, rest: int) -> None:
        """Take back the rows of a part that is not full, and remove what came after them."""
        import pyarrow as pa
        import pyarrow.parquet as pq  # type: ignore[import-untyped]

        missing = [number for number in range(self._number + bool(rest)) if not self._part(number).is_file()]
        if missing:
            raise ConfigError(f"{self._part(missing[0])} is missing; remove {self._out} and its state to start again")
        if rest:
            try:
                table = pq.read_table(self._part(self._number), partitioning=None)
            except (pa.ArrowInvalid, OSError) as error:
                raise DataError(f"{self._part(self._number)} is damaged ({error}); start again") from error
            # As plain values: what was read differs from what was written in details that show in the bytes.
            self._tables.append(pa.Table.from_pylist(table.slice(0, rest).to_pylist(), self._columns.schema()))
        kept = {self._part(number).name for number in range(self._number + bool(rest))}
        for part in self._out.glob("part-*.parquet"):
            if part.name not in kept:
                part.unlink()
        (self._out / _UNFINISHED).unlink(missing_ok=True)

    def _write_part(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        unfinished = self._out / _UNFINISHED
        try:
            with unfinished.open("wb") as file:
                pq.write_table(pa.concat_tables(self._tables).combine_chunks(), file)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self._part(self._number))
        except OSError as error:
            raise _unwritable(self._out, error) from error


def _unwritable(out: Path, error: OSError) -> DataError:
    return DataError(f"cannot write {out}: {error.strerror or error}; make it possible and go on with --resume")


def _lock(descriptor: int, out: Path) -> None:
    """Keep a second run off; the lock ends with the process, however that ends. Windows has none."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"{out} is being written by another run; wait for its end, or stop it") from None
    except OSError:
        return  # a file system without locks
