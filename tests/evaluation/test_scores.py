"""Figures of one finding against scikit-learn and plain loops."""

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from mxa.errors import ConfigError, DataError
from mxa.evaluation.scores import (
    Confusion,
    average_precision,
    brier,
    calibration_error,
    confusion,
    counted_columns,
    cut_counts,
    pr_curve,
    reliability,
    sensitivity_at,
    specificity_at,
)
from mxa.labels import LabelSet

TWO = LabelSet("two", ("A", "B"), ("a", "b"))
RATIOS = ("sensitivity", "specificity", "ppv", "npv", "accuracy", "f1")
RATES = st.sampled_from([0.0, 0.1, 0.25, 0.3, 1 / 3, 0.5, 2 / 3, 0.7, 0.9, 1.0])


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with many ties, 0 and 1 among them; both classes present."""
    n = draw(st.integers(2, 30))
    probability = draw(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0]), min_size=n, max_size=n))
    target = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda y: 0 < sum(y) < len(y)))
    return np.array(probability), np.array(target)


@given(problems())
def test_average_precision_equals_sklearn(problem) -> None:
    score, target = problem
    expected = sk.average_precision_score(target, score)
    assert average_precision(score, target) == pytest.approx(expected, abs=1e-12)
    assert average_precision(np.exp(score) - 7, target) == pytest.approx(expected, abs=1e-12)


def test_average_precision_of_constant_scores_is_the_prevalence() -> None:
    assert average_precision([0.3] * 5, [1, 0, 0, 1, 0]) == pytest.approx(0.4)
    assert average_precision([0.3, 0.2], [1, 1]) == 1


@pytest.mark.parametrize("target", [[], [0, 0]])
def test_average_precision_without_positives_is_nan(target: list[int]) -> None:
    assert math.isnan(average_precision(np.zeros(len(target)), target))


@given(problems())
def test_pr_curve_equals_sklearn_without_its_invented_point(problem) -> None:
    score, target = problem
    recall, precision, threshold = pr_curve(score, target)
    theirs_precision, theirs_recall, theirs_threshold = sk.precision_recall_curve(target, score)
    np.testing.assert_allclose(recall, theirs_recall[-2::-1], atol=1e-12)
    np.testing.assert_allclose(precision, theirs_precision[-2::-1], atol=1e-12)
    np.testing.assert_array_equal(threshold, theirs_threshold[::-1])
    assert (np.diff(recall) >= 0).all()


def test_pr_curve_without_positives_is_refused() -> None:
    with pytest.raises(DataError, match=r"needs positives"):
        pr_curve([0.1, 0.2], [0, 0])


@given(problems())
def test_brier_equals_sklearn_and_mirrors(problem) -> None:
    probability, target = problem
    found = brier(probability, target)
    assert found == pytest.approx(sk.brier_score_loss(target, probability), abs=1e-12)
    assert found == pytest.approx(brier(1 - probability, 1 - target), abs=1e-12)


def naive_reliability(probability: np.ndarray, target: np.ndarray, bins: int) -> list[tuple[float, float, int]]:
    """Image by image: the bin in which the first image of its run of equal probabilities lies."""
    order = sorted(range(len(target)), key=lambda i: probability[i])
    members: dict[int, list[int]] = {}
    current = -1
    for place, i in enumerate(order):
        if place == 0 or probability[i] != probability[order[place - 1]]:
            while current + 1 < bins and Fraction((current + 1) * len(target), bins) <= place:
                current += 1
        members.setdefault(current, []).append(i)
    return [
        (math.fsum(probability[i] for i in rows) / len(rows), sum(int(target[i]) for i in rows) / len(rows), len(rows))
        for rows in members.values()
    ]


@given(problems(), st.integers(1, 40), st.booleans())
def test_reliability_equals_a_loop(problem, bins: int, spread: bool) -> None:
    probability, target = problem
    if spread:  # no ties
        probability = (probability + np.arange(len(target)) / 1000) / 2
    found = reliability(probability, target, bins)
    expected = naive_reliability(probability, target, bins)
    assert found.count.tolist() == [count for _, _, count in expected]
    np.testing.assert_allclose(found.predicted, [p for p, _, _ in expected], atol=1e-12)
    np.testing.assert_allclose(found.observed, [y for _, y, _ in expected], atol=1e-12)
    error = sum(count / len(target) * abs(y - p) for p, y, count in expected)
    assert calibration_error(probability, target, bins) == pytest.approx(error, abs=1e-12)


def test_bins_without_ties_are_of_equal_mass_and_ties_are_never_split() -> None:
    probability = np.linspace(0, 1, 45)[np.random.default_rng(0).permutation(45)]
    assert reliability(probability, np.zeros(45)).count.tolist() == [3] * 15
    one = reliability([0.5] * 6 + [0.7] * 2, [0, 1, 1, 1, 0, 1, 1, 1], bins=4)
    assert one.count.tolist() == [6, 2]
    assert one.count.dtype == np.int64
    assert one.observed.tolist() == pytest.approx([4 / 6, 1])


def test_what_has_no_images_is_nan_or_empty() -> None:
    assert math.isnan(brier([], []))
    assert math.isnan(calibration_error([], []))
    assert [len(getattr(reliability([], []), f)) for f in ("predicted", "observed", "count")] == [0, 0, 0]
    assert confusion([], [], 0.5) == Confusion(0, 0, 0, 0)


@given(problems(), st.sampled_from([-0.1, 0.0, 0.1, 0.25, 0.5, 0.8, 1.0]))
def test_confusion_equals_sklearn(problem, threshold: float) -> None:
    probability, target = problem
    called = probability > threshold
    found = confusion(probability, target, threshold)
    tn, fp, fn, tp = sk.confusion_matrix(target, called, labels=[0, 1]).ravel().tolist()
    assert dataclasses.astuple(found) == (tp, fp, fn, tn)
    expected = {
        "sensitivity": sk.recall_score(target, called),
        "specificity": sk.recall_score(1 - target, ~called),
        "ppv": sk.precision_score(target, called) if called.any() else None,
        "npv": sk.precision_score(1 - target, ~called) if not called.all() else None,
        "accuracy": sk.accuracy_score(target, called),
        "f1": sk.f1_score(target, called),
    }
    for name in RATIOS:
        assert getattr(found, name) == (None if expected[name] is None else pytest.approx(expected[name])), name
        assert (found.reason(name) is None) == (expected[name] is not None), name


def test_at_the_threshold_is_negative() -> None:
    assert confusion([0.5, np.nextafter(0.5, 1)], [1, 1], 0.5) == Confusion(tp=1, fp=0, fn=1, tn=0)


@pytest.mark.parametrize(
    ("counts", "reasons"),
    [
        (Confusion(0, 1, 0, 1), {"sensitivity": "no positives"}),
        (Confusion(1, 0, 1, 0), {"specificity": "no negatives"}),
        (Confusion(0, 0, 1, 1), {"ppv": "nothing predicted positive"}),
        (Confusion(1, 1, 0, 0), {"npv": "nothing predicted negative"}),
        (
            Confusion(0, 0, 0, 1),
            {
                "sensitivity": "no positives",
                "ppv": "nothing predicted positive",
                "f1": "no positives and none predicted",
            },
        ),
        (
            Confusion(0, 0, 0, 0),
            {
                "sensitivity": "no positives",
                "specificity": "no negatives",
                "ppv": "nothing predicted positive",
                "npv": "nothing predicted negative",
                "accuracy": "no images",
                "f1": "no positives and none predicted",
            },
        ),
    ],
)
def test_an_undefined_ratio_is_none_with_its_reason(counts: Confusion, reasons: dict[str, str]) -> None:
    assert {name: counts.reason(name) for name in RATIOS if getattr(counts, name) is None} == reasons
    assert {name: counts.reason(name) for name in RATIOS if counts.reason(name) is not None} == reasons


def best(wanted: float, kept: np.ndarray, other: np.ndarray, cuts: list[float]) -> float:
    """The highest share of ``other`` right at a cut that gets at least ``wanted`` of ``kept`` right."""
    return max(
        sum(v < cut for v in other) / len(other) for cut in cuts if sum(v >= cut for v in kept) / len(kept) >= wanted
    )


@given(problems(), RATES)
def test_rate_at_a_fixed_rate_equals_a_search(problem, wanted: float) -> None:
    score, target = problem
    positive, negative = score[target == 1], score[target == 0]
    cuts = [*np.unique(score).tolist(), math.inf]
    assert specificity_at(wanted, score, target) == best(wanted, positive, negative, cuts)
    mirrored = [-c for c in cuts[:-1]] + [math.inf]
    assert sensitivity_at(wanted, score, target) == best(wanted, -negative, -positive, mirrored)
    assert sensitivity_at(wanted, score, target) == specificity_at(wanted, -score, 1 - target)
    assert sensitivity_at(wanted, np.exp(score), target) == sensitivity_at(wanted, score, target)


def test_a_rate_that_is_met_exactly_counts() -> None:
    """9 of 10 negatives are right: 1 - 0.1 - 0.8 and the like must not spoil it."""
    score = np.arange(10) / 10
    for right in range(11):
        target = np.r_[np.zeros(10), 1]
        assert sensitivity_at(right / 10, np.r_[score, (right - 0.5) / 10], target) == 1
        if right < 10:
            assert sensitivity_at((right + 1) / 10, np.r_[score, (right - 0.5) / 10], target) == 0


@given(problems())
def test_cut_counts_equal_a_loop(problem) -> None:
    score, target = problem
    value, tp, fp = cut_counts(score, target)
    assert value.tolist() == sorted(set(score.tolist()))
    for k in range(len(value) + 1):
        above = [int(y) for s, y in zip(score, target, strict=True) if s in value[k:]]
        assert (tp[k], fp[k]) == (sum(above), len(above) - sum(above))


def test_counted_columns_leaves_out_what_the_mask_does() -> None:
    value, target = np.arange(6.0).reshape(3, 2), np.array([[1, 0], [np.nan, 1], [0, 7]])
    mask = np.array([[True, True], [False, True], [True, False]])
    (a, a_value, a_target), (b, b_value, b_target) = counted_columns(value, target, mask, TWO)
    assert (a, a_value.tolist(), a_target.tolist()) == ("A", [0, 4], [1, 0])
    assert (b, b_value.tolist(), b_target.tolist()) == ("B", [1, 3], [0, 1])
    with pytest.raises(DataError, match=r"1 counted targets .* first is 7 in row 2, counting from 0, B"):
        counted_columns(value, target, np.array([[True, True], [False, True], [True, True]]), TWO)
    with pytest.raises(ValueError, match=r"mask must be bool"):
        counted_columns(value, target, mask.astype(int), TWO)
    with pytest.raises(ValueError, match=r"\(N, 2\)"):
        counted_columns(value[:, :1], target[:, :1], mask[:, :1], TWO)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: average_precision([0.1], [1, 0]), ValueError, r"\(N,\)"),
        (lambda: average_precision([np.nan, 0], [1, 0]), DataError, r"not finite.* row 0"),
        (lambda: pr_curve([0.1, 0.2], [1, 2]), DataError, r"neither 0 nor 1.* row 1"),
        (lambda: brier([0.1, 1.2], [1, 0]), DataError, r"outside \[0, 1\].* row 1"),
        (lambda: reliability([0.1, -0.2], [1, 0]), DataError, r"outside \[0, 1\].* row 1"),
        (lambda: calibration_error([0.1], [1], bins=0), ConfigError, r"bins must be at least 1, got 0"),
        (lambda: confusion([0.1], [1], math.nan), ValueError, r"threshold is NaN"),
        (lambda: confusion([7], [1], 0.5), DataError, r"outside \[0, 1\]"),
        (lambda: Confusion(1, 1, 1, 1).reason("auroc"), ValueError, r"no 'auroc'; choose from sensitivity"),
        (lambda: sensitivity_at(1.1, [0, 1], [0, 1]), ConfigError, r"specificity wanted .* got 1.1"),
        (lambda: specificity_at(math.nan, [0, 1], [0, 1]), ConfigError, r"sensitivity wanted .* got nan"),
        (lambda: sensitivity_at(0.9, [0, 1], [1, 1]), DataError, r"no negatives"),
        (lambda: specificity_at(0.9, [0, 1], [0, 0]), DataError, r"no positives"),
        (lambda: specificity_at(0.9, [], []), DataError, r"not annotated"),
    ],
)
def test_wrong_input_is_refused(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
