"""Processes that do not outlive the one that started them, even if that was killed and could tell nobody."""

import multiprocessing
import os
import threading
from collections.abc import Callable


def leave() -> None:
    """End this process at once."""
    os._exit(1)


def follow_parent(then: Callable[[], None] = leave) -> None:
    """Call ``then``, in a thread of its own, when the process that started this one is gone; nothing in the first one.

    For the initializer of a pool: its processes wait for ever for work from a parent that was killed.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        then()

    threading.Thread(target=wait, daemon=True).start()
