"""Measure what follows the gradient in a step: adaptive clipping and the moving average of the weights.

    python benchmarks/upkeep.py [--sizes m0 m5]

mxa's way beside timm's: adaptive_clip_grad walks over the parameters, ModelEmaV3 over the tensors of the state. The
operations of a call that compute something are counted too: on an accelerator each is a launch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from limits import DEVICE
from networks import LABELS, SIZES
from record import Table, make_parser, publish
from timing import interleaved
from timm.utils import ModelEmaV3, adaptive_clip_grad
from torch.utils._python_dispatch import TorchDispatchMode

from mxa.models.build import build_model
from mxa.training.clipping import EPS, AdaptiveClip
from mxa.training.config import OptimConfig
from mxa.training.ema import Ema


class Counted(TorchDispatchMode):
    """Counts the operations that run inside it; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One more."""
        self.operations += not func.is_view
        return func(*args, **(kwargs or {}))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("--sizes", nargs="+", default=["m0", "m5"], choices=SIZES)
    options = parser.parse_args(argv)
    tables = []
    for size in options.sizes:
        sides = prepare(f"mxa_efficientvit_{size}")
        operations = {side: float(count(job)) for side, job in sides.items()}
        timings = interleaved(sides, options.rounds, options.seconds)
        against = {side: side.replace("mxa's, at once", "timm's").replace("mxa's", "timm's") for side in sides}
        title = f"mxa_efficientvit_{size}"
        tables.append(Table(title, timings, against={"timm's": against}, columns={"operations": operations}))
    publish("upkeep", parser, options, *tables)


def prepare(name: str) -> dict[str, Callable[[], object]]:
    """The four jobs on one model with random gradients."""
    model = build_model(name, len(LABELS), 224).to(DEVICE).to(memory_format=torch.channels_last).train()
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optim = OptimConfig()
    clip, own = AdaptiveClip(parameters, optim.agc), Ema(model, optim.ema_decay)
    theirs = ModelEmaV3(model, decay=optim.ema_decay, use_warmup=True)
    return {
        "clipping, timm's": lambda: adaptive_clip_grad(parameters, optim.agc, EPS),
        "clipping, mxa's, at once": clip.at_once,
        "average, timm's": lambda: theirs.update(model, 1000),
        "average, mxa's": lambda: own.update(model, 1000),
    }


def count(job: Callable[[], object]) -> int:
    """Operations of one call."""
    job()
    with Counted() as counted:
        job()
    return counted.operations


if __name__ == "__main__":
    main()
