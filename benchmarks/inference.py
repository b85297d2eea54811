"""Measure inference: EfficientViT plain and with MXA, and TorchXRayVision's DenseNet-121.

    python benchmarks/inference.py [--sizes m0 m2 m5] [--batch 1 32] [--image 224] [--precision 32] [--compile]

From 8-bit pictures on the device to logits, by the call that `mxa predict` uses; networks in channels-last order. Calls
follow each other without waiting for the device, a timing ends when it is done. All sides take turns, and so does a
large matrix product, the limit of the device's arithmetic. Operations are those of convolutions and matrix products, a
multiply-add is two. (On a GPU with --precision 32 convolutions may use TF32, which the product of float32 matrices does
not: the limit is then not one.)
"""

from collections.abc import Callable, Sequence

import torch
from limits import DEVICE, count_flop
from networks import COMPILED, LABELS, add_options, compare, model_names, random_batch, uses_bf16
from record import make_parser, positive, publish
from torch import Tensor

from mxa.models.artifact import Architecture, Classifier
from mxa.models.build import build_model
from mxa.preprocess import Preprocess


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    add_options(parser, precision="32")
    parser.add_argument("--batch", nargs="+", type=positive, default=[1, 32], help="images per call")
    options = parser.parse_args(argv)
    classifiers = {name: make_classifier(name, options.image) for name in model_names(options.sizes)}
    parameters = {name: sum(p.numel() for p in one.model.parameters()) for name, one in classifiers.items()}
    if options.compile:
        for name in list(classifiers):
            classifiers[name + COMPILED] = make_classifier(name, options.image)
            classifiers[name + COMPILED].model.compile(dynamic=False)
    tables, limits = [], {}
    for batch in dict.fromkeys(options.batch):
        pixels, bf16 = random_batch(batch, options.image).image, uses_bf16(options.precision)
        sides = {name: scoring(classifier, pixels, bf16=bf16) for name, classifier in classifiers.items()}
        flop = {name: count_flop(sides[name]) for name in parameters}
        table, limits[f"inference, batch {batch}"] = compare(f"inference, batch {batch}", sides, flop, batch, options)
        tables.append(table)
    publish("inference", parser, options, *tables, limit=limits, parameters=parameters)


def make_classifier(name: str, size: int) -> Classifier:
    """A network with random weights, in channels-last order on the device."""
    network = build_model(name, len(LABELS), size).eval().to(DEVICE).to(memory_format=torch.channels_last)
    return Classifier(network, Architecture(name, {}), LABELS, Preprocess(size=size), {})


def scoring(classifier: Classifier, pixels: Tensor, *, bf16: bool) -> Callable[[], Tensor]:
    """Logits of one batch, under bf16 autocast or not."""

    def score() -> Tensor:
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=bf16):
            return classifier.logits(pixels)

    return score


if __name__ == "__main__":
    main()
