"""Keep other packages from telling what is in a picture's file, or of themselves.

On damaged files pydicom quotes what it reads, names of patients among it, both in warnings and in its log. Programs
that read strangers' files run under :func:`quiet`; a library has no business with its caller's warnings.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TALKATIVE = ("pydicom", "pylibjpeg", "PIL", "python_multipart")

log = logging.getLogger(__name__)


@contextmanager
def quiet() -> Iterator[None]:
    """For the whole process: the logs of the decoders are off, and of warnings only kind and place are logged."""

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        log.warning("%s at %s:%d", category.__name__, filename.rpartition("site-packages/")[2], lineno)

    loggers, nowhere = [logging.getLogger(name) for name in _TALKATIVE], logging.NullHandler()
    propagated, shown = [logger.propagate for logger in loggers], warnings.showwarning
    for logger in loggers:  # not by their level, which pydicom sets anew when it is imported
        logger.addHandler(nowhere)
        logger.propagate = False
    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = shown
        for logger, before in zip(loggers, propagated, strict=True):
            logger.removeHandler(nowhere)
            logger.propagate = before


def quiet_lightning() -> None:
    """For the whole process: its own remarks (hardware found, tips) would drown ours. For programs, as :func:`quiet`.

    It sets its loggers up when it is imported: call this after.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
