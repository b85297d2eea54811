"""Write the phantom to disk in CheXpert's own layout."""

import csv
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mxa.data.phantom.anatomy import draw_patient, draw_pose
from mxa.data.phantom.image import Drawing, draw_image
from mxa.data.phantom.plan import BODY, POSES, Case, Study, draw_cases, numbers, split_cases
from mxa.data.phantom.statistics import FINDINGS
from mxa.errors import ConfigError, DataError
from mxa.processes import follow_parent

ROOT = "CheXpert-v1.0-small"
COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS)
TRUTH_COLUMNS = ("Path", *FINDINGS, *(f"{finding} visibility" for finding in FINDINGS[1:]))
BOX_COLUMNS = ("Path", "finding", "x1", "y1", "x2", "y2")
QUALITY = 90

Row = list[str]


def make_phantom(
    out: Path,
    images: int = 2000,
    size: int = 320,
    seed: int = 0,
    workers: int | None = None,
    valid_fraction: float = 0.15,
    test_fraction: float = 0.15,
    masks: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw a data set of procedural chest radiographs in CheXpert's layout.

    Writes, under ``out/CheXpert-v1.0-small``:

    * ``train/patient00001/study1/view1_frontal.jpg`` and so on, likewise ``valid/`` and ``test/``: 8-bit greyscale
      JPEGs.
    * ``train.csv``, ``valid.csv``, ``test.csv``: CheXpert's columns. In train the findings are 1.0, 0.0, -1.0 or
      blank, as a report would have them; in valid and test they are 1.0 or 0.0 and true. Splits are by patient; one
      too small to get a patient has no rows.
    * ``truth.csv``: what is really drawn in every image, 0 or 1, and each drawn finding's visibility in (0, 1].
    * ``boxes.csv``: ``Path, finding, x1, y1, x2, y2`` relative to width and height, a row for every connected part of
      a sign.
    * ``masks/train/.../view1_frontal.png``: 16-bit greyscale, half the image's width and height; bit j is set where
      finding j (CheXpert's order, "No Finding" is bit 0 and never set) has its sign.

    The files depend on ``images``, ``size``, ``seed`` and the fractions, not on the number of workers.

    Args:
        out: Folder to create, or an empty one.
        images: Number of images, all splits together.
        size: Short side of the images, pixels; the long side is 1 or 1.22 times that.
        seed: Non-negative integer.
        workers: Processes; None uses every core, 1 or less draws in this process.
        valid_fraction: Fraction of the images for valid, in [0, 1).
        test_fraction: Fraction of the images for test; both together stay below 1.
        masks: Whether to write the mask images.
        progress: Called with (images done, images in all) now and then.

    Returns:
        The folder ``out/CheXpert-v1.0-small``.

    Raises:
        ConfigError: If an argument is out of range.
        DataError: If ``out`` is a file or a folder with something in it.
    """
    out = Path(out)
    _check(images, size, seed, valid_fraction, test_fraction)
    _check_empty(out)
    parts = split_cases(draw_cases(images, seed), seed, valid_fraction, test_fraction)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Everything is drawn next door and moved at the end, so that a broken run leaves nothing that looks like a data
    # set.
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        _write(scratch / ROOT, _jobs(parts, scratch / ROOT, size, seed, masks), workers, images, progress)
        out.mkdir(exist_ok=True)
        (scratch / ROOT).rename(out / ROOT)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return out / ROOT


@dataclass(frozen=True)
class _Job:
    """One patient to draw."""

    case: Case
    number: int
    split: str
    root: Path
    size: int
    seed: int
    masks: bool


@dataclass
class _Rows:
    """One patient's lines of the CSV files."""

    split: str
    labels: list[Row]
    truth: list[Row]
    boxes: list[Row]


def _check(images: int, size: int, seed: int, valid_fraction: float, test_fraction: float) -> None:
    for name, value, least in (("images", images, 1), ("size", size, 64), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ConfigError(f"{name} must be an integer of at least {least}, got {value!r}")
    for name, fraction in (("valid_fraction", valid_fraction), ("test_fraction", test_fraction)):
        if not 0 <= fraction < 1:
            raise ConfigError(f"{name} must be in [0, 1), got {fraction!r}")
    if valid_fraction + test_fraction >= 1:
        raise ConfigError(
            "valid_fraction and test_fraction must leave something to train on, "
            f"but {valid_fraction} + {test_fraction} is 1 or more"
        )


def _check_empty(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; name a new or empty folder for the phantom")
    if out.is_dir() and any(out.iterdir()):
        raise DataError(f"{out} is not empty; name a new folder for the phantom, or remove what is in it")


def _jobs(parts: dict[str, list[Case]], root: Path, size: int, seed: int, masks: bool) -> list[_Job]:
    number = numbers(parts)
    return [
        _Job(case, number[case.index], split, root, size, seed, masks)
        for split, cases in parts.items()
        for case in cases
    ]


def _write(
    root: Path, jobs: list[_Job], workers: int | None, images: int, progress: Callable[[int, int], None] | None
) -> None:
    """Draw all patients and write the CSV files, in the order of the jobs."""
    root.mkdir(parents=True)
    rows = []
    done = 0
    for one in _run(jobs, _cores() if workers is None else workers):
        rows.append(one)
        done += len(one.labels)
        if progress is not None:
            progress(done, images)
    for split in ("train", "valid", "test"):
        _write_csv(root / f"{split}.csv", COLUMNS, [row for one in rows if one.split == split for row in one.labels])
    _write_csv(root / "truth.csv", TRUTH_COLUMNS, [row for one in rows for row in one.truth])
    _write_csv(root / "boxes.csv", BOX_COLUMNS, [row for one in rows for row in one.boxes])


def _run(jobs: list[_Job], workers: int) -> Iterator[_Rows]:
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from map(_draw_case, jobs)
        return
    # Spawned, not forked: the caller may hold threads (torch does).
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, follow_parent) as pool:
        yield from pool.map(_draw_case, jobs, chunksize=max(1, min(16, len(jobs) // (4 * workers))))


def _cores() -> int:
    """Return how many cores this process may use; a container often gets fewer than the machine has."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _write_csv(path: Path, header: tuple[str, ...], rows: list[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _draw_case(job: _Job) -> _Rows:
    """Draw and save all images of one patient."""
    case = job.case
    rows = _Rows(job.split, [], [], [])
    body = draw_patient(np.random.default_rng([job.seed, case.index, BODY]), case.sex, case.studies[0].age)
    for study in case.studies:
        _make_folders(job, study)
        for v, view in enumerate(study.views):
            image_seed = [job.seed, case.index, POSES, study.number, v]
            pose = draw_pose(np.random.default_rng(image_seed), view)
            if v > 0 and view == study.views[0]:
                # A repeat of the same view: the patient has hardly moved.
                first = draw_pose(np.random.default_rng([*image_seed[:-1], 0]), view)
                pose = replace(pose, breath=first.breath, turn=first.turn)
            drawing = draw_image(body, pose, study.signs, job.size, image_seed)
            name = f"patient{job.number:05d}/study{study.number}/view{v + 1}_{'lateral' if view == 'L' else 'frontal'}"
            _save(job, name, drawing)
            _add_rows(rows, f"{ROOT}/{job.split}/{name}.jpg", case, study, view, drawing)
    return rows


def _make_folders(job: _Job, study: Study) -> None:
    for root in (job.root, job.root / "masks") if job.masks else (job.root,):
        (root / job.split / f"patient{job.number:05d}" / f"study{study.number}").mkdir(parents=True)


def _save(job: _Job, name: str, drawing: Drawing) -> None:
    Image.fromarray(drawing.pixels).save(job.root / job.split / f"{name}.jpg", quality=QUALITY)
    if job.masks:
        Image.fromarray(pack_masks(drawing)).save(job.root / "masks" / job.split / f"{name}.png", compress_level=1)


def pack_masks(drawing: Drawing) -> npt.NDArray[np.uint16]:
    """Return (H/2, W/2) uint16 with bit j set where finding j has its sign."""
    packed = np.zeros(drawing.heart.shape, dtype=np.uint16)
    for finding, mask in drawing.masks.items():
        packed |= mask.astype(np.uint16) << np.uint16(FINDINGS.index(finding))
    return packed


def _add_rows(rows: _Rows, path: str, case: Case, study: Study, view: str, drawing: Drawing) -> None:
    values = study.labels if rows.split == "train" else study.truth.astype(np.float64)
    meta = [path, case.sex, str(study.age), "Lateral" if view == "L" else "Frontal", "" if view == "L" else view]
    rows.labels.append([*meta, *("" if np.isnan(value) else f"{value:.1f}" for value in values)])
    seen: dict[str, Any] = {sign.finding: f"{sign.visibility:.3f}" for sign in study.signs}
    rows.truth.append([path, *(str(int(t)) for t in study.truth), *(seen.get(finding, "") for finding in FINDINGS[1:])])
    rows.boxes += [[path, box[0], *(f"{value:.5f}" for value in box[1:])] for box in drawing.boxes]
