"""Files, folders, patterns, DICOMDIRs and lists as one stream."""

import io
import itertools
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from test_dicomdir import medium

import dicom_files
from mxa.archive.dicomdir import dicomdir_files
from mxa.archive.sources import Sources
from mxa.archive.tree import Found, Tally
from mxa.errors import ConfigError

PIXELS = np.random.default_rng(0).integers(0, 255, (20, 30)).astype(np.uint8)


def put(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")


def find(*paths: object, listed: str = "", tally: Tally | None = None) -> list[str]:
    sources = Sources(tuple(map(str, paths)), listed)
    sources.check()
    return [found.path for found in sources.find(tally or Tally())]


def test_what_counts_in_a_folder(tmp_path: Path) -> None:
    put(
        *(tmp_path / name for name in ("a.PNG", "b.txt", "c.pdf", "d.jpeg", "e", "f.dcm", "g.txt", "h.1.2", "DICOMDIR"))
    )
    dicom_files.write(tmp_path / "i", PIXELS)
    dicom_files.write(tmp_path / "1.2.840.1", PIXELS)
    tally = Tally()
    names = [Path(path).name for path in find(tmp_path, tally=tally)]
    assert names == ["1.2.840.1", "a.PNG", "d.jpeg", "f.dcm", "i"]
    assert tally.skipped == {".txt": 2, ".pdf": 1, "no suffix": 1, "other suffixes": 1, "DICOMDIR": 1}


def test_named_files_are_taken_whatever_they_are(tmp_path: Path) -> None:
    put(tmp_path / "a.txt", tmp_path / ".b")
    assert find(tmp_path / "a.txt", tmp_path / ".b") == [str(tmp_path / "a.txt"), str(tmp_path / ".b")]


def test_paths_are_as_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(Path("in/a.png"), Path("b[1].png"))
    (tmp_path / "list").write_bytes(b"./in/../b.png\r\n\nno such file\n  \nlast")
    tally = Tally()
    found = find("./b[1].png", "in", listed="list", tally=tally)
    assert found == ["./b[1].png", str(Path("in/a.png")), "./in/../b.png", "no such file", "last"]
    assert tally.skipped == {"blank lines": 2}


def test_what_several_sources_give_comes_once_at_its_first_place(tmp_path: Path) -> None:
    a, b, c, text = (tmp_path / name for name in ("a.png", "in/b.png", "in/deep/c.png", "in/t.txt"))
    put(a, b, c, text)
    tally = Tally()
    several = (
        tmp_path / "in" / "deep",
        c,
        tmp_path / "in" / ".." / "in",
        b,
        text,
        text,
        f"{tmp_path}/**/*.png",
        tmp_path,
    )
    assert [Path(path).name for path in find(*several, tally=tally)] == ["c.png", "b.png", "t.txt", "a.png"]
    # c; c; b; t.txt; b and c; a, b and c
    assert tally.repeated == 1 + 1 + 1 + 1 + 2 + 3


def test_the_lines_of_a_list_come_as_they_are(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    (tmp_path / "list").write_text(f"{tmp_path}/a.png\n{tmp_path}/a.png\n")
    assert find(tmp_path / "a.png", listed=str(tmp_path / "list")) == [str(tmp_path / "a.png")] * 3


def test_a_list_from_standard_input_may_hold_any_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a.png\nb\xff.png\n")))
    assert [os.fsencode(path) for path in find(listed="-")] == [b"a.png", b"b\xff.png"]


def test_sources_that_give_nothing_are_remembered(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    put(tmp_path / "full" / "a.png")
    tally = Tally()
    find(tmp_path / "empty", tmp_path / "full", tmp_path / "full" / "a.png", tally=tally)
    assert tally.empty == [str(tmp_path / "empty")]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothing.png", r"nothing\.png does not exist"),
        ("*.png", r"matches no picture"),
        ("no/**/x", r"matches no picture"),
        ("x" * 300, r"x{300} does not exist, or its folder cannot be read"),
        ("x" * 300 + "/*.png", r"matches no picture"),
    ],
)
def test_missing_sources_are_wrong_usage(tmp_path: Path, path: str, message: str) -> None:
    put(tmp_path / "a.txt")
    with pytest.raises(ConfigError, match=message):
        find(tmp_path / path)


@pytest.mark.skipif(os.name != "posix", reason="permissions")
@pytest.mark.parametrize(
    ("path", "message"),
    [("locked/a.png", r"a\.png does not exist, or its folder cannot be read"), ("locked/in/*", r"matches no picture")],
)
def test_sources_out_of_reach_are_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, message: str
) -> None:
    def stat(self: Path, **_: object) -> None:  # as for anybody but root
        raise PermissionError(13, "Permission denied", str(self))

    put(tmp_path / "locked/a.png", tmp_path / "locked/in/b.png")
    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(ConfigError, match=message):
        find(tmp_path / path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes")
@pytest.mark.parametrize("name", ["pipe", "pipe.png"])
def test_a_named_pipe_comes_though_its_folder_leaves_it_out(tmp_path: Path, name: str) -> None:
    put(tmp_path / "in/a.png")
    os.mkfifo(tmp_path / "in" / name)
    tally = Tally()
    found = find(tmp_path / "in", tmp_path / "in" / name, tally=tally)
    assert found == [str(tmp_path / "in/a.png"), str(tmp_path / "in" / name)]
    assert (tally.repeated, tally.skipped) == (0, {"no regular files": 1})


def test_what_a_dicomdir_refuses_to_open_may_come_from_a_later_source(tmp_path: Path) -> None:
    directory = medium(tmp_path)
    first = Path(next(dicomdir_files(str(directory), Tally())).path)
    first.unlink()
    first.symlink_to(tmp_path / "in" / "0.dcm")
    tally = Tally()
    found = find(directory, first, tally=tally)
    assert found.count(str(first)) == 2, "once with the problem, once to be read"
    assert tally.repeated == 0


def test_there_must_be_a_source(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing to predict"):
        Sources(())
    with pytest.raises(ConfigError, match=r"--list .*no such file"):
        find(listed=str(tmp_path / "list"))


def test_a_dicomdir_needs_pydicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "DICOMDIR")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs pydicom; pip install"):
        find(tmp_path / "DICOMDIR")


def test_the_stream_does_not_run_ahead(tmp_path: Path) -> None:
    """The second folder is listed when the first one is at its end."""
    put(*(tmp_path / "a" / f"{i}.png" for i in range(3)), tmp_path / "b" / "old.png")
    stream = Sources((str(tmp_path),)).find(Tally())
    assert len(list(itertools.islice(stream, 3))) == 3
    put(tmp_path / "b" / "new.png")
    assert list(stream) == [Found(str(tmp_path / "b" / "new.png")), Found(str(tmp_path / "b" / "old.png"))]
