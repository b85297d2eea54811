"""What can be wrong with a data set: one record per problem, raised by a reader or collected by a check."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mxa.errors import DataError

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a data set.

    Attributes:
        severity: "error" (training refuses) or "warning" (training runs, but somebody should know).
        kind: What is wrong, in two or three words, such as "missing image".
        source: File name of the CSV that the row came from, or "" when the problem is not one row's.
        row: Line in that CSV, the header being line 1, or 0.
        path: The image, relative to the root, or "".
        message: The details.
    """

    severity: Severity
    kind: str
    source: str
    row: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.source}:{self.row}: " if self.row else f"{self.source}: " if self.source else ""
        return f"{place}{self.kind}: {self.message}"


def report(found: Sequence[Problem], problems: list[Problem] | None) -> None:
    """Collect problems, or raise when nobody collects.

    Args:
        found: What was found, possibly nothing.
        problems: The list to add to; None raises the first error (warnings then pass, they are a check's business).

    Raises:
        DataError: If ``problems`` is None and an error was found.
    """
    if problems is not None:
        problems.extend(found)
        return
    errors = [p for p in found if p.severity == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more like it; `mxa data check` lists them all)" if len(errors) > 1 else ""
        raise DataError(f"{errors[0]}{more}")
