"""Measure what the MXA block costs over plain EfficientViT: training step and inference; prints JSON.

    python benchmarks/block.py [--sizes m0 m2 m5] [--batch 32] [--image 224] [--rounds 7]

The sides (plain, MXA, MXA with a pooled region predictor) are run in turn within each round, and the medians are
compared, so that other work on the machine disturbs all alike.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable

import timm
import torch
from torch import Tensor, nn

import mxa.models.efficientvit  # noqa: F401


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["m0", "m2", "m5"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--image", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = torch.randn(options.batch, 1, options.image, options.image, device=device)
    result = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads",
        "machine": platform.platform(),
        "torch": torch.__version__,
        "batch": options.batch,
        "image": options.image,
        "sizes": {size: measure(size, images, options.rounds) for size in options.sizes},
    }
    print(json.dumps(result, indent=1))


def measure(size: str, images: Tensor, rounds: int) -> dict[str, object]:
    """Seconds of all models, their spread and ratio, and their parameters."""
    models = {
        "plain": make(f"efficientvit_{size}", images),
        "mxa": make(f"mxa_efficientvit_{size}", images),
        "mxa, region_pool 2": make(f"mxa_efficientvit_{size}", images, mxa_region_pool=2),
    }
    result: dict[str, object] = {side: {"parameters": count(model)} for side, model in models.items()}
    for kind, step in (("train", train_step), ("inference", inference)):
        seconds: dict[str, list[float]] = {side: [] for side in models}
        for _ in range(rounds + 1):
            for side, model in models.items():
                seconds[side].append(clock(step, model, images))
        medians = {side: statistics.median(times[1:]) for side, times in seconds.items()}  # the first warms up
        result[kind] = {
            "images_per_second": {side: round(len(images) / median, 1) for side, median in medians.items()},
            "spread": {side: [round(min(t[1:]), 4), round(max(t[1:]), 4)] for side, t in seconds.items()},
            "overhead": {s: round(median / medians["plain"] - 1, 3) for s, median in medians.items() if s != "plain"},
        }
    return result


def make(name: str, images: Tensor, **options: int) -> nn.Module:
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


def clock(step: Callable[[nn.Module, Tensor], None], model: nn.Module, images: Tensor) -> float:
    """Seconds of one call, the device's work included."""
    start = time.perf_counter()
    step(model, images)
    if images.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
