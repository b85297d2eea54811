"""Measure how many phantom images one core draws and saves per second.

    python benchmarks/phantom.py [--images 300] [--size 320] [--rounds 3]

The images per second of the process's CPU time are disturbed less by other work on the machine.
"""

import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from record import Table, make_parser, positive, publish
from timing import Spread, interleaved

from mxa.data.phantom import make_phantom

SIDE = "draw and save"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = make_parser(__doc__, rounds=3, seconds=None)
    parser.add_argument("--images", type=positive, default=300)
    parser.add_argument("--size", type=positive, default=320, help="short side of the pictures in pixels")
    options = parser.parse_args(argv)
    number = count()
    with tempfile.TemporaryDirectory() as folder:

        def draw() -> Path:
            out = Path(folder) / str(next(number))
            return make_phantom(out, images=options.images, size=options.size, workers=1)

        timings = interleaved({SIDE: draw}, options.rounds)
    rate = options.images / Spread.of(timings[SIDE].cpu_seconds).median
    columns = {"images/CPU-s": {SIDE: rate}}
    publish("phantom", parser, options, Table("phantom, one core", timings, options.images, columns=columns))


if __name__ == "__main__":
    main()
