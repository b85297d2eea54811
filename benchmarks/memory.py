"""Measure what keeping freed memory saves in a training step on the CPU: `mxa train` does it, glibc alone does not.

    python benchmarks/memory.py [--size m5] [--batch 32] [--rounds 5]

A setting of the whole process, so each value comes from a process of its own, the two sides in turn; a value is the
median of the steps after the first.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from limits import DEVICE
from networks import SIZES, random_batch
from record import Table, against_one, make_parser, positive, publish
from step import prepare
from timing import Timing, take_turns

from mxa.memory import keep_freed_memory

SIDES = {"glibc's own way": False, "freed memory kept": True}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark; with ``--side``, be one of its processes."""
    parser = make_parser(__doc__, rounds=5, seconds=None)
    parser.add_argument("--size", default="m5", choices=SIZES)
    parser.add_argument("--batch", type=positive, default=32)
    parser.add_argument("--image", type=positive, default=224, help="side of the pictures in pixels")
    parser.add_argument("--steps", type=positive, default=8, help="timed in each process")
    parser.add_argument("--side", choices=list(SIDES), help="what the benchmark calls itself with")
    options = parser.parse_args(argv)
    if options.side:
        sys.stdout.write(json.dumps(measure(options.size, options.batch, options.image, options.steps, options.side)))
        return
    command = [sys.executable, str(Path(__file__).resolve())]
    command += [f"--{name}={getattr(options, name)}" for name in ("size", "batch", "image", "steps")]
    sides: dict[str, Callable[[], float]] = {side: partial(start, [*command, f"--side={side}"]) for side in SIDES}
    timings = {side: Timing(tuple(values)) for side, values in take_turns(sides, options.rounds).items()}
    title = f"training step of mxa_efficientvit_{options.size} on {DEVICE.type}, batch {options.batch}"
    table = Table(title, timings, options.batch, against_one(next(iter(SIDES)), list(SIDES)), overhead=True)
    publish("memory", parser, options, table)


def start(command: Sequence[str]) -> float:
    """Seconds per step of a process of its own."""
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def measure(size: str, batch: int, image: int, steps: int, side: str) -> float:
    """Median seconds of a step in this process."""
    if SIDES[side]:
        keep_freed_memory()
    step, _ = prepare(f"mxa_efficientvit_{size}", random_batch(batch, image), bf16=False)
    step()
    return statistics.median(timed(step) for _ in range(steps))


def timed(step: Callable[[], None]) -> float:
    """Seconds of one step."""
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
