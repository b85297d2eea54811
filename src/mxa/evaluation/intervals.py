"""Intervals, the exact one of a rate, and Holm's correction for looking at several p-values."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy import stats


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        estimate: on the data themselves.
        low: lower end.
        high: upper end.
        level: coverage aimed at, such as 0.95.
        undefined: share of the replicates in which the quantity was undefined; they are left out.
    """

    estimate: float
    low: float
    high: float
    level: float
    undefined: float = 0.0

    def __str__(self) -> str:
        return f"{self.estimate:.3f} ({self.low:.3f} to {self.high:.3f})"

    def signed(self) -> str:
        """In words for a difference, such as +0.012 (-0.003 to +0.027)."""
        return f"{self.estimate:+.3f} ({self.low:+.3f} to {self.high:+.3f})"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def require_level(level: float) -> None:
    """Check a coverage.

    Raises:
        ValueError: it is not in (0, 1); 95 is not 0.95.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")


def exact_rate(hits: int, trials: int, level: float = 0.95) -> Interval:
    """Clopper and Pearson's interval of a rate (Biometrika 1934): never too narrow, also at 0 of n and n of n.

    Args:
        hits: in [0, trials].
        trials: independent ones, at least 1.
        level: coverage at least.

    Raises:
        ValueError: the counts or the level are impossible.
    """
    require_level(level)
    if not 0 <= hits <= trials or trials < 1:
        raise ValueError(f"{hits} hits in {trials} trials are impossible")
    low = stats.beta.ppf((1 - level) / 2, hits, trials - hits + 1) if hits else 0.0
    high = stats.beta.ppf((1 + level) / 2, hits + 1, trials - hits) if hits < trials else 1.0
    return Interval(hits / trials, float(low), float(high), level)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment of several p-values (Scandinavian Journal of Statistics 1979).

    Args:
        p_values: in [0, 1]; None for a comparison that is undefined, which does not count and stays None.

    Raises:
        ValueError: a p-value is outside [0, 1].
    """
    given = [(p, i) for i, p in enumerate(p_values) if p is not None]
    if any(not 0 <= p <= 1 for p, _ in given):
        raise ValueError(f"p-values must be in [0, 1], got {list(p_values)}")
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(sorted(given)):
        highest = max(highest, min(1.0, (len(given) - rank) * p))
        adjusted[i] = highest
    return adjusted
