"""Every command that the README shows is run, in its order, on small data with few epochs; so is its Python example."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dicom_files
from conftest import REPOSITORY, SMALL_RUN, write_chexpert, write_xrv_weights
from forked_commands import run_forked

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
SMALL_GRID = [
    *("--base.preprocess.size", "64", "--base.augment.randaugment=", "--seeds", "[0]", "--replicates", "50"),
    *("--base.optim.epochs", "2", "--base.optim.batch_size", "8", "--base.optim.lr_batch_size", "8"),
    *("--base.optim.warmup_epochs", "0", "--base.optim.cooldown_epochs", "0"),
]
# A phantom of ninety images lacks rare findings, and a check counts that as a problem: its exit code may be 0 or 1.
ALLOWED = {"data check": {0, 1}}


def shown(language: str) -> list[str]:
    """The README's code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[list[str]]:
    return [shlex.split(line, comments=True) for block in shown("bash") for line in block.splitlines() if line.strip()]


def write_nih(root: Path) -> None:
    """NIH ChestX-ray14's layout with 40 small images of 20 patients."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    names = [f"{patient:08d}_{k:03d}.png" for patient in range(1, 21) for k in range(2)]
    rows = []
    for i, name in enumerate(names):
        Image.fromarray(rng.integers(0, 256, (64, 64)).astype(np.uint8)).save(root / "images" / name)
        finding = ["No Finding", "Effusion|Mass", "Hernia"][i % 3]
        rows.append(f"{name},{finding},0,{int(name[:8])},50,M,PA,2500,2048,0.17,0.17")
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    )
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join([header, *rows]) + "\n")
    (root / "train_val_list.txt").write_text("\n".join(names[:32]) + "\n")
    (root / "test_list.txt").write_text("\n".join(names[32:]) + "\n")
    boxes = f"Image Index,Finding Label,Bbox [x,y,w,h],,,\n{names[1]},Effusion,100,200,300,400,,,\n"
    (root / "BBox_List_2017.csv").write_text(boxes)


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder that looks like the reader's: configs, CheXpert, NIH, TorchXRayVision's cache, a CSV with its images."""
    shutil.copytree(REPOSITORY / "configs", tmp_path / "configs")
    write_chexpert(tmp_path / "CHEXPERT", {"train": 20, "valid": 8})
    write_nih(tmp_path / "NIH")
    write_xrv_weights(tmp_path / ".torchxrayvision" / "models_data")
    images = tmp_path / "IMAGES"
    images.mkdir()
    rows = ["file,person,Edema,Fracture"]
    rng = np.random.default_rng(0)
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (64, 64)).astype(np.uint8)).save(images / f"{i}.png")
        rows.append(f"{i}.png,p{i},{i % 2},{i // 2 % 2}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    scan = np.tile(np.arange(120, dtype=np.uint8), (90, 1))
    Image.fromarray(scan).save(tmp_path / "radiograph.png")
    (tmp_path / "SCANS").mkdir()
    dicom_files.write(tmp_path / "SCANS" / "scan", scan)
    shutil.copy(tmp_path / "radiograph.png", tmp_path / "SCANS")
    return tmp_path


def small(words: list[str]) -> list[str]:
    """The same command at a size for a test."""
    if words[:3] == ["mxa", "data", "phantom"]:
        return [*words[: words.index("--images")], "--images", "120", "--size", "96"]
    if words[:3] == ["mxa", "teacher", "predict"]:
        return [*words, "--preprocess.size", "64"]
    if words[:3] == ["mxa", "data", "pack"] and "--out" in words:
        return [*words, "--preprocess.size", "64"]
    if words[1] == "reproduce":
        return [*words, *SMALL_GRID, *(("--phantom", "120") if "phantom" in words[3] else ())]
    if words[1] != "train":
        return words
    small_model = [] if "densenet121" in words[3] else ["--model.name", "mxa_efficientvit_m0"]
    return [*words, *small_model, *SMALL_RUN]


def test_every_mxa_command_runs(workplace: Path) -> None:
    ran = 0
    for words in commands():
        if words[0] != "mxa":
            continue
        if "--resume" in words:  # as if the run had been killed before its model was saved
            shutil.rmtree(workplace / "runs" / "phantom" / "model")
        line = [sys.executable, "-m", *small(words)]
        home = {**os.environ, "HOME": str(workplace)}
        if words[1] == "serve":
            serve_for_a_moment([*line, "--port", "0"], workplace, home)
            continue
        if "--devices" in words:  # makes a second process by this one's command line
            done = subprocess.run(
                line, cwd=workplace, env=home, capture_output=True, text=True, timeout=300, check=False
            )
            code, said = done.returncode, done.stderr
        else:
            code, said = run_forked(small(words)[1:], workplace, home)
        assert code in ALLOWED.get(" ".join(words[1:3]), {0}), f"{shlex.join(words)}\n{said}"
        ran += 1
    assert ran >= 27


def serve_for_a_moment(line: list[str], workplace: Path, environment: dict[str, str]) -> None:
    """Until it says where it listens; then Ctrl-C, which may come before it is ready (exit code 1)."""
    with subprocess.Popen(line, cwd=workplace, env=environment, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        assert any("http://127.0.0.1:" in said for said in server.stderr)
        server.send_signal(signal.SIGINT)
        assert server.wait(60) in {0, 1}


def test_only_known_programs_are_shown() -> None:
    """A new kind of command needs a test of its own."""
    assert {words[0] for words in commands()} == {"mxa", "make"}
    assert {tuple(words) for words in commands() if words[0] == "make"} == {("make", "demo"), ("make", "test")}


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Make with this interpreter's environment in place of a fresh one."""
    binaries = f"BIN={Path(sys.executable).parent}"
    # The outer `make test` hands its own options down in MAKEFLAGS.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "-o", "setup", binaries, *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=560, check=False
    )


def test_make_demo_ends_with_a_report(tmp_path: Path) -> None:
    done = make("demo", f"DEMO=--out {tmp_path / 'demo'} --images 400 --epochs 3")
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "demo" / "report.html").read_text()
    for expected in (
        "EfficientViT-M0 + MXA + KD",
        "DenseNet, small (teacher)",
        "Pleural Effusion",
        "Where the MXA blocks look",
        "not for clinical use",
    ):
        assert expected in report
    for picture in ("roc", "auroc", "training", "regions"):
        assert (tmp_path / "demo" / f"{picture}.png").stat().st_size > 10_000
    assert str(tmp_path / "demo" / "report.html") in done.stdout


def test_make_test_runs_pytest() -> None:
    """This is `make test`; here only that the target says so."""
    done = make("-n", "test")
    assert done.returncode == 0
    assert "-m pytest" in done.stdout


def test_the_python_example(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = ["mxa", "train", "--config", "configs/phantom.yaml", "--data.root", "CHEXPERT", "--out", "runs/phantom"]
    subprocess.run([sys.executable, "-m", *small(train)], cwd=workplace, check=True, capture_output=True, timeout=300)
    monkeypatch.chdir(workplace)
    (example,) = shown("python")
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["prediction"].probabilities.shape == (14,)  # type: ignore[attr-defined]
    assert len(names["boxes"]) == 6  # type: ignore[arg-type]


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)]+)\)", README))
def test_links_lead_somewhere(target: str) -> None:
    assert (REPOSITORY / target).exists()
