"""Sums over weights against scikit-learn on rows that are really copied, and against loops over pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mxa.evaluation.ranked import Ranked, placements

PATIENTS = 6


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores with many ties, either class or both, patients of several images, and how often each is drawn."""
    n = draw(st.integers(1, 25))
    score = draw(st.lists(st.sampled_from([-1e9, -1.0, 0.0, 5e-324, 0.3, 0.5, 2.0]), min_size=n, max_size=n))
    truth = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    cluster = draw(st.lists(st.integers(0, PATIENTS - 1), min_size=n, max_size=n))
    counts = draw(st.lists(st.lists(st.integers(0, 3), min_size=PATIENTS, max_size=PATIENTS), min_size=1, max_size=4))
    return np.array(score), np.array(truth), np.array(cluster), np.array(counts, dtype=float)


def copied(cluster: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(cluster)), count[cluster].astype(int))


def both(truth: np.ndarray) -> bool:
    return 0 < truth.sum() < len(truth)


@given(problems())
def test_figures_are_those_of_copied_rows(problem) -> None:
    score, truth, cluster, counts = problem
    one = Ranked(score, truth, cluster)
    areas, precisions = one.auroc(counts), one.average_precision(counts)
    assert areas.shape == precisions.shape == (len(counts),)
    for r, count in enumerate(counts):
        rows = copied(cluster, count)
        if not both(truth[rows]):
            assert np.isnan(areas[r])
            assert np.isnan(precisions[r])
            continue
        assert areas[r] == pytest.approx(sk.roc_auc_score(truth[rows], score[rows]), abs=1e-12)
        assert precisions[r] == pytest.approx(sk.average_precision_score(truth[rows], score[rows]), abs=1e-12)


@given(problems())
def test_each_patient_is_left_out(problem) -> None:
    score, truth, cluster, _ = problem
    found = Ranked(score, truth, cluster).auroc_without_each(PATIENTS)
    for k in range(PATIENTS):
        rest = cluster != k
        if both(truth[rest]):
            assert found[k] == pytest.approx(sk.roc_auc_score(truth[rest], score[rest]), abs=1e-12)
        else:
            assert np.isnan(found[k])


@given(problems())
def test_placements_count_pairs(problem) -> None:
    score, truth, _, _ = problem
    wins, losses = placements(score, truth)
    for i, own in enumerate(score):
        assert wins[i] == sum((s < own) + 0.5 * (s == own) for s in score[~truth])
        assert losses[i] == sum((s > own) + 0.5 * (s == own) for s in score[truth])


@given(problems())
def test_only_the_order_matters(problem) -> None:
    """A rising transform changes no bit; the order of the rows changes only rounding."""
    score, truth, cluster, counts = problem
    one, two = Ranked(score, truth, cluster), Ranked(np.unique(score, return_inverse=True)[1] * 7.0, truth, cluster)
    for name in ("auroc", "average_precision"):
        np.testing.assert_array_equal(getattr(one, name)(counts), getattr(two, name)(counts))
    back = Ranked(score[::-1], truth[::-1], cluster[::-1])
    np.testing.assert_array_equal(back.auroc(counts), one.auroc(counts))
    np.testing.assert_allclose(back.average_precision(counts), one.average_precision(counts), atol=1e-12)


@given(problems())
def test_scores_and_labels_turned_round_together_change_no_area(problem) -> None:
    score, truth, cluster, counts = problem
    turned = Ranked(-score, ~truth, cluster)
    np.testing.assert_array_equal(turned.auroc(counts), Ranked(score, truth, cluster).auroc(counts))


@settings(max_examples=20)
@given(st.integers(1, 10), st.integers(1, 10))
def test_constant_scores_say_nothing(positives: int, negatives: int) -> None:
    truth = np.arange(positives + negatives) < positives
    one = Ranked(np.full(len(truth), 0.4), truth, np.arange(len(truth)))
    everybody = np.ones((1, len(truth)))
    assert one.auroc(everybody)[0] == 0.5
    assert one.average_precision(everybody)[0] == pytest.approx(positives / len(truth), abs=1e-12)


def test_no_image_at_all_is_undefined() -> None:
    one = Ranked(np.empty(0), np.empty(0, dtype=bool), np.empty(0, dtype=int))
    assert np.isnan(one.auroc(np.ones((2, 3)))).all()
    assert np.isnan(one.average_precision(np.ones((2, 3)))).all()
    assert np.isnan(one.auroc_without_each(3)).all()
