"""Measure the runtimes: EfficientViT plain and with MXA against TorchXRayVision's DenseNet-121, and the cold start.

    python benchmarks/runtimes.py [--sizes m0 m5] [--batch 1 32] [--image 224] [--threads 2]

From 8-bit pixels in memory to logits (and boxes, with MXA) in float32, on the CPU, all sides in turn. "torch" is what
`mxa.load` makes of a saved model; the DenseNet's is its plain network in eager mode, as its users run it, from floats.
"onnxruntime" and "openvino" run what `mxa export` writes, for the DenseNet as well. Weights are random.

The cold start is a fresh process that imports the predictor without torch, opens an exported model and predicts one
picture of 1024 x 1024 pixels from a PNG; memory is the most that the process had (as Linux counts it).
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from networks import DENSENET, LABELS, SIZES, model_names
from PIL import Image
from record import Table, make_parser, positive, publish
from timing import Job, interleaved

from mxa.deploy.export import prepare
from mxa.deploy.locate import Found
from mxa.deploy.runtimes import open_runtime
from mxa.deploy.writers import onnx_network, store_onnx, store_openvino
from mxa.models.artifact import Architecture, Classifier, save
from mxa.models.build import build_model
from mxa.preprocess import Preprocess

RUNTIMES = ("torch", "onnxruntime", "openvino")
EAGER = f"{DENSENET}, torch"
COLD_START = """
import sys
for name in ("torch", "timm", "pandas", "scipy", "matplotlib"):
    sys.modules[name] = None
from mxa.predictor import open_predictor
open_predictor(sys.argv[1], sys.argv[2], threads=int(sys.argv[3])).predict(sys.argv[4])
# Not getrusage, whose maximum includes what the parent had when it made this process.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("--sizes", nargs="+", default=["m0", "m5"], choices=SIZES)
    parser.add_argument("--image", type=positive, default=224, help="side of the pictures in pixels")
    parser.add_argument("--batch", nargs="+", type=positive, default=[1, 32], help="images per call")
    parser.add_argument("--threads", type=positive, default=os.cpu_count(), help="of each runtime")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: write_models(name, Path(folder), options.image) for name in model_names(options.sizes)}
        tables = [time_batch(files, batch, options) for batch in dict.fromkeys(options.batch)]
        tables.append(time_cold_start(files[f"mxa_efficientvit_{options.sizes[0]}"], Path(folder), options))
    publish("runtimes", parser, options, *tables)


def write_models(name: str, folder: Path, size: int) -> dict[str, Found]:
    """A network with random weights as a saved model, as ONNX and for OpenVINO; by runtime."""
    torch.manual_seed(0)
    network = build_model(name, len(LABELS), size).eval()
    saved = save(Classifier(network, Architecture(name, {}), LABELS, Preprocess(size=size), {}), folder / name)
    _, metadata, graph = prepare(saved)
    onnx, openvino = folder / f"{name}.onnx", folder / f"{name}.xml"
    converted = onnx_network(graph)
    store_onnx(converted, metadata, onnx)
    store_openvino(converted, metadata, openvino)
    return {
        "torch": Found(saved, "saved", "torch"),
        "onnxruntime": Found(onnx, ".onnx", "onnxruntime"),
        "openvino": Found(openvino, ".xml", "openvino"),
    }


def time_batch(files: Mapping[str, Mapping[str, Found]], batch: int, options: argparse.Namespace) -> Table:
    """All networks in all runtimes."""
    pixels = np.random.default_rng(0).integers(0, 256, (batch, 1, options.image, options.image), dtype=np.uint8)
    sides: dict[str, Job] = {}
    for name, found in files.items():
        for runtime in RUNTIMES:
            sides[f"{name}, {runtime}"] = scoring(found[runtime], pixels, options.threads)
    sides[EAGER] = eager(options.image, batch)
    against = {
        EAGER: dict.fromkeys(sides, EAGER),
        f"{DENSENET}, same runtime": {side: f"{DENSENET}, {side.partition(', ')[2]}" for side in sides},
    }
    timings = interleaved(sides, options.rounds, options.seconds)
    return Table(f"runtimes, batch {batch}", timings, batch, against)


def scoring(found: Found, pixels: npt.NDArray[np.uint8], threads: int) -> Job:
    """One call of a runtime."""
    runtime, _ = open_runtime(found, threads=threads)
    return lambda: runtime(pixels)


def eager(size: int, batch: int) -> Job:
    """One call of the DenseNet as TorchXRayVision's users make it."""
    network = build_model(DENSENET, len(LABELS), size).eval()
    pictures = torch.randn(batch, 1, size, size)

    def score() -> torch.Tensor:
        with torch.no_grad():
            logits: torch.Tensor = network(pictures)
            return logits

    return score


def time_cold_start(found: Mapping[str, Found], folder: Path, options: argparse.Namespace) -> Table:
    """A fresh process without torch, from its start to its end."""
    picture = folder / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (1024, 1024), dtype=np.uint8)).save(picture)
    memory: dict[str, dict[str, float]] = {"MB": {}}

    def starting(runtime: str) -> Job:
        arguments = [str(found[runtime].path), runtime, str(options.threads), str(picture)]

        def start() -> None:
            command = [sys.executable, "-c", COLD_START, *arguments]
            result = subprocess.run(command, capture_output=True, text=True, check=True)
            kilobytes = int(result.stdout)
            memory["MB"][runtime] = max(kilobytes / 1024, memory["MB"].get(runtime, 0.0))

        return start

    sides = {runtime: starting(runtime) for runtime in RUNTIMES[1:]}
    return Table("cold start", interleaved(sides, options.rounds), columns=memory)


if __name__ == "__main__":
    main()
