import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mxa.errors import DataError
from mxa.evaluation.metrics import (
    auroc,
    evaluate,
    evaluate_probability,
    log_loss,
    require_probability,
    roc_curve,
    sigmoid,
)
from mxa.labels import CHEXPERT14, NIH14, LabelSet

TWO = LabelSet("two", ("A", "B"), ("a", "b"))


def example(seed=0, n=300, tied=False):
    """Logits, targets and mask where every finding has both classes and some elements are ignored."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(size=(n, 14)) * 2
    target = (rng.random((n, 14)) < 0.3).astype(float)
    mask = rng.random((n, 14)) < 0.8
    return np.round(logit) if tied else logit, target, mask


@st.composite
def binary_problems(draw):
    """Scores with many ties, both classes present."""
    n = draw(st.integers(2, 40))
    score = draw(st.lists(st.integers(-4, 4), min_size=n, max_size=n))
    target = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda y: 0 < sum(y) < len(y)))
    return np.array(score, dtype=float), np.array(target, dtype=float)


# --- auroc and roc_curve


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_auroc_equals_sklearn(seed, tied):
    logit, target, _ = example(seed, tied=tied)
    for j in range(14):
        assert auroc(logit[:, j], target[:, j]) == pytest.approx(sk.roc_auc_score(target[:, j], logit[:, j]), abs=1e-12)


@pytest.mark.parametrize("tied", [False, True])
def test_roc_curve_equals_sklearn(tied):
    logit, target, _ = example(tied=tied)
    ours = roc_curve(logit[:, 0], target[:, 0])
    theirs = sk.roc_curve(target[:, 0], logit[:, 0], drop_intermediate=False)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@given(binary_problems())
@settings(max_examples=60, deadline=None)
def test_auroc_is_the_share_of_pairs_in_order(problem):
    score, target = problem
    difference = score[target == 1][:, None] - score[target == 0][None, :]
    assert auroc(score, target) == pytest.approx(((difference > 0) + 0.5 * (difference == 0)).mean(), abs=1e-12)


@given(binary_problems())
@settings(max_examples=60, deadline=None)
def test_auroc_symmetries(problem):
    score, target = problem
    area = auroc(score, target)
    assert auroc(np.exp(score) * 7 - 3, target) == area  # any increasing function of the score
    assert auroc(score, 1 - target) == pytest.approx(1 - area, abs=1e-12)
    assert auroc(-score, target) == pytest.approx(1 - area, abs=1e-12)
    assert auroc(np.full_like(score, 0.3), target) == 0.5


@given(binary_problems())
@settings(max_examples=60, deadline=None)
def test_roc_curve_is_monotone_and_its_area_is_auroc(problem):
    score, target = problem
    fpr, tpr, threshold = roc_curve(score, target)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert len(fpr) == len(np.unique(score)) + 1
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(tpr) >= 0).all()
    assert (np.diff(threshold) < 0).all()
    assert sk.auc(fpr, tpr) == pytest.approx(auroc(score, target), abs=1e-12)


@pytest.mark.parametrize("target", [[], [0, 0], [1, 1]])
def test_auroc_of_one_class_is_nan(target):
    assert math.isnan(auroc(np.arange(len(target)), target))


@pytest.mark.parametrize(("target", "why"), [([], "not annotated"), ([0, 0], "no positives"), ([1, 1], "no negatives")])
def test_roc_curve_of_one_class_is_refused(target, why):
    with pytest.raises(DataError, match=why):
        roc_curve(np.arange(len(target)), target)


def test_ranking_input_is_checked():
    with pytest.raises(ValueError, match="must both be"):
        auroc([0.1, 0.2], [1])
    with pytest.raises(ValueError, match="must both be"):
        auroc([[0.1, 0.2]], [[0, 1]])
    with pytest.raises(DataError, match=r"1 of 2 elements are score values that are not finite.*row 1"):
        auroc([0.1, np.nan], [0, 1])
    with pytest.raises(DataError, match=r"neither 0 nor 1.*row 0"):
        auroc([0.1, 0.2], [0.5, 1])


# --- sigmoid and log_loss


def test_sigmoid_is_exact_and_never_overflows():
    assert sigmoid([0.0, np.log(3), -np.log(3)]).tolist() == pytest.approx([0.5, 0.75, 0.25], abs=1e-15)
    with np.errstate(all="raise", under="ignore"):
        assert sigmoid([-1e4, -700.0, 1e4]).tolist() == [0.0, pytest.approx(math.exp(-700), rel=1e-12), 1.0]
    assert sigmoid(np.float32(0.1)).dtype == np.float64


def test_log_loss_equals_sklearn():
    logit, target, mask = example()
    assert log_loss(logit, target, mask) == pytest.approx(sk.log_loss(target[mask], sigmoid(logit[mask])), rel=1e-12)


def test_log_loss_takes_soft_targets():
    soft = np.array([[0.7]])
    z = 0.4
    expected = -0.7 * math.log(sigmoid(z)) - 0.3 * math.log(1 - sigmoid(z))
    assert log_loss([[z]], soft, np.array([[True]])) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(DataError, match="not finite"):
        log_loss([[np.inf]], soft, np.array([[True]]))
    with pytest.raises(DataError, match="outside"):
        log_loss([[z]], [[1.1]], np.array([[True]]))


@pytest.mark.parametrize(
    ("logit", "target", "expected"),
    [(1000, 0, 1000), (-1000, 1, 1000), (1000, 1, 0), (-1000, 0, 0), (50, 1, math.exp(-50)), (0, 1, math.log(2))],
)
def test_log_loss_is_exact_in_the_tails(logit, target, expected):
    yes = np.array([[True]])
    assert log_loss([[logit]], [[target]], yes) == pytest.approx(expected, rel=1e-12, abs=0)
    assert evaluate([[logit, 0.0]], [[target, 0]], np.array([[True, False]]), TWO).loss == pytest.approx(
        expected, rel=1e-12, abs=0
    )


# --- evaluate


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_evaluation_equals_sklearn(seed, tied):
    logit, target, mask = example(seed, tied=tied)
    result = evaluate(logit, target, mask, CHEXPERT14)
    y, p = target[mask], sigmoid(logit[mask])
    assert result.images == 300
    assert result.loss == pytest.approx(sk.log_loss(y, p), rel=1e-12)
    assert result.accuracy == pytest.approx(sk.accuracy_score(y, p > 0.5), rel=1e-12)
    assert result.f1_micro == pytest.approx(sk.f1_score(y, p > 0.5), rel=1e-12)
    assert result.auroc_micro == pytest.approx(sk.roc_auc_score(y, p), abs=1e-12)
    areas = []
    for j, name in enumerate(CHEXPERT14):
        m = mask[:, j]
        areas.append(sk.roc_auc_score(target[m, j], logit[m, j]))
        one = result.findings[name]
        assert one.auroc == pytest.approx(areas[-1], abs=1e-12)
        assert (one.positives, one.negatives) == (target[m, j].sum(), (1 - target[m, j]).sum())
        assert one.ignored == 300 - m.sum()
        assert one.reason is None
    assert result.auroc_macro == pytest.approx(np.mean(areas), abs=1e-12)
    assert result.auroc_macro_over == CHEXPERT14.findings
    assert result.reasons == {}


def test_f1_is_micro_as_sklearn_counts_it():
    logit, target, _ = example()
    result = evaluate(logit, target, np.ones(target.shape, bool), CHEXPERT14)
    assert result.f1_micro == pytest.approx(sk.f1_score(target, logit > 0, average="micro"), rel=1e-12)


def test_logits_and_probabilities_give_the_same_figures():
    logit, target, mask = example()
    a, b = (f(x, target, mask, NIH14).to_dict() for f, x in ((evaluate, logit), (evaluate_probability, sigmoid(logit))))
    assert a["loss"] == pytest.approx(b.pop("loss"), rel=1e-12)
    assert {k: v for k, v in a.items() if k != "loss"} == b


def test_float32_logits_are_scored_in_float64():
    logit, target, mask = example()
    logit = logit.astype(np.float32)
    assert evaluate(logit, target, mask, CHEXPERT14) == evaluate(logit.astype(np.float64), target, mask, CHEXPERT14)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_a_masked_element_counts_as_little_as_a_deleted_one(seed):
    rng = np.random.default_rng(seed)
    logit, target = np.round(rng.normal(size=(12, 2)), 1), rng.integers(0, 2, (12, 2)).astype(float)
    keep = rng.random(12) < 0.7
    keep[0] = True
    masked = evaluate(logit, target, np.repeat(keep[:, None], 2, axis=1), TWO)
    deleted = evaluate(logit[keep], target[keep], np.ones((keep.sum(), 2), bool), TWO)
    for name in ("loss", "accuracy", "f1_micro", "auroc_micro", "auroc_macro", "auroc_macro_over", "reasons"):
        assert getattr(masked, name) == getattr(deleted, name)
    for name in TWO:
        one, other = masked.findings[name], deleted.findings[name]
        assert (one.auroc, one.positives, one.negatives) == (other.auroc, other.positives, other.negatives)
        assert (one.ignored, other.ignored) == (12 - keep.sum(), 0)


def test_what_stands_in_a_masked_target_never_matters():
    logit, target, mask = example()
    for junk in (np.nan, -1.0, 0.3, np.inf):
        other = np.where(mask, target, junk)
        assert evaluate(logit, other, mask, CHEXPERT14) == evaluate(logit, target, mask, CHEXPERT14)


@pytest.mark.parametrize("evaluator", [evaluate, evaluate_probability])
def test_a_probability_of_exactly_one_half_is_negative(evaluator):
    half = 0.0 if evaluator is evaluate else 0.5
    result = evaluator(np.full((2, 2), half), np.array([[1, 0], [0, 0]]), np.ones((2, 2), bool), TWO)
    assert result.accuracy == 0.75
    assert result.f1_micro == 0.0
    assert result.auroc_micro == 0.5


def test_undefined_findings_are_null_with_a_reason_and_not_averaged_in():
    logit, target, mask = example()
    target[:, 1], target[:, 2], mask[:, 3] = 0, 1, False
    result = evaluate(logit, target, mask, CHEXPERT14)
    undefined = {name: one.reason for name, one in result.findings.items() if one.auroc is None}
    names = CHEXPERT14.findings
    assert undefined == {names[1]: "no positives", names[2]: "no negatives", names[3]: "not annotated"}
    assert result.auroc_macro_over == (names[0], *names[4:])
    expected = [sk.roc_auc_score(target[mask[:, j], j], logit[mask[:, j], j]) for j in range(14) if j not in {1, 2, 3}]
    assert result.auroc_macro == pytest.approx(np.mean(expected), abs=1e-12)
    assert result.findings[names[3]].ignored == 300


def test_undefined_figures_are_null_with_a_reason():
    mask = np.ones((3, 2), bool)
    result = evaluate(np.full((3, 2), -1.0), np.zeros((3, 2)), mask, TWO)
    assert (result.f1_micro, result.auroc_micro, result.auroc_macro) == (None, None, None)
    assert result.reasons == {
        "f1_micro": "no positives and no predicted positives",
        "auroc_micro": "no positives",
        "auroc_macro": "no finding has both positives and negatives",
    }
    assert result.accuracy == 1.0
    # Only the F1 becomes defined by a wrong positive prediction.
    assert evaluate(np.ones((3, 2)), np.zeros((3, 2)), mask, TWO).f1_micro == 0.0
    assert evaluate(np.ones((3, 2)), np.ones((3, 2)), mask, TWO).reasons["auroc_micro"] == "no negatives"


def test_an_infinite_loss_is_null_with_a_reason_and_certainty_in_the_right_is_not():
    mask = np.ones((2, 2), bool)
    right = evaluate_probability([[1.0, 0.0], [0.0, 1.0]], [[1, 0], [0, 1]], mask, TWO)
    assert right.loss == 0.0
    wrong = evaluate_probability([[0.0, 0.0], [1.0, 1.0]], [[1, 0], [0, 1]], mask, TWO)
    assert wrong.loss is None
    assert wrong.reasons["loss"] == "infinite: 2 probabilities of exactly 0 for a positive or 1 for a negative"
    mask[0, 0] = False
    partly = evaluate_probability([[0.0, 0.0], [1.0, 1.0]], [[1, 0], [0, 1]], mask, TWO)
    assert partly.reasons["loss"].startswith("infinite: 1 probabilities")
    mask[1, 0] = False
    assert evaluate_probability([[0.0, 0.0], [1.0, 1.0]], [[1, 0], [0, 1]], mask, TWO).loss == 0.0


def test_json_is_strict_and_its_keys_are_those_of_the_interface():
    logit, target, mask = example()
    target[:, 1] = 0
    result = evaluate(logit, target, mask, CHEXPERT14)
    back = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert list(back) == [
        "loss",
        "accuracy",
        "f1_micro",
        "auroc_micro",
        "auroc_macro",
        "auroc_macro_over",
        "images",
        "findings",
    ]
    assert list(back["findings"]) == list(CHEXPERT14)
    assert all(
        list(one) == ["auroc", "positives", "negatives", "ignored", "reason"] for one in back["findings"].values()
    )
    name = CHEXPERT14.findings[1]
    assert back["findings"][name]["auroc"] is None
    assert back["findings"][name]["reason"] == "no positives"
    assert name not in back["auroc_macro_over"]
    assert back["loss"] == result.loss


def test_json_of_undefined_figures_is_strict_too():
    result = evaluate_probability([[1.0, 1.0]], [[0, 0]], np.ones((1, 2), bool), TWO)
    back = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert back["loss"] is None
    assert set(back["reasons"]) == {"loss", "auroc_micro", "auroc_macro"}


def test_bad_input_is_refused_with_its_place():
    logit, target, mask = example()
    bad = logit.copy()
    bad[7, 2], bad[9, 0] = np.nan, np.inf
    with pytest.raises(DataError, match=r"2 of 4200 elements are logit values that are not finite.*row 7"):
        evaluate(bad, target, mask, CHEXPERT14)
    with pytest.raises(DataError, match="not finite"):  # a broken model is broken where nobody counts, too
        evaluate(bad, target, mask & np.isfinite(bad), CHEXPERT14)
    with pytest.raises(DataError, match="probabilities outside"):
        evaluate_probability(logit, target, mask, CHEXPERT14)
    with pytest.raises(DataError, match=r"1 of 2 .* row 1"):
        require_probability(np.array([0.0, 1.0 + 1e-9]))
    soft = target.copy()
    soft[5][mask[5]] = 0.6
    with pytest.raises(DataError, match=r"neither 0 nor 1.*row 5"):
        evaluate(logit, soft, mask, CHEXPERT14)
    with pytest.raises(DataError, match="no images"):
        evaluate(logit[:0], target[:0], mask[:0], CHEXPERT14)
    with pytest.raises(DataError, match="nothing to evaluate"):
        evaluate(logit, target, np.zeros_like(mask), CHEXPERT14)


def test_wrong_shapes_and_mask_types_are_refused():
    logit, target, mask = example()
    with pytest.raises(ValueError, match=r"\(300, 14\), \(299, 14\)"):
        evaluate(logit, target[1:], mask, CHEXPERT14)
    with pytest.raises(ValueError, match="must all be"):
        evaluate(logit[:, 0], target[:, 0], mask[:, 0], CHEXPERT14)
    with pytest.raises(ValueError, match="14 columns, but two has 2"):
        evaluate(logit, target, mask, TWO)
    with pytest.raises(ValueError, match="must be bool, got int64"):
        evaluate(logit, target, mask.astype(np.int64), CHEXPERT14)


def test_evaluation_does_not_load_torch():
    code = (
        "import sys, mxa.evaluation.report, mxa.evaluation.predictions;"
        "bad = {'torch', 'timm', 'mxa.data', 'mxa.models', 'mxa.training'} & set(sys.modules);"
        "sys.exit(f'loaded {sorted(bad)}' if bad else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
