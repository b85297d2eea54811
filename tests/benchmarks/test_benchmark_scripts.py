"""Each benchmark at the smallest sizes: its JSON has what RESULTS.md needs and agrees with itself."""

import argparse
import importlib
import json
import math
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
NETWORKS = ["--sizes", "m0", "--image", "64"]
PLAIN, MXA, DENSENET = "efficientvit_m0", "mxa_efficientvit_m0", "densenet121"
LIMITED = {"GFLOP/image", "GFLOP/s", "% of the limit"}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The folder of the scripts, importable."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("record")


@pytest.fixture
def run(bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a script and gives its JSON, after checking what holds for all of them."""

    def run(name: str, *options: str, rounds: int = 2) -> Any:
        file = tmp_path / "results" / f"{name}.json"
        command = [*options, "--rounds", str(rounds)]
        importlib.import_module(name).main([*command, "--json", str(file)])
        text, tables = file.read_text(encoding="utf-8"), capsys.readouterr().out
        found = json.loads(text)
        assert found["benchmark"] == name
        assert found["command"].startswith(f"python benchmarks/{name}.py")
        assert found["settings"]["rounds"] == rounds
        assert {"processor", "processors", "threads", "device", "python", "packages", "git"} <= set(found["machine"])
        for place in (str(tmp_path), str(BENCHMARKS.parent), tempfile.gettempdir()):
            assert place not in text + tables
        assert found["command"] in tables
        for sides in found["tables"].values():
            check_table(sides, tables)
        return found

    return run


def check_table(sides: dict[str, Any], markdown: str) -> None:
    for side, one in sides.items():
        assert f"| {side} |" in markdown
        check_side(one)
        for comparison in one["time_over"].values():
            other = sides[comparison["side"]]["seconds"]["rounds"]
            ratios = [own / reference for own, reference in zip(one["seconds"]["rounds"], other, strict=True)]
            assert comparison["min"] == pytest.approx(min(ratios), rel=1e-4)
            assert comparison["max"] == pytest.approx(max(ratios), rel=1e-4)
            assert comparison["min"] <= comparison["median"] <= comparison["max"]


def check_side(one: dict[str, Any]) -> None:
    seconds = one["seconds"]
    low, high = seconds["quartiles"]
    assert 0 < seconds["min"] <= low <= seconds["median"] <= high <= seconds["max"]
    assert (seconds["min"], seconds["max"]) == (min(seconds["rounds"]), max(seconds["rounds"]))
    if "images_per_s" in one:
        images = one["images_per_s"]["max"] * seconds["min"]
        assert images == pytest.approx(round(images), rel=1e-4)
        assert one["images_per_s"]["min"] * seconds["max"] == pytest.approx(images, rel=1e-4)


def check_limits(found: dict[str, Any], images: dict[str, int]) -> None:
    """Work, time and limit of each side fit together."""
    for title, sides in found["tables"].items():
        limit = found["limit"][title]["gflop_per_s"]["median"]
        for one in sides.values():
            assert set(one) >= LIMITED
            reached = one["GFLOP/image"] * images[title] / one["seconds"]["median"]
            assert one["GFLOP/s"] == pytest.approx(reached, rel=1e-4)
            assert one["% of the limit"] == pytest.approx(100 * reached / limit, rel=1e-4)


def test_step(run: Any) -> None:
    found = run("step", *NETWORKS, "--batch", "2", "--seconds", "0", "--matrix", "64")
    title = "training step, batch 2"
    sides = found["tables"][title]
    assert list(sides) == [PLAIN, MXA, DENSENET]
    assert sides[MXA]["time_over"]["timm's plain"]["side"] == PLAIN
    assert {one["time_over"][DENSENET]["side"] for one in sides.values()} == {DENSENET}
    assert found["parameters"][PLAIN] < found["parameters"][MXA] < found["parameters"][DENSENET]
    check_limits(found, {title: 2})


def test_inference(run: Any) -> None:
    found = run("inference", *NETWORKS, "--batch", "1", "2", "--seconds", "0", "--matrix", "64")
    assert list(found["tables"]) == ["inference, batch 1", "inference, batch 2"]
    assert all(list(sides) == [PLAIN, MXA, DENSENET] for sides in found["tables"].values())
    check_limits(found, {"inference, batch 1": 1, "inference, batch 2": 2})
    work = [sides[DENSENET]["GFLOP/image"] for sides in found["tables"].values()]
    assert work[0] == work[1]


def test_runtimes(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a DenseNet of four layers: exporting one of 121 takes longer than all else."""
    script = importlib.import_module("runtimes")
    shallow = {DENSENET: {"growth_rate": 8, "block_config": [1, 1, 1, 1]}}
    build, architecture = script.build_model, script.Architecture
    monkeypatch.setattr(script, "build_model", lambda name, *rest: build(name, *rest, options=shallow.get(name)))
    monkeypatch.setattr(script, "Architecture", lambda name, options: architecture(name, shallow.get(name, options)))
    found = run("runtimes", *NETWORKS, "--batch", "1", "--threads", "1", "--seconds", "0")
    sides = {
        f"{name}, {runtime}" for name in (PLAIN, MXA, DENSENET) for runtime in ("torch", "onnxruntime", "openvino")
    }
    assert any(set(table) == sides for table in found["tables"].values())


def test_block(run: Any) -> None:
    found = run("block", *NETWORKS, "--batch", "2", "--seconds", "0")
    for sides in found["tables"].values():
        attending = [MXA, f"{MXA}, region_pool 2", f"{MXA}, source image"]
        assert list(sides) == [PLAIN, *attending] == list(found["parameters"])
        assert all(one["time_over"]["plain"]["side"] == PLAIN for one in sides.values())


def test_paper_run(run: Any) -> None:
    """The paper's run, projected: the epochs that were measured, the teacher, the profile."""
    found = run(
        "paper_run",
        *("--images", "32", "--validation", "24", "--batch", "16", "--image", "64", "--seconds", "0"),
        *("--model", MXA),
    )
    sides = found["tables"]["epoch of 2 batches of 16"]
    assert list(sides) == ["epoch", "step alone"]
    epoch = sides["epoch"]
    assert len(epoch["seconds"]["rounds"]) == 2
    shares = [epoch[name] for name in epoch if name.endswith(", %")]
    assert len(shares) == 3
    assert sum(shares) == pytest.approx(100, abs=1e-2)
    assert found["projection"]["epochs"] == 50
    assert found["projection"]["minutes"] > 49 * epoch["seconds"]["median"] / 60
    assert found["teacher"]["seconds"] * found["teacher"]["images_per_s"] == pytest.approx(56, rel=1e-4)
    assert 0 < sum(one["percent"] for one in found["profile"]) <= 100
    assert found["profile"][0]["percent"] >= found["profile"][-1]["percent"] > 0


def test_upkeep(run: Any) -> None:
    found = run("upkeep", "--sizes", "m0", "--seconds", "0")
    sides = found["tables"][MXA]
    assert len(sides) == 4
    for what, side in (("clipping", "clipping, mxa's, at once"), ("average", "average, mxa's")):
        assert sides[side]["time_over"]["timm's"]["side"] == f"{what}, timm's"
        assert sides[side]["operations"] < 50 < sides[f"{what}, timm's"]["operations"]


def test_memory(run: Any) -> None:
    found = run("memory", "--size", "m0", "--image", "64", "--batch", "2", "--steps", "1", rounds=1)
    (sides,) = found["tables"].values()
    assert sides["freed memory kept"]["time_over"]["glibc's own way"]["side"] == "glibc's own way"


def test_distillation(run: Any) -> None:
    found = run("distillation", *NETWORKS, "--batch", "2", "--seconds", "0", rounds=1)
    (sides,) = found["tables"].values()
    assert list(sides) == [MXA, f"{MXA}, cached teacher", f"{MXA}, live teacher"]
    assert all(one["time_over"]["no teacher"]["side"] == MXA for one in sides.values())


def test_loading(run: Any) -> None:
    found = run("loading", "--images", "8", "--size", "64", "--batch", "4", "--seconds", "0")
    loading, packing = found["tables"].values()
    assert {"paper", "decode", "pack", "pack, batch augmentation", "copy"} <= set(loading)
    for one in loading.values():
        assert one["time_over"]["paper"]["side"] == "paper"
        assert one["GB/s"] == pytest.approx(4 * 224 * 224 / one["seconds"]["median"] / 1e9, rel=1e-4)
        assert one["% of the limit"] == pytest.approx(100 * one["GB/s"] / loading["copy"]["GB/s"], rel=1e-4)
    assert set(packing) == {"packing", "decoding alone"}
    assert packing["packing"]["images_per_s"]["max"] * packing["packing"]["seconds"]["min"] == pytest.approx(
        8, rel=1e-4
    )


def test_epoch(run: Any) -> None:
    options = ["--images", "60", "--size", "64", "--image", "64", "--batch", "16", "--seconds", "0", "--workers", "0"]
    found = run("epoch", *options, rounds=1)
    ((title, sides),) = found["tables"].items()
    assert title == "epoch of 2 batches of 16"
    assert list(sides) == ["paper", "pack", "step alone"]
    for one in (sides["paper"], sides["pack"]):
        assert one["steps, %"] + one["loader, %"] + one["validation and checkpoints, %"] == pytest.approx(100, rel=1e-4)
        share = 100 * sides["step alone"]["seconds"]["median"] / one["seconds"]["median"]
        assert one["steps, %"] == pytest.approx(share, rel=1e-4)
        assert one["validation and checkpoints, %"] > 0


def test_bootstrap(run: Any) -> None:
    found = run("bootstrap", "--images", "300", "--patients", "100", "--replicates", "20")
    (sides,) = found["tables"].values()
    assert sides["AUROC with jackknife (BCa)"]["time_over"]
    assert found["copied_replicates"] == 5


def test_phantom(run: Any) -> None:
    found = run("phantom", "--images", "2", "--size", "64")
    one = found["tables"]["phantom, one core"]["draw and save"]
    assert one["images/CPU-s"] == pytest.approx(2 / one["cpu_seconds"]["median"], rel=1e-4)


class TestRecord:
    @pytest.fixture
    def table(self, bench: ModuleType) -> Any:
        timing = importlib.import_module("timing").Timing
        timings = {"old": timing((2.0, 4.0, 3.0)), "new": timing((1.0, 1.0, 1.0))}
        return bench.Table("a thing", timings, 300, bench.against_one("old", list(timings)), columns={"GB": {"new": 1}})

    def test_markdown(self, table: Any) -> None:
        assert table.to_markdown() == "\n".join(
            [
                "a thing:",
                "",
                "| side | images/s | quartiles | range | speed over old | GB |",
                "| --- | --- | --- | --- | --- | --- |",
                "| old | 100 | 87.5 to 125 | 75 to 150 | 1 |  |",
                "| new | 300 | 300 to 300 | 300 to 300 | 3 (2.5 to 3.5) | 1 |",
            ]
        )

    def test_overhead(self, bench: ModuleType, table: Any) -> None:
        shown = bench.Table("a thing", table.timings, 0, table.against, overhead=True).to_markdown()
        assert "| old | 3 | 2.5 to 3.5 | 2 to 4 | 0% |" in shown
        assert "| new | 1 | 1 to 1 | 1 to 1 | -67% (-71% to -58%) |" in shown

    def test_without_a_file_json_is_standard_output(
        self, bench: ModuleType, table: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        parser = bench.make_parser("what")
        parser.add_argument("--sizes", nargs="+", default=["m0"])
        parser.add_argument("--large", action="store_true")
        options = parser.parse_args(["--sizes", "m0", "m5", "--large"])
        bench.publish("thing", parser, options, table, extra={"a": math.pi})
        out, err = capsys.readouterr()
        found = json.loads(out)
        assert found["command"] == "python benchmarks/thing.py --sizes m0 m5 --large"
        assert found["extra"] == {"a": 3.14159}
        assert err.endswith(table.to_markdown() + "\n")

    @pytest.mark.parametrize("text", ["0", "-1", "1.5", "x", ""])
    def test_counts_are_positive(self, bench: ModuleType, text: str) -> None:
        with pytest.raises(argparse.ArgumentTypeError, match=r"is not a whole number of 1 or more"):
            bench.positive(text)

    def test_every_script_is_in_make_bench(self) -> None:
        """But for the experiment that times nothing and takes an hour, and the paper's run, which needs a GPU."""
        texts = {file.stem: file.read_text(encoding="utf-8") for file in BENCHMARKS.glob("*.py")}
        scripts = {name for name, text in texts.items() if "def main(argv" in text} - {"oracle", "paper_run"}
        (line,) = [
            line
            for line in (BENCHMARKS.parent / "Makefile").read_text(encoding="utf-8").splitlines()
            if line.startswith("BENCHMARKS :=")
        ]
        assert set(line.split()[2:]) == scripts
