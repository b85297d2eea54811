"""The commands as a user runs them: what they print and write, and their exit codes."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mxa
from conftest import ROOT_NAME, write_chexpert
from mxa.cli import COMMANDS, main
from mxa.data.options import DataOptions, read
from mxa.evaluation.predictions import read_csv
from mxa.labels import CHEXPERT14

FAST = [
    *(
        "--preprocess.size",
        "64",
        "--augment.randaugment=",
        "--model.name",
        "mxa_efficientvit_m0",
        "--progress",
        "false",
    ),
    *("--optim.epochs", "2", "--optim.batch_size", "8", "--optim.lr_batch_size", "8"),
    *("--optim.warmup_epochs", "0", "--optim.cooldown_epochs", "0"),
]


def run(*arguments: str) -> int:
    """Exit code of the command; argparse exits by itself on wrong usage."""
    try:
        return main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)


@pytest.fixture(scope="module")
def trained(tiny_chexpert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run made by the command itself."""
    out = tmp_path_factory.mktemp("cli") / "run"
    assert run("train", *FAST, "--data.root", str(tiny_chexpert), "--out", str(out)) == 0
    return out


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.strip() == f"mxa {mxa.__version__}"
    assert run("--help") == 0
    helped = " ".join(capsys.readouterr().out.split())
    for word in ("train", "evaluate", "predict", "demo", "data", "mxa demo", "not for clinical use"):
        assert word in helped


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command.split(), "--help") == 0
    helped = capsys.readouterr().out
    assert len(helped) > 300


