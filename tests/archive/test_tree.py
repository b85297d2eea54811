"""What a folder or a pattern gives, compared with Python's own glob."""

import glob
import os
from pathlib import Path

import pytest

from mxa.archive.tree import Found, Tally, Tree

NAMES = ("b.png", "a/2.png", "a/10.png", "a/x/y/deep.png", "a/x/b.png", "c.d/b.png", "x/x/b.png", "x/b.txt")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def given(tree: Tree, root: Path, tally: Tally | None = None) -> list[str]:
    return [Path(found.path).relative_to(root).as_posix() for found in tree.files(tally or Tally())]


def test_a_folder_gives_everything_once_by_name(folder: Path) -> None:
    expected = ["a/10.png", "a/2.png", "a/x/b.png", "a/x/y/deep.png", "b.png", "c.d/b.png", "x/b.txt", "x/x/b.png"]
    assert given(Tree(folder), folder) == expected


@pytest.mark.parametrize(
    "pattern",
    ["*.png", "a/*", "a/?.png", "**/*.png", "**/b.png", "a/**/*.png", "**/x/**/b.png", "**/**/b.png", "[ab]/*.png"],
)
def test_a_pattern_gives_what_globs_does(folder: Path, pattern: str) -> None:
    matched = set(glob.glob(pattern, root_dir=folder, recursive=True))  # noqa: PTH207 -- Path.glob differs in **
    # A folder that is matched stands for all files in it.
    expected = {
        str(file.relative_to(folder))
        for name in matched
        for file in ((folder / name).rglob("*") if (folder / name).is_dir() else [folder / name])
        if file.is_file()
    }
    found = given(Tree.of_glob(f"{folder}/{pattern}"), folder)
    assert sorted(found) == sorted(expected)
    assert expected


@pytest.mark.parametrize("pattern", ["x/**", "**", "*/x", "a*/**"])
def test_a_pattern_may_end_in_folders(folder: Path, pattern: str) -> None:
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    start = {"x/**": ("x/",), "**": ("",), "*/x": ("a/x/", "x/x/"), "a*/**": ("a/",)}[pattern]
    assert set(given(Tree.of_glob(f"{folder}/{pattern}"), folder)) == {name for name in files if name.startswith(start)}


def test_a_relative_pattern_names_files_as_the_shell_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert list(Tree.of_glob("*.png").files(Tally())) == [Found("b.png")]
    assert list(Tree.of_glob("a/1*").files(Tally())) == [Found("a/10.png")]


@pytest.mark.parametrize("pattern", ["", "*.png", "**/*.png", "a/**/*.png", "**/x/**/b.png", "x/**", "a*/**"])
def test_gives_says_the_same_as_files(folder: Path, pattern: str) -> None:
    (folder / ".hidden").mkdir()
    (folder / ".hidden/b.png").write_bytes(b"")
    (folder / "link").symlink_to(folder / "a")
    tree = Tree.of_glob(f"{folder}/{pattern}") if pattern else Tree(folder)
    files = {found.path for found in tree.files(Tally())}
    every = [str(folder / name) for name in (*NAMES, ".hidden/b.png", "link/2.png")]
    assert {path for path in every if tree.gives(path)} == files
    assert not tree.gives(str(folder.parent / "other.png"))
    assert not tree.gives(str(folder))
    some = sorted(files)[0]
    assert tree.gives(str(folder / ".." / Path(some).relative_to(folder.parent)))


def test_what_is_no_plain_file_is_counted(folder: Path) -> None:
    (folder / ".hidden").mkdir()
    (folder / "loop").symlink_to(folder)
    (folder / "nowhere.png").symlink_to(folder / "nothing")
    os.mkfifo(folder / "pipe.png")
    (folder / "linked.png").symlink_to(folder / "b.png")
    tally = Tally()
    assert len(given(Tree(folder), folder, tally)) == len(NAMES) + 1
    assert tally.skipped == {"hidden": 1, "links to folders": 1, "no regular files": 2}


def test_a_folder_that_cannot_be_listed_is_a_problem(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def guarded(path):
        if Path(path).name == "x":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    found = list(Tree(folder).files(Tally()))
    assert [one.path for one in found if one.problem] == [str(folder / "a/x"), str(folder / "x")]
    assert "Permission denied" in next(one.problem for one in found if one.problem)
    assert len(found) == 4 + 2
