"""What a reader takes: the path of a file, or a binary stream such as a file in memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

Readable: TypeAlias = str | Path | BinaryIO
"""A stream must be able to seek; it is read from its beginning and left open."""


def name_of(file: Readable) -> str:
    """How messages call it: a path by itself; a stream has no name that a stranger could not have chosen."""
    return str(Path(file)) if isinstance(file, str | Path) else "the picture"


@contextmanager
def opened(file: Readable) -> Iterator[BinaryIO]:
    """A stream at the beginning of the file.

    Raises:
        OSError: a path cannot be opened.
    """
    if isinstance(file, str | Path):
        with Path(file).open("rb") as stream:
            yield stream
    else:
        file.seek(0)
        yield file
