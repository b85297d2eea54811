"""Whole runs: every kind of file, kills, Ctrl-C, and going on to the same bytes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small_archive
from PIL import Image
from small_archive import FINDINGS, pixels, predictor, write_pictures
from test_dicomdir import medium

import dicom_files
from mxa.archive import writers
from mxa.archive.run import ArchiveOptions, _interrupted, predict_archive
from mxa.archive.sources import Sources
from mxa.archive.summary import Summary
from mxa.errors import ArtifactError, ConfigError, DataError
from mxa.evaluation.predictions import read_predictions
from mxa.labels import CHEXPERT14

EVERYTHING = {"operating_point": "youden", "calibration": "temperature", "logits": True}
SUFFIXES = pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "PART_ROWS", 8)


def run(out: Path, *paths: object, listed: str = "", model=None, progress=None, **options: object) -> Summary:
    options = {"workers": 0, "batch_size": 4} | options
    sources = Sources(tuple(map(str, paths)), listed)
    return predict_archive(model or predictor(), sources, out, ArchiveOptions(**options), progress)  # type: ignore[arg-type]


def contents(out: Path) -> dict[str, bytes]:
    """Of the output and its state."""
    files = [out] if out.is_file() else sorted(out.iterdir())
    return {file.name: file.read_bytes() for file in (*files, Path(f"{out}.state.json"))}


def table(out: Path) -> list[dict[str, object]]:
    if out.suffix == ".jsonl":
        return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    frame = pd.read_parquet(out) if out.suffix == ".parquet" else pd.read_csv(out, keep_default_na=False)
    return frame.to_dict("records")


@pytest.fixture
def everything(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A folder of every kind of file, and the status of each, in order."""
    folder = tmp_path / "scans"
    (folder / "deep").mkdir(parents=True)
    Image.fromarray(pixels(1)).save(folder / "a.png")
    Image.fromarray(pixels(2)).save(folder / "b.jpg")
    (folder / "c.dcm").write_text("a text " * 99)
    dicom_files.write(folder / "d", pixels(3))
    dicom_files.write(folder / "deep/e.dcm", pixels(4), Modality="CT")
    (folder / "f.png").write_bytes((folder / "a.png").read_bytes()[:300])
    dicom_files.write(folder / "g.dcm", pixels(5), preamble=False)
    (folder / "h.txt").write_text("no picture")
    status = {"a.png": "ok", "b.jpg": "ok", "c.dcm": "failed", "d": "ok", "deep/e.dcm": "refused", "f.png": "failed"}
    return folder, {**status, "g.dcm": "ok"}


@SUFFIXES
@pytest.mark.parametrize("workers", [0, 2])
def test_every_kind_of_file(everything: tuple[Path, dict[str, str]], tmp_path: Path, suffix: str, workers: int) -> None:
    folder, status = everything
    out, steps = tmp_path / f"out{suffix}", []
    summary = run(out, folder, progress=steps.append, workers=workers, **EVERYTHING)
    rows = table(out)
    assert {str(Path(str(row["path"])).relative_to(folder)): row["status"] for row in rows} == status
    assert [Path(str(row["path"])) for row in rows] == [folder / name for name in status]
    assert steps == [4, 3]
    good = [row for row in rows if row["status"] == "ok"]
    expected = predictor().predict([row["path"] for row in good], operating_point="youden", calibration="temperature")
    for row, one in zip(good, expected, strict=True):
        found = row["probabilities"].values() if suffix == ".jsonl" else [row[finding] for finding in FINDINGS]  # type: ignore[attr-defined]
        np.testing.assert_array_equal(np.array(list(found), dtype=float), one.probabilities)
        assert row["model_hash"] == one.model_hash
    uids = [row["sop_instance_uid"] for row in rows]
    assert uids == [dicom_files.SOP_INSTANCE_UID if "d" in uid else "" for uid in ("", "", "", "d", "d", "", "d")]
    assert summary.statuses == {"ok": 4, "refused": 1, "failed": 2}
    assert summary.tally.skipped == {".txt": 1}
    assert summary.finished
    assert not summary.good
    state = json.loads(Path(f"{out}.state.json").read_text())
    assert (state["rows"], state["finished"]) == (7, True)
    assert sum(summary.reasons.values()) == 3
    assert all(
        kind.startswith(("failed: ", "refused: not taken as a chest radiograph: its mod")) for kind in summary.reasons
    )


@SUFFIXES
def test_processes_change_nothing(tmp_path: Path, suffix: str) -> None:
    folder = write_pictures(tmp_path / "scans", 30)
    for workers in (0, 1, 3):
        run(tmp_path / f"{workers}{suffix}", folder, workers=workers, **EVERYTHING)
    one, *others = (list(contents(tmp_path / f"{workers}{suffix}").values()) for workers in (0, 1, 3))
    assert others == [one, one]


