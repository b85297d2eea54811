"""Measure what a teacher costs a training step: none, cached logits, run live; prints JSON.

    python benchmarks/distillation.py [--sizes m0 m5] [--batch 32] [--image 224] [--rounds 7]

The student is EfficientViT with MXA, the teacher a DenseNet-121 at 224 px with random weights, which costs what a
trained one costs. A step is forward, loss, backward, clipping and AdamW on decoded pictures in memory. The three are
run in turn within each round, and medians are compared, so that other work on the machine disturbs all alike.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from timm.utils import adaptive_clip_grad
from torch import nn

from mxa.data.augment import Augment
from mxa.data.loader import Batch
from mxa.data.options import DataOptions, read
from mxa.data.phantom import make_phantom
from mxa.labels import CHEXPERT14
from mxa.models.artifact import Architecture, Classifier, save
from mxa.models.build import build_model
from mxa.preprocess import Preprocess
from mxa.training.config import KdConfig, OptimConfig, TrainConfig
from mxa.training.distillation import Distiller, make_distiller, open_teacher
from mxa.training.loaders import make_loaders
from mxa.training.losses import masked_bce_with_logits
from mxa.training.teacher_cache import fill_cache

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["m0", "m5"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--image", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sides, batch = prepare(Path(folder), options.batch, options.image)
        sizes = {size: measure(size, sides, batch, options.rounds) for size in options.sizes}
    result = {
        "device": torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"CPU, {torch.get_num_threads()} threads",
        "machine": platform.platform(),
        "torch": torch.__version__,
        "batch": options.batch,
        "image": options.image,
        "sizes": sizes,
    }
    print(json.dumps(result, indent=1))


def prepare(folder: Path, batch_size: int, image: int) -> tuple[dict[str, Distiller | None], Batch]:
    """A phantom data set, a teacher, its cache; gives the three sides and one batch on the device."""
    data = make_phantom(folder / "data", images=2 * batch_size + 40, size=96)
    untrained = build_model("densenet121", 14, 224).eval()
    classifier = Classifier(untrained, Architecture("densenet121", {}), CHEXPERT14, Preprocess(), {})
    teacher = save(classifier, folder / "teacher")
    live = TrainConfig(
        data=DataOptions(root=str(data)),
        preprocess=Preprocess(size=image),
        augment=Augment(randaugment=""),
        optim=OptimConfig(batch_size=batch_size),
        kd=KdConfig(teacher=str(teacher)),
        workers=0,
    )
    cached = replace(live, kd=replace(live.kd, cache=str(folder / "cache")))
    fill_cache(cached)
    table = read(live.data)
    training, validation = make_loaders(live, table)
    sides: dict[str, Distiller | None] = {"none": None}
    for name, config in (("cached", cached), ("live", live)):
        source = open_teacher(config, table)
        assert source is not None
        distiller = make_distiller(config, source, table, training.dataset, validation.dataset)
        distiller.to(DEVICE)
        sides[name] = distiller
    return sides, Batch(*(part.to(DEVICE) for part in next(iter(training))))


def measure(size: str, sides: dict[str, Distiller | None], batch: Batch, rounds: int) -> dict[str, object]:
    """Median seconds of a step on each side, their spread, and the ratio to a step without a teacher."""
    model = build_model(f"mxa_efficientvit_{size}", 14, batch.image.shape[-1]).to(DEVICE)
    model.to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5)
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds + 1):
        for side, distiller in sides.items():
            seconds[side].append(clock(model, optimiser, distiller, batch))
    medians = {side: statistics.median(times[1:]) for side, times in seconds.items()}  # the first warms up
    return {
        "images_per_second": {side: round(len(batch.row) / median, 1) for side, median in medians.items()},
        "spread": {side: [round(min(t[1:]), 4), round(max(t[1:]), 4)] for side, t in seconds.items()},
        "over_none": {side: round(median / medians["none"] - 1, 3) for side, median in medians.items()},
    }


def clock(model: nn.Module, optimiser: torch.optim.Optimizer, distiller: Distiller | None, batch: Batch) -> float:
    """Seconds of one step, the device's work included."""
    start = time.perf_counter()
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=DEVICE.type == "cuda"):
        logits = model(Preprocess().scale(batch.image.float())).float()
        if distiller is None:
            loss = masked_bce_with_logits(logits, batch.target, batch.mask)
        else:
            loss = distiller(logits, batch).total
    loss.backward()
    adaptive_clip_grad(list(model.parameters())[:-2], clip_factor=0.02)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
