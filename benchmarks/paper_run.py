"""Project the paper's whole run at CheXpert's size from a few measured epochs.

    python benchmarks/paper_run.py [--rounds 3] [--images 223414] [--batch 512] [--compile]

A pack of random pixels and random labels (how long a step takes does not depend on them), a DenseNet-121 with random
weights as the teacher, its logits cached by `mxa teacher predict`'s own code, then `mxa train`'s own code for one epoch
to warm up and `--rounds` measured ones. Beside it, the limit: the same number of steps on one batch that lies on the
device. The JSON also has

- projection: minutes of the paper's 50 epochs: the first one as it was, the others as the median of the measured ones;
- teacher: seconds for all cached logits, once;
- busy: how many per cent of the time a kernel was running, by `nvidia-smi` twice a second during the whole run, its
  start and validation included;
- profile: which operations a step's time on the device is spent in.

On a GPU of the H200's kind the whole takes some minutes and 12 GB of disk; on a CPU days, so give few --images there.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import pandas as pd
import torch
from epoch import images_per_second, make_fixed_step, reports, steps_alone
from networks import DENSENET, LABELS
from numpy.lib.format import open_memmap
from record import Table, against_one, make_parser, positive, publish
from timing import Timing

from mxa.data.options import CsvOptions, DataOptions, read
from mxa.data.pack import FORMAT_VERSION, INDEX, MANIFEST, PIXELS
from mxa.data.table import Table as Radiographs
from mxa.models.artifact import Architecture, Classifier, save
from mxa.models.build import build_model
from mxa.preprocess import Preprocess
from mxa.training.config import PRECISIONS, KdConfig, ModelConfig, OptimConfig, TrainConfig
from mxa.training.run import train
from mxa.training.teacher_cache import fill_cache

EPOCH, STEP = "epoch", "step alone"
PAPERS_EPOCHS = 50
VALIDATION = 234
"""Images of CheXpert's validation split."""
BLOCK = 1024
"""Rows of random pixels that are drawn together."""
PROFILED = 5
"""Steps in the profile."""
OPERATIONS = 15
"""Operations that the profile shows."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = make_parser(__doc__, rounds=3, seconds=5.0)
    parser.add_argument("--images", type=positive, default=223_414, help="for training")
    parser.add_argument("--validation", type=positive, default=VALIDATION, help="images for validation")
    parser.add_argument("--model", default="mxa_efficientvit_m5")
    parser.add_argument("--batch", type=positive, default=512)
    parser.add_argument("--image", type=positive, default=224, help="side of the pictures in pixels")
    parser.add_argument("--precision", default="auto", choices=PRECISIONS)
    parser.add_argument("--compile", action="store_true", help="train by torch.compile")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = prepare(folder, options)
        started = time.perf_counter()
        fill_cache(config)
        teacher = time.perf_counter() - started
        with reports() as times, utilisation() as busy:
            begun = time.time()
            train(config)
        rates = images_per_second(folder / "run")[1:]
    whole = [end - start for start, end in pairwise(times)]
    batches = options.images // options.batch
    step = make_fixed_step(options, compiled=options.compile)
    alone = [steps_alone(step, batches, options.seconds).whole for _ in whole]
    training = [batches * options.batch / rate for rate in rates]
    columns = {
        "steps, %": 100 * median(alone) / median(whole),
        "loader, augmentation and teacher, %": 100 * (median(training) - median(alone)) / median(whole),
        "validation and checkpoints, %": 100 * (1 - median(training) / median(whole)),
    }
    timings = {EPOCH: Timing(tuple(whole)), STEP: Timing(tuple(alone))}
    publish(
        "paper_run",
        parser,
        options,
        Table(
            f"epoch of {batches} batches of {options.batch}",
            timings,
            batches * options.batch,
            against_one(STEP, list(timings)),
            columns={name: {EPOCH: value} for name, value in columns.items()},
        ),
        projection={
            "epochs": PAPERS_EPOCHS,
            "minutes": (times[0] - begun + (PAPERS_EPOCHS - 1) * median(whole)) / 60,
        },
        teacher={"seconds": teacher, "images_per_s": (options.images + options.validation) / teacher},
        busy={"percent": mean(busy) if busy else None, "samples": len(busy)},
        profile=profile(step),
    )


def prepare(folder: Path, options: argparse.Namespace) -> TrainConfig:
    """Labels, pack and teacher; gives the run's configuration."""
    table = random_table(folder, options.images, options.validation)
    preprocess = Preprocess(size=options.image)
    random_pack(table, folder / "pack", preprocess)
    untrained = build_model(DENSENET, len(LABELS), options.image).eval()
    teacher = save(Classifier(untrained, Architecture(DENSENET, {}), LABELS, preprocess, {}), folder / "teacher")
    return TrainConfig(
        out=str(folder / "run"),
        data=data_options(folder),
        pack=str(folder / "pack"),
        preprocess=preprocess,
        model=ModelConfig(name=options.model),
        optim=OptimConfig(epochs=options.rounds + 1, batch_size=options.batch, warmup_epochs=1, cooldown_epochs=0),
        kd=KdConfig(teacher=str(teacher), cache=str(folder / "cache")),
        precision=options.precision,
        compile=options.compile,
        progress=False,
    )


