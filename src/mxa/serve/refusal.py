"""A request that gets no prediction, and why."""


class Refusal(Exception):
    """Becomes the answer to a request.

    Attributes:
        status: of HTTP, 400 or more.
        reason: what is wrong and what to do, for whoever sent the request. It is never logged.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status)  # without the reason, which must not come into a traceback
        self.status = status
        self.reason = reason
