"""The files below a folder, or those of a pattern such as ``scans/**/*.png``, in a stable order and one at a time."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from glob import has_magic
from pathlib import Path

ANY_DEPTH = "**"
States = frozenset[int]


@dataclass(frozen=True)
class Found:
    """A place where a picture should be.

    Attributes:
        path: as it is to be named.
        problem: why it is not opened; "" where it is.
    """

    path: str
    problem: str = ""


@dataclass
class Tally:
    """What was not taken on the way.

    Attributes:
        skipped: entries of folders and media that are no pictures, by kind.
        repeated: files that had been given before.
        empty: sources that gave no picture.
    """

    skipped: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    empty: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Tree:
    """A folder, or the part of it that a pattern matches.

    A pattern is matched component by component: ``*``, ``?`` and ``[]`` within a name, ``**`` for any number of
    folders. A folder that it matches counts with all that is below it. Links to folders are not followed, and names
    that begin with a dot are left out.

    Attributes:
        root: the folder.
        pattern: of the components below it; () stands for everything.
    """

    root: Path
    pattern: tuple[str, ...] = ()

    @classmethod
    def of_glob(cls, text: str) -> "Tree":
        """Split a pattern behind the last folder that it names plainly."""
        parts = Path(text).parts
        plain = next(i for i, part in enumerate(parts) if has_magic(part))
        return cls(Path(*parts[:plain]), parts[plain:])

    def files(self, tally: Tally) -> Iterator[Found]:
        """Every file once, each folder's entries by name; a folder that cannot be listed gives a problem."""
        yield from self._below(self.root, self._closed({0}), tally)

    def gives(self, path: str) -> bool:
        """Whether a file is among :meth:`files`; both are compared as absolute paths."""
        folder = Path(absolute(self.root))
        try:
            parts = Path(absolute(path)).relative_to(folder).parts
        except ValueError:
            return False
        states = self._closed({0})
        for name in parts[:-1]:
            folder /= name
            if not self._everything(states):
                states = self._enter(states, name)
            if not states or name.startswith(".") or folder.is_symlink():
                return False
        return bool(parts) and not parts[-1].startswith(".") and self._matches(states, parts[-1])

    def _below(self, folder: Path, states: States, tally: Tally) -> Iterator[Found]:
        try:
            entries = _entries(folder)
        except OSError as error:
            yield Found(str(folder), f"the folder cannot be listed ({error.strerror}); check its permissions")
            return
        everything = self._everything(states)
        for name, kind in entries:
            inner = states if everything else self._enter(states, name)
            if name.startswith("."):
                tally.skipped["hidden"] += everything
            elif kind == "folder":
                if inner:
                    yield from self._below(folder / name, inner, tally)
            elif kind == "file":
                if self._matches(states, name):
                    yield Found(str(folder / name))
            else:
                tally.skipped[kind] += everything

    # A state is the number of components of the pattern that are matched so far; there may be several, because of **.

    def _everything(self, states: States) -> bool:
        return len(self.pattern) in states

    def _enter(self, states: States, name: str) -> States:
        """The states inside a subfolder."""
        inside = set()
        for i in states - {len(self.pattern)}:
            if self.pattern[i] == ANY_DEPTH:
                inside.add(i)
            elif fnmatch(name, self.pattern[i]):
                inside.add(i + 1)
        return self._closed(inside)

    def _closed(self, states: set[int]) -> States:
        """With those that are reached because ** may stand for no folder at all."""
        reached = set(states)
        for i, part in enumerate(self.pattern):
            if i in reached and part == ANY_DEPTH:
                reached.add(i + 1)
        return frozenset(reached)

    def _matches(self, states: States, name: str) -> bool:
        last = len(self.pattern) - 1
        return self._everything(states) or (last in states and fnmatch(name, self.pattern[last]))


def mode_of(path: str | Path) -> int:
    """Kind and permissions, as :mod:`stat` tells them apart; 0 for what is not there or out of reach."""
    try:
        return Path(path).stat().st_mode
    except (OSError, ValueError):  # such as a name that is too long, which Path.exists would raise
        return 0


def absolute(path: str | Path) -> str:
    """The path from the root, without dots; links are left as they are."""
    return os.path.normpath(Path(path).absolute())


def _entries(folder: Path) -> list[tuple[str, str]]:
    """Name and kind of what is in one folder, by name."""
    with os.scandir(folder) as entries:
        return sorted((entry.name, _kind(entry)) for entry in entries)


def _kind(entry: "os.DirEntry[str]") -> str:
    try:
        if entry.is_dir(follow_symlinks=False):
            return "folder"
        if entry.is_dir():
            return "links to folders"
        return "file" if entry.is_file() else "no regular files"
    except OSError:
        return "no regular files"
