"""Commands in processes of their own that need not import everything anew: forks of one that has."""

import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path

import mxa.cli

IMPORTED = ["mxa.cli", "mxa.demo", "mxa.evaluate", "mxa.predict", "mxa.reproduce.report", "mxa.training.run"]


def run_forked(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float = 300
) -> tuple[int | None, str]:
    """Exit code and standard error of ``mxa ARGUMENTS``, run in ``folder``; None where it took too long."""
    processes = get_context("forkserver")
    processes.set_forkserver_preload(IMPORTED)
    said = folder / "standard-error.txt"
    process = processes.Process(target=_run, args=(list(arguments), folder, dict(environment), said))
    process.start()
    process.join(timeout)
    if process.is_alive():
        process.kill()
        process.join()
        return None, said.read_text()
    return process.exitcode, said.read_text()


def _run(arguments: list[str], folder: Path, environment: dict[str, str], said: Path) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    with said.open("w") as stream, Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    sys.exit(mxa.cli.main(arguments))
