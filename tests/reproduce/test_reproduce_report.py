"""What the page of a grid says of itself."""

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from mxa.reproduce import report


def test_the_command_can_be_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["mxa", "reproduce", "--out", "my runs/a grid", "--seeds", "[0, 1]"]
    here = {"command": command, "mxa": "1", "packages": {}, "platform": "p", "processors": 2, "accelerators": []}
    monkeypatch.setattr(report, "environment", lambda: here)
    config = SimpleNamespace(folder=Path("g"), seeds=(0, 1), split="test")
    summary = SimpleNamespace(table=SimpleNamespace(fingerprint=lambda: "f" * 64))
    told = report._provenance(config, summary)["command"]  # type: ignore[arg-type]
    assert shlex.split(told) == command
