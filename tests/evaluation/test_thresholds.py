"""Operating points against a search over all decisions, in exact fractions."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxa.errors import ConfigError, DataError
from mxa.evaluation.calibration import fit
from mxa.evaluation.metrics import sigmoid
from mxa.evaluation.scores import confusion
from mxa.evaluation.thresholds import BELOW_ZERO, OperatingPoint, Rule, choose, choose_operating_point
from mxa.labels import LabelSet

THREE = LabelSet("three", ("A", "B", "C"), ("a", "b", "c"))
RULES = ["youden", "f1", "cost=1", "cost=0.1", "cost=0.3", "cost=5", "cost=1e6", "cost=1e-6"]
RULES += [f"{kind}={value}" for kind in ("sensitivity", "specificity") for value in (0.01, 0.3, 0.5, 0.7, 0.9, 1)]


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with ties, 0, 1 and neighbouring numbers; both classes present."""
    values = [0.0, 5e-324, 0.2, np.nextafter(0.2, 1), 0.4, 0.6, np.nextafter(1, 0), 1.0]
    n = draw(st.integers(2, 25))
    probability = draw(st.lists(st.sampled_from(values), min_size=n, max_size=n))
    target = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda y: 0 < sum(y) < len(y)))
    return np.array(probability), np.array(target)


