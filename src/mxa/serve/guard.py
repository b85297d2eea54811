"""What holds for every request: who may come, headers, counters, the log, and that no error ends the server.

The log has method, route, status and duration of each request, and of an error that escapes its type and place. Nothing
that a client sends comes into it: no address, no name, no content, no message of an error.
"""

import asyncio
import json
import logging
import time
import traceback
from collections.abc import Collection, Mapping
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mxa.serve.access import called_by_loopback_name, from_foreign_page
from mxa.serve.metrics import Metrics

STATIC = "/static/"
LINGER_SECONDS = 2.0
CLIENT_LEFT = 499
"""Counted and logged where a client left before its answer; nginx's number."""

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

log = logging.getLogger(__name__)


class Guard:
    """Wraps an application.

    Args:
        app: the application.
        routes: its paths; others are counted and logged as "other".
        metrics: are told of every request.
        limit: requests that are under way at once; whoever comes on top is asked to come again.
        loopback_only: whether requests must call the server by a name of this machine.
        linger_bytes: how much of an upload is thrown away after it was refused.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: Collection[str],
        metrics: Metrics,
        *,
        limit: int,
        loopback_only: bool,
        linger_bytes: int,
    ) -> None:
        self._app, self._routes, self._metrics = app, frozenset(routes), metrics
        self._limit, self._under_way = limit, 0
        self._loopback_only, self._linger_bytes = loopback_only, linger_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        exchange = _Exchange(receive, send, headers, self._linger_bytes)
        began = time.perf_counter()
        self._under_way += 1
        try:
            reason = self._objection(scope["method"], headers)
            if self._under_way > self._limit:
                await exchange.answer(503, f"{self._limit} requests are under way; try again in a moment")
            elif reason:
                await exchange.answer(403, reason)
            else:
                await self._app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.status = exchange.status or CLIENT_LEFT
        except Exception as error:  # noqa: BLE001 - a mistake of ours must not end the server or tell of an upload
            log.error("%s at %s", type(error).__name__, _place(error))
            if not exchange.status:
                await exchange.answer(500, "the server made a mistake; its log says where")
        finally:
            self._under_way -= 1
            self._note(scope, exchange.status or CLIENT_LEFT, time.perf_counter() - began)

    def _objection(self, method: str, headers: Mapping[str, str]) -> str:
        if self._loopback_only and not called_by_loopback_name(headers):
            return "this server has no token, so it serves this machine alone: call it as 127.0.0.1 or localhost"
        if method not in {"GET", "HEAD"} and from_foreign_page(headers):
            return "a browser may send uploads from this server's own page only"
        return ""

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        path = scope["path"]
        route = STATIC if path.startswith(STATIC) else path if path in self._routes else "other"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        log.info("%s %s %d %.0f ms", method, route, status, 1000 * seconds)


class _Exchange:
    """One request and its answer."""

    def __init__(self, receive: Receive, send: Send, headers: Headers, linger_bytes: int) -> None:
        self._receive, self._send, self._linger_bytes = receive, send, linger_bytes
        self._uploading = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self.status = 0

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._uploading = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers.update(_HEADERS)
            headers.setdefault("Cache-Control", "no-store")
            if self._uploading:
                headers["Connection"] = "close"
            await self._send(message)
        elif self._uploading and not message.get("more_body", False):
            # Were the connection closed under an upload, many clients would never see the answer.
            await self._send({**message, "more_body": True})
            await self._linger()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self._send(message)

    async def answer(self, status: int, reason: str) -> None:
        """Send a whole answer."""
        body = json.dumps({"detail": reason}).encode()
        head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        head += [(b"retry-after", b"1")] * (status == 503)
        await self.send({"type": "http.response.start", "status": status, "headers": head})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})

    async def _linger(self) -> None:
        """Throw away what still arrives, for a while."""

        async def drain() -> None:
            received = 0
            while self._uploading and received < self._linger_bytes:
                received += len((await self.receive()).get("body", b""))

        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(drain(), LINGER_SECONDS)


def _place(error: BaseException) -> str:
    """Where an error was raised: the last lines of code, without their text or the error's."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return " < ".join(f"{frame.filename.rpartition('site-packages/')[2]}:{frame.lineno}" for frame in reversed(frames))
