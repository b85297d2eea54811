"""Measure what a teacher costs a training step: none, cached logits, run live.

    python benchmarks/distillation.py [--sizes m0 m5] [--batch 32] [--image 224] [--rounds 7]

The student is EfficientViT with MXA, the teacher a DenseNet-121 at 224 px with random weights, which costs what a
trained one costs. A step is the whole one of step.py, on decoded pictures on the device.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from limits import DEVICE
from networks import DENSENET, LABELS, SIZES, uses_bf16
from record import Table, make_parser, positive, publish
from stepper import make_module, make_step
from timing import interleaved

from mxa.data.augment import Augment
from mxa.data.loader import Batch
from mxa.data.options import DataOptions, read
from mxa.data.phantom import make_phantom
from mxa.models.artifact import Architecture, Classifier, save
from mxa.models.build import build_model
from mxa.preprocess import Preprocess
from mxa.training.config import PRECISIONS, KdConfig, OptimConfig, TrainConfig
from mxa.training.distillation import Distiller, make_distiller, open_teacher
from mxa.training.loaders import make_loaders
from mxa.training.teacher_cache import fill_cache


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("--sizes", nargs="+", default=["m0", "m5"], choices=SIZES)
    parser.add_argument("--batch", type=positive, default=32)
    parser.add_argument("--image", type=positive, default=224, help="side of the student's pictures in pixels")
    parser.add_argument("--precision", default="auto", choices=PRECISIONS)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        distillers, batch = prepare(Path(folder), options.batch, options.image)
        steps: dict[str, Callable[[], object]] = {}
        for name in (f"mxa_efficientvit_{size}" for size in options.sizes):
            for teacher, distiller in distillers.items():
                network = build_model(name, len(LABELS), options.image)
                module = make_module(network, OptimConfig(), distiller)
                steps[f"{name}{teacher}"] = make_step(module, batch, bf16=uses_bf16(options.precision))
        timings = interleaved(steps, options.rounds, options.seconds)
    alone = {side: side.partition(",")[0] for side in timings}
    table = Table(
        f"training step, {options.batch} images", timings, options.batch, {"no teacher": alone}, overhead=True
    )
    publish("distillation", parser, options, table)


def prepare(folder: Path, batch_size: int, image: int) -> tuple[dict[str, Distiller | None], Batch]:
    """A phantom data set, a teacher, its cache; gives the three sides and one batch on the device."""
    data = make_phantom(folder / "data", images=2 * batch_size + 40, size=96)
    untrained = build_model(DENSENET, len(LABELS), 224).eval()
    teacher = save(Classifier(untrained, Architecture(DENSENET, {}), LABELS, Preprocess(), {}), folder / "teacher")
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
    sides: dict[str, Distiller | None] = {"": None}
    for name, config in ((", cached teacher", cached), (", live teacher", live)):
        source = open_teacher(config, table)
        assert source is not None
        sides[name] = make_distiller(config, source, table, training.dataset, validation.dataset)
    return sides, Batch(*(part.to(DEVICE) for part in next(iter(training))))


if __name__ == "__main__":
    main()
