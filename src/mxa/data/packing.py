"""Making a pack, and checking one: all processors decode, a kill costs a block at most, nothing unreadable is lost."""

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.format import open_memmap

from mxa.data.decode import decode
from mxa.data.pack import FORMAT_VERSION, INDEX, MANIFEST, PIXELS, REJECTS, read_arrays, read_manifest
from mxa.data.table import Table
from mxa.errors import ConfigError, DataError
from mxa.preprocess import Preprocess
from mxa.version import __version__

BLOCK = 1024
"""Rows that are written, hashed and noted together."""
BLOCKS = "blocks.jsonl"
"""What is done of a pack in the making: a line per block."""
SHOWN = 3

Progress = Callable[[int, int], None]


def make_pack(
    table: Table,
    out: Path,
    preprocess: Preprocess,
    *,
    reduced: bool = True,
    allowed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Decode and resize every picture of a table into a pack.

    The folder appears whole or not at all. Called again after a kill, or after unreadable pictures were mended, it goes
    on with what is done.

    Args:
        table: the whole data set; every picture once.
        out: new folder.
        preprocess: the contract; its size is the pack's.
        reduced: decode large JPEGs at a reduced size (:func:`mxa.data.decode.decode`).
        allowed: number of unreadable pictures that are left out; they stand in ``rejects.csv``.
        workers: threads (Pillow releases the interpreter's lock); None is one per processor.
        progress: called with (done, total).

    Returns:
        ``out``.

    Raises:
        ConfigError: ``out`` exists.
        DataError: the table names a picture twice, or more pictures than allowed cannot be read; all of them stand in
            the ``rejects.csv`` that the message names.
    """
    if out.exists():
        raise ConfigError(f"{out} exists; choose another folder or remove it")
    _refuse_repeated(table)
    manifest = {
        "format_version": FORMAT_VERSION,
        "data": {"dataset": table.dataset, "fingerprint": table.fingerprint()},
        "pixels": preprocess.pixel_fields(),
        "reduced": reduced,
        "versions": {"mxa": __version__} | {name: version(name) for name in ("numpy", "pillow")},
    }
    part = _Part(out.with_name(f".{out.name}.part"), manifest, len(table), preprocess.size)
    files = table.files()
    rejects: dict[int, str] = {}  # a block with one is never done, so each is found anew

    def fill(row: int) -> str:
        try:
            part.pixels[row] = decode(files[row], preprocess, reduced=reduced)
        except DataError as error:
            part.pixels[row] = 0
            return str(error)
        return ""

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        try:
            for start in range(0, len(table), BLOCK):
                rows = range(start, min(start + BLOCK, len(table)))
                if not part.has(rows):
                    errors = dict(zip(rows, pool.map(fill, rows), strict=True))
                    found = {row: error for row, error in errors.items() if error}
                    rejects |= found
                    part.note(rows, readable=not found)
                if progress is not None:
                    progress(rows.stop, len(table))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    _write_rejects(part.folder / REJECTS, table, rejects)
    if len(rejects) > allowed:
        shown = "; ".join(list(rejects.values())[:SHOWN])
        raise DataError(
            f"{len(rejects)} of {len(table)} pictures cannot be read ({shown}); all stand in {part.folder / REJECTS}. "
            "Mend them and call again, or allow that many to be left out"
        )
    return part.finish(out, table, sorted(rejects))


class _Part:
    """A pack in the making, in a hidden folder beside its place.

    Args:
        folder: the hidden folder.
        manifest: what the pack will say of itself; another one begins anew.
        images: rows.
        size: side of a picture.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], images: int, size: int) -> None:
        self.folder, self.manifest = folder, manifest
        self.done: dict[int, dict[str, Any]] = {}
        file = folder / MANIFEST
        if _was_begun(file, manifest):
            self.pixels = open_memmap(folder / PIXELS, mode="r+")
            self.done = _read_blocks(folder / BLOCKS)
            self._write_blocks()  # without what a kill has cut off
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.pixels = open_memmap(folder / PIXELS, mode="w+", dtype=np.uint8, shape=(images, size, size))
        file.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")

    def has(self, rows: range) -> bool:
        """Whether a block is done and all of it was readable; unreadable pictures are tried again."""
        block = self.done.get(rows.start)
        return block is not None and block["stop"] == rows.stop and bool(block["readable"])

    def note(self, rows: range, *, readable: bool) -> None:
        """A block is on disk."""
        self.pixels.flush()
        block = {"start": rows.start, "stop": rows.stop, "sha256": _sha256(self.pixels[rows.start : rows.stop])}
        self.done[rows.start] = block | {"readable": readable}
        with (self.folder / BLOCKS).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(self.done[rows.start]) + "\n")

    def _write_blocks(self) -> None:
        lines = [json.dumps(block) + "\n" for block in self.done.values()]
        (self.folder / BLOCKS).write_text("".join(lines), encoding="utf-8")

    def finish(self, out: Path, table: Table, left_out: list[int]) -> Path:
        """Leave out what could not be read, write index and manifest, and put the whole in its place."""
        kept = np.setdiff1d(np.arange(len(table)), left_out)
        if left_out:
            self._close_gaps(kept)
        table.frame.loc[kept, ["path", "split"]].reset_index(drop=True).to_parquet(self.folder / INDEX, index=False)
        blocks = [
            {"start": s, "stop": min(s + BLOCK, len(kept)), "sha256": _sha256(self.pixels[s : s + BLOCK])}
            if left_out
            else {key: self.done[s][key] for key in ("start", "stop", "sha256")}
            for s in range(0, len(kept), BLOCK)
        ]
        manifest = self.manifest | {"images": len(kept), "rejects": len(left_out), "blocks": blocks}
        (self.folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        (self.folder / BLOCKS).unlink()
        self.folder.rename(out)
        return out

    def _close_gaps(self, kept: npt.NDArray[np.int64]) -> None:
        """Copy the kept rows into a file of their own, a block at a time."""
        size = self.pixels.shape[1]
        new = self.folder / f"{PIXELS}.new"
        closed = open_memmap(new, mode="w+", dtype=np.uint8, shape=(len(kept), size, size))
        for start in range(0, len(kept), BLOCK):
            closed[start : start + BLOCK] = self.pixels[kept[start : start + BLOCK]]
        closed.flush()
        new.replace(self.folder / PIXELS)
        self.pixels = closed


def verify_pack(folder: Path, progress: Progress | None = None) -> list[str]:
    """Compare every block of a pack with its checksum.

    Returns:
        What is wrong, in words; empty where nothing is.

    Raises:
        DataError: the folder is no pack, or a file is missing.
    """
    manifest, (pixels, paths) = read_manifest(folder), read_arrays(folder)
    found = []
    if not len(pixels) == len(paths) == manifest["images"]:
        found.append(f"{len(pixels)} pictures and {len(paths)} paths, the manifest says {manifest['images']}")
    for block in manifest["blocks"]:
        if _sha256(pixels[block["start"] : block["stop"]]) != block["sha256"]:
            found.append(f"rows {block['start']} to {block['stop'] - 1} are damaged, from {paths[block['start']]} on")
        if progress is not None:
            progress(block["stop"], manifest["images"])
    return found


def _refuse_repeated(table: Table) -> None:
    repeated = table.frame[table.frame["path"].duplicated()]
    if len(repeated):
        first = repeated.iloc[0]
        raise DataError(
            f"{first['source']}:{first['row']}: {first['path']} is there already, and a pack holds every picture once; "
            "take the row out (`mxa data check` lists all such)"
        )


def _was_begun(file: Path, manifest: dict[str, Any]) -> bool:
    """Whether the manifest of a pack in the making is this one; what a kill has torn is none."""
    try:
        return bool(json.loads(file.read_text(encoding="utf-8")) == manifest)
    except (OSError, ValueError):
        return False


def _read_blocks(file: Path) -> dict[int, dict[str, Any]]:
    """The finished blocks, the latest word on each; a line that a kill cut off is none."""
    done: dict[int, dict[str, Any]] = {}
    if file.is_file():
        for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                block = json.loads(line)
                done[block["start"]] = block
    return done


def _write_rejects(file: Path, table: Table, rejects: dict[int, str]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "reason"])
        writer.writerows([table.frame["path"].iloc[row], rejects[row]] for row in sorted(rejects))


def _sha256(pixels: npt.NDArray[np.uint8]) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()
