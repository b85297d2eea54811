"""Load `mxa serve` on this machine: pictures per second, latencies, errors and memory.

    python benchmarks/serve.py [--concurrency 32] [--seconds 60] [--model MODEL] [--threads 1]

The server is a process of its own on 127.0.0.1. Clients send PNG, JPEG and DICOM files of one size in turn, each the
next as soon as it has its answer; they take processor time too, which the server then lacks. Latency is from a
request's first byte to the end of its answer. Memory is what the server's process holds, once a second.

Without --model the network has random weights.
"""

import asyncio
import io
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian
from record import Table, make_parser, positive, publish
from timing import Timing, take_turns

from mxa.labels import CHEXPERT14
from mxa.models.artifact import Architecture, Classifier, save
from mxa.models.build import build_model
from mxa.preprocess import Preprocess

PERCENTILES = (50, 90, 95, 99)
START_SECONDS = 180
File = tuple[str, bytes]
"""Content type and content."""


@dataclass
class Load:
    """What clients saw in one round.

    Attributes:
        seconds: the round took.
        latencies: of each answered request, in seconds.
        errors: how often each other outcome than a prediction came.
        memory: MiB of the server's process, once a second.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    memory: list[float] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = make_parser(__doc__, rounds=1, seconds=None)
    parser.add_argument("--concurrency", nargs="+", type=positive, default=[32], help="requests at once")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each round")
    parser.add_argument("--model", help="saved or exported model; a new one with random weights if it is not given")
    parser.add_argument("--network", default="mxa_efficientvit_m0", help="of the random weights")
    parser.add_argument("--image", type=positive, default=224, help="side of the network's input in pixels")
    parser.add_argument("--side", type=positive, default=1024, help="of the pictures in pixels")
    parser.add_argument("--threads", type=positive, default=1, help="of the runtime")
    options = parser.parse_args(argv)
    files = make_files(options.side)
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or str(random_model(Path(folder) / "model", options.network, options.image))
        with served(model, options.threads) as url:
            run_load(url, files, 1, 1.0)  # to warm up
            sides = {
                f"{count} at once": partial(run_load, url, files, count, options.seconds)
                for count in dict.fromkeys(options.concurrency)
            }
            rounds = take_turns(sides, options.rounds)
    options.model = options.model and Path(options.model).name
    publish("serve", parser, options, table(rounds), loads={side: describe(loads) for side, loads in rounds.items()})


def table(rounds: dict[str, list[Load]]) -> Table:
    """A row per concurrency."""
    columns: dict[str, dict[str, float]] = {f"p{percent} ms": {} for percent in PERCENTILES}
    columns |= {"errors": {}, "MiB at first": {}, "MiB at last": {}}
    timings = {}
    for side, loads in rounds.items():
        timings[side] = Timing(tuple(one.seconds / max(1, len(one.latencies)) for one in loads))
        for name, value in latencies(loads).items():
            columns[name][side] = value
        columns["errors"][side] = sum(sum(one.errors.values()) for one in loads)
        columns["MiB at first"][side], columns["MiB at last"][side] = loads[0].memory[0], loads[-1].memory[-1]
    return Table("predictions over HTTP", timings, images=1, columns=columns)


def latencies(loads: Sequence[Load]) -> dict[str, float]:
    """Percentiles in milliseconds, of all rounds together."""
    together = np.concatenate([one.latencies for one in loads])
    if not len(together):
        return {}
    values = 1000 * np.percentile(together, PERCENTILES)
    return {f"p{percent} ms": float(value) for percent, value in zip(PERCENTILES, values, strict=True)}


def describe(loads: Sequence[Load]) -> list[dict[str, object]]:
    """Each round, without the single latencies."""
    return [
        {
            "seconds": one.seconds,
            "requests": len(one.latencies),
            "errors": one.errors,
            "latency": latencies([one]) | {"max ms": 1000 * max(one.latencies, default=0.0)},
            "memory_mib": one.memory,
        }
        for one in loads
    ]


def run_load(url: str, files: list[File], concurrency: int, seconds: float) -> Load:
    """Send files for some seconds."""
    return asyncio.run(load(url, files, concurrency, seconds))


async def load(url: str, files: list[File], concurrency: int, seconds: float) -> Load:
    """See :func:`run_load`."""
    seen = Load()
    limits = httpx.Limits(max_connections=concurrency + 1, max_keepalive_connections=concurrency + 1)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        seen.memory.append(await memory(client))
        began = time.perf_counter()
        until = began + seconds
        watch = asyncio.create_task(watch_memory(client, seen))
        await asyncio.gather(*(send(client, files[i % len(files) :] + files, until, seen) for i in range(concurrency)))
        seen.seconds = time.perf_counter() - began
        watch.cancel()
        seen.memory.append(await memory(client))
    return seen


async def send(client: httpx.AsyncClient, files: list[File], until: float, seen: Load) -> None:
    """One client."""
    for media_type, data in itertools.cycle(files):
        began = time.perf_counter()
        if began >= until:
            return
        try:
            answer = await client.post("/predict", content=data, headers={"content-type": media_type})
            outcome = str(answer.status_code)
        except httpx.HTTPError as error:
            outcome = type(error).__name__
        if outcome == "200":
            seen.latencies.append(time.perf_counter() - began)
        else:
            seen.errors[outcome] = seen.errors.get(outcome, 0) + 1


async def watch_memory(client: httpx.AsyncClient, seen: Load) -> None:
    """Until it is cancelled."""
    while True:
        await asyncio.sleep(1)
        seen.memory.append(await memory(client))


async def memory(client: httpx.AsyncClient) -> float:
    """MiB of the server's process; 0 where the system does not tell."""
    lines = (await client.get("/metrics")).text.splitlines()
    values = [float(line.split()[1]) for line in lines if line.startswith("process_resident_memory_bytes ")]
    return values[0] / 2**20 if values else 0.0


