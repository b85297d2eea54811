"""Outputs grow by whole rows, and what a kill left behind is cut off."""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small_archive import FINDINGS, predictor
from test_archive_rows import BROKEN, picture

from mxa.archive import writers
from mxa.archive.rows import Columns, Rows
from mxa.archive.writers import open_writer
from mxa.errors import ConfigError, DataError

COLUMNS = Columns(FINDINGS, logits=False, decisions=False)
BATCHES = [Rows(predictor()).score([picture(4 * i + j) for j in range(3)] + [BROKEN]) for i in range(5)]


def write(out: Path, batches, rows: int = 0, size: int = 0) -> int:
    writer = open_writer(out, COLUMNS, rows, size, 4)
    for batch in batches:
        writer.append(batch)
    writer.finish()
    writer.close()
    return writer.size


def contents(out: Path) -> dict[str, bytes]:
    files = [out] if out.is_file() else sorted(out.iterdir())
    return {file.name: file.read_bytes() for file in files}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "PART_ROWS", 7)  # two batches of 4


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("rubbish", [b"", b'"torn', b"a whole line\n" * 9, b"x" * 100_000])
def test_text_goes_on_where_it_was(tmp_path: Path, suffix: str, rubbish: bytes) -> None:
    write(tmp_path / f"whole{suffix}", BATCHES)
    out = tmp_path / f"out{suffix}"
    size = write(out, BATCHES[:2])
    assert size == out.stat().st_size
    with out.open("ab") as file:
        file.write(rubbish)
    write(out, BATCHES[2:], rows=8, size=size)
    assert out.read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()


def test_text_that_was_never_committed_begins_again(tmp_path: Path) -> None:
    write(tmp_path / "whole.csv", BATCHES)
    (tmp_path / "out.csv").write_text("path,sop_in")
    write(tmp_path / "out.csv", BATCHES)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("done", range(6))
def test_parquet_goes_on_where_it_was(tmp_path: Path, done: int) -> None:
    write(tmp_path / "whole.parquet", BATCHES)
    whole = contents(tmp_path / "whole.parquet")
    assert list(whole) == [f"part-{i:06}.parquet" for i in range(3)]
    out = tmp_path / "out.parquet"
    write(out, BATCHES[:done])
    (out / ".unfinished").write_bytes(b"torn")
    write(out, BATCHES[done:], rows=4 * done)
    assert contents(out) == whole


def test_parquet_is_cut_back_to_what_the_state_knows(tmp_path: Path) -> None:
    """Parts may have come or grown after the state was written."""
    whole, out = tmp_path / "whole.parquet", tmp_path / "out.parquet"
    write(whole, BATCHES)
    for rows in (0, 4, 8, 12):
        write(out, BATCHES)
        write(out, BATCHES[rows // 4 :], rows=rows)
        assert contents(out) == contents(whole)
        write(out, [], rows=rows)
        assert sum(len(pq.read_table(part)) for part in out.glob("part-*")) == rows


def test_parquet_folders_are_read_as_one_table(tmp_path: Path) -> None:
    write(tmp_path / "out.parquet", BATCHES)
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["path"] for row in table] == [record["path"] for batch in BATCHES for record in batch]


def test_what_is_gone_is_an_error(tmp_path: Path) -> None:
    size = write(tmp_path / "a.csv", BATCHES)
    (tmp_path / "a.csv").write_bytes(b"short")
    with pytest.raises(ConfigError, match=r"a\.csv is shorter than its state says"):
        write(tmp_path / "a.csv", [], rows=20, size=size)
    write(tmp_path / "a.parquet", BATCHES)
    (tmp_path / "a.parquet" / "part-000001.parquet").unlink()
    with pytest.raises(ConfigError, match=r"part-000001\.parquet is missing"):
        write(tmp_path / "a.parquet", [], rows=20)
    write(tmp_path / "b.parquet", BATCHES[:3])
    (tmp_path / "b.parquet" / "part-000001.parquet").write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"part-000001\.parquet is damaged"):
        write(tmp_path / "b.parquet", [], rows=12)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_full_disk_is_an_error_with_a_remedy(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match=r"cannot write .*out.*: No space left on device; .*--resume"):
        write(tmp_path / f"out{suffix}", BATCHES)


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_two_runs_do_not_write_one_output(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    first = open_writer(out, COLUMNS, 0, 0, 4)
    first.append(BATCHES[0])
    before = contents(out)
    with pytest.raises(ConfigError, match=r"is being written by another run"):
        open_writer(out, COLUMNS, 0, 0, 4)
    assert contents(out) == before
    first.close()
    open_writer(out, COLUMNS, 0, 0, 4).close()


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    code = (
        "import os, sys; from pathlib import Path; from mxa.archive.rows import Columns\n"
        "from mxa.archive.writers import open_writer\n"
        "open_writer(Path(sys.argv[1]), Columns(('A',), False, False), 0, 0, 4); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(out)], check=False)
    assert done.returncode == -9
    open_writer(out, COLUMNS, 0, 0, 4).close()
