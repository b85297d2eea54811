"""The commands and examples of the pages about using a model are run in their order, as they stand there."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.fileset import FileSet

import dicom_files
from conftest import REPOSITORY, write_chexpert
from deploy.small import saved
from mxa.data.phantom import make_phantom

PAGES = ("predict", "explain", "export")


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of a page's commands and examples."""
    text = (REPOSITORY / "docs" / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(r"```(bash|python)\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder as the pages take it for granted: a model, radiographs of all kinds, a labelled data set."""
    shutil.copytree(saved(), tmp_path / "runs" / "phantom" / "model")
    write_chexpert(tmp_path / "data", {"train": 8, "valid": 8})
    (tmp_path / "data" / "phantom").mkdir()
    (tmp_path / "data" / "CheXpert-v1.0-small").rename(tmp_path / "data" / "phantom" / "CheXpert-v1.0-small")
    grey = np.random.default_rng(0).integers(0, 4096, (90, 70)).astype(np.uint16)
    Image.fromarray((grey // 16).astype(np.uint8)).save(tmp_path / "radiograph.png")
    (tmp_path / "scans").mkdir()
    shutil.copy(tmp_path / "radiograph.png", tmp_path / "scans")
    (tmp_path / "yesterday.csv").touch()
    os.utime(tmp_path / "yesterday.csv", (0, 0))
    files = FileSet()
    for place in ("scans", "archive/2026/11"):
        file = tmp_path / place / "one.dcm"
        file.parent.mkdir(parents=True, exist_ok=True)
        dicom_files.write(
            file,
            grey,
            BitsStored=12,
            StudyDate="20200101",
            StudyTime="10",
            StudyID="1",
            SeriesNumber=1,
            InstanceNumber=1,
        )
    files.add(file)
    files.write(tmp_path / "CD")
    return tmp_path


@pytest.fixture
def environment() -> dict[str, str]:
    """With ``mxa`` of this interpreter on the path."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_works(page: str, workplace: Path, environment: dict[str, str]) -> None:
    found = blocks(page)
    assert {"bash", "python"} == {language for language, _ in found}
    # Examples of one page build on each other; a script, not a string, as reading processes import it.
    script = "\n".join(text for language, text in found if language == "python")
    (workplace / "example.py").write_text(script)
    if page == "predict":  # its example goes on with what the first command has written
        (workplace / "example.py").write_text(script.replace("predictions.csv", "by-script.csv"))
    run_lines([*commands(page), "python example.py"], workplace, environment)


def commands(page: str) -> list[str]:
    return [line for language, text in blocks(page) if language == "bash" for line in text.splitlines()]


def run_lines(lines: list[str], folder: Path, environment: dict[str, str]) -> None:
    for line in lines:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def test_where_a_model_looked_is_scored_as_the_page_of_evaluation_shows(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    shutil.copytree(saved(), tmp_path / "runs" / "phantom" / "model")
    make_phantom(tmp_path / "data" / "phantom", images=40, size=64, workers=1)
    lines = commands("evaluation")
    assert len(lines) == 1
    run_lines(lines, tmp_path, environment)
    assert (tmp_path / "runs" / "phantom" / "where" / "localisation.png").is_file()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_what_the_page_of_the_server_shows_works(workplace: Path, environment: dict[str, str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (commands,) = (text for language, text in blocks("serve") if language == "bash")
    start, *calls = commands.replace("127.0.0.1:8000", f"127.0.0.1:{port}").splitlines()
    assert start == "mxa serve runs/phantom/model"
    shutil.copy(workplace / "scans" / "one.dcm", workplace / "chest.dcm")
    with subprocess.Popen(
        [*start.split(), "--port", str(port)], cwd=workplace, env=environment, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        assert any("http://127.0.0.1:" in said for said in server.stderr)
        for call in calls:
            command = f"curl --silent --show-error --fail --retry 5 --retry-connrefused {call.removeprefix('curl ')}"
            done = subprocess.run(
                ["bash", "-c", command], cwd=workplace, capture_output=True, text=True, timeout=60, check=False
            )
            assert done.returncode == 0, f"{command}\n{done.stderr}"
            assert '"probabilities"' in done.stdout
        assert len(calls) >= 2
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
