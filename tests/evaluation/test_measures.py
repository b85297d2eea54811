"""Every cell of the table of figures against scikit-learn and loops."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import FIVE, cases, simulate
from sklearn import metrics as sk

from mxa.errors import ConfigError
from mxa.evaluation.cases import Cases
from mxa.evaluation.measures import AT_THRESHOLD, Measure, measure
from mxa.labels import LabelSet

THRESHOLDS = np.array([0.3, 0.5, 0.62, 0.2, 0.5])
RANKING = ("auroc", "average_precision", "sensitivity_at_specificity_0.9", "specificity_at_sensitivity_0.9")
NAMES = ("auroc", "average_precision", "brier", "log_loss", "ece", *RANKING[2:], *AT_THRESHOLD)
FOUR = LabelSet("four", ("A", "B", "C", "D"), ("a", "b", "c", "d"))


def ece(probability: np.ndarray, truth: np.ndarray, bins: int = 15) -> float:
    """In bins of equally many cases; equal probabilities go into the bin where the first of them lies."""
    order = np.argsort(probability, kind="stable")
    place: dict[float, int] = {}
    for k, i in enumerate(order):
        place.setdefault(probability[i], k * bins // len(order))
    total = 0.0
    for b in range(bins):
        rows = [i for i in order if place[probability[i]] == b]
        total += abs(sum(float(truth[i]) - probability[i] for i in rows))
    return total / len(order)


def best_rate(score: np.ndarray, truth: np.ndarray, lowest: float, wanted: str) -> float:
    """The best sensitivity or specificity of all thresholds that exist."""
    best = -1.0
    for cut in [-np.inf, *np.unique(score)]:
        rates = {"sensitivity": np.mean(score[truth] > cut), "specificity": np.mean(score[~truth] <= cut)}
        other = rates["specificity" if wanted == "sensitivity" else "sensitivity"]
        if other >= lowest:
            best = max(best, float(rates[wanted]))
    return best


def expected_cells(score, probability, truth, decision) -> dict[str, float]:
    """All figures of one finding, or of pooled elements, that has both classes."""
    tn, fp, _, _ = sk.confusion_matrix(truth, decision, labels=[False, True]).ravel()
    fn = (truth & ~decision).sum()
    return {
        "auroc": sk.roc_auc_score(truth, score),
        "average_precision": sk.average_precision_score(truth, score),
        "brier": sk.brier_score_loss(truth, probability),
        "log_loss": sk.log_loss(truth, probability, labels=[False, True]),
        "ece": ece(probability, truth),
        "sensitivity_at_specificity_0.9": best_rate(score, truth, 0.9, "sensitivity"),
        "specificity_at_sensitivity_0.9": best_rate(score, truth, 0.9, "specificity"),
        "accuracy": sk.accuracy_score(truth, decision),
        "f1": sk.f1_score(truth, decision),
        "sensitivity": sk.recall_score(truth, decision),
        "specificity": tn / (tn + fp),
        "ppv": sk.precision_score(truth, decision),
        "npv": tn / (tn + fn),
    }


def column(one: Cases, j: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    kept = one.mask[:, j]
    return one.scores()[kept, j], one.probability[kept, j], one.target[kept, j] == 1


@pytest.mark.parametrize("logits", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
def test_cells_against_scikit_learn(logits: bool, seed: int) -> None:
    one = simulate(seed=seed, logits=logits)
    found = measure(one, THRESHOLDS)
    assert found.names == NAMES
    for j, name in enumerate(FIVE.findings[:4]):
        score, probability, truth = column(one, j)
        expected = expected_cells(score, probability, truth, probability > THRESHOLDS[j])
        got = {key: cell.value for key, cell in found.findings[name].items()}
        assert got == pytest.approx(expected, abs=1e-12), name
        assert {cell.reason for cell in found.findings[name].values()} == {None}


def test_micro_pools_the_counted_elements() -> None:
    one = simulate()
    kept = one.mask
    decision = one.probability > THRESHOLDS
    expected = expected_cells(one.scores()[kept], one.probability[kept], one.target[kept] == 1, decision[kept])
    got = {key: cell.value for key, cell in measure(one, THRESHOLDS).micro.items()}
    assert got == pytest.approx(expected, abs=1e-12)


def test_micro_decisions_leave_out_findings_without_threshold() -> None:
    one = simulate()
    thresholds = np.array([np.nan, 0.5, np.nan, 0.2, 0.5])
    found = measure(one, thresholds, {"Edema": "no positives on validation"})
    some = [1, 3, 4]
    kept = one.mask[:, some]
    truth, decision = one.target[:, some][kept] == 1, (one.probability > thresholds)[:, some][kept]
    assert found.micro["sensitivity"].value == pytest.approx(sk.recall_score(truth, decision))
    assert found.micro["accuracy"].value == pytest.approx(sk.accuracy_score(truth, decision))
    assert found.micro["auroc"].value == measure(one, THRESHOLDS).micro["auroc"].value
    for key in AT_THRESHOLD:
        assert found.findings["No Finding"][key] == Measure(None, "no threshold")
        assert found.findings["Edema"][key] == Measure(None, "no positives on validation")
        assert "Edema" not in found.macro[key].over
    assert found.findings["Edema"]["auroc"].value is not None
    nothing = measure(one, np.full(5, np.nan))
    assert nothing.micro["f1"] == Measure(None, "no finding has a threshold")
    assert nothing.macro["f1"].value is None
    assert nothing.macro["f1"].over == ()
    assert nothing.micro["auroc"].value is not None


def test_macro_is_the_mean_over_the_findings_that_have_a_value() -> None:
    found = measure(simulate(), THRESHOLDS)
    for key in NAMES:
        values = {name: row[key].value for name, row in found.findings.items() if row[key].value is not None}
        assert found.macro[key].over == tuple(values)
        assert found.macro[key].value == pytest.approx(sum(values.values()) / len(values), abs=1e-12)
    assert found.macro["auroc"].over == FIVE.findings[:4], "Hernia never occurs"
    assert found.macro["brier"].over == FIVE.findings


def test_what_is_undefined_says_why() -> None:
    rng = np.random.default_rng(0)
    target, mask = rng.integers(0, 2, (30, 4)).astype(float), np.ones((30, 4), dtype=bool)
    target[:, 0], target[:, 1], mask[:, 2] = 0, 1, False
    logit = rng.normal(size=(30, 4))
    logit[:, 0], logit[:, 3] = -1, -2
    found = measure(cases(logit, target, mask, labels=FOUR), np.full(4, 0.5)).findings
    for key in RANKING:
        assert found["A"][key] == Measure(None, "no positives")
        assert found["B"][key] == Measure(None, "no negatives")
    for key in NAMES:
        assert found["C"][key] == Measure(None, "not annotated")
    assert found["A"]["sensitivity"] == Measure(None, "no positives")
    assert found["A"]["f1"] == Measure(None, "no positives and none predicted")
    assert found["A"]["specificity"] == Measure(1.0)
    assert found["B"]["specificity"] == Measure(None, "no negatives")
    assert found["D"]["ppv"] == Measure(None, "nothing predicted positive")
    assert found["A"]["brier"].value == pytest.approx((1 / (1 + np.e)) ** 2)
    everything = measure(cases(np.ones((3, 4)), np.ones((3, 4)), labels=FOUR), np.full(4, 0.5))
    assert everything.micro["npv"] == Measure(None, "nothing predicted negative")
    assert everything.micro["auroc"] == Measure(None, "no negatives")
    assert (everything.macro["auroc"].value, everything.macro["auroc"].over) == (None, ())


def test_a_certain_mistake_has_no_log_loss() -> None:
    probability = np.array([[0.0, 1.0], [1.0, 0.5], [0.0, 0.0], [0.2, 0.0]])
    target = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    mask = np.array([[True, True], [True, True], [True, True], [True, False]])
    two = LabelSet("two", ("A", "B"), ("a", "b"))
    found = measure(cases(None, target, mask, labels=two, probability=probability), np.full(2, 0.5))
    words = "infinite: 1 probabilities of exactly 0 for a positive or 1 for a negative"
    assert found.findings["A"]["log_loss"] == found.findings["B"]["log_loss"] == Measure(None, words)
    assert found.micro["log_loss"] == Measure(None, words.replace("1", "2", 1))
    assert found.macro["log_loss"].value is None
    possible = mask & (np.abs(target - probability) < 1)
    rest = measure(cases(None, target, possible, labels=two, probability=probability), np.full(2, 0.5))
    assert rest.micro["log_loss"].value == pytest.approx(-np.log([1, 0.5, 1, 1, 0.2]).mean())


def test_certainty_that_is_right_costs_nothing() -> None:
    target = np.array([[1.0], [0.0]])
    one = cases(None, target, labels=LabelSet("one", ("A",), ("a",)), probability=target)
    cell = measure(one, np.array([0.5])).findings["A"]["log_loss"]
    assert str(cell.value) == "0.0", "not -0.0"


def test_logits_keep_apart_what_rounds_to_one_probability() -> None:
    target = np.array([[1.0], [0.0], [1.0]])
    one = cases(np.array([[800.0], [790.0], [-800.0]]), target, labels=LabelSet("one", ("A",), ("a",)))
    found = measure(one, np.array([0.5])).findings["A"]
    assert found["auroc"].value == 0.5
    assert found["log_loss"].value == pytest.approx((790 + 800) / 3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_a_rising_transform_leaves_the_ranking_figures(seed: int) -> None:
    one = simulate(60, 25, seed)
    moved = replace(one, logit=np.sinh(one.logit / 2) * 3 + 1)
    first, second = measure(one, THRESHOLDS), measure(moved, THRESHOLDS)
    for name in FIVE:
        assert [first.findings[name][key] for key in RANKING] == [second.findings[name][key] for key in RANKING]
    assert [first.macro[key] for key in RANKING] == [second.macro[key] for key in RANKING]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_turning_labels_and_scores_round_mirrors_the_figures(seed: int) -> None:
    one = simulate(60, 25, seed)
    turned = replace(one, logit=-one.logit, probability=1 - one.probability, target=1 - one.target)
    # A threshold that no probability equals, so that "above" and "below" are each other's mirror.
    first, second = measure(one, np.full(5, 0.3141)), measure(turned, np.full(5, 1 - 0.3141))
    mirror = {"sensitivity": "specificity", "ppv": "npv", "accuracy": "accuracy", "auroc": "auroc", "brier": "brier"}
    mirror |= {"log_loss": "log_loss", RANKING[2]: RANKING[3]}
    for rows, others in ((first.findings, second.findings), ({"": first.micro}, {"": second.micro})):
        for name, row in rows.items():
            for key, other in mirror.items():
                assert row[key].value == pytest.approx(others[name][other].value, abs=1e-12), (name, key)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_masked_elements_never_matter(seed: int, logits: bool) -> None:
    one = simulate(60, 25, seed, logits=logits)
    rng = np.random.default_rng(seed)
    mess = rng.random(one.mask.shape)
    other = replace(
        one,
        target=np.where(one.mask, one.target, np.where(mess < 0.5, 1.0, -7.0)),
        probability=np.where(one.mask, one.probability, np.round(mess)),
        logit=None if one.logit is None else np.where(one.mask, one.logit, 1000 * mess),
    )
    assert measure(other, THRESHOLDS) == measure(one, THRESHOLDS)


def test_the_fixed_rates_are_named_and_used() -> None:
    one = simulate()
    found = measure(one, THRESHOLDS, at_specificity=0.75, at_sensitivity=1)
    score, _, truth = column(one, 1)
    row = found.findings["Cardiomegaly"]
    assert row["sensitivity_at_specificity_0.75"].value == best_rate(score, truth, 0.75, "sensitivity")
    assert row["specificity_at_sensitivity_1"].value == best_rate(score, truth, 1, "specificity")


def test_a_probability_at_the_threshold_is_negative() -> None:
    one = cases(None, [[1.0], [0.0]], labels=LabelSet("one", ("A",), ("a",)), probability=[[0.5], [0.5]])
    row = measure(one, np.array([0.5])).findings["A"]
    assert (row["sensitivity"].value, row["specificity"].value) == (0.0, 1.0)


def test_the_table_is_plain_json() -> None:
    found = measure(simulate(), THRESHOLDS)
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["findings"]["Hernia"]["auroc"] == {"value": None, "reason": "no positives"}
    assert data["findings"]["Edema"]["f1"] == {"value": found.findings["Edema"]["f1"].value}
    assert data["macro"]["auroc"] == {"value": found.macro["auroc"].value, "over": list(FIVE.findings[:4])}
    assert set(data["micro"]) == set(NAMES)


@pytest.mark.parametrize("name", ["at_specificity", "at_sensitivity"])
@pytest.mark.parametrize("rate", [-0.1, 90, float("nan")])
def test_an_impossible_rate_is_refused(name: str, rate: float) -> None:
    one = cases(np.zeros((2, 4)), np.zeros((2, 4)), labels=FOUR)
    with pytest.raises(ConfigError, match=name):
        measure(one, np.full(4, 0.5), **{name: rate})


def test_thresholds_of_other_findings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"5 findings need as many thresholds"):
        measure(simulate(), np.array([0.5]))