def test_evaluate_reads_what_predict_writes(tmp_path: Path) -> None:
    folder, out = write_pictures(tmp_path / "scans", 9), tmp_path / "p.csv"
    for options in ({}, EVERYTHING):
        assert run(out, folder, **options).good
        found = read_predictions(out, CHEXPERT14)
        assert found.key == tuple(str(file) for file in sorted(folder.iterdir()))
        expected = [
            one.probabilities for one in predictor().predict(list(found.key), calibration=options.get("calibration"))
        ]
        np.testing.assert_array_equal(found.probability, np.array(expected))
        out.unlink()
    run(out, write_pictures(folder, 10))
    with pytest.raises(
        DataError, match=r"1 rows have an error in place of a prediction, the first .*0009\.png: cannot"
    ):
        read_predictions(out)


def test_the_model_says_what_is_not_asked_for(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "scans", 4)
    dicom_files.write(folder / "side.dcm", pixels(3), ViewPosition="LL", PatientOrientation=["A", "F"])
    model = predictor()
    object.__setattr__(model, "tuning", model.tuning.using("youden", "temperature"))
    object.__setattr__(model, "config", {"training": {"config": {"data": {"views": ["frontal", "lateral"]}}}})
    assert run(tmp_path / "a.jsonl", folder, model=model).good
    for row, one in zip(table(tmp_path / "a.jsonl"), model.predict(sorted(folder.iterdir())), strict=True):
        plain = one.to_dict()
        assert (row["operating_point"], row["calibration"]) == ("youden", "temperature")
        assert (row["decisions"], row["probabilities"]) == (plain["decisions"], plain["probabilities"])
    run(tmp_path / "b.jsonl", folder, model=model, operating_point="", calibration="", views=("frontal",))
    rows = table(tmp_path / "b.jsonl")
    assert {(row["operating_point"], row["calibration"], "decisions" in row) for row in rows} == {("", "", False)}
    assert [row["status"] for row in rows] == ["ok"] * 4 + ["refused"]
    with pytest.raises(ConfigError, match=r"operating_point was '', is 'youden'"):
        run(tmp_path / "b.jsonl", folder, model=model, calibration="", views=("frontal",), resume=True)


def test_a_dicomdir_and_a_list(tmp_path: Path) -> None:
    directory = medium(tmp_path / "cd")
    Image.fromarray(pixels(1)).save(tmp_path / "a.png")
    (tmp_path / "list").write_text(f"{tmp_path}/a.png\n{tmp_path}/gone.png\n")
    summary = run(tmp_path / "out.jsonl", directory, directory.parent, listed=str(tmp_path / "list"))
    rows = table(tmp_path / "out.jsonl")
    assert [row["sop_instance_uid"] for row in rows] == ["1.2.3.0", "1.2.3.1", "1.2.3.99", "", ""]
    assert [row["status"] for row in rows] == ["ok", "ok", "refused", "ok", "failed"]
    assert summary.tally.repeated == 2
    assert summary.tally.skipped == {"DICOMDIR records SR DOCUMENT": 1, "DICOMDIR": 1}


def command(folder: Path, out: Path, workers: int, how: str = "new") -> list[str]:
    return [sys.executable, small_archive.__file__, str(folder), str(out), str(workers), how]


def started(folder: Path, out: Path, workers: int, rows: int) -> "subprocess.Popen[str]":
    """A run in a process group of its own that has written some rows and is not at its end."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        command(folder, out, workers), stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    )
    state, deadline = Path(f"{out}.state.json"), time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if state.exists() and json.loads(state.read_text())["rows"] >= rows:
            return process
        time.sleep(0.01)
    raise AssertionError(f"it ended too early: {process.communicate()[1]}")


def resumed(folder: Path, out: Path, workers: int) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    line = command(folder, out, workers, "resume")
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False, timeout=120)
    assert done.returncode == 1, done.stderr
    return done.stderr


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize(("suffix", "workers"), [(".csv", 2), (".jsonl", 0), (".parquet", 0)])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, suffix: str, workers: int) -> None:
    folder, out, whole = write_pictures(tmp_path / "scans", 90), tmp_path / f"out{suffix}", tmp_path / "whole"
    whole.mkdir()
    run(whole / f"out{suffix}", folder, operating_point="youden", calibration="temperature")
    process = started(folder, out, workers, rows=10)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and living(process.pid):
        time.sleep(0.05)
    assert not living(process.pid), "its reading processes end with it"
    before = json.loads(Path(f"{out}.state.json").read_text())
    assert 0 < before["rows"] < 90
    assert not before["finished"]
    if suffix != ".parquet":
        with out.open("ab") as file:
            file.write(b'"scans/torn li')  # where the file system had written half a line
    told = resumed(folder, out, workers)
    assert "90 rows: 81 scored, 0 refused, 9 failed" in told
    assert contents(out) == contents(whole / f"out{suffix}")


def living(group: int) -> bool:
    """Whether a process of the group runs; where there is no /proc nobody looks."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # gone meanwhile
            state, _, its = file.read_text().rpartition(")")[2].split()[:3]
            if int(its) == group and state != "Z":
                return True
    return False


