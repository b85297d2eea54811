"""What a change brings, and how sure that is: over other patients alone, and over other seeds as well.

An interval over patients alone is about the very runs that were scored. Another seed, or the same one on another
processor, gives other runs, and a change that helped these need not help those.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from mxa.evaluation.bootstrap import Bootstrap, mean_over_runs
from mxa.evaluation.intervals import Interval

_LEAST_P = 1e-12


@dataclass(frozen=True, eq=False)
class Gain:
    """Paired differences of one figure between two cells.

    Attributes:
        runs: one for each of S seeds, of a single column, all from the same :class:`mxa.evaluation.bootstrap.Draws`.
    """

    runs: tuple[Bootstrap, ...]

    def over_patients(self, level: float = 0.95) -> Interval | None:
        """The mean over the seeds with its bootstrap interval: what other patients would change, the runs as they are.

        None where it is undefined.
        """
        return mean_over_runs(self.runs).interval(level=level)

    def p_over_patients(self) -> float | None:
        """Of the same bootstrap, two-sided."""
        return mean_over_runs(self.runs).p_value()

    def over_both(self, level: float = 0.95) -> Interval | None:
        """The mean over the seeds with an interval for training again and for other patients.

        The square of its half-width is the sum of two: of the t interval over the seeds, and of the normal interval of
        the bootstrap over patients (Zou and Donner, "Construction of confidence limits about effect measures",
        Statistics in Medicine 2008). By how much the patients' part differs between runs is in both: it is rather too
        wide than too narrow. None with a single seed, or where a run's difference is undefined.
        """
        errors = self._errors()
        if errors is None:
            return None
        mean, reach = self._mean(), self._reach(level, *errors)
        return Interval(mean, mean - reach, mean + reach, level)

    def p_over_both(self) -> float | None:
        """Two-sided: 1 less the level at which :meth:`over_both` begins to contain 0; at least 1e-12."""
        errors = self._errors()
        if errors is None:
            return None
        mean = abs(self._mean())
        if mean == 0:
            return 1.0
        if self._reach(1 - _LEAST_P, *errors) < mean:
            return _LEAST_P
        return float(1 - brentq(lambda level: self._reach(level, *errors) - mean, 0, 1 - _LEAST_P))

    def _mean(self) -> float:
        return float(np.mean([run.estimate[0] for run in self.runs]))

    def _reach(self, level: float, of_seeds: float, of_patients: float) -> float:
        tail = (1 + level) / 2
        t, z = stats.t.ppf(tail, len(self.runs) - 1), stats.norm.ppf(tail)
        return math.hypot(float(t) * of_seeds, float(z) * of_patients)

    def _errors(self) -> tuple[float, float] | None:
        """Standard errors of the mean, of seeds and of patients."""
        values = np.array([run.estimate[0] for run in self.runs])
        replicates = mean_over_runs(self.runs).replicates[:, 0]
        defined = replicates[~np.isnan(replicates)]
        if len(values) < 2 or np.isnan(values).any() or len(defined) < 2:
            return None
        return float(stats.sem(values)), float(defined.std(ddof=1))
