"""The commands as a user runs them: what they print and write, and their exit codes."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mxa
from conftest import ROOT_NAME, SMALL_RUN, write_chexpert
from mxa.cli import COMMANDS, main
from mxa.data.options import DataOptions, read
from mxa.evaluation.predictions import read_csv
from mxa.labels import CHEXPERT14

FAST = ["--model.name", "mxa_efficientvit_m0", *SMALL_RUN]


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


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without pictures, which take most of the time."""
    monkeypatch.setattr("mxa.evaluation.assessment_report.draw", lambda found: {})


def write_rows(file: Path, *rows: str) -> str:
    file.write_text("\n".join(rows) + "\n")
    return str(file)


@pytest.fixture
def board(tmp_path: Path) -> dict[str, str]:
    """Small files by study, as for CheXpert's leaderboard: labels, good predictions and bad ones."""
    studies = [f"CheXpert-v1.0/test/patient{64741 + i}/study1" for i in range(12)]
    good = [f"{study},{0.9 - 0.05 * i:.2f},{0.1 + 0.04 * i:.2f}" for i, study in enumerate(studies)]
    header = "Study,Pleural Effusion,Edema"
    labels = [f"{study},{(i * 5) % 3 // 2}.0,{i % 2}.0,0.0" for i, study in enumerate(studies)]
    return {
        "labels": write_rows(tmp_path / "groundtruth.csv", "Study,Edema,Pleural Effusion,Fracture", *labels),
        "good": write_rows(tmp_path / "good.csv", header, *good[::-1]),
        "missing": write_rows(tmp_path / "missing.csv", header, *good[1:]),
        "twice": write_rows(tmp_path / "twice.csv", header, *good, good[3]),
        "extra": write_rows(tmp_path / "extra.csv", header, *good, "CheXpert-v1.0/test/patient9/study1,0.1,0.1"),
        "infinite": write_rows(tmp_path / "infinite.csv", header, *good[:3], f"{studies[3]},0.5,inf", *good[4:]),
        "logits": write_rows(tmp_path / "logits.csv", header, *good[:3], f"{studies[3]},-1.5,0.1", *good[4:]),
        "unknown": write_rows(tmp_path / "unknown.csv", header + ",Covid", *(f"{row},0.5" for row in good)),
        "out": str(tmp_path / "out"),
    }


