"""Measure what the MXA block costs over plain EfficientViT: training step and inference.

    python benchmarks/block.py [--sizes m0 m2 m5] [--batch 32] [--image 224] [--rounds 7]

The sides are plain, MXA, MXA with a pooled region predictor, and MXA that crops the picture (docs/block.md). A training
step is forward and backward here; step.py measures a whole one, and inference.py what a saved model does. Freed memory
is kept, as in `mxa train`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import timm
import torch
from limits import DEVICE
from networks import SIZES
from record import Table, make_parser, positive, publish
from timing import interleaved
from torch import Tensor, nn

import mxa.models.efficientvit  # noqa: F401
from mxa.memory import keep_freed_memory

OPTIONS: dict[str, dict[str, Any]] = {
    "": {},
    ", region_pool 2": {"mxa_region_pool": 2},
    ", source image": {
        "mxa_stages": [0],
        "mxa_source": "image",
        "mxa_region": "moments",
        "mxa_put_back": True,
        "mxa_spatial_bias": 0.0,
    },
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("--sizes", nargs="+", default=["m0", "m2", "m5"], choices=SIZES)
    parser.add_argument("--batch", type=positive, default=32)
    parser.add_argument("--image", type=positive, default=224, help="side of the pictures in pixels")
    options = parser.parse_args(argv)
    keep_freed_memory()
    images = torch.randn(options.batch, 1, options.image, options.image, device=DEVICE)
    models: dict[str, nn.Module] = {}
    for size in options.sizes:
        plain = f"efficientvit_{size}"
        models[plain] = make(plain, images)
        models |= {f"mxa_{plain}{what}": make(f"mxa_{plain}", images, **of) for what, of in OPTIONS.items()}
    plain_of = {side: side.removeprefix("mxa_").partition(",")[0] for side in models}
    tables = []
    for title, job in (("forward and backward", train_step), ("inference", inference)):
        jobs = {side: partial(job, model, images) for side, model in models.items()}
        timings = interleaved(jobs, options.rounds, options.seconds)
        tables.append(Table(title, timings, options.batch, {"plain": plain_of}, overhead=True))
    parameters = {side: count(model) for side, model in models.items()}
    publish("block", parser, options, *tables, parameters=parameters)


def make(name: str, images: Tensor, **options: Any) -> nn.Module:
    """A model in channels-last order on the images' device."""
    model: nn.Module = timm.create_model(name, in_chans=1, num_classes=14, img_size=images.shape[-1], **options)
    return model.to(images.device).to(memory_format=torch.channels_last)


def count(model: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def train_step(model: nn.Module, images: Tensor) -> None:
    """Forward and backward; the optimiser, the same for all sides but for its parameters, is left out."""
    model.train()
    model(images).square().mean().backward()
    model.zero_grad(set_to_none=True)


def inference(model: nn.Module, images: Tensor) -> None:
    """Forward in eval mode."""
    model.eval()
    with torch.inference_mode():
        model(images)


if __name__ == "__main__":
    main()