@contextmanager
def served(model: str, threads: int) -> Iterator[str]:
    """A server; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = (
        "from mxa.serve.options import ServeOptions\nfrom mxa.serve.server import serve\n"
        f"serve({model!r}, ServeOptions(port={port}), threads={threads})\n"
    )
    own = {name: value for name, value in os.environ.items() if name != "MXA_TOKEN"}
    process = subprocess.Popen([sys.executable, "-c", program], env=own)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(10 * START_SECONDS):
            try:
                httpx.get(f"{url}/health", timeout=10)
                break
            except httpx.TransportError:
                if process.poll() is not None:
                    raise SystemExit("the server did not start") from None
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def random_model(folder: Path, network: str, image: int) -> Path:
    """A saved model."""
    model = build_model(network, len(CHEXPERT14), image).eval()
    return save(Classifier(model, Architecture(network, {}), CHEXPERT14, Preprocess(size=image), {}), folder)


def make_files(side: int) -> list[File]:
    """A soft picture with noise as JPEG, PNG and DICOM, by content type."""
    y, x = np.mgrid[:side, :side] / side
    noise = np.random.default_rng(0).normal(0, 3, (side, side))
    grey = np.clip(60 + 150 * np.exp(-8 * ((x - 0.5) ** 2 + (y - 0.4) ** 2)) + noise, 0, 255).astype(np.uint8)
    made = []
    for kind in ("jpeg", "png"):
        file = io.BytesIO()
        Image.fromarray(grey).save(file, format=kind)
        made.append((f"image/{kind}", file.getvalue()))
    return [*made, ("application/dicom", make_dicom(grey))]


def make_dicom(grey: np.ndarray) -> bytes:
    """An uncompressed chest radiograph of 8 bits."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = grey.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.WindowCenter, dataset.WindowWidth = 128, 256
    dataset.add_new("PixelData", "OB", grey.tobytes())
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


if __name__ == "__main__":
    main()
