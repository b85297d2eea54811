"""Measure an epoch from end to end: from disk to updated weights and validation.

    python benchmarks/epoch.py [--images 2000] [--model mxa_efficientvit_m0] [--batch 32] [--rounds 3]

Whole runs of `mxa train` on the phantom take turns; in each the first epoch warms up and the second is timed, from the
first one's report to its own:

- paper: the paper's pipeline: each picture decoded and resized by Pillow in every epoch, timm's RandAugment picture by
  picture, in the loading processes;
- pack: from a pack, RandAugment on the whole batch on the model's device;
- step alone: the limit: the same step on one batch that lies on the device, as often as an epoch has batches.

What an epoch's training takes longer than its steps alone is the loader's, augmentation and the trainer's own work
included. The rest of the epoch is validation, of raw and averaged weights, and checkpoints.
"""

import argparse
import csv
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

from networks import LABELS, random_batch, uses_bf16
from record import Table, against_one, make_parser, positive, publish
from stepper import make_module, make_step
from timing import Timing, interleaved, take_turns

from mxa.data.augment import Augment
from mxa.data.options import DataOptions, read
from mxa.data.packing import make_pack
from mxa.data.phantom import make_phantom
from mxa.models.build import build_model
from mxa.preprocess import Preprocess
from mxa.training.config import PRECISIONS, ModelConfig, OptimConfig, TrainConfig
from mxa.training.run import train

PAPER, PACK, STEP = "paper", "pack", "step alone"
EPOCHS = 2
REPORTER = logging.getLogger("mxa.training.callbacks")
"""Where a run reports each finished epoch."""


@dataclass(frozen=True)
class Epoch:
    """Seconds of one epoch.

    Attributes:
        whole: training, validation and checkpoints.
        training: from asking for the first batch to the last update.
    """

    whole: float
    training: float


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = make_parser(__doc__, rounds=3, seconds=2.0)
    parser.add_argument("--images", type=positive, default=2000, help="of all splits together")
    parser.add_argument("--size", type=positive, default=320, help="short side of the files' pictures in pixels")
    parser.add_argument("--model", default="mxa_efficientvit_m0")
    parser.add_argument("--batch", type=positive, default=32)
    parser.add_argument("--image", type=positive, default=224, help="side of the network's input in pixels")
    parser.add_argument("--precision", default="auto", choices=PRECISIONS)
    parser.add_argument("--workers", type=int, default=-1, help="loading processes; -1 as `mxa train` chooses")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        paper, pack, batches = prepare(Path(folder), options)
        images = batches * options.batch
        epochs = take_turns(
            {
                PAPER: partial(run, paper, images),
                PACK: partial(run, pack, images),
                STEP: partial(steps_alone, make_fixed_step(options), batches, options.seconds),
            },
            options.rounds,
        )
    timings = {side: Timing(tuple(one.whole for one in found)) for side, found in epochs.items()}
    table = Table(
        f"epoch of {batches} batches of {options.batch}",
        timings,
        images,
        against_one(PAPER, list(timings)),
        columns=parts(epochs),
    )
    publish("epoch", parser, options, table)


def prepare(folder: Path, options: argparse.Namespace) -> tuple[TrainConfig, TrainConfig, int]:
    """Phantom and pack; gives both pipelines' configurations and the training batches of an epoch."""
    root = make_phantom(folder / "data", images=options.images, size=options.size, masks=False)
    common = TrainConfig(
        out=str(folder / "run"),
        data=DataOptions(root=str(root)),
        preprocess=Preprocess(size=options.image),
        model=ModelConfig(name=options.model),
        optim=OptimConfig(epochs=EPOCHS, batch_size=options.batch, warmup_epochs=0, cooldown_epochs=0),
        precision=options.precision,
        workers=options.workers,
        progress=False,
    )
    table = read(common.data)
    paper = replace(common, augment=Augment(implementation="timm"), cache_gib=0.0)
    pack = replace(common, pack=str(make_pack(table, folder / "pack", common.preprocess)))
    return paper, pack, len(table.split("train")) // options.batch


def run(config: TrainConfig, images: int) -> Epoch:
    """The last epoch of a run; its folder is removed."""
    with reports() as times:
        train(config)
    if len(times) != EPOCHS:
        raise RuntimeError(
            f"{REPORTER.name} reported {len(times)} epochs instead of {EPOCHS}; has its message changed?"
        )
    rate = images_per_second(Path(config.out))[-1]
    shutil.rmtree(config.out)
    return Epoch(times[-1] - times[-2], images / rate)


def images_per_second(run: Path) -> list[float]:
    """Of each epoch's training, as a run's folder has them."""
    with (run / "history.csv").open(newline="", encoding="utf-8") as stream:
        return [float(row["images_per_s"]) for row in csv.DictReader(stream)]


@contextmanager
def reports() -> Iterator[list[float]]:
    """When each epoch was reported, in seconds."""
    times: list[float] = []

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("epoch "):
                times.append(record.created)

    watch, level = Watch(), REPORTER.level
    REPORTER.addHandler(watch)
    REPORTER.setLevel(logging.INFO)
    try:
        yield times
    finally:
        REPORTER.removeHandler(watch)
        REPORTER.setLevel(level)


def make_fixed_step(options: argparse.Namespace, *, compiled: bool = False) -> Callable[[], None]:
    """The runs' step on one random batch that lies on the device, without augmentation and teacher."""
    network = build_model(options.model, len(LABELS), options.image)
    module = make_module(network, OptimConfig(batch_size=options.batch), compiled=compiled)
    return make_step(module, random_batch(options.batch, options.image), bf16=uses_bf16(options.precision))


def steps_alone(step: Callable[[], None], batches: int, seconds: float) -> Epoch:
    """An epoch of nothing but steps, extrapolated from about so many seconds."""
    taken = interleaved({STEP: step}, 1, seconds)[STEP].times(batches).seconds[0]
    return Epoch(taken, taken)


def parts(epochs: dict[str, list[Epoch]]) -> dict[str, dict[str, float]]:
    """What an epoch consists of, compared within each round; medians over the rounds."""
    runs = {side: list(zip(found, epochs[STEP], strict=True)) for side, found in epochs.items() if side != STEP}
    loader = {
        side: [(own.training - alone.training) / own.whole for own, alone in pairs] for side, pairs in runs.items()
    }
    rest = {side: [(own.whole - own.training) / own.whole for own, _ in pairs] for side, pairs in runs.items()}
    limit = {side: [alone.whole / own.whole for own, alone in pairs] for side, pairs in runs.items()}
    return {
        "steps, %": {side: 100 * median(values) for side, values in limit.items()},
        "loader, %": {side: 100 * median(values) for side, values in loader.items()},
        "validation and checkpoints, %": {side: 100 * median(values) for side, values in rest.items()},
    }


if __name__ == "__main__":
    main()
