"""A teacher's raw logits of a data set on disk, so that it runs once instead of in every step.

The folder holds::

    cache.json    teachers (by fingerprint), contract of the pictures that they saw, data fingerprint, checksums
    index.csv     path and split of each row
    logits.npy    (N, T) float32, the teachers' own outputs side by side
    glances.npy   (N, 8, 8) uint8, each picture's mean grey on an 8 x 8 grid

It is the teachers' own outputs that are kept, so one cache serves every label set, loss and student. Reading refuses
what does not fit: other teachers, pictures prepared otherwise, images that are missing, and, by the glances, other
pictures under the same names.
"""

import csv
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as nnf
from numpy.lib.format import open_memmap
from torch import Tensor

from mxa.data.loader import EpochSampler, RadiographDataset, make_loader
from mxa.data.options import read
from mxa.data.table import Table
from mxa.errors import ArtifactError, ConfigError, DataError
from mxa.models.teacher import Teacher, load_teachers, ready_teacher
from mxa.preprocess import Preprocess
from mxa.training.config import TrainConfig
from mxa.training.loaders import loading_processes, make_dataset

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
MANIFEST, INDEX, LOGITS, GLANCES = "cache.json", "index.csv", "logits.npy", "glances.npy"
DONE = "done"
"""How many rows a cache in the making has."""
BATCH_SIZE = 32
GLANCE = 8
GLANCE_TOLERANCE = 3
"""Grey levels of 255 by which a picture's means may differ: decoders of different versions do by one or two, other
pictures by far more."""
GLANCES_LOOKED_AT = 64
"""Pictures that are compared where they would have to be decoded for it."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CachedRows:
    """The cache's part for one table.

    Attributes:
        folder: of the cache.
        table: N rows.
        outputs: (N, T) float32, the teachers' raw logits in the table's order.
        glances: (N, 8, 8) uint8.
    """

    folder: Path
    table: Table
    outputs: Tensor
    glances: npt.NDArray[np.uint8]

    def check_pictures(self, dataset: RadiographDataset) -> None:
        """Refuse other pictures under the same names.

        Args:
            dataset: the table's pictures; all are compared if they are in memory, else a sample of them.

        Raises:
            DataError: a picture differs from the one that the teacher saw, or cannot be read.
        """
        rows = np.arange(len(self.table))
        if dataset.pixels is None:
            rows = np.unique(np.linspace(0, len(self.table) - 1, GLANCES_LOOKED_AT).astype(np.int64))
        seen = torch.cat([glance(dataset.decoded(part)) for part in torch.from_numpy(rows).split(256)])
        distance = np.abs(seen.numpy().astype(np.int64) - self.glances[rows]).max(axis=(1, 2))
        other = np.flatnonzero(distance > GLANCE_TOLERANCE)
        if len(other):
            raise DataError(
                f"{self.folder} was made of other pictures: {len(other)} of {len(rows)} compared differ, such as "
                f"{self.table.frame['path'].iloc[rows[other[0]]]}; make a new cache with `mxa teacher predict`"
            )


@dataclass(frozen=True)
class Cache:
    """An opened cache that fits a run's teachers and contract.

    Attributes:
        folder: where it is.
        manifest: the contents of ``cache.json``.
    """

    folder: Path
    manifest: dict[str, Any]

    @property
    def names(self) -> list[list[str]]:
        """For each teacher the names of its outputs, '' for an untrained one."""
        return [teacher["outputs"] for teacher in self.manifest["teachers"]]

    def rows_of(self, table: Table) -> CachedRows:
        """The logits of a table's rows, joined by path.

        Raises:
            DataError: an image of the table is not in the cache.
        """
        with (self.folder / INDEX).open(newline="", encoding="utf-8") as stream:
            position = {row["path"]: i for i, row in enumerate(csv.DictReader(stream))}
        paths = table.frame["path"].tolist()
        missing = [path for path in paths if path not in position]
        if missing:
            data = self.manifest["data"]
            raise DataError(
                f"{self.folder} is a cache of other data ({data['dataset']}, {data['images']} images): it lacks "
                f"{len(missing)} of {len(paths)} images, such as {missing[0]}; make one of these data with `mxa "
                "teacher predict`"
            )
        rows = [position[path] for path in paths]
        outputs = torch.from_numpy(np.load(self.folder / LOGITS)[rows])
        return CachedRows(self.folder, table, outputs, np.load(self.folder / GLANCES)[rows])


def fill_cache(config: TrainConfig, progress: Progress | None = None) -> Path:
    """Run a run's teachers once over its training and validation images, and store their logits in ``kd.cache``.

    The teachers see the pictures as the run's contract fits and resizes them. The folder appears whole or not at all;
    called again after it was killed, it goes on.

    Args:
        config: the run; data, pack, preprocess, kd and workers count.
        progress: called with (done, total).

    Returns:
        The new folder.

    Raises:
        ConfigError: ``kd.teacher`` or ``kd.cache`` is missing, the cache exists, or a teacher has no finding in common
            with the data.
        ArtifactError: a teacher cannot be loaded.
        DataError: the data or an image cannot be read, or a teacher's logits are not finite; the message names it.
    """
    folder = Path(config.kd.cache)
    if not config.kd.teachers or not config.kd.cache:
        raise ConfigError("give kd.teacher, the saved model that teaches, and kd.cache, the folder for its logits")
    if folder.exists():
        raise ConfigError(f"{folder} exists; choose another kd.cache or remove it")
    table = read(config.data)
    models = load_teachers(config.kd.teachers)
    teacher = ready_teacher(models, table.labels, config.kd.no_finding)
    rows = table.take((table.frame["split"] != "test").to_numpy())
    manifest = {
        "format_version": FORMAT_VERSION,
        "teachers": [one.describe() for one in models],
        "pixels": config.preprocess.pixel_fields(),
        "data": {"dataset": table.dataset, "fingerprint": table.fingerprint(), "images": len(rows)},
    }
    part = _Part.open(folder.with_name(f".{folder.name}.part"), manifest, len(rows), sum(teacher.adapter.widths))
    if part.done:
        log.info("going on after the %d images that are done", part.done)
    _score(teacher, rows, config, part, progress)
    part.finish(folder, rows)
    return folder


def _score(teacher: Teacher, rows: Table, config: TrainConfig, part: "_Part", progress: Progress | None) -> None:
    """Logits and glances of the rows that are not done."""
    order = EpochSampler(len(rows), shuffle=False)
    order.start_at(0, part.done)
    workers = loading_processes(config, light=bool(config.pack))
    dataset = make_dataset(config, rows, cached=False)
    for batch in make_loader(dataset, order, BATCH_SIZE, workers=workers):
        raw = teacher.outputs(batch.image.to(teacher.known.device)).cpu()
        finite = raw.isfinite().all(dim=1)
        if not finite.all():
            first = int(batch.row[~finite][0])
            raise DataError(f"the teacher's logits of {rows.frame['path'].iloc[first]} are not finite")
        part.add(raw.numpy(), glance(batch.image[:, 0]).numpy())
        if progress is not None:
            progress(part.done, len(rows))


class _Part:
    """A cache in the making, in a hidden folder beside its place; a killed run goes on in it.

    Args:
        folder: the hidden folder.
        manifest: what the cache will say of itself.
        arrays: logits (N, T) and glances (N, 8, 8), mapped from their files.
        done: rows that are there.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], arrays: Mapping[str, np.memmap], done: int) -> None:
        self.folder, self.manifest, self.arrays, self.done = folder, manifest, arrays, done

    @classmethod
    def open(cls, folder: Path, manifest: dict[str, Any], rows: int, width: int) -> "_Part":
        """Go on with what an earlier run of the same manifest left, or begin."""
        file = folder / MANIFEST
        if file.is_file() and json.loads(file.read_text(encoding="utf-8")) == manifest:
            arrays = {name: open_memmap(folder / name, mode="r+") for name in (LOGITS, GLANCES)}
            return cls(folder, manifest, arrays, int((folder / DONE).read_text(encoding="utf-8")))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        arrays = {
            LOGITS: open_memmap(folder / LOGITS, mode="w+", dtype=np.float32, shape=(rows, width)),
            GLANCES: open_memmap(folder / GLANCES, mode="w+", dtype=np.uint8, shape=(rows, GLANCE, GLANCE)),
        }
        _replace(folder / DONE, "0")
        _write_manifest(folder, manifest)  # the last of them: without it the folder is begun anew
        return cls(folder, manifest, arrays, 0)

    def add(self, logits: npt.NDArray[np.float32], glances: npt.NDArray[np.uint8]) -> None:
        """Keep the next rows, and note that they are there once they are on disk."""
        for name, new in ((LOGITS, logits), (GLANCES, glances)):
            self.arrays[name][self.done : self.done + len(new)] = new
            self.arrays[name].flush()
        self.done += len(logits)
        _replace(self.folder / DONE, str(self.done))

    def finish(self, folder: Path, rows: Table) -> None:
        """Put the whole cache in its place."""
        with (self.folder / INDEX).open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([("path", "split"), *rows.frame[["path", "split"]].itertuples(index=False)])
        files = {name: _sha256(self.folder / name) for name in (INDEX, *self.arrays)}
        _write_manifest(self.folder, self.manifest | {"files": files})
        (self.folder / DONE).unlink()
        self.folder.rename(folder)


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    _replace(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def _replace(file: Path, text: str) -> None:
    """Write a file whole: a kill leaves the old one or the new one, never half."""
    new = file.with_name(f"{file.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(file)


def glance(pixels: Tensor) -> Tensor:
    """(B, S, S) uint8 -> (B, 8, 8) uint8 mean grey on a grid: enough to know a picture again."""
    return nnf.adaptive_avg_pool2d(pixels.float().unsqueeze(1), GLANCE)[:, 0].round().to(torch.uint8)


def open_cache(folder: Path, fingerprints: Sequence[str], preprocess: Preprocess) -> Cache:
    """Open a cache for a run.

    Args:
        folder: as :func:`fill_cache` made it.
        fingerprints: of the teachers that the run names, in its order.
        preprocess: the run's contract.

    Raises:
        ArtifactError: the folder is no cache, or damaged.
        ConfigError: the cache is of other teachers, or of pictures prepared otherwise.
    """
    manifest = _read_manifest(folder)
    stored = [teacher["fingerprint"] for teacher in manifest["teachers"]]
    if stored != list(fingerprints):
        named = ", ".join(f"{teacher['path']} ({teacher['fingerprint'][:12]})" for teacher in manifest["teachers"])
        wanted = ", ".join(one[:12] for one in fingerprints)
        raise ConfigError(
            f"{folder} holds the logits of other teachers: {named}; kd.teacher has {wanted}. Make a cache of these "
            "teachers with `mxa teacher predict`"
        )
    for name, here in preprocess.pixel_fields().items():
        if manifest["pixels"].get(name) != here:
            raise ConfigError(
                f"{folder} was made with preprocess.{name} {manifest['pixels'].get(name)!r}, the run has {here!r}; use "
                "the same, or make a new cache with `mxa teacher predict`"
            )
    return Cache(folder, manifest)


def _read_manifest(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST
    if not file.is_file():
        raise ArtifactError(
            f"kd.cache: {folder} holds no teacher's logits (no {MANIFEST}); make them with `mxa teacher predict` and "
            "the options of this run"
        )
    try:
        manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        version, files = manifest["format_version"], manifest["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{file} is damaged ({error!r}); make the cache again") from error
    if version != FORMAT_VERSION:
        raise ArtifactError(f"{file} has format version {version!r}, not {FORMAT_VERSION}; make the cache again")
    for name, expected in files.items():
        if not (folder / name).is_file() or _sha256(folder / name) != expected:
            raise ArtifactError(f"{folder / name} is missing or damaged; make the cache again")
    return manifest


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
