"""Open a model and serve it until the process is told to stop."""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn
from fastapi import FastAPI

from mxa.deploy.locate import locate
from mxa.errors import ConfigError
from mxa.predictor import open_predictor
from mxa.serve.access import is_loopback
from mxa.serve.app import create_app
from mxa.serve.connection import limited_connection
from mxa.serve.description import describe
from mxa.serve.gate import Gate
from mxa.serve.maps import open_maps
from mxa.serve.metrics import Metrics
from mxa.serve.options import ServeOptions
from mxa.serve.service import Service, find_blocks

_STOP_SECONDS = 10

log = logging.getLogger(__name__)


def serve(
    model: str,
    options: ServeOptions | None = None,
    *,
    runtime: str = "auto",
    device: str = "cpu",
    threads: int | None = None,
) -> None:
    """Serve a model until SIGINT (Ctrl-C) or SIGTERM; requests that are under way are finished first.

    Args:
        model: a saved or an exported model, see :func:`mxa.predictor.open_predictor`.
        options: address, access and limits.
        runtime: see :func:`mxa.predictor.open_predictor`.
        device: likewise.
        threads: likewise.

    Raises:
        ConfigError: the address cannot be listened on, or as :func:`mxa.predictor.open_predictor`.
        ArtifactError: as :func:`mxa.predictor.open_predictor`.
    """
    options = options or ServeOptions()
    with _listening(options) as listener:
        app = open_app(model, options, runtime=runtime, device=device, threads=threads)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=limited_connection(options.upload_seconds),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_STOP_SECONDS,
            )
        )
        log.info("%s: http://%s:%d/ (Ctrl-C stops it); not for clinical use", model, *_address(listener, options))
        if not is_loopback(options.host):
            log.warning("pictures and the token travel unencrypted; put a server with TLS in front of this one")
        with suppress(KeyboardInterrupt):  # uvicorn raises it again after it has stopped in order
            server.run(sockets=[listener])


def open_app(
    model: str, options: ServeOptions, *, runtime: str = "auto", device: str = "cpu", threads: int | None = None
) -> FastAPI:
    """The application of a model, for :func:`serve` or any other ASGI server; arguments as there."""
    found = locate(model, runtime)
    predictor = open_predictor(found.path, found.runtime, device, threads=threads)
    maps = open_maps(found, device)
    gate = Gate(options.queue, options.upload_memory)
    metrics = Metrics(gate, predictor.model_hash, predictor.runtime.name)
    about = describe(predictor, find_blocks(predictor), maps.missing, options)
    return create_app(Service(predictor, maps, options, metrics), about, gate, metrics, options)


@contextmanager
def _listening(options: ServeOptions) -> Iterator[socket.socket]:
    """The address, before the model is loaded: whether it is free is known at once."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"host is {options.host!r}, which is no address of this machine ({error.strerror})") from None
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {options.host}, port {options.port} ({error.strerror}); choose another --port"
            ) from None
        yield listener


def _address(listener: socket.socket, options: ServeOptions) -> tuple[str, int]:
    host = f"[{options.host}]" if ":" in options.host else options.host
    return host, listener.getsockname()[1]
