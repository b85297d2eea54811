"""Real processes that are killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from killed import is_alive, wait_until
from mxa.processes import follow_parent

POOL = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from mxa.processes import follow_parent

def work(folder):
    (Path(folder) / str(os.getpid())).touch()
    if "busy" in folder:
        time.sleep(600)

if __name__ == "__main__":
    with ProcessPoolExecutor(2, get_context("spawn"), follow_parent) as pool:
        done = [pool.submit(work, sys.argv[1]) for _ in range(2)]
        time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("state", ["busy", "idle"])
def test_a_pools_processes_end_with_a_killed_parent(state: str, tmp_path: Path) -> None:
    folder = tmp_path / state
    folder.mkdir()
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    with subprocess.Popen([sys.executable, script, folder]) as parent:
        assert wait_until(lambda: any(folder.iterdir()))
        children = [int(file.name) for file in folder.iterdir()]
        assert all(is_alive(child) for child in children)
        parent.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not any(is_alive(child) for child in children))


def test_the_first_process_has_nobody_to_follow() -> None:
    follow_parent(os.abort)
