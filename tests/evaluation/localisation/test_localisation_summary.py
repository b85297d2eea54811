import json

import numpy as np
import pytest
from scipy import stats

from mxa.evaluation.bootstrap import ALL_AT_AN_END, ONE_PATIENT, Bootstrap, Draws
from mxa.evaluation.intervals import exact_rate
from mxa.evaluation.localisation.summary import MACRO, POOLED, Mean, Scored, Summariser

REPLICATES, SEED = 40, 3
RNG = np.random.default_rng(0)
COUNT = 30
PATIENT = np.array([f"p{k}" for k in RNG.integers(0, 9, COUNT)])
FINDING = RNG.choice(["A", "B", "C"], COUNT).astype(object)
VALUES = RNG.random(COUNT)
ROWS = RNG.random(COUNT) < 0.8


def summariser(patient=PATIENT, of=FINDING, findings=("A", "B", "C")):
    return Summariser(Draws(patient, replicates=REPLICATES, seed=SEED), findings, np.array(of, dtype=object), 0.9)


def copied_rows():
    """The row numbers of each replicate, each row as often as its patient is drawn."""
    names = np.unique(PATIENT)
    counts = np.random.default_rng(SEED).multinomial(len(names), np.full(len(names), 1 / len(names)), size=REPLICATES)
    return [np.repeat(np.arange(COUNT), [drawn[names == name].item() for name in PATIENT]) for drawn in counts]


def pooled(values, kept):
    return np.mean(values[kept]) if kept.any() else np.nan


def expected(mean_of):
    """The interval of a figure of row numbers: its replicates are of copied rows, its jackknife of rows left out."""
    everything = np.arange(COUNT)
    drawn = [mean_of(rows) for rows in copied_rows()]
    without = [mean_of(everything[name != PATIENT]) for name in np.unique(PATIENT)]
    whole = mean_of(everything)
    return Bootstrap(np.array([whole]), np.array(drawn)[:, None], np.array(without)[:, None]).interval(level=0.9)