def test_evaluate_scores_anybodys_csv(board: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--predictions", board["good"], "--labels", board["labels"], "--replicates", "20"]
    assert run("evaluate", *arguments, "--out", board["out"]) == 0
    printed = capsys.readouterr().out.splitlines()
    metrics = json.loads((Path(board["out"]) / "metrics.json").read_text())
    assert printed[0].startswith(f"macro AUROC {metrics['auroc_macro']:.4f}, micro AUROC {metrics['auroc_micro']:.4f}")
    assert printed == [printed[0], f"open {board['out']}/report.html"]
    assert printed[0].endswith("on 12 studies")
    assert metrics["not_scored"] == {"Fracture": "not in the predictions"}
    assert not (Path(board["out"]) / "predictions.csv").exists(), "they are there already"
    assert run("evaluate", *arguments, "--out", board["out"]) == 2
    assert "metrics.json exists; choose another --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (
            "missing",
            "missing.csv and {folder}groundtruth.csv must hold the same studies: 1 have no prediction (CheXpert",
        ),
        ("twice", "twice.csv: 1 studies occur more than once (CheXpert-v1.0/test/patient64744/study1)"),
        ("extra", "1 are predicted but have no labels (CheXpert-v1.0/test/patient9/study1)"),
        ("infinite", "infinite.csv, line 5: Edema is 'inf'"),
        ("logits", "logits.csv, line 5: Pleural Effusion is '-1.5', which is not between 0 and 1; if these are logits"),
        ("unknown", "unknown.csv: unknown columns 'Covid'"),
    ],
)
def test_evaluate_names_what_is_wrong_with_a_csv(
    predictions: str, message: str, board: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--predictions", board[predictions], "--labels", board["labels"], "--out", board["out"]]
    assert run("evaluate", *arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("mxa evaluate: ")
    assert message.format(folder=str(Path(board["labels"]).parent) + os.sep) in error
    assert not Path(board["out"]).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--predictions", "good", "--out", "out"], "say what is true: --data, or with --predictions also --labels"),
        (["--out", "out", "--labels", "labels"], "either the folder of a saved model or --predictions"),
        (["model", "--predictions", "good", "--labels", "labels", "--out", "out"], "or --predictions, one of them"),
        (["model", "--labels", "labels", "--out", "out"], "--labels goes with --predictions"),
        (["model", "--data", "x", "--valid_predictions", "good", "--out", "out"], "operating points of its own"),
        (
            ["--predictions", "good", "--labels", "labels", "--aggregate", "max", "--out", "out"],
            "leave --aggregate out",
        ),
        (["--predictions", "good", "--labels", "labels", "--aggregate", "median", "--out", "out"], "median"),
        (["--predictions", "good", "--labels", "labels", "--operating_point", "f1", "--out", "out"], "'f1'"),
        (["--predictions", "good", "--labels", "labels", "--level", "95", "--out", "out"], "level is 95"),
        (["--predictions", "good", "--labels", "labels", "--out", "good"], "good.csv is a file"),
        (
            ["--predictions", "good", "--labels", "labels", "--localisation", "labels", "--out", "out"],
            "--localisation goes with a saved model",
        ),
        (["--predictions", "good", "--labels", "labels", "--split", "valid", "--out", "out"], "so --split would do"),
        (
            ["--predictions", "good", "--labels", "labels", "--views", "[frontal]", "--dataset", "nih", "--out", "out"],
            "so --dataset, --views would do nothing",
        ),
        (
            ["--predictions", "good", "--labels", "labels", "--subgroups", "[sex, sex]", "--out", "out"],
            "subgroups names sex twice",
        ),
        (
            ["--predictions", "good", "--labels", "labels", "--age_bands", "[.nan]", "--out", "out"],
            "age bands must ascend",
        ),
    ],
)
def test_evaluate_explains_wrong_usage(
    arguments: list[str], message: str, board: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("evaluate", *(board.get(one, one) for one in arguments)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not Path(board["out"]).exists()


def test_nihs_own_findings_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def remember(sources: object, *arguments: object, **more: object) -> None:
        seen.append(sources.data.labels)  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr("mxa.evaluate.evaluate", remember)
    for dataset in ("nih", "chexpert"):
        assert run("evaluate", "--predictions", "p.csv", "--data", "x", "--dataset", dataset, "--out", "o") == 1
    assert seen == ["nih14", "chexpert14"]


@pytest.mark.usefixtures("undrawn")
def test_a_data_set_gives_the_labels_and_chooses_for_a_csv(
    trained: Path, tiny_chexpert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--data in place of --labels, and beside it for the validation split."""
    valid = str(trained / "validation" / "predictions.csv")
    data = ("--data", str(tiny_chexpert), "--replicates", "20")
    assert run("evaluate", "--predictions", valid, *data, "--out", str(tmp_path / "a")) == 0
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    during_training = json.loads((trained / "validation" / "metrics.json").read_text())
    assert metrics["auroc_macro"] == pytest.approx(during_training["auroc_macro"])
    test = tmp_path / "test.csv"
    labels = tiny_chexpert / ROOT_NAME / "test.csv"
    with labels.open() as stream:
        paths = [row["Path"] for row in csv.DictReader(stream)]
    write_rows(test, "Path,Edema", *(f"{path},{i / 20}" for i, path in enumerate(paths)))
    more = ("--labels", str(labels), "--valid_predictions", valid, "--out", str(tmp_path / "b"))
    assert run("evaluate", "--predictions", str(test), *data, *more) == 0
    metrics = json.loads((tmp_path / "b" / "metrics.json").read_text())
    assert metrics["operating_point"] == "youden"
    assert metrics["cases"] == 12
    assert run("evaluate", "--predictions", str(test), *data, *more[:2], "--out", str(tmp_path / "c")) == 2
    assert "--labels and --data both say what is true" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_calibrate_then_evaluate_at_a_point_of_ones_own(
    trained: Path, tiny_chexpert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = str(tmp_path / "model"), ("--data", str(tiny_chexpert))
    shutil.copytree(trained / "model", model)
    evaluate = ("evaluate", model, *data, "--split", "test", "--replicates", "20")
    assert run(*evaluate, "--operating_point", "cost=5", "--out", str(tmp_path / "before")) == 2
    assert "there are: youden, f1, sensitivity=0.9, specificity=0.9" in capsys.readouterr().err
    assert run("calibrate", model, *data, "--rules", "[youden, cost=5]") == 0
    printed = capsys.readouterr().out
    assert "operating points youden, cost=5; calibrations temperature, platt, isotonic, from 16 images" in printed
    thresholds = json.loads((Path(model) / "config.json").read_text())["tuning"]["operating_points"]["cost=5"]
    for finding, reason in thresholds["reasons"].items():
        assert f"{finding} ({reason})" in printed
    assert run(*evaluate, "--operating_point", "cost=5", "--out", str(tmp_path / "after")) == 0
    metrics = json.loads((tmp_path / "after" / "metrics.json").read_text())
    assert metrics["operating_point"] == "cost=5"
    assert list(metrics["operating_points"]) == ["0.5", "youden", "cost=5"]
    assert metrics["tuning"]["operating_points"]["cost=5"] == thresholds
    assert "optimistic" not in " ".join(metrics["notes"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["no-such-model", "--data", "x"], 1, "no-such-model is not a saved model"),
        (["no-such-model", "--data", "x", "--rules", "[best]"], 2, "operating point 'best' is none of"),
        (["no-such-model", "--data", "x", "--rules", "[]"], 2, "no rules are given"),
        (["no-such-model"], 2, "data"),
        (["no-such-model", "--data", "x", "--split", "test"], 2, "split"),
    ],
)
def test_calibrate_explains_wrong_usage(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no option that lets the test split choose."""
    assert run("calibrate", *arguments) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_predict_equals_evaluate(
    trained: Path, tiny_chexpert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "predictions.csv"
    folder = tiny_chexpert / ROOT_NAME / "valid"
    assert run("predict", str(trained / "model"), str(folder), "--out", str(out)) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert f"{out}: 16 rows: 16 scored, 0 refused, 0 failed, " in told.err
    assert " images/s" in told.err
    with out.open() as stream:
        rows = list(csv.DictReader(stream))
    expected = read_csv(trained / "validation" / "predictions.csv", CHEXPERT14)
    assert len(rows) == len(expected)
    table = read(DataOptions(root=str(tiny_chexpert))).split("valid")
    by_path = {str(file): i for i, file in enumerate(table.files())}
    for row in rows:
        assert (row["status"], row["reason"]) == ("ok", "")
        i = expected.path.index(table.frame["path"].iloc[by_path[row["path"]]])
        np.testing.assert_allclose([float(row[name]) for name in CHEXPERT14], expected.probability[i], atol=1e-5)


def test_predict_goes_on_past_a_bad_file_and_says_so(
    trained: Path, tiny_chexpert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = next((tiny_chexpert / ROOT_NAME / "valid").rglob("*.jpg"))
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    out = tmp_path / "out.csv"
    assert run("predict", str(trained / "model"), str(bad), str(good), "--out", str(out), "--workers", "0") == 1
    with out.open() as stream:
        rows = list(csv.DictReader(stream))
    assert (rows[0]["path"], rows[0]["status"]) == (str(bad), "failed")
    assert rows[0]["reason"].startswith("cannot be decoded (not an image)")
    assert rows[0]["Edema"] == ""
    assert 0 < float(rows[1]["Edema"]) < 1
    error = capsys.readouterr().err
    assert "2 rows: 1 scored, 0 refused, 1 failed" in error
    assert "1 failed: cannot be decoded" in error


@pytest.mark.parametrize(
    ("source", "code", "message"), [("nothing.png", 2, "does not exist"), ("empty", 1, "nothing to predict")]
)
def test_predict_without_images(
    trained: Path, tmp_path: Path, source: str, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    out = tmp_path / "o.csv"
    assert run("predict", str(trained / "model"), str(tmp_path / source), "--out", str(out)) == code
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.usefixtures("undrawn")
def test_predict_then_evaluate(
    trained: Path, tiny_chexpert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, root = tmp_path / "p.csv", tiny_chexpert / ROOT_NAME
    decided = ("--operating_point", "youden", "--calibration", "temperature", "--logits")
    pattern = f"{root}/test/**/*.jpg"
    assert run("predict", str(trained / "model"), pattern, "--out", str(out), "--workers", "0", *decided) == 0
    with out.open() as stream:
        columns = set(next(csv.reader(stream)))
    assert {"Edema:decision", "Edema:logit", "boxes", "model_hash", "contract_version"} <= columns
    labels = ("--labels", str(root / "test.csv"), "--replicates", "20")
    assert run("evaluate", "--predictions", str(out), *labels, "--out", str(tmp_path / "a")) == 0
    data = ("--data", str(tiny_chexpert), "--split", "test", "--replicates", "20")
    assert run("evaluate", str(trained / "model"), *data, "--out", str(tmp_path / "b")) == 0
    found, expected = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in "ab")
    assert found["auroc_macro"] == pytest.approx(expected["auroc_macro"])
    assert found["cases"] == 12


def test_predict_resumes_a_list_from_standard_input(
    trained: Path, tiny_chexpert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(str(file) for file in (tiny_chexpert / ROOT_NAME / "test").rglob("*.jpg"))
    out = tmp_path / "p.jsonl"
    command = ("predict", str(trained / "model"), "--list", "-", "--out", str(out), "--batch_size", "5")
    for more, code in ((), 0), ((), 2), (("--resume",), 0):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(files).encode())))
        assert run(*command, "--workers", "0", "--views", "frontal", "lateral", *more) == code
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert [row["path"] for row in rows] == files
    assert [type(p) for p in rows[0]["probabilities"].values()] == [float] * 14


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


def test_check_reads_16_bits_as_training_will(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for i in range(2):
        Image.fromarray(rng.integers(0, 4096, (32, 32)).astype(np.uint16)).save(tmp_path / f"{i}.png")
    write_rows(tmp_path / "labels.csv", "file,Edema,part", "0.png,1,train", "1.png,1,valid")
    table = ["--dataset", "csv", "--labels", "[Edema]", "--csv.file", str(tmp_path / "labels.csv")]
    command = ["data", "check", str(tmp_path), *table, "--csv.path", "file", "--csv.split", "part"]
    assert run(*command) == 1
    assert "nearly black" in capsys.readouterr().out
    assert run(*command, "--preprocess.wide_range", "minmax") == 0
    assert "2 images, 0 problems" in capsys.readouterr().out
    assert run(*command, "--preprocess.wide_range", "12") == 2
    assert "preprocess.wide_range is '12'" in capsys.readouterr().err


def test_pack_says_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = write_chexpert(tmp_path / "data", {"train": 4, "valid": 2}), tmp_path / "pack"
    command = ["data", "pack", str(root), "--preprocess.size", "32", "--max_rejects", "1"]
    assert run(*command, "--out", str(out)) == 0
    whole = f"{out}: 12 pictures of {root}, 32 px; train with --pack {out}\n"
    assert capsys.readouterr().out == whole
    next((root / ROOT_NAME / "train").rglob("*.jpg")).write_bytes(b"")
    assert run(*command, "--out", f"{out}2") == 0
    assert f"{out}2: 11 pictures of {root}, without 1 unreadable ones (rejects.csv), 32 px;" in capsys.readouterr().out


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
        (["predict", "m", "--out", "o.csv"], 2, "nothing to predict: give files, folders or patterns"),
        (["predict", "m", "x.png", "--out", "o.csv", "--threads", "0"], 2, "threads is 0"),
        (["predict", "m", "x.png", "--out", "o.csv", "--batch_size", "0"], 2, "batch_size is 0"),
        (["predict", "m", "x.png", "--out", "o.csv", "--views", "top"], 2, "views is top"),
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

    monkeypatch.setitem(COMMANDS, "data check", COMMANDS["data check"]._replace(run=stop))
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
    """A real process with its loading processes, a signal to all as from a terminal, and the same result as without."""
    root = write_chexpert(tmp_path / "data", {"train": 60, "valid": 8})
    loading = ["--cache_gib", "0", "--workers", "2"]
    command = [sys.executable, "-m", "mxa", "train", *FAST, *loading, "--data.root", str(root), "--optim.epochs", "8"]
    command += ["--out"]
    process = subprocess.Popen(
        [*command, str(tmp_path / "run")], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "history.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "--resume" in err
    assert err.count("stopping after this step") == 1, "the loading processes say nothing"
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


def test_without_torch_a_command_that_trains_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(options: object) -> int:
        raise ModuleNotFoundError("No module named 'lightning'", name="lightning")

    monkeypatch.setitem(COMMANDS, "train", COMMANDS["train"]._replace(run=fail))
    assert main(["train"]) == 2
    assert "needs lightning; `pip install 'mxa[train]'`" in capsys.readouterr().err
