"""The server under load: no error, and its memory stays."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SMALL = ["--image", "64", "--side", "200"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the script and gives its JSON."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    spec = importlib.util.spec_from_file_location("benchmark_serve", BENCHMARKS / "serve.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "benchmark_serve", module)
    spec.loader.exec_module(module)

    def call(*options: str) -> Any:
        module.main([*options, "--json", str(tmp_path / "serve.json")])
        text, tables = (tmp_path / "serve.json").read_text(encoding="utf-8"), capsys.readouterr().out
        assert str(tmp_path) not in text + tables
        return json.loads(text)

    return call


def check(found: Any, side: str) -> list[float]:
    (one,) = found["loads"][side]
    assert one["errors"] == {}
    assert one["requests"] > 0
    latency = one["latency"]
    assert 0 < latency["p50 ms"] <= latency["p90 ms"] <= latency["p95 ms"] <= latency["p99 ms"] <= latency["max ms"]
    row = found["tables"]["predictions over HTTP"][side]
    assert row["errors"] == 0
    assert row["images_per_s"]["median"] == pytest.approx(one["requests"] / one["seconds"], rel=1e-4)
    assert row["p99 ms"] == pytest.approx(latency["p99 ms"])
    memory: list[float] = one["memory_mib"]
    assert min(memory) > 50
    return memory


def test_a_short_load(run: Any) -> None:
    found = run(*SMALL, "--seconds", "2", "--concurrency", "1", "8")
    assert found["benchmark"] == "serve"
    assert found["command"] == "python benchmarks/serve.py --concurrency 1 8 --seconds 2.0 --image 64 --side 200"
    check(found, "1 at once")
    check(found, "8 at once")


@pytest.mark.slow
def test_a_minute_of_load(run: Any) -> None:
    memory = check(run("--seconds", "60", "--concurrency", "32"), "32 at once")
    early = sorted(memory[5:20])[-1]
    assert max(memory[-15:]) < 1.1 * early + 20
