"""Servers to test: in this process without a socket, and as processes of their own."""

import asyncio
import io
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI
from PIL import Image

from dicom_files import write
from mxa.predictor import Predictor
from mxa.quiet import quiet
from mxa.serve.app import create_app
from mxa.serve.description import describe
from mxa.serve.gate import Gate
from mxa.serve.maps import Maps, NoMaps
from mxa.serve.metrics import Metrics
from mxa.serve.options import ServeOptions
from mxa.serve.service import Service, find_blocks

BASE = "http://127.0.0.1:8000"
NO_MAPS = NoMaps("there are none here")


class Site:
    """A server without a socket.

    Attributes:
        app: the application.
        gate: what is under way.
        metrics: its counters.
    """

    def __init__(self, predictor: Predictor, options: ServeOptions | None = None, maps: Maps = NO_MAPS) -> None:
        options = options or ServeOptions()
        self.gate = Gate(options.queue, options.upload_memory)
        self.metrics = Metrics(self.gate, predictor.model_hash, predictor.runtime.name)
        self.service = Service(predictor, maps, options, self.metrics)
        model = describe(predictor, find_blocks(predictor), maps.missing, options)
        self.app: FastAPI = create_app(self.service, model, self.gate, self.metrics, options)

    def client(self, **options: Any) -> httpx.AsyncClient:
        """For several requests at once."""
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=BASE, **options)

    def ask(self, method: str, url: str, **options: Any) -> httpx.Response:
        """One request."""

        async def run() -> httpx.Response:
            async with self.client() as client:
                return await client.request(method, url, **options)

        return asyncio.run(run())

    def get(self, url: str, **options: Any) -> httpx.Response:
        return self.ask("GET", url, **options)

    def predict(self, data: bytes, query: str = "", name: str = "a.png", **options: Any) -> httpx.Response:
        """Send a file in a form."""
        return self.ask("POST", f"/predict{query}", files={"file": (name, data)}, **options)


@contextmanager
def site(predictor: Predictor, options: ServeOptions | None = None, maps: Maps = NO_MAPS) -> Iterator[Site]:
    """A server that is closed at the end."""
    made = Site(predictor, options, maps)
    with quiet():  # as the application's lifespan does, which needs a server
        try:
            yield made
        finally:
            made.service.close()


def png(grey: np.ndarray) -> bytes:
    return encode(Image.fromarray(grey), "png")


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def dicom(grey: np.ndarray, **elements: Any) -> bytes:
    """A DICOM file, with or without ``preamble``; see :func:`dicom_files.write`."""
    file = io.BytesIO()
    write(file, grey, **elements)
    return file.getvalue()


class Served:
    """A server as a process of its own.

    Attributes:
        url: where it is.
        lines: what it has written so far.
    """

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: list[str] = []
        self.url = ""
        ready = threading.Event()

        def read() -> None:
            assert process.stderr is not None
            for line in process.stderr:
                self.lines.append(line)
                if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                    self.url = found[0]
                    ready.set()
            ready.set()

        self._reader = threading.Thread(target=read, daemon=True)
        self._reader.start()
        assert ready.wait(120), "".join(self.lines)
        assert self.url, "".join(self.lines)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def stop(self, signal: int) -> int:
        """Send a signal, wait, and give the exit code."""
        self.process.send_signal(signal)
        code = self.process.wait(60)
        self._reader.join(10)
        return code


@contextmanager
def served(model: str, **options: Any) -> Iterator[Served]:
    """Serve in a process that cannot write to any file: the kernel lets no file grow."""
    program = (
        "import logging, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stderr)\n"
        "from mxa.serve.options import ServeOptions\n"
        "from mxa.serve.server import serve\n"
        f"serve({model!r}, ServeOptions(port=0, **{options!r}), threads=1)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    try:
        yield Served(process)
    finally:
        process.kill()
        process.wait()
