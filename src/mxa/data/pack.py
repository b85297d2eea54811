"""The pack: a data set's pictures decoded and resized once, into one memory map that all runs and processes share.

A pack's folder holds::

    pixels.npy      (N, S, S) uint8, exactly the contract's pixels, in the order of the index
    index.parquet   path and split of each picture
    rejects.csv     pictures that could not be read, with the reason; empty where all could
    manifest.json   data set and fingerprint, contract, versions, and a SHA-256 for each block of rows

:mod:`mxa.data.packing` makes one. Opening refuses a pack of another contract or another length than it says; its rows
are found by path, and a table's picture that is missing is an error.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mxa.data.decode import decode
from mxa.data.table import Table
from mxa.errors import ConfigError, DataError
from mxa.preprocess import Preprocess

FORMAT_VERSION = 2
"""Packs of version 1 hold JPEGs that were decoded at a reduced size a little shifted."""
PIXELS, INDEX, REJECTS, MANIFEST = "pixels.npy", "index.parquet", "rejects.csv", "manifest.json"
SAMPLE = 3
"""Pictures of a table that are decoded and compared with the pack's."""
TOLERANCE = 3.0
"""Grey levels of 255 by which a picture may differ on average: decoders of different versions do by less than one,
other pictures by far more."""


@dataclass(frozen=True, eq=False)
class Pack:
    """An opened pack.

    Attributes:
        folder: where it is.
        pixels: (N, S, S) uint8, a memory map; all processes share the pages. What is written to it stays in memory.
        paths: N paths, as the data set's table has them.
        manifest: the contents of ``manifest.json``.
        preprocess: the contract that it was opened for.
    """

    folder: Path
    pixels: npt.NDArray[np.uint8]
    paths: "pd.Index[str]"
    manifest: Mapping[str, Any]
    preprocess: Preprocess

    def rows_of(self, table: Table) -> npt.NDArray[np.int64]:
        """(len(table),) the pack's row of each of a table's pictures.

        Raises:
            DataError: the pack is of another data set, or lacks a picture; the message says how many and names the
                first.
        """
        packed = self.manifest["data"]["dataset"]
        if packed != table.dataset:
            raise DataError(f"{self.folder} is a pack of {packed}, the table is of {table.dataset}; pack these data")
        rows = self.paths.get_indexer(pd.Index(table.frame["path"])).astype(np.int64)
        lost = np.flatnonzero(rows < 0)
        if len(lost):
            raise DataError(
                f"{self.folder} lacks {len(lost)} of {len(table)} pictures, such as "
                f"{table.frame['path'].iloc[lost[0]]}. "
                f"It is a pack of {packed} with {len(self.paths)} pictures: pack these data; a picture that "
                f"stands in its {REJECTS} must be mended, or its row taken out of the table"
            )
        return rows

    def check_pictures(self, table: Table) -> None:
        """Refuse other pictures under the same names: a few of the table's are decoded and compared.

        A picture that is not on this machine, or whose decoder is not, is passed over: a pack may be used without them.

        Raises:
            DataError: a picture differs from the pack's or cannot be read, or is not in the pack; the message names it.
        """
        rows, files = self.rows_of(table), table.files()
        for row in np.unique(np.linspace(0, len(table) - 1, SAMPLE).astype(np.int64)).tolist():
            if not files[row].exists():
                continue
            try:
                seen = decode(files[row], self.preprocess, reduced=self.manifest["reduced"])
            except ConfigError:
                continue
            if np.abs(seen.astype(np.int64) - self.pixels[rows[row]]).mean() > TOLERANCE:
                raise DataError(
                    f"{self.folder} was made of other pictures: {files[row]} differs from what it holds of that name; "
                    "pack these data"
                )


def open_pack(folder: str | Path, preprocess: Preprocess) -> Pack:
    """Open a pack for a contract; the pixels themselves are checked by ``mxa data pack --verify`` alone.

    Raises:
        ConfigError: the pack was made with another contract.
        DataError: the folder is no pack, of an unknown version, or damaged.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    differ = {
        name: (manifest["pixels"].get(name), here)
        for name, here in preprocess.pixel_fields().items()
        if manifest["pixels"].get(name) != here
    }
    if differ:
        shown = ", ".join(f"preprocess.{name} {there!r}, here {here!r}" for name, (there, here) in differ.items())
        raise ConfigError(f"{folder} was packed with {shown}; use the same, or pack again")
    pixels, paths = read_arrays(folder)
    expected = (manifest["images"], preprocess.size, preprocess.size)
    if pixels.shape != expected or pixels.dtype != np.uint8 or len(paths) != len(pixels):
        raise DataError(
            f"{folder} is damaged: pixels {pixels.shape}, {len(paths)} paths, expected {expected}; pack again"
        )
    return Pack(folder, pixels, paths, manifest, preprocess)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The contents of ``manifest.json``.

    Raises:
        DataError: the folder is no pack, or one of an unknown version.
    """
    file = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        version = manifest["format_version"]
        lost = {"data", "pixels", "reduced", "images", "rejects", "blocks"} - manifest.keys()
        if version == FORMAT_VERSION and lost:
            raise ValueError(f"it lacks {', '.join(sorted(lost))}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder} is no pack: {MANIFEST} cannot be read ({error}); `mxa data pack` makes one"
        ) from error
    if version != FORMAT_VERSION:
        raise DataError(f"{file} has format version {version!r}, this mxa reads {FORMAT_VERSION}; pack again")
    return manifest


def read_arrays(folder: Path) -> tuple[npt.NDArray[np.uint8], "pd.Index[str]"]:
    """The memory map and the paths.

    Raises:
        DataError: a file is missing or damaged.
    """
    try:
        # Copy on write: the file stays as it is, while torch may have the writable memory that it asks for.
        pixels = np.load(folder / PIXELS, mmap_mode="c")
        paths = pd.Index(pd.read_parquet(folder / INDEX)["path"])
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise DataError(f"{folder} is damaged ({error}); pack again") from error
    return pixels, paths
