"""Measure how many phantom images one core draws and saves per second; prints JSON.

    python benchmarks/phantom.py [--images 300] [--size 320] [--repeats 3]

Both rates are of the best repeat: ``per_second`` by the clock, ``per_cpu_second`` by this process's CPU time, which
other work on the machine disturbs less.
"""

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path

from mxa.data.phantom import make_phantom


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    wall, cpu = [], []
    with tempfile.TemporaryDirectory() as folder:
        # Imports, statistics and noise tiles are not what is measured.
        make_phantom(Path(folder) / "warm", images=8, size=options.size, workers=1)
        for k in range(options.repeats):
            start, start_cpu = time.perf_counter(), time.process_time()
            make_phantom(Path(folder) / str(k), images=options.images, size=options.size, workers=1)
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - start_cpu)
    result = {
        "images": options.images,
        "size": options.size,
        "per_second": round(options.images / min(wall), 1),
        "per_cpu_second": round(options.images / min(cpu), 1),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
