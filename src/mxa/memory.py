"""Keep freed memory for the next step instead of giving it back to the system and asking for it again.

In training on the CPU each step allocates and frees the same large tensors. glibc maps and unmaps each of them, and the
system clears every page anew (benchmarks/memory.py times it). Settings of the whole process: for programs, not for
libraries, so only commands call it.
"""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""glibc's ``malloc.h``."""
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Never map single allocations, never give memory back before the process ends.

    Returns:
        Whether that could be set; only glibc knows it.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