@pytest.mark.skipif(os.name != "posix", reason="SIGINT to a group")
@pytest.mark.parametrize(("suffix", "workers"), [(".csv", 2), (".parquet", 0)])
def test_ctrl_c_ends_after_the_batch_and_says_how_to_go_on(tmp_path: Path, suffix: str, workers: int) -> None:
    folder, out = write_pictures(tmp_path / "scans", 90), tmp_path / f"out{suffix}"
    process = started(folder, out, workers, rows=10)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1, told
    state = json.loads(Path(f"{out}.state.json").read_text())
    assert told.splitlines()[-1] == f"stopped after {state['rows']} rows; the same command with --resume goes on"
    assert "Traceback" not in told
    assert state["rows"] % 4 == 0
    assert len(table(out)) == state["rows"] < 90
    resumed(folder, out, workers)
    (tmp_path / "whole").mkdir()
    run(tmp_path / f"whole/out{suffix}", folder, operating_point="youden", calibration="temperature")
    assert contents(out) == contents(tmp_path / f"whole/out{suffix}")


def test_a_second_ctrl_c_is_the_usual_one() -> None:
    usual = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), _interrupted() as stopped:  # noqa: PT012
        assert not stopped()
        signal.raise_signal(signal.SIGINT)
        assert stopped()
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is usual


def test_where_signals_cannot_be_heard_it_runs_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, found = write_pictures(tmp_path / "scans", 5), []
    thread = threading.Thread(target=lambda: found.append(run(tmp_path / "p.csv", folder)))
    thread.start()
    thread.join()
    assert found[0].good
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_IGN)
    with _interrupted():
        assert signal.signal(signal.SIGINT, signal.default_int_handler) is signal.default_int_handler


@SUFFIXES
def test_a_run_stopped_by_an_error_goes_on(tmp_path: Path, suffix: str) -> None:
    folder, out = write_pictures(tmp_path / "scans", 30), tmp_path / f"out{suffix}"
    model = predictor()
    batches = iter(range(5))

    class Failing:
        name = model.runtime.name

        def __call__(self, given):
            logits, boxes = small_archive.Halves()(given)
            return (logits if next(batches, None) is not None else logits * np.nan), boxes

    object.__setattr__(model, "runtime", Failing())
    with pytest.raises(ArtifactError, match=r"not finite"):
        run(out, folder, model=model)
    summary = run(out, folder, resume=True)
    assert (summary.rows, summary.earlier) == (30, 16 if suffix == ".parquet" else 20)
    (tmp_path / "whole").mkdir()
    run(tmp_path / f"whole/out{suffix}", folder)
    assert contents(out) == contents(tmp_path / f"whole/out{suffix}")


