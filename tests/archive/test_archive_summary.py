"""The summary in words."""

from collections import Counter
from pathlib import Path

from mxa.archive.summary import Summary
from mxa.archive.tree import Tally


def summary(statuses: dict[str, int], finished: bool = True, **more: object) -> Summary:
    values = {"reasons": Counter(), "tally": Tally(), "earlier": 0, "seconds": 4.0} | more
    rows = sum(statuses.values())
    return Summary(out=Path("p.csv"), rows=rows, statuses=Counter(statuses), finished=finished, **values)  # type: ignore[arg-type]


def test_all_good() -> None:
    one = summary({"ok": 10}, earlier=2)
    assert one.good
    assert one.lines() == ["p.csv: 10 rows: 10 scored, 0 refused, 0 failed, 2.0 images/s"]


def test_everything_is_told() -> None:
    reasons = Counter({f"failed: {letter}": 20 - i for i, letter in enumerate("abcdefghijkl")})
    tally = Tally(Counter({".txt": 10, ".pdf": 2}), 3, ["empty", "void"])
    one = summary({"ok": 1, "refused": 2, "failed": 172}, False, reasons=reasons, tally=tally)
    assert not one.good
    lines = one.lines()
    assert lines[0] == "p.csv: 175 rows: 1 scored, 2 refused, 172 failed, 43.8 images/s"
    assert lines[1:11] == [f"  {20 - i} failed: {letter}" for i, letter in enumerate("abcdefghij")]
    assert lines[11:] == [
        "  19 for other reasons",
        "skipped 12 entries that are no pictures (.txt 10, .pdf 2)",
        "3 files were given more than once; each has one row",
        "no picture in empty, void",
        "stopped after 175 rows; the same command with --resume goes on",
    ]


def test_nothing_new() -> None:
    assert summary({"ok": 3}, earlier=3).lines() == ["p.csv: 3 rows: 3 scored, 0 refused, 0 failed"]


def test_what_is_good() -> None:
    assert not summary({"ok": 3}, finished=False).good
    assert not summary({"ok": 3, "refused": 1}).good
    assert not summary({"ok": 3, "failed": 1}).good
