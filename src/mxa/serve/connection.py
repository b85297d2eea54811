"""A connection that does not wait for ever: uvicorn alone gives a request's head and an answer's reader any time."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


def limited_connection(seconds: float) -> type[H11Protocol]:
    """Uvicorn's HTTP/1.1, cut off where a request's head takes too long, or its answer is not taken.

    Args:
        seconds: from the connection's beginning, or the end of the previous answer, to the end of the next head.
    """

    class Connection(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._stop()

        def _watch(self) -> None:
            """Run the timer between two requests, and only there."""
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop()
            elif self._timer is None:
                self._timer = self.loop.call_later(seconds, self.transport.abort)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Connection
