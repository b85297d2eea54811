"""What came of a run over an archive, in words."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from mxa.archive.reading import FAILED, OK, REFUSED
from mxa.archive.tree import Tally

SHOWN = 10
"""Kinds of reasons that are shown, the most frequent ones."""


@dataclass(frozen=True)
class Summary:
    """What came of a run, counting what it found done when it went on with an earlier one.

    Attributes:
        out: the output.
        rows: that it has.
        earlier: those that were there before.
        statuses: rows by status.
        reasons: rows that are not "ok" by status and kind of reason.
        tally: what was left out of folders and media, or had been given before.
        seconds: that this run took, without what came before its first picture.
        finished: whether every source has its row; else the run was stopped.
    """

    out: Path
    rows: int
    earlier: int
    statuses: Counter[str]
    reasons: Counter[str]
    tally: Tally
    seconds: float
    finished: bool

    @property
    def good(self) -> bool:
        """Whether it is finished and all rows have predictions."""
        return self.finished and self.statuses[OK] == self.rows

    def lines(self) -> list[str]:
        """The summary for a reader."""
        counts = f"{self.statuses[OK]} scored, {self.statuses[REFUSED]} refused, {self.statuses[FAILED]} failed"
        rate = f", {(self.rows - self.earlier) / self.seconds:.1f} images/s" if self.rows > self.earlier else ""
        lines = [f"{self.out}: {self.rows} rows: {counts}{rate}"]
        frequent = self.reasons.most_common(SHOWN)
        lines += [f"  {count} {kind}" for kind, count in frequent]
        if rest := self.reasons.total() - sum(count for _, count in frequent):
            lines.append(f"  {rest} for other reasons")
        lines += left_out(self.tally)
        if not self.finished:
            lines.append(f"stopped after {self.rows} rows; the same command with --resume goes on")
        return lines


def left_out(tally: Tally) -> list[str]:
    """What gave no row, and why."""
    lines = []
    if tally.skipped:
        kinds = ", ".join(f"{kind} {count}" for kind, count in tally.skipped.most_common())
        lines.append(f"skipped {tally.skipped.total()} entries that are no pictures ({kinds})")
    if tally.repeated:
        lines.append(f"{tally.repeated} files were given more than once; each has one row")
    if tally.empty:
        lines.append(f"no picture in {', '.join(tally.empty)}")
    return lines
