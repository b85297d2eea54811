"""Freed memory stays with the process, which is what makes the next step quick."""

import subprocess
import sys

import pytest

from mxa.memory import keep_freed_memory

SCRIPT = """
import sys
import numpy as np
from mxa.memory import keep_freed_memory

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) // 1024

if sys.argv[1] == "keep":
    assert keep_freed_memory()
before = resident()
block = np.ones(50_000_000)
held = resident() - before
del block
print(held, resident() - before)
"""


def megabytes(kept: str) -> tuple[int, int]:
    """Held by a large array, and left after it is gone."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, kept], capture_output=True, text=True, check=True)
    held, left = map(int, done.stdout.split())
    return held, left


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_kept() -> None:
    held, left = megabytes("keep")
    assert held > 350
    assert left > 350
    held, left = megabytes("as usual")
    assert held > 350
    assert left < 50


def test_elsewhere_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
