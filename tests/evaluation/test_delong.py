"""DeLong's interval and test against the definition and by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mxa.errors import DataError
from mxa.evaluation.delong import delong, delong_difference, delong_interval


def naive_delong(scores: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The definition, pair by pair."""
    positive, negative = scores[:, target == 1], scores[:, target == 0]
    psi = (positive[:, :, None] > negative[:, None, :]) + 0.5 * (positive[:, :, None] == negative[:, None, :])
    v10, v01 = psi.mean(axis=2), psi.mean(axis=1)
    covariance = np.zeros((len(scores), len(scores)))
    for a in range(len(scores)):
        for b in range(len(scores)):
            for v in (v10, v01):
                x, y = v[a] - v[a].mean(), v[b] - v[b].mean()
                covariance[a, b] += (x * y).sum() / (len(x) - 1) / len(x)
    return psi.mean(axis=(1, 2)), covariance


@given(st.integers(0, 10_000), st.integers(0, 2))
def test_delong_against_its_definition(seed: int, decimals: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.permutation(np.r_[np.ones(7), np.zeros(12)])
    scores = np.round(rng.normal(size=(3, 19)) + target, decimals)
    for found, expected in zip(delong(scores, target), naive_delong(scores, target), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_delong_coverage_and_type_one_error() -> None:
    rng = np.random.default_rng(1)
    truth, runs = stats.norm.cdf(1 / np.sqrt(2)), 2000
    covered = rejected = 0
    for _ in range(runs):
        target = (rng.random(200) < 0.4).astype(float)
        shared = rng.normal(size=200) * 0.7
        scores = shared + rng.normal(size=(2, 200)) * np.sqrt(1 - 0.49) + target
        interval = delong_interval(scores[0], target)
        covered += interval.low <= truth <= interval.high
        rejected += delong_difference(scores[0], scores[1], target)[1] < 0.05
    assert 0.93 <= covered / runs <= 0.97
    assert 0.03 <= rejected / runs <= 0.07


def test_delong_of_equal_and_perfect_rankings() -> None:
    target = np.array([0, 0, 0, 1, 1, 1])
    perfect, constant = np.arange(6.0), np.zeros(6)
    difference, p = delong_difference(perfect, perfect * 2, target)
    assert (difference.estimate, difference.low, difference.high, p) == (0, 0, 0, 1)
    assert delong_interval(perfect, target).low == 1
    assert delong_interval(constant, target).estimate == 0.5


@pytest.mark.parametrize(
    ("score", "other", "target"),
    [
        ([0.9, 0.8, 0.1, 0.2], [0.5] * 4, [1, 1, 0, 0]),
        ([0.9, 0.8, 0.1, 0.2], [0.1, 0.2, 0.9, 0.8], [1, 1, 0, 0]),
        # Both vary, and each positive and each negative loses the same: 0 but for rounding.
        ([1.5, 2.5, 3.5, 1, 2, 3], [0.5, 1.5, 2.5, 1, 2, 3], [1, 1, 1, 0, 0, 0]),
    ],
)
def test_a_difference_without_estimated_variance_has_no_test(
    score: list[float], other: list[float], target: list[int]
) -> None:
    areas, _ = delong([score, other], target)
    assert areas[0] > areas[1]
    assert delong_difference(score, other, target) is None


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: delong([[0.1, 0.2, 0.3]], [0, 1, 1]), DataError, "got 2 and 1"),
        (lambda: delong([[0.1, 0.2]], [0, 1, 1]), ValueError, r"\(K, N\)"),
        (lambda: delong_interval([0.1, 0.2], [0, 1], level=95), ValueError, "level"),
    ],
)
def test_wrong_input_is_refused(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
