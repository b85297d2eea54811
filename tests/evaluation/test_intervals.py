"""Intervals in words and numbers, and Holm's correction."""

import pytest
from scipy import stats

from mxa.evaluation.intervals import Interval, exact_rate, holm, require_level


def test_an_interval_in_words() -> None:
    one = Interval(0.8124, -0.05, 0.9, 0.95)
    assert str(one) == "0.812 (-0.050 to 0.900)"
    assert one.signed() == "+0.812 (-0.050 to +0.900)"
    assert one.to_dict() == {"estimate": 0.8124, "low": -0.05, "high": 0.9, "level": 0.95, "undefined": 0.0}


@pytest.mark.parametrize("level", [0, 1, 95, -0.5])
def test_a_level_is_a_share(level: float) -> None:
    with pytest.raises(ValueError, match=r"in \(0, 1\)"):
        require_level(level)


def test_holm_against_its_definition() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, None, 0.9]) == pytest.approx([1.0, None, 1.0])
    assert holm([]) == []


def test_p_values_outside_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match="p-values"):
        holm([1.5])


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (10, 10), (3, 17), (1, 1)])
def test_the_exact_interval_against_scipy(hits: int, trials: int) -> None:
    expected = stats.binomtest(hits, trials).proportion_ci(0.9, method="exact")
    found = exact_rate(hits, trials, 0.9)
    assert (found.estimate, found.level) == (hits / trials, 0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("hits", "trials"), [(-1, 3), (4, 3), (0, 0)])
def test_impossible_counts_are_refused(hits: int, trials: int) -> None:
    with pytest.raises(ValueError, match="impossible"):
        exact_rate(hits, trials)
