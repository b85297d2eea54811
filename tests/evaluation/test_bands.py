"""Bands around curves against scikit-learn's curves of copied rows, read off in exact fractions."""

from fractions import Fraction

import numpy as np
import pytest
from simulated import copied_rows
from sklearn import metrics as sk

from mxa.errors import DataError
from mxa.evaluation.bands import GRID, curve_bands
from mxa.evaluation.bootstrap import Draws

REPLICATES = 12
RATES = [Fraction(i, 100) for i in range(101)]


def true_rates(target: np.ndarray, score: np.ndarray) -> list[float]:
    """Straight between the points; the upper end where the curve rises vertically."""
    negatives = int((target == 0).sum())
    false, true, _ = sk.roc_curve(target, score, drop_intermediate=False)
    false = [Fraction(round(f * negatives), negatives) for f in false]
    read = []
    for rate in RATES:
        k = max(i for i, f in enumerate(false) if f <= rate)
        share = 0.0 if false[k] == rate else float((rate - false[k]) / (false[k + 1] - false[k]))
        read.append(true[k] + share * (true[min(k + 1, len(true) - 1)] - true[k]))
    return read


def precisions(target: np.ndarray, score: np.ndarray) -> list[float]:
    """Of the strictest threshold that reaches each recall."""
    positives = int(target.sum())
    precision, recall, threshold = sk.precision_recall_curve(target, score)
    recall = [Fraction(round(r * positives), positives) for r in recall[: len(threshold)]]
    return [precision[max(i for i, r in enumerate(recall) if r >= rate)] for rate in RATES]


def quantile(values: np.ndarray, q: float) -> float:
    """Straight between the sorted values."""
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def expected_bands(score, target, kept, patient, level: float) -> list[list[list[float]]]:
    drawn = [rows[kept[rows]] for rows in copied_rows(patient, 3, REPLICATES, range(REPLICATES))]
    drawn = [rows for rows in drawn if 0 < target[rows].sum() < len(rows)]
    bands = []
    for read in (true_rates, precisions):
        curves = np.array([read(target[rows], score[rows]) for rows in drawn])
        bands.append([[quantile(at, q) for at in curves.T] for q in ((1 - level) / 2, (1 + level) / 2)])
    return bands


def problem(kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(5)
    if kind == "on the grid":  # every drawing has 20 positives and 20 negatives, so many points lie on the grid
        target = np.tile([1.0, 0.0], 20)
        patient = [f"p{k // 2}" for k in range(40)]
    else:
        target = (rng.random(40) < 0.35).astype(float)
        patient = [f"p{k}" for k in rng.integers(0, 15, 40)]
    score = rng.normal(size=40) + target
    score = {"ties": np.round(score), "constant": np.full(40, 0.3)}.get(kind, score)
    kept = rng.random(40) < (1.0 if kind == "on the grid" else 0.8)
    return score, target, kept, patient


@pytest.mark.parametrize("kind", ["plain", "ties", "constant", "on the grid"])
@pytest.mark.parametrize("level", [0.95, 0.5])
def test_bands_are_quantiles_of_the_curves_of_copied_rows(kind: str, level: float) -> None:
    score, target, kept, patient = problem(kind)
    draws = Draws(patient, replicates=REPLICATES, seed=3)
    (found,) = curve_bands(draws, score[:, None], np.where(kept, target, np.nan)[:, None], kept[:, None], level)
    assert found is not None
    roc, pr = expected_bands(score, target, kept, patient, level)
    np.testing.assert_allclose(found.roc, roc, atol=1e-9)
    np.testing.assert_allclose(found.pr, pr, atol=1e-9)
    assert found.roc.shape == found.pr.shape == (2, len(GRID))
    assert (found.roc[0] <= found.roc[1]).all()
    assert (found.pr[0] <= found.pr[1]).all()


def test_constant_scores_give_the_diagonal_and_the_prevalence() -> None:
    target = np.tile([1.0, 0.0, 0.0, 0.0], 6)[:, None]
    patient = [f"p{k // 4}" for k in range(24)]  # the prevalence is 1/4 in every drawing
    (found,) = curve_bands(
        Draws(patient, replicates=9), np.zeros_like(target), target, np.ones(target.shape, dtype=bool)
    )
    assert found is not None
    np.testing.assert_allclose(found.roc, [GRID, GRID], atol=1e-12)
    np.testing.assert_allclose(found.pr, np.full((2, 101), 0.25), atol=1e-12)


def test_perfect_scores_have_perfect_curves() -> None:
    target = np.tile([1.0, 0.0], 8)[:, None]
    (found,) = curve_bands(
        Draws([f"p{k // 2}" for k in range(16)], replicates=9), target, target, np.ones(target.shape, dtype=bool)
    )
    assert found is not None
    assert (found.roc == 1).all()
    assert (found.pr == 1).all()


def test_a_replicate_without_a_class_is_left_out() -> None:
    """Three patients, one with the only positive: a drawing without that one has one class."""
    score, target = np.array([[0.9], [0.1], [0.2]]), np.array([[1.0], [0.0], [0.0]])
    everything = np.ones((3, 1), dtype=bool)
    (found,) = curve_bands(Draws(list("abc"), replicates=40), score, target, everything)
    assert found is not None
    assert (found.roc == 1).all()
    assert (found.pr == 1).all()
    seed = next(
        seed
        for seed in range(100)
        if all((counts[:, 0] == 0).all() for _, counts in Draws(list("abc"), replicates=1, seed=seed).chunks())
    )
    assert curve_bands(Draws(list("abc"), replicates=1, seed=seed), score, target, everything) == [None]


@pytest.mark.parametrize("patient", ["aaaa", "aabb"])
def test_where_there_is_nothing_to_resample_there_is_no_band(patient: str) -> None:
    score, target = np.array([[0.3], [0.9], [0.1], [0.5]]), np.array([[1.0], [1.0], [0.0], [0.0]])
    everything = np.ones((4, 1), dtype=bool)
    assert curve_bands(Draws(list(patient), replicates=40), score, target, everything) == [None]
    assert curve_bands(Draws(list("aabc"), replicates=40), score, target, everything) != [None]


def test_a_finding_without_a_class_has_no_band() -> None:
    rng = np.random.default_rng(0)
    score, target = rng.normal(size=(20, 4)), rng.integers(0, 2, (20, 4)).astype(float)
    mask = np.ones((20, 4), dtype=bool)
    target[:, 0], target[:, 1], mask[:, 2] = 1, 0, False
    found = curve_bands(Draws([str(k) for k in range(20)], replicates=5), score, target, mask)
    assert [one is None for one in found] == [True, True, True, False]


def test_wrong_input_is_refused() -> None:
    draws, one, yes = Draws(["a", "b"], replicates=5), np.array([[0.1], [0.2]]), np.ones((2, 1), dtype=bool)
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\)"):
        curve_bands(draws, one, [[0], [1]], yes, 95)
    with pytest.raises(DataError, match=r"neither 0 nor 1"):
        curve_bands(draws, one, [[0], [2]], yes)
    with pytest.raises(ValueError, match=r"do not fit 2 images"):
        curve_bands(draws, one[:1], [[0]], yes[:1])