def data_options(folder: Path) -> DataOptions:
    """Of the random table."""
    columns = CsvOptions(file=str(folder / "labels.csv"), patient="patient", split="split")
    return DataOptions(root=str(folder), dataset="csv", csv=columns)


def random_table(folder: Path, images: int, validation: int) -> Radiographs:
    """A fifth of the labels positive; three images to a patient."""
    rows = images + validation
    labels = np.random.default_rng(0).random((rows, len(LABELS))) < 0.2
    frame = pd.DataFrame(labels.astype(int), columns=list(LABELS))
    frame.insert(0, "path", [f"{row}.png" for row in range(rows)])
    frame.insert(1, "split", np.where(np.arange(rows) < images, "train", "valid"))
    numbers = np.where(np.arange(rows) < images, np.arange(rows) // 3, np.arange(rows) + rows)
    frame.insert(2, "patient", [f"patient{number}" for number in numbers])
    frame.to_csv(folder / "labels.csv", index=False)
    return read(data_options(folder))


def random_pack(table: Radiographs, folder: Path, preprocess: Preprocess) -> None:
    """What :func:`mxa.data.packing.make_pack` would leave of random pictures, without checksums."""
    folder.mkdir()
    size, rng = preprocess.size, np.random.default_rng(0)
    pixels = open_memmap(folder / PIXELS, mode="w+", dtype=np.uint8, shape=(len(table), size, size))
    for start in range(0, len(table), BLOCK):
        part = pixels[start : start + BLOCK]
        part[:] = np.frombuffer(rng.bytes(part.size), dtype=np.uint8).reshape(part.shape)
    pixels.flush()
    table.frame[["path", "split"]].to_parquet(folder / INDEX, index=False)
    manifest = {
        "format_version": FORMAT_VERSION,
        "data": {"dataset": table.dataset, "fingerprint": table.fingerprint()},
        "pixels": preprocess.pixel_fields(),
        "reduced": False,
        "images": len(table),
        "rejects": 0,
        "blocks": [],
    }
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


@contextmanager
def utilisation() -> Iterator[list[float]]:
    """Per cent of each half second in which a kernel ran, filled at the end; empty without `nvidia-smi`."""
    found: list[float] = []
    if shutil.which("nvidia-smi") is None or not torch.cuda.is_available():
        yield found
        return
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "500", "-i", "0"]
    with subprocess.Popen(query, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield found
        finally:
            process.terminate()
            output, _ = process.communicate()
            found += [float(line) for line in output.splitlines() if line.strip().isdigit()]


def profile(step: Callable[[], None]) -> list[dict[str, Any]]:
    """The operations that take most of a step on the device, with their share."""
    on_gpu = torch.cuda.is_available()
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if on_gpu:
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as found:
        for _ in range(PROFILED):
            step()
    averages = found.key_averages()
    spent = {one.key: one.self_device_time_total if on_gpu else one.self_cpu_time_total for one in averages}
    total = sum(spent.values())
    most = sorted(spent, key=lambda name: -spent[name])[:OPERATIONS]
    return [{"operation": name, "percent": 100 * spent[name] / total} for name in most]


if __name__ == "__main__":
    main()
