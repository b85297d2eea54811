"""The record of a run."""

import hashlib
from pathlib import Path

import pytest

from mxa.archive.state import CLASSES, OTHERS, State, extended, kind_of
from mxa.errors import ConfigError


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    state = State({"views": ["frontal"], "sources": ["b\udcff"]}, 7, 99, "ab", True)
    state.count([{"status": "ok", "reason": ""}, {"status": "failed", "reason": "no such file; check"}])
    assert state.rows == 9
    state.write(tmp_path / "s.json")
    back = State.read(tmp_path / "s.json")
    assert back == state
    assert back.statuses["nothing"] == 0
    assert back.reasons == {"failed: no such file": 1}


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    state = State({"model_hash": "a", "calibration": None})
    state.require({"model_hash": "a", "calibration": None}, tmp_path / "s.json")
    with pytest.raises(ConfigError, match=r"s\.json has: calibration was None, is 'platt'; use the same"):
        state.require({"model_hash": "a", "calibration": "platt"}, tmp_path / "s.json")
    with pytest.raises(ConfigError, match=r"mxa was None, is '2'"):
        state.require({"model_hash": "a", "calibration": None, "mxa": "2"}, tmp_path / "s.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": 1}', '{"format_version": 2, "rows": 1}'])
def test_a_damaged_state_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ConfigError, match=r"s\.json is unreadable .* remove it and the output"):
        State.read(tmp_path / "s.json")
    with pytest.raises(ConfigError, match=r"t\.json is missing"):
        State.read(tmp_path / "t.json")


def test_the_digest_is_of_all_paths_by_batch() -> None:
    first = hashlib.sha256(b"\0a\0b\xff").hexdigest()
    assert extended("", ["a", "b\udcff"]) == first
    assert extended(first, ["c"]) == hashlib.sha256(f"{first}\0c".encode()).hexdigest()


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("no such file; check the root", "no such file"),
        ("only 20 x 9 pixels, at least 16 a side", "only N x N pixels"),
        ("cannot be decoded (broken at 12); fetch", "cannot be decoded"),
        (
            "not taken as a chest radiograph: its modality is 'CT', not",
            "not taken as a chest radiograph: its modality is 'CT'",
        ),
    ],
)
def test_kinds_of_reasons(reason: str, kind: str) -> None:
    assert kind_of(reason) == kind


def test_kinds_are_bounded() -> None:
    state = State({})
    names = [f"{a}{b}" for a in "abcdefghij" for b in "abcdefghij"]
    state.count([{"status": "failed", "reason": name} for name in names])
    assert len(state.reasons) == CLASSES + 1
    assert state.reasons[OTHERS] == len(names) - CLASSES