@SUFFIXES
def test_resuming_a_finished_run_changes_nothing(tmp_path: Path, suffix: str) -> None:
    folder, out = write_pictures(tmp_path / "scans", 13), tmp_path / f"out{suffix}"
    first = run(out, folder, resume=True)
    before = contents(out)
    again = run(out, folder, resume=True)
    assert contents(out) == before
    assert (again.rows, again.earlier, again.statuses, again.reasons) == (13, 13, first.statuses, first.reasons)
    assert again.finished


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"operating_point": "youden"}, r"operating_point was '', is 'youden'"),
        ({"calibration": "temperature"}, r"calibration was '', is 'temperature'"),
        ({"views": ("frontal", "lateral")}, r"views was \['frontal'\], is \['frontal', 'lateral'\]"),
        ({"force": True}, r"force was False, is True"),
        ({"logits": True}, r"logits was False, is True"),
        ({"batch_size": 5}, r"batch_size was 4, is 5"),
        ({"model": predictor(notes=("int8 network",))}, r"model_notes was \[\], is \['int8 network'\]"),
        ({"model": predictor(fit="crop")}, r"preprocess was .*'pad'.*'crop'"),
    ],
)
def test_a_run_does_not_go_on_as_another_one(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    folder, out = write_pictures(tmp_path / "scans", 9), tmp_path / "out.csv"
    run(out, folder)
    before = contents(out)
    with pytest.raises(ConfigError, match=message):
        run(out, folder, resume=True, **changed)
    with pytest.raises(ConfigError, match=r"sources was .*, is "):
        run(out, tmp_path, resume=True)
    assert contents(out) == before
    run(out, folder, resume=True, workers=1)


@pytest.mark.parametrize("named", ["source", "list"])
def test_a_run_with_relative_paths_goes_on_where_it_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    for place in ("here", "there"):
        write_pictures(tmp_path / place / "scans", 9)
    (tmp_path / "list").write_text("scans/0000.png\nscans/0001.png\n")
    paths, listed = (["scans"], "") if named == "source" else ([], str(tmp_path / "list"))
    monkeypatch.chdir(tmp_path / "here")
    out = tmp_path / "out.csv"
    run(out, *paths, listed=listed)
    before = contents(out)
    monkeypatch.chdir(tmp_path / "there")
    with pytest.raises(ConfigError, match=r"working_directory was '.*here', is '.*there'; use the same"):
        run(out, *paths, listed=listed, resume=True)
    monkeypatch.chdir(tmp_path / "here")
    run(out, *paths, listed=listed, resume=True)
    assert contents(out) == before


def test_a_run_with_absolute_paths_goes_on_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = write_pictures(tmp_path / "scans", 9), tmp_path / "out.csv"
    run(out, folder)
    monkeypatch.chdir(tmp_path)
    assert run(out, folder, resume=True).good
    assert "working_directory" not in json.loads(Path(f"{out}.state.json").read_text())["settings"]


def test_a_state_that_does_not_say_where_it_was_begun_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path / "scans", 9)
    monkeypatch.chdir(tmp_path)
    run(Path("out.csv"), "scans")
    state = json.loads(Path("out.csv.state.json").read_text())
    del state["settings"]["working_directory"]
    Path("out.csv.state.json").write_text(json.dumps(state))
    with pytest.raises(ConfigError, match=r"working_directory was None, is '.*'; use the same"):
        run(Path("out.csv"), "scans", resume=True)


def test_a_run_does_not_go_on_over_other_files(tmp_path: Path) -> None:
    folder, out = write_pictures(tmp_path / "scans", 8), tmp_path / "out.csv"
    run(out, folder)
    before = contents(out)

    def refused() -> None:
        with pytest.raises(ConfigError, match=r"the sources do not give the same files"):
            run(out, folder, resume=True)
        assert contents(out) == before

    for new in ("0000a.png", "zzz.png"):
        Image.fromarray(pixels(1)).save(folder / new)
        refused()
        (folder / new).unlink()
    (folder / "0003.png").rename(folder / "0003b.png")
    refused()
    (folder / "0003b.png").unlink()
    refused()


def test_outputs_are_not_overwritten_or_guessed(tmp_path: Path) -> None:
    folder, out = write_pictures(tmp_path / "scans", 8), tmp_path / "out.csv"
    out.write_text("mine")
    with pytest.raises(ConfigError, match=r"out\.csv exists; go on with it by --resume, or choose another --out"):
        run(out, folder)
    with pytest.raises(ConfigError, match=r"out\.csv\.state\.json is missing"):
        run(out, folder, resume=True)
    assert out.read_text() == "mine"
    out.unlink()
    run(out, folder)
    out.unlink()
    with pytest.raises(ConfigError, match=r"out\.csv is gone, but .*state\.json is there; remove it"):
        run(out, folder, resume=True)
    assert run(out, folder).good
    with pytest.raises(ConfigError, match=r"must end in \.csv, \.jsonl, \.parquet"):
        run(tmp_path / "out.xlsx", folder)
    with pytest.raises(ConfigError, match=r"its folder does not exist"):
        run(tmp_path / "no" / "out.csv", folder)


def test_where_there_is_no_picture_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.txt").touch()
    with pytest.raises(
        DataError, match=r"nothing to predict; skipped 1 entries that are no pictures \(\.txt 1\); no pic"
    ):
        run(tmp_path / "out.csv", tmp_path / "scans")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scans"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"batch_size is 0"),
        ({"workers": -1}, r"workers is -1"),
        ({"views": ()}, r"views is empty"),
        ({"views": ("frontal", "top")}, r"views is frontal, top; give some of frontal, lateral"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ArchiveOptions(**options)  # type: ignore[arg-type]


def test_it_needs_no_torch(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "scans", 5)
    dicom_files.write(folder / "d.dcm", pixels(3))
    code = f"""
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "timm", "lightning", "torchvision"):
            raise ImportError("there is no " + name)

sys.meta_path.insert(0, NoTorch())
sys.argv = ["small_archive.py", {str(folder)!r}, {str(tmp_path / "out.parquet")!r}, "0", "new"]
import runpy
runpy.run_path({small_archive.__file__!r}, run_name="__main__")
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "6 scored" in done.stderr
