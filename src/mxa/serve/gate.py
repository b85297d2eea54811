"""How much is under way at once: whoever comes on top is sent away instead of piling up."""

import threading

from mxa.serve.refusal import Refusal


class Gate:
    """Counts requests and the bytes that they hold; may be used from several threads.

    Args:
        requests: at most, at once.
        held: bytes of uploads at most, at once.
    """

    def __init__(self, requests: int, held: int) -> None:
        self._limits = requests, held
        self._lock = threading.Lock()
        self.requests = 0
        self.held = 0

    def enter(self) -> "Ticket":
        """Let a request in.

        Raises:
            Refusal: 503, there are enough.
        """
        with self._lock:
            if self.requests >= self._limits[0]:
                raise Refusal(503, f"{self._limits[0]} predictions are under way; try again in a moment")
            self.requests += 1
        return Ticket(self)

    def hold(self, size: int) -> None:
        """Count bytes; negative ones are let go.

        Raises:
            Refusal: 503, too many are held.
        """
        with self._lock:
            if size > 0 and self.held + size > self._limits[1]:
                raise Refusal(503, f"{self._limits[1]} bytes of uploads are under way; try again in a moment")
            self.held += size

    def leave(self) -> None:
        """Let a request go."""
        with self._lock:
            self.requests -= 1


class Ticket:
    """A request's place, from :meth:`Gate.enter` until it is given back."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._held = 0
        self._back = False

    def hold(self, size: int) -> None:
        """As :meth:`Gate.hold`."""
        self._gate.hold(size)
        self._held += size

    def give_back(self) -> None:
        """Let the request and its bytes go; a second time does nothing."""
        if not self._back:
            self._back = True
            self._gate.hold(-self._held)
            self._gate.leave()
