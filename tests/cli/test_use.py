"""explain, export and serve as a user runs them."""

import json
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian

import dicom_files
from conftest import ROOT_NAME
from deploy.small import images, saved
from mxa.cli import main
from mxa.predictor import open_predictor


def run(*arguments: object) -> int:
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


def test_explain_draws_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.png"
    first, second = images()[:2]
    code = run("explain", saved(), first, second, "--out", out, "--findings", "[Edema, Fracture]")
    assert code == 0
    assert capsys.readouterr().out == f"{out}: 2 radiographs\n"
    with Image.open(out) as page:
        assert page.width > page.height / 3
    assert run("explain", saved(), first, "--out", tmp_path / "page.gif") == 2
    assert ".png" in capsys.readouterr().err
    assert run("explain", saved(), tmp_path / "gone.png", "--out", out) == 2
    capsys.readouterr()
    assert run("explain", saved(), first, "--out", out, "--views", "foo") == 2
    assert capsys.readouterr().err == "mxa explain: views is foo; give some of frontal, lateral, oblique, decubitus\n"


def test_export_then_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model.onnx"
    assert run("export", saved(), "--out", out, "--images", f"{images()[0].parent}/*.png") == 0
    assert "onnxruntime" in capsys.readouterr().out
    report = json.loads(Path(f"{out}.json").read_text())
    assert report["parity"]["passed"]
    assert report["parity"]["pictures"] == len(images())
    assert open_predictor(out).predict(images()[0]).findings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--images is missing"),
        (["--images", "x", "--data", "d"], "belong to --int8"),
        (["--int8", "--images", "x"], "measures on --data"),
        (["--int8", "--calibration", "x"], "needs --calibration"),
        (["--format", "pickle", "--images", "IMAGE"], "choose one of onnx, openvino, torch-export"),
    ],
)
def test_wrong_exports(options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [option.replace("IMAGE", str(images()[0])) for option in options]
    assert run("export", saved(), "--out", tmp_path / "m.onnx", *options) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_int8_is_measured(tiny_chexpert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, root = tmp_path / "int8.onnx", tiny_chexpert / ROOT_NAME
    code = run("export", saved(), "--out", out, "--int8", "--calibration", root / "train", "--data", tiny_chexpert)
    assert code == 0
    assert "macro AUROC" in capsys.readouterr().out
    assert json.loads(Path(f"{out}.json").read_text())["precision"] == "int8"


def test_serve_answers_and_stops() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mxa", "serve", str(saved()), "--port", str(port), "--threads", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            answer = None
            while answer is None and server.poll() is None:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
                        answer = response.status
                except OSError:
                    time.sleep(0.1)
            assert answer == 200
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0


def test_serve_refuses_what_makes_no_sense(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MXA_TOKEN", raising=False)
    assert run("serve", saved(), "--host", "0.0.0.0") == 2
    assert "token" in capsys.readouterr().err
    assert run("serve", saved(), "--threads", "0") == 2


@pytest.mark.parametrize("workers", ["0", "1"])
def test_nothing_of_a_damaged_file_is_told(workers: str, tmp_path: Path) -> None:
    """By itself pydicom would quote it in a warning and in its log."""
    whole = tmp_path / "whole.dcm"
    pixels = np.random.default_rng(0).integers(0, 4096, (64, 64)).astype(np.uint16)
    dicom_files.write(whole, pixels, BitsStored=12)
    data = whole.read_bytes()
    at = data.index(ExplicitVRLittleEndian.encode())
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(data[: at - 2] + struct.pack("<H", len(data) - at) + data[at:])
    whole.unlink()
    arguments = ["predict", saved(), broken, "--out", tmp_path / "out.csv", "--workers", workers]
    command = [sys.executable, "-m", "mxa", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "SECRET" not in done.stdout + done.stderr + (tmp_path / "out.csv").read_text()