def best_decision(rule: str, probability: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Try every decision, from all positive to none, and keep the last of the best."""
    kind, _, text = rule.partition("=")
    wanted = Fraction(text) if text else Fraction(0)
    found: tuple[Fraction, np.ndarray] | None = None
    for cut in [*np.unique(probability), math.inf]:
        called = probability >= cut
        tp = sum(int(c and y) for c, y in zip(called, target, strict=True))
        fp = sum(int(c and not y) for c, y in zip(called, target, strict=True))
        fn, tn = int(target.sum()) - tp, int((1 - target).sum()) - fp
        sensitivity, specificity = Fraction(tp, tp + fn), Fraction(tn, tn + fp)
        merit = {
            "youden": sensitivity + specificity - 1,
            "f1": Fraction(2 * tp, 2 * tp + fp + fn),
            "cost": -(fp + wanted * fn),
            "sensitivity": specificity if sensitivity >= wanted else Fraction(-1),
            "specificity": sensitivity if specificity >= wanted else Fraction(-1),
        }[kind]
        if found is None or merit > found[0] or (merit == found[0] and kind != "specificity"):
            found = merit, called
    assert found is not None
    return found[1]


@pytest.mark.parametrize("rule", RULES)
@given(problem=problems())
def test_the_decision_is_the_best_one(rule: str, problem) -> None:
    probability, target = problem
    threshold = choose(Rule.parse(rule), probability, target)
    np.testing.assert_array_equal(probability > threshold, best_decision(rule, probability, target))


@pytest.mark.parametrize("rule", RULES)
@given(problem=problems())
def test_a_monotone_transform_of_the_probabilities_changes_no_decision(rule: str, problem) -> None:
    probability, target = problem
    _, place = np.unique(probability, return_inverse=True)
    other = (place + 1) / (place.max() + 3)
    before = probability > choose(Rule.parse(rule), probability, target)
    np.testing.assert_array_equal(other > choose(Rule.parse(rule), other, target), before)


def test_where_the_threshold_lies() -> None:
    target = np.array([0, 0, 1, 1])
    assert choose(Rule("youden"), [0.1, 0.2, 0.6, 0.8], target) == pytest.approx(0.4)
    assert choose(Rule("youden"), [0.1, 0.1, 0.1, 0.1], target) == 0.1, "no cut is better than another: none positive"
    assert choose(Rule("sensitivity", 1), [0.8, 0.6, 0.2, 0.1], target) == pytest.approx(0.05), "half-way to 0"
    assert choose(Rule("sensitivity", 1), [0.8, 0.6, 0.2, 0.0], target) == BELOW_ZERO
    assert choose(Rule("specificity", 1), [0.8, 0.6, 0.2, 0.1], target) == 0.8, "none positive"
    low = 0.25
    for _ in range(4):  # neighbouring numbers: of any two, the midpoint of one pair rounds up
        high = float(np.nextafter(low, 1))
        assert choose(Rule("youden"), [low, low, high, high], target) == low
        low = high


def test_costs_that_differ_by_rounding_alone_are_equal() -> None:
    """Missing 12 costs as much as missing 2 and one false alarm, though 0.1 x 12 > 1 + 0.1 x 2 in float64."""
    assert 0.1 * 12 > 1 + 0.1 * 2
    probability = [0.1] * 7 + [0.5] * 11 + [0.9]
    target = [0] * 5 + [1] * 2 + [0] + [1] * 10 + [1]
    assert choose(Rule("cost", 0.1), probability, target) == pytest.approx(0.7)


def test_sensitivity_and_specificity_are_reached_and_no_further() -> None:
    rng = np.random.default_rng(0)
    target = rng.random(400) < 0.3
    probability = sigmoid(rng.normal(size=400) + target)
    for wanted in (0.5, 0.9, 0.95):
        found = confusion(probability, target, choose(Rule("sensitivity", wanted), probability, target))
        assert found.sensitivity >= wanted > (found.tp - 1) / (found.tp + found.fn)
        found = confusion(probability, target, choose(Rule("specificity", wanted), probability, target))
        assert found.specificity >= wanted > (found.tn - 1) / (found.tn + found.fp)


@pytest.mark.parametrize(
    "text", ["youden", "f1", "sensitivity=0.9", "specificity=1", "cost=5", "cost=0.0000001", "sensitivity=0.333"]
)
def test_a_rule_is_written_as_it_is_read(text: str) -> None:
    assert str(Rule.parse(text)) == text


@given(st.floats(min_value=0, exclude_min=True, max_value=1e300))
def test_a_rule_keeps_its_value_to_the_bit(value: float) -> None:
    assert Rule.parse(str(Rule("cost", value))) == Rule("cost", value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Youden",
        "youden=1",
        "f1=0.5",
        "sensitivity",
        "sensitivity=",
        "sensitivity=90",
        "sensitivity=0.9=0.9",
        "specificity=0",
        "accuracy",
        "cost=0",
        "cost=-1",
        "cost=inf",
        "cost=nan",
        "cost=many",
    ],
)
def test_a_wrong_rule_is_refused_with_the_choices(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Rule.parse(text)
    assert repr(text) in str(caught.value)
    assert "youden, f1, sensitivity=V, specificity=V, cost=V" in str(caught.value)


def test_a_rule_built_directly_is_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"'cost=True' is none of"):
        Rule("cost", True)
    with pytest.raises(ConfigError, match=r"'sensitivity' is none of"):
        Rule("sensitivity")


def example() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, targets and mask: A is fitted, B has no counted positive, C is not annotated."""
    rng = np.random.default_rng(1)
    target = (rng.random((80, 3)) < 0.4).astype(float)
    logit = rng.normal(size=(80, 3)) + target
    mask = np.ones((80, 3), dtype=bool)
    mask[:, 1] = target[:, 1] == 0
    mask[:, 2] = False
    mask[:20, 0] = False
    target[:20, 0] = np.nan
    return logit, target, mask


def test_an_operating_point_has_a_threshold_or_a_reason_per_finding() -> None:
    logit, target, mask = example()
    point = choose_operating_point(Rule("youden"), sigmoid(logit), target, mask, THREE)
    assert point.thresholds == (choose(Rule("youden"), sigmoid(logit[20:, 0]), target[20:, 0]), None, None)
    assert point.reasons == {"B": "no positives", "C": "not annotated"}
    np.testing.assert_array_equal(point.array(), [point.thresholds[0], np.nan, np.nan])
    assert point.array().dtype == np.float64
    assert OperatingPoint.from_dict(json.loads(json.dumps(point.to_dict(), allow_nan=False))) == point
    assert point.to_dict()["thresholds"] == {"A": point.thresholds[0], "B": None, "C": None}


@pytest.mark.parametrize("kind", ["temperature", "platt"])
def test_a_calibration_that_keeps_the_ranking_changes_no_decision(kind: str) -> None:
    logit, target, mask = example()
    point = choose_operating_point(Rule("f1"), sigmoid(logit), target, mask, THREE)
    calibrated = fit(kind, logit, target, mask, THREE).apply(logit)
    again = choose_operating_point(Rule("f1"), calibrated, target, mask, THREE)
    counted = mask[:, 0]
    np.testing.assert_array_equal(
        (calibrated > again.array())[counted, 0], (sigmoid(logit) > point.array())[counted, 0]
    )


def test_the_lowest_threshold_survives_json() -> None:
    point = OperatingPoint("youden", ("A",), (BELOW_ZERO,), {})
    again = OperatingPoint.from_dict(json.loads(json.dumps(point.to_dict())))
    assert again.thresholds == (BELOW_ZERO,)
    assert again.thresholds[0] < 0


GOOD = {"rule": "youden", "thresholds": {"A": 0.5, "B": None}, "reasons": {"B": "no positives"}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "best"}, r"'best' is none of"),
        ({"rule": 3}, r"'3' is none of"),
        ({"thresholds": [0.5]}, r"mapping by finding"),
        ({"thresholds": {"A": "0.5", "B": None}}, r"threshold of 'A' .* '0.5'"),
        ({"thresholds": {"A": True, "B": None}}, r"threshold of 'A' .* True"),
        ({"thresholds": {"A": math.nan, "B": None}}, r"threshold of 'A' .* nan"),
        ({"thresholds": {"A": 50, "B": None}}, r"threshold of 'A' .* 50"),
        ({"reasons": {}}, r"\['B'\] have none"),
        ({"reasons": {"A": "why", "B": "no positives"}}, r"\['A', 'B'\] have a reason"),
        ({"reasons": {"B": 1}}, r"in words"),
        ({"reasons": None}, r"mapping by finding"),
        ({"extra": 1}, r"exactly rule, thresholds and reasons"),
    ],
)
def test_a_garbled_operating_point_is_refused(change: dict, message: str) -> None:
    assert OperatingPoint.from_dict(GOOD).findings == ("A", "B")
    with pytest.raises(ConfigError, match=message):
        OperatingPoint.from_dict(GOOD | change)


def test_an_operating_point_needs_one_threshold_per_finding() -> None:
    with pytest.raises(ConfigError, match=r"one threshold per finding"):
        OperatingPoint("youden", ("A", "B"), (0.5,), {})
    with pytest.raises(ConfigError, match=r"exactly rule, thresholds and reasons"):
        OperatingPoint.from_dict([])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: choose(Rule("f1"), [0.1, 0.2], [0, 0]), DataError, r"no positives"),
        (lambda: choose(Rule("f1"), [0.1, 0.2], [1, 1]), DataError, r"no negatives"),
        (lambda: choose(Rule("f1"), [], []), DataError, r"not annotated"),
        (lambda: choose(Rule("f1"), [0.1, 2], [0, 1]), DataError, r"outside \[0, 1\]"),
        (lambda: choose(Rule("f1"), [0.1], [0, 1]), ValueError, r"\(N,\)"),
        (
            lambda: choose_operating_point(Rule("f1"), [[0.1, 0.2, 2]], [[0, 1, 1]], np.zeros((1, 3), bool), THREE),
            DataError,
            r"outside \[0, 1\]",
        ),
    ],
)
def test_wrong_input_is_refused(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
