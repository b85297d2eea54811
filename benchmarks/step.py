"""Measure a training step: EfficientViT plain and with MXA, and TorchXRayVision's DenseNet-121.

    python benchmarks/step.py [--sizes m0 m2 m5] [--batch 32] [--image 224] [--precision auto] [--compile]

A step is what `mxa train` does with a batch: forward, masked loss, backward, adaptive gradient clipping, AdamW, moving
average of the weights; the batch lies on the device, loading and augmentation are left out (epoch.py has them). All
sides take turns, and so does a large matrix product, the limit of the device's arithmetic. Operations are those of
convolutions and matrix products, a multiply-add is two. (With --precision 32 on a GPU convolutions may use TF32, which
the product of float32 matrices does not: the limit is then not one.)
"""

from collections.abc import Callable, Sequence

from limits import count_flop
from networks import COMPILED, LABELS, add_options, compare, model_names, random_batch, uses_bf16
from record import make_parser, positive, publish
from stepper import make_module, make_step

from mxa.data.loader import Batch
from mxa.memory import keep_freed_memory
from mxa.models.build import build_model
from mxa.training.config import OptimConfig


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    add_options(parser, precision="auto")
    parser.add_argument("--batch", type=positive, default=32)
    options = parser.parse_args(argv)
    keep_freed_memory()
    bf16 = uses_bf16(options.precision)
    batch = random_batch(options.batch, options.image)
    steps: dict[str, Callable[[], object]] = {}
    flop: dict[str, int] = {}
    parameters: dict[str, int] = {}
    for name in model_names(options.sizes):
        steps[name], parameters[name] = prepare(name, batch, bf16=bf16)
        flop[name] = count_flop(steps[name])
        if options.compile:
            steps[name + COMPILED], _ = prepare(name, batch, bf16=bf16, compiled=True)
    table, limit = compare(f"training step, batch {options.batch}", steps, flop, options.batch, options)
    publish("step", parser, options, table, limit={table.title: limit}, parameters=parameters)


def prepare(name: str, batch: Batch, *, bf16: bool, compiled: bool = False) -> tuple[Callable[[], None], int]:
    """A step of a network with random weights, and how many parameters it has."""
    network = build_model(name, len(LABELS), batch.image.shape[-1])
    module = make_module(network, OptimConfig(), compiled=compiled)
    return make_step(module, batch, bf16=bf16), sum(parameter.numel() for parameter in network.parameters())


if __name__ == "__main__":
    main()
