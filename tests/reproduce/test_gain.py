"""The interval over patients and seeds: special cases that have another name, plain arithmetic, coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from mxa.evaluation.bootstrap import Bootstrap
from mxa.reproduce.gain import Gain


def gain(estimates: list[float], replicates: np.ndarray) -> Gain:
    """S runs; replicates (S, R) around 0 are added to the estimates."""
    return Gain(tuple(Bootstrap(np.array([d]), (d + r)[:, None]) for d, r in zip(estimates, replicates, strict=True)))


def test_patients_who_agree_leave_students_t() -> None:
    values = [0.004, -0.002, 0.009, 0.001]
    one = gain(values, np.zeros((4, 50)))
    both = one.over_both(0.9)
    assert both is not None
    low, high = stats.t.interval(0.9, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (both.estimate, both.low, both.high) == pytest.approx((np.mean(values), low, high))
    assert one.p_over_both() == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_seeds_that_agree_leave_the_patients_normal_interval() -> None:
    drawn = np.random.default_rng(0).normal(0, 0.003, 400)
    one = gain([0.005] * 3, np.stack([drawn] * 3))
    both = one.over_both()
    assert both is not None
    assert both.low == pytest.approx(0.005 - stats.norm.ppf(0.975) * np.std(drawn, ddof=1))
    assert one.p_over_both() == pytest.approx(2 * stats.norm.sf(0.005 / np.std(drawn, ddof=1)))


def test_both_parts_against_plain_arithmetic() -> None:
    rng = np.random.default_rng(1)
    values, drawn = [0.01, 0.002, -0.003], rng.normal(0, 0.004, (3, 300))
    mean = sum(values) / 3
    of_seeds = math.sqrt(sum((v - mean) ** 2 for v in values) / 2 / 3)
    averaged = [sum(column) / 3 for column in drawn.T.tolist()]
    middle = sum(averaged) / 300
    of_patients = math.sqrt(sum((v - middle) ** 2 for v in averaged) / 299)
    one = gain(values, drawn)
    for level, t, z in ((0.95, 4.302653, 1.959964), (0.8, 1.885618, 1.281552)):  # from a table, two degrees of freedom
        both = one.over_both(level)
        assert both is not None
        reach = math.sqrt((t * of_seeds) ** 2 + (z * of_patients) ** 2)
        assert (both.low, both.high) == pytest.approx((mean - reach, mean + reach), rel=1e-5)
    p = one.p_over_both()
    assert p is not None
    edge = one.over_both(1 - p)
    assert edge is not None
    assert edge.low == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_coverage_by_simulation(seeds: int) -> None:
    """Runs that differ more than patients do, as ours do: the patients' interval finds gains far too often."""
    rng = np.random.default_rng(2)
    of_seed, of_patients, of_run_on_patients = 0.006, 0.0015, 0.002
    covered = {"both": 0, "patients": 0}
    refused = 0
    times = 1500
    for _ in range(times):
        other_patients = rng.normal(0, of_patients, 101)  # the last: those that were scored
        on_run = rng.normal(0, of_run_on_patients, (seeds, 101))
        noise = other_patients + on_run
        estimates = rng.normal(0, of_seed, seeds) + noise[:, -1]
        one = gain(estimates.tolist(), noise[:, :-1])
        for name, interval in (("both", one.over_both()), ("patients", one.over_patients())):
            assert interval is not None
            covered[name] += interval.low <= 0 <= interval.high
        refused += (one.p_over_both() or 0) < 0.05
    assert 0.945 < covered["both"] / times < 0.995
    assert refused == times - covered["both"]
    assert covered["patients"] / times < 0.75


def test_what_cannot_be_told_is_not_told() -> None:
    assert gain([0.01], np.zeros((1, 20))).over_both() is None
    assert gain([0.01], np.zeros((1, 20))).p_over_both() is None
    assert gain([0.01, math.nan], np.zeros((2, 20))).over_both() is None
    assert gain([0.0, 0.0], np.zeros((2, 20))).p_over_both() == 1
    assert gain([0.1, 0.1], np.zeros((2, 20))).p_over_both() == 1e-12
