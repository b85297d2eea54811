"""Time several sides in turn, so that other work on the machine disturbs all of them alike."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

Result = TypeVar("Result")
Job = Callable[[], object]


@dataclass(frozen=True)
class Spread:
    """Of one value per round: median, quartiles, smallest and largest."""

    median: float
    quartiles: tuple[float, float]
    min: float
    max: float

    @classmethod
    def of(cls, values: tuple[float, ...]) -> "Spread":
        """Quartiles are interpolated linearly between the ordered values (as NumPy does it)."""
        if len(values) == 1:
            return cls(values[0], (values[0], values[0]), values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, (low, high), min(values), max(values))


@dataclass(frozen=True)
class Timing:
    """How long one side takes.

    Attributes:
        seconds: per call, one value per round.
        cpu_seconds: the process's CPU time per call, all threads together; empty where it was not taken.
        calls: how many calls each value is the mean of.
    """

    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...] = ()
    calls: int = 1

    @property
    def spread(self) -> Spread:
        """Of the seconds per call."""
        return Spread.of(self.seconds)

    def per_second(self, work: float) -> Spread:
        """Of the rate, where one call does ``work`` units of work."""
        return Spread.of(tuple(work / seconds for seconds in self.seconds))

    def over(self, reference: "Timing") -> Spread:
        """Of this side's time over another's, taken in each round: what disturbed a whole round cancels out."""
        return Spread.of(tuple(own / other for own, other in zip(self.seconds, reference.seconds, strict=True)))

    def times(self, factor: float) -> "Timing":
        """What ``factor`` times the work would take."""
        return Timing(
            tuple(factor * value for value in self.seconds),
            tuple(factor * value for value in self.cpu_seconds),
            self.calls,
        )


def interleaved(sides: Mapping[str, Job], rounds: int, at_least: float = 0.0) -> dict[str, Timing]:
    """Time every side once per round, after one call of each to warm up.

    Args:
        sides: what to time.
        rounds: how often.
        at_least: seconds; a call that is shorter is repeated, as often in each round, until about that long.
    """
    calls = {side: _warm_up(job, at_least) for side, job in sides.items()}
    taken = take_turns({side: partial(_clock, job, calls[side]) for side, job in sides.items()}, rounds)
    return {
        side: Timing(tuple(wall for wall, _ in values), tuple(cpu for _, cpu in values), calls[side])
        for side, values in taken.items()
    }


def take_turns(sides: Mapping[str, Callable[[], Result]], rounds: int) -> dict[str, list[Result]]:
    """Call every side once per round; each round begins with another side, so that none always follows the same."""
    results: dict[str, list[Result]] = {side: [] for side in sides}
    names = list(sides)
    for turn in range(rounds):
        start = turn % len(names)
        for side in names[start:] + names[:start]:
            results[side].append(sides[side]())
    return results


def _warm_up(job: Job, at_least: float) -> int:
    """Call it once; then how many calls take ``at_least`` seconds."""
    job()
    return max(1, math.ceil(at_least / _clock(job, 1)[0])) if at_least > 0 else 1


def _clock(job: Job, calls: int) -> tuple[float, float]:
    """Seconds by the clock and by the process's CPU time of one call, the device's work included."""
    _wait_for_device()
    start, start_cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        job()
    _wait_for_device()
    return (time.perf_counter() - start) / calls, (time.process_time() - start_cpu) / calls


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
