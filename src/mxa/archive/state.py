"""How far a run has come: a small JSON file beside the output, which is also its record.

It says what was asked of which model, how many rows are safely on disk, and how they ended. With it a killed run goes
on where it stopped, or is refused if anything would come out differently.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mxa.archive.reading import OK
from mxa.errors import ConfigError
from mxa.evaluation.files import write_json

FORMAT_VERSION = 1
CLASSES = 50
"""Kinds of reasons that are counted apart; further ones are counted together."""

OTHERS = "other reasons"


@dataclass
class State:
    """Progress of one run.

    Attributes:
        settings: all that decides what the rows hold, plain JSON types.
        rows: rows that are on disk.
        size: of a text output, the bytes that they take.
        digest: of the paths of these rows, batch by batch.
        finished: whether every source has its row.
        statuses: rows by status.
        reasons: rows that are not "ok" by kind of reason.
    """

    settings: Mapping[str, Any]
    rows: int = 0
    size: int = 0
    digest: str = ""
    finished: bool = False
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def count(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Take the rows of a batch into account."""
        self.rows += len(records)
        for record in records:
            self.statuses[record["status"]] += 1
            if record["status"] != OK:
                kind = f"{record['status']}: {kind_of(record['reason'])}"
                known = kind in self.reasons or len(self.reasons) < CLASSES
                self.reasons[kind if known else OTHERS] += 1

    def write(self, file: Path) -> None:
        """Write it whole or not at all.

        Raises:
            DataError: it cannot be written.
        """
        write_json(file, {"format_version": FORMAT_VERSION, **vars(self)})

    @classmethod
    def read(cls, file: Path) -> "State":
        """Read what :meth:`write` wrote.

        Raises:
            ConfigError: it is missing, damaged or of another version.
        """
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            if data.pop("format_version") != FORMAT_VERSION or set(data) != {one.name for one in fields(cls)}:
                raise ValueError("another version of mxa wrote it")
            return cls(**{**data, "statuses": Counter(data["statuses"]), "reasons": Counter(data["reasons"])})
        except FileNotFoundError:
            raise ConfigError(
                f"{file} is missing, without which nobody knows how the output came to be; choose another --out, or "
                "remove the output to start again"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{file} is unreadable ({error}); remove it and the output to start again") from error

    def require(self, settings: Mapping[str, Any], file: Path) -> None:
        """Refuse to go on with other settings.

        Raises:
            ConfigError: they differ; the message says in what.
        """
        differ = [key for key in {**self.settings, **settings} if self.settings.get(key) != settings.get(key)]
        if differ:
            changes = "; ".join(f"{key} was {self.settings.get(key)!r}, is {settings.get(key)!r}" for key in differ)
            raise ConfigError(
                f"the run cannot go on with other settings than {file} has: {changes}; use the same, or choose another "
                "--out"
            )


def extended(digest: str, paths: Sequence[str]) -> str:
    """The digest of all paths so far, from that of the earlier batches and the paths of the next one."""
    return hashlib.sha256("\0".join((digest, *paths)).encode("utf-8", "surrogateescape")).hexdigest()


def kind_of(reason: str) -> str:
    """A reason without what differs from file to file: its first clause, N for numbers."""
    return re.sub(r"\d+", "N", re.split(r"[(;,]", reason, maxsplit=1)[0]).strip()[:120]
