"""Files, folders, patterns, DICOMDIRs and lists become one stream of paths in a stable order."""

import glob
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from mxa.archive.dicomdir import dicomdir_files, is_dicomdir
from mxa.archive.tree import Found, Tally, Tree, absolute, mode_of
from mxa.data import dicom
from mxa.data.dicom_header import INSTALL
from mxa.errors import ConfigError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})
"""What counts as an image inside a folder, beside DICOM."""

STDIN = "-"
_PLAIN_SUFFIX = re.compile(r"\.[a-z][a-z0-9]{0,7}")


@dataclass(frozen=True)
class Sources:
    """What is to be predicted.

    Attributes:
        paths: files, folders (searched in depth), patterns such as ``scans/**/*.dcm``, and DICOMDIR files. Files that
            are named are taken whatever they are; in folders and patterns those that are images or DICOM by their
            suffix or DICOM by their content.
        listed: a text file with one path per line, or "-" for standard input; "" for none. They come last.

    Raises:
        ConfigError: there is neither.
    """

    paths: tuple[str, ...]
    listed: str = ""

    def __post_init__(self) -> None:
        if not self.paths and not self.listed:
            raise ConfigError("nothing to predict: give files, folders or patterns, or --list FILE")

    def check(self) -> None:
        """Refuse what is not there, before any work.

        Raises:
            ConfigError: a source is missing, a pattern matches no picture, or a DICOMDIR needs a package that is not
                installed.
        """
        for path in self.paths:
            if mode_of(path):
                if _is_directory_file(path) and importlib.util.find_spec("pydicom") is None:
                    raise ConfigError(f"{path} needs pydicom; {INSTALL}")
            elif not glob.has_magic(path):
                raise ConfigError(
                    f"{path} does not exist, or its folder cannot be read; give files, folders or patterns that exist"
                )
            elif not _matches_any(path):
                raise ConfigError(f"{path} matches no picture; check the pattern, and that the shell did not change it")
        if self.listed not in {"", STDIN} and not S_ISREG(mode_of(self.listed)):
            raise ConfigError(f"--list {self.listed}: no such file")

    def find(self, tally: Tally) -> Iterator[Found]:
        """Every picture, in the order of the sources and in folders by name.

        A file that several of ``paths`` give comes once, at its first place. The lines of a list come one by one as
        they are, whether or not they have come before.

        Args:
            tally: counts what is left out; complete when the stream is at its end.
        """
        before = _Before()
        for path in self.paths:
            count = 0
            for found in _files_of(path, tally):
                count += 1
                if before.gave(found):
                    tally.repeated += 1
                else:
                    yield found
            if not count:
                tally.empty.append(path)
            before.add(path)
        if self.listed:
            yield from _lines(self.listed, tally)


def _is_directory_file(path: str) -> bool:
    return is_dicomdir(path) and S_ISREG(mode_of(path))


def _matches_any(pattern: str) -> bool:
    tree = Tree.of_glob(pattern)
    return S_ISDIR(mode_of(tree.root)) and next(_pictures(tree, Tally()), None) is not None


def _tree(path: str) -> Tree | None:
    """The folder or pattern that a path stands for; None for a file."""
    mode = mode_of(path)
    if S_ISDIR(mode):
        return Tree(Path(path))
    return Tree.of_glob(path) if glob.has_magic(path) and not mode else None


def _files_of(path: str, tally: Tally) -> Iterator[Found]:
    tree = _tree(path)
    if tree is not None:
        return _pictures(tree, tally)
    return dicomdir_files(path, tally) if _is_directory_file(path) else iter((Found(path),))


@dataclass
class _Before:
    """The files that earlier sources gave. Of folders and patterns nothing is kept but themselves."""

    files: set[str] = field(default_factory=set)
    trees: list[Tree] = field(default_factory=list)

    def add(self, path: str) -> None:
        tree = _tree(path)
        if tree is not None:
            self.trees.append(tree)
        else:
            self.files.update(absolute(found.path) for found in _files_of(path, Tally()) if not found.problem)

    def gave(self, found: Found) -> bool:
        if found.problem or not (self.files or self.trees):
            return False
        if absolute(found.path) in self.files:
            return True
        if not S_ISREG(mode_of(found.path)):  # such as a pipe, which folders leave out and which must not be opened
            return False
        return any(tree.gives(found.path) for tree in self.trees) and not _kind(found.path)


def _pictures(tree: Tree, tally: Tally) -> Iterator[Found]:
    for found in tree.files(tally):
        kind = "" if found.problem else _kind(found.path)
        if kind:
            tally.skipped[kind] += 1
        else:
            yield found


def _kind(path: str) -> str:
    """What to call a file when it is left out; blank for a picture."""
    suffix = Path(path).suffix.lower()
    if suffix in SUFFIXES or suffix in dicom.SUFFIXES:
        return ""
    if is_dicomdir(path):
        return "DICOMDIR"
    try:
        with Path(path).open("rb") as file:
            if file.read(132)[128:] == b"DICM":
                return ""
    except OSError:
        return ""  # reading it will say what is wrong
    if not suffix:
        return "no suffix"
    return suffix if _PLAIN_SUFFIX.fullmatch(suffix) else "other suffixes"


def _lines(listed: str, tally: Tally) -> Iterator[Found]:
    """One path per line; names that are not UTF-8 keep their bytes."""
    with nullcontext(sys.stdin.buffer) if listed == STDIN else Path(listed).open("rb") as file:
        for line in file:
            path = os.fsdecode(line.rstrip(b"\r\n"))
            if path.strip():
                yield Found(path)
            else:
                tally.skipped["blank lines"] += 1