def close(found: Mean, interval):
    assert found.value == pytest.approx(interval.estimate)
    assert (found.interval.low, found.interval.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert found.interval.level == 0.9
    assert found.interval.low < found.interval.high


def test_means_and_intervals_are_those_of_copied_rows():
    values = VALUES
    found = summariser().means(Scored({"iou": values}), ROWS)
    assert list(found) == [POOLED, MACRO, "A", "B", "C"]
    close(found[POOLED]["iou"], expected(lambda rows: pooled(values[rows], ROWS[rows])))

    def of(rows, finding):
        return pooled(values[rows], ROWS[rows] & (FINDING[rows] == finding))

    for finding in "ABC":
        one = found[finding]["iou"]
        close(one, expected(lambda rows, finding=finding: of(rows, finding)))
        kept = ROWS & (finding == FINDING)
        assert (one.cases, one.patients, one.reason) == (kept.sum(), len(set(PATIENT[kept])), None)
    close(found[MACRO]["iou"], expected(lambda rows: np.nanmean([of(rows, finding) for finding in "ABC"])))
    assert found[MACRO]["iou"].over == ("A", "B", "C")
    assert {found[over]["iou"].cases for over in (POOLED, MACRO)} == {ROWS.sum()}


def test_pooled_and_macro_differ_where_findings_are_not_equally_frequent():
    of = np.array(["A", "A", "A", "B"])
    found = summariser(["p", "q", "r", "s"], of).means(
        Scored({"iou": np.array([0.1, 0.2, 0.3, 0.8])}), np.ones(4, bool)
    )
    assert found[POOLED]["iou"].value == pytest.approx(1.4 / 4)
    assert found[MACRO]["iou"].value == pytest.approx((0.2 + 0.8) / 2)
    assert found[MACRO]["iou"].over == ("A", "B")


def test_what_is_undefined_is_left_out_with_its_reason():
    of = np.array(["A", "A", "B", "B"])
    scored = Scored({"iou": np.array([0.5, np.nan, np.nan, np.nan])}, "no training mark")
    found = summariser(["p", "q", "r", "s"], of).means(scored, np.ones(4, bool))
    assert found["B"]["iou"] == Mean(None, None, 0, 0, "no training mark")
    assert found["C"]["iou"] == Mean(None, None, 0, 0, "no case")
    for over in (POOLED, MACRO, "A"):
        one = found[over]["iou"]
        assert (one.value, one.cases, one.patients) == (0.5, 1, 1)
        assert one.interval is None
        assert one.reason == "one patient has no interval"
    assert found[MACRO]["iou"].over == ("A",)


def test_no_case_at_all():
    found = summariser().means(Scored({"iou": VALUES}), np.zeros(COUNT, bool))
    assert {one["iou"] for one in found.values()} == {Mean(None, None, 0, 0, "no case")}


def test_no_finding_is_defined_for_several_reasons():
    scored = Scored({"iou": np.full(COUNT, np.nan)}, "unknown")
    assert summariser(findings=("A", "X")).means(scored, ROWS)[MACRO]["iou"].reason == "unknown; no case"


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_rate_of_all_or_none_has_its_exact_interval(value):
    rates = {name: np.full(COUNT, value) for name in ("hit", "pointing", "iou")}
    found = summariser().means(Scored(rates), FINDING == "A")["A"]
    patients = len(set(PATIENT[FINDING == "A"]))
    for name in ("hit", "pointing"):
        assert found[name].interval == exact_rate(int(value) * patients, patients, 0.9)
    assert (found["iou"].interval.low, found["iou"].interval.high) == (value, value)
    edge = 0.05 ** (1 / patients)
    wide = found["hit"].interval
    assert (wide.low, wide.high) == pytest.approx((edge, 1) if value else (0, 1 - edge))


def test_a_mean_of_findings_that_cannot_vary_has_no_interval():
    """Rates of 0 and 1, and findings of one patient each, are the same in every replicate."""
    of = np.array(["A", "A", "B", "B"])
    everything = np.ones(4, bool)
    rates = Scored({"hit": np.array([0.0, 0.0, 1.0, 1.0]), "iou": np.array([0.1, 0.2, 0.3, 0.5])})
    many = summariser(["p", "q", "r", "s"], of, ("A", "B")).means(rates, everything)[MACRO]
    assert (many["hit"].value, many["hit"].interval, many["hit"].reason) == (0.5, None, ALL_AT_AN_END)
    assert many["iou"].interval is not None
    each = summariser(["p", "p", "q", "q"], of, ("A", "B")).means(rates, everything)[MACRO]
    assert (each["iou"].interval, each["iou"].reason, each["iou"].patients) == (None, ONE_PATIENT, 2)


def test_a_difference_of_rates_that_is_0_has_none():
    found = summariser().means(Scored({"hit": np.zeros(COUNT)}), ROWS, difference=True)[POOLED]["hit"]
    assert (found.interval.low, found.interval.high) == (0, 0)


def test_the_interval_covers_as_often_as_it_says():
    """A plain bootstrap of independent cases is near the t interval of their mean."""
    values = np.random.default_rng(1).normal(size=200)
    draws = Draws([str(k) for k in range(200)], replicates=2000)
    one = Summariser(draws, ("A",), np.full(200, "A", dtype=object), 0.95).means(Scored({"iou": values}), values < 99)
    expected = stats.t.interval(0.95, 199, values.mean(), stats.sem(values))
    found = one[POOLED]["iou"].interval
    assert (found.low, found.high) == pytest.approx(expected, abs=0.02)


def test_the_difference_is_paired_and_of_what_both_have():
    first = Scored({"iou": np.array([0.5, 0.6, np.nan]), "hit": np.ones(3)}, "a")
    second = Scored({"iou": np.array([0.1, np.nan, 0.2]), "covered": np.ones(3)}, "b")
    found = first.minus(second)
    assert list(found.scores) == ["iou"]
    np.testing.assert_allclose(found.scores["iou"], [0.4, np.nan, np.nan])
    assert found.missing == "a; b"
    assert Scored({}).minus(second).missing == "b"


def test_plain_json():
    one = Mean(0.5, exact_rate(1, 2), 4, 2, None, ("A", "B"))
    assert json.loads(json.dumps(one.to_dict())) == {
        "value": 0.5,
        "cases": 4,
        "patients": 2,
        "interval": exact_rate(1, 2).to_dict(),
        "over": ["A", "B"],
    }
    assert Mean(None, None, 0, 0, "no case").to_dict() == {
        "value": None,
        "cases": 0,
        "patients": 0,
        "reason": "no case",
    }