def test_python_m_mxa() -> None:
    done = subprocess.run([sys.executable, "-m", "mxa", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"mxa {mxa.__version__}"


def test_evaluate_writes_the_issues_metrics(trained: Path, tiny_chexpert: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    assert (
        run("evaluate", str(trained / "model"), "--data", str(tiny_chexpert), "--split", "valid", "--out", str(out))
        == 0
    )
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"loss", "accuracy", "f1_micro", "auroc_micro", "auroc_macro", "findings"} <= set(metrics)
    assert list(metrics["findings"]) == list(CHEXPERT14)
    assert {"auroc", "positives", "negatives"} <= set(metrics["findings"]["Edema"])
    during_training = json.loads((trained / "validation" / "metrics.json").read_text())
    assert {key: metrics[key] for key in during_training} == during_training
    with (out / "predictions.csv").open() as stream:
        header = next(csv.reader(stream))
    assert header == ["path", "patient", *CHEXPERT14]
    for picture in ("roc", "pr", "auroc", "reliability", "cooccurrence"):
        assert (out / f"{picture}.png").stat().st_size > 10_000
    assert "optimistic" in (out / "report.html").read_text()


def test_evaluate_does_not_overwrite(
    trained: Path, tiny_chexpert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "metrics.json").write_text("mine")
    assert run("evaluate", str(trained / "model"), "--data", str(tiny_chexpert), "--out", str(tmp_path)) == 2
    assert "exists" in capsys.readouterr().err
    assert (tmp_path / "metrics.json").read_text() == "mine"


def test_evaluate_warns_where_the_split_is_another(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = write_chexpert(tmp_path / "other", {"train": 10, "valid": 8}, seed=5)
    assert run("evaluate", str(trained / "model"), "--data", str(other), "--out", str(tmp_path / "out")) == 0
    assert "differs from the one that the model was trained with" in caplog.text


def test_predict_equals_evaluate(trained: Path, tiny_chexpert: Path, tmp_path: Path) -> None:
    out = tmp_path / "predictions.csv"
    folder = tiny_chexpert / ROOT_NAME / "valid"
    assert run("predict", str(trained / "model"), str(folder), "--out", str(out)) == 0
    with out.open() as stream:
        rows = list(csv.DictReader(stream))
    expected = read_csv(trained / "validation" / "predictions.csv", CHEXPERT14)
    assert len(rows) == len(expected)
    table = read(DataOptions(root=str(tiny_chexpert))).split("valid")
    by_path = {str(file): i for i, file in enumerate(table.files())}
    for row in rows:
        assert row["error"] == ""
        i = expected.path.index(table.frame["path"].iloc[by_path[row["path"]]])
        np.testing.assert_allclose([float(row[name]) for name in CHEXPERT14], expected.probability[i], atol=1e-5)


def test_predict_goes_on_past_a_bad_file_and_says_so(
    trained: Path, tiny_chexpert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = next((tiny_chexpert / ROOT_NAME / "valid").rglob("*.jpg"))
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    out = tmp_path / "out.csv"
    assert run("predict", str(trained / "model"), str(bad), str(good), "--out", str(out)) == 1
    with out.open() as stream:
        rows = list(csv.DictReader(stream))
    assert "bad.png" in rows[0]["error"]
    assert rows[0]["Edema"] == ""
    assert 0 < float(rows[1]["Edema"]) < 1
    assert "1 files could not be scored" in capsys.readouterr().err


@pytest.mark.parametrize(("source", "message"), [("nothing.png", "does not exist"), ("empty", "holds no image")])
def test_predict_without_images(
    trained: Path, tmp_path: Path, source: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert run("predict", str(trained / "model"), str(tmp_path / source), "--out", str(tmp_path / "o.csv")) == 1
    assert message in capsys.readouterr().err


def test_check_finds_nothing_in_good_data_and_everything_in_bad(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_chexpert(tmp_path / "data", {"train": 40, "valid": 40})
    assert run("data", "check", str(root), "--dataset", "chexpert") == 0
    assert "0 problems" in capsys.readouterr().out
    folder = root / ROOT_NAME
    files = sorted((folder / "train").rglob("*.jpg"))
    files[0].unlink()
    files[3].write_bytes(b"")
    files[5].write_bytes(files[6].read_bytes())
    lines = (folder / "train.csv").read_text().splitlines()
    lines[9] = lines[9].rsplit(",", 1)[0] + ",2.0"
    lines[12] = lines[12].replace(f"{ROOT_NAME}/train/", "../../elsewhere/")
    (folder / "train.csv").write_text("\n".join([*lines, lines[20]]) + "\n")
    assert run("data", "check", str(root), "--dataset", "chexpert") == 1
    printed = capsys.readouterr().out
    for expected in (
        "train.csv:2:",
        "train.csv:5:",
        "train.csv:10:",
        "train.csv:13:",
        "train.csv:82:",
        "missing image",
        "unreadable image",
        "2.0",
        "duplicate",
        "duplicate pixels",
    ):
        assert expected in printed, expected


def test_phantom_then_check_then_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "phantom"
    assert run("data", "phantom", str(root), "--images", "90", "--size", "96", "--seed", "3") == 0
    assert run("data", "check", str(root), "--dataset", "chexpert") in (0, 1)
    printed = capsys.readouterr().out
    assert "missing" not in printed.replace("not_annotated", "")
    assert "unreadable" not in printed
    assert run("train", *FAST, "--data.root", str(root), "--out", str(tmp_path / "run")) == 0


CHEX = "densenet121-res224-chex"


def test_the_papers_teacher_goes_all_the_way(
    xrv_cache: Path, tiny_chexpert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pickled file of TorchXRayVision: convert, cache, train, evaluate."""
    teacher, cache, out = (str(tmp_path / name) for name in ("teacher", "cache", "run"))
    assert run("teacher", "convert", CHEX, "--cache_dir", str(xrv_cache), "--out", teacher) == 0
    assert "Enlarged Cardiomediastinum" in capsys.readouterr().out
    options = [*FAST, "--data.root", str(tiny_chexpert), "--kd.teacher", teacher, "--kd.cache", cache]
    assert run("teacher", "predict", *options) == 0
    assert "--kd.cache" in capsys.readouterr().out
    assert np.load(Path(cache) / "logits.npy").shape == (56, 11)
    assert run("train", *options, "--out", out) == 0
    told = json.loads((Path(out) / "teacher.json").read_text())
    assert told["not_taught"] == ["Pleural Other", "Support Devices"]
    arguments = ("--data", str(tiny_chexpert), "--split", "test", "--out", str(tmp_path / "test"))
    assert run("evaluate", str(Path(out) / "model"), *arguments) == 0
    assert len(json.loads((tmp_path / "test" / "metrics.json").read_text())["findings"]) == 14
    assert run("evaluate", teacher, "--data", str(tiny_chexpert), "--out", str(tmp_path / "teacher_test")) == 0


def test_teachers_and_caches_that_do_not_fit(
    trained: Path, xrv_cache: Path, tiny_chexpert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, cache, out = str(trained / "model"), str(tmp_path / "cache"), str(tmp_path / "out")
    other = write_chexpert(tmp_path / "other", {"train": 30, "valid": 8}, seed=5)
    options = [*FAST, "--data.root", str(tiny_chexpert), "--out", out]
    assert run("teacher", "predict", *options, "--kd.teacher", teacher, "--kd.cache", cache) == 0
    pickled = str(next(xrv_cache.iterdir()))
    cases = [
        (["train", *options, "--kd.teacher", pickled], 1, "mxa teacher convert"),
        (["train", *options, "--kd.teacher", CHEX], 1, f"mxa teacher convert {CHEX}"),
        (["evaluate", pickled, "--data", str(tiny_chexpert), "--out", out], 1, "mxa teacher convert"),
        (["train", *options, "--kd.teacher", teacher, "--kd.cache", str(tmp_path)], 1, "mxa teacher predict"),
        (["train", *options, "--kd.cache", cache], 2, "kd.teacher"),
        (["train", *options, "--kd.teacher", teacher, "--kd.tau", "0"], 2, "kd.tau"),
        (["train", *options, "--kd.teacher", teacher, "--kd.cache", cache, "--preprocess.size", "96"], 2, "size 64"),
        (
            ["train", *options, "--kd.teacher", teacher, "--kd.cache", cache, "--data.root", str(other)],
            1,
            "cache of other data",
        ),
        (["teacher", "predict", *options, "--kd.teacher", teacher], 2, "kd.cache"),
        (["teacher", "convert", "densenet", "--out", out], 2, CHEX),
    ]
    for arguments, code, message in cases:
        capsys.readouterr()
        assert run(*arguments) == code, arguments
        error = capsys.readouterr().err
        assert message in error, (message, error)
        assert "Traceback" not in error
    assert not Path(out).exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, ""),
        (["fly"], 2, "fly"),
        (["train", "--optim.epoch", "3"], 2, "optim.epoch"),
        (["train", "--optim.epochs", "many"], 2, "optim.epochs"),
        (["train", "--optim.epochs", "0"], 2, "optim.epochs"),
        (["train", "--out", "x"], 2, "data.root"),
        (["train", "--config", "no-such.yaml"], 2, "no-such.yaml"),
        (["train", "--data.root", "no-such-folder", "--out", "OUT"], 1, "no-such-folder"),
        (["evaluate", "no-such-model", "--data", "x", "--out", "OUT"], 1, "no-such-model"),
        (["evaluate", "m", "--data", "x", "--split", "all", "--out", "OUT"], 2, "split"),
        (["predict", "no-such-model", "x.png", "--out", "o.csv"], 1, "no-such-model"),
        (["data", "check", "no-such-folder"], 1, "no-such-folder"),
        (["data", "check", "x", "--dataset", "mimic"], 2, "mimic"),
        (["data", "phantom", "OUT", "--images", "0"], 2, "images"),
    ],
)
def test_wrong_usage_is_explained(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(COMMANDS, "data check", stop)
    assert run("data", "check", "somewhere") == 1
    assert capsys.readouterr().err == "mxa data check: stopped\n"


def test_a_misspelt_field_in_a_config_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("optim:\n  epocs: 3\n")
    assert run("train", "--config", str(file)) == 2
    assert "epocs" in capsys.readouterr().err


def test_an_unknown_finding_is_named(tiny_chexpert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--data.root", str(tiny_chexpert), "--data.labels", "[Edma]", "--out", str(tmp_path / "run"))
    assert run("train", *FAST, *arguments) == 2
    assert "Edma" in capsys.readouterr().err


def test_ctrl_c_and_resume(tmp_path: Path) -> None:
    """A real process, a real signal, and the same result as without."""
    root = write_chexpert(tmp_path / "data", {"train": 60, "valid": 8})
    command = [sys.executable, "-m", "mxa", "train", *FAST, "--data.root", str(root), "--optim.epochs", "8", "--out"]
    process = subprocess.Popen([*command, str(tmp_path / "run")], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "history.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "--resume" in err
    assert "Traceback" not in err
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    subprocess.run([*command, str(tmp_path / "run"), "--resume"], check=True, env=environment, timeout=300)
    with (tmp_path / "run" / "history.csv").open() as stream:
        assert [int(row["epoch"]) for row in csv.DictReader(stream)] == list(range(8))


def bad_image(kind: str, file: Path) -> None:
    """One of the issue's bad images."""
    good = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    if kind == "truncated":
        Image.fromarray(good).save(file, "JPEG")
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "text":
        file.write_text("this is not a picture")
    elif kind == "16-bit":
        Image.fromarray(good.astype(np.uint16) * 16).save(file, "PNG")
    else:
        Image.fromarray(good[:1, :1]).save(file, "PNG")


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "16-bit", "1-pixel"])
def test_bad_images_stop_training_with_their_name(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_chexpert(tmp_path / "data", {"train": 10, "valid": 4})
    bad_image(kind, root / ROOT_NAME / "train/patient00002/study1/view1_frontal.jpg")
    assert run("train", *FAST, "--data.root", str(root), "--out", str(tmp_path / "run")) == 1
    assert "patient00002/study1/view1_frontal.jpg" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("Pneumothorax,", ""), "train.csv"),
        (lambda text: text.replace("Pneumothorax,", "Pneumotorax,"), "Pneumothorax"),
        (lambda text: text.replace(",1.0", ",2.0", 1), "2.0"),
        (lambda text: text.replace(f"{ROOT_NAME}/train/patient00001", "/etc/train/../patient00001", 1), "patient00001"),
    ],
)
def test_bad_tables_stop_training_with_file_and_remedy(
    change: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_chexpert(tmp_path / "data", {"train": 10, "valid": 4})
    file = root / ROOT_NAME / "train.csv"
    file.write_text(change(file.read_text()))  # type: ignore[operator]
    assert run("train", *FAST, "--data.root", str(root), "--out", str(tmp_path / "run")) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "train.csv" in error
