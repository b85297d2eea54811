"""The whole assessment of simulated cases: each part is what its own module, or a loop, says."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest
from simulated import FIVE, cases, copied_rows, simulate

from mxa.errors import ConfigError, DataError
from mxa.evaluation import assessment
from mxa.evaluation.assessment import HALF, POOLED, UNCALIBRATED, Assessment, AssessOptions, assess
from mxa.evaluation.assessment_report import numbers
from mxa.evaluation.bands import curve_bands
from mxa.evaluation.bootstrap import ALL_AT_AN_END, ONE_PATIENT, Bootstrap, Draws
from mxa.evaluation.calibration import KINDS, logit_of
from mxa.evaluation.cases import Cases
from mxa.evaluation.comparison import compare
from mxa.evaluation.delong import delong_interval
from mxa.evaluation.measures import measure
from mxa.evaluation.metrics import evaluate, evaluate_probability, sigmoid
from mxa.evaluation.readers import Reader, count_under, reader_points
from mxa.evaluation.scores import reliability
from mxa.evaluation.subgroups import finding_groups, metadata_groups, score_groups
from mxa.evaluation.thresholds import OperatingPoint
from mxa.evaluation.tuning import RULES, Tuning, tune

FOUR = FIVE.findings[:4]
QUICK = AssessOptions(replicates=60, level=0.9, seed=3)


@pytest.fixture(scope="module")
def unseen() -> Cases:
    return simulate(seed=2)


@pytest.fixture(scope="module")
def tuned() -> Tuning:
    return tune(simulate(seed=1))


@pytest.fixture(scope="module")
def found(unseen: Cases, tuned: Tuning) -> Assessment:
    return assess(unseen, QUICK, name="model", tuning=tuned)


def draws_of(one: Cases) -> Draws:
    return Draws(one.patient, replicates=60, seed=3)


def test_the_papers_figures_are_those_of_metrics(unseen: Cases, found: Assessment) -> None:
    one = unseen
    assert found.evaluation == evaluate(one.logit, one.target, one.mask, FIVE)
    without = replace(one, logit=None)
    assert assess(without, QUICK, name="m").evaluation == evaluate_probability(
        one.probability, one.target, one.mask, FIVE
    )
    assert (found.name, found.patients) == ("model", len(set(one.patient)))
    assert found.cases is one


def test_the_operating_point_that_decides(unseen: Cases, tuned: Tuning, found: Assessment) -> None:
    assert found.operating_point == "youden"
    np.testing.assert_array_equal(found.thresholds, tuned.point("youden").array())
    assert np.isnan(found.thresholds[4])
    untuned = assess(unseen, QUICK, name="m")
    assert untuned.operating_point == HALF
    assert untuned.thresholds.tolist() == [0.5] * 5
    assert untuned.tuning == Tuning()
    assert set(untuned.at_points) == {HALF}
    for name in (HALF, "specificity=0.9"):
        chosen = assess(unseen, replace(QUICK, operating_point=name), name="m", tuning=tuned)
        assert chosen.operating_point == name
        assert chosen.measures == chosen.at_points[name] == found.at_points[name]
    other = tune(simulate(seed=1), rules=["f1"])
    assert assess(unseen, QUICK, name="m", tuning=other).operating_point == HALF, "youden was not chosen"
    for tuning in (tuned, None):
        with pytest.raises(ConfigError, match=r"no operating point 'Youden'"):
            assess(unseen, replace(QUICK, operating_point="Youden"), name="m", tuning=tuning)


def test_figures_at_each_operating_point(unseen: Cases, tuned: Tuning, found: Assessment) -> None:
    assert set(found.at_points) == {HALF, *RULES}
    assert found.at_points[HALF] == measure(unseen, np.full(5, 0.5))
    why = {"Hernia": "no threshold: no positives on validation"}
    for rule in RULES:
        assert found.at_points[rule] == measure(unseen, tuned.point(rule).array(), why)
    assert found.measures == found.at_points["youden"]
    assert found.measures.findings["Hernia"]["specificity"].reason == why["Hernia"]
    rates = assess(unseen, replace(QUICK, at_specificity=0.8, at_sensitivity=0.7), name="m").measures
    assert rates == measure(unseen, np.full(5, 0.5), at_specificity=0.8, at_sensitivity=0.7)


def test_findings_unknown_to_validation_have_no_threshold(unseen: Cases) -> None:
    known = ("Support Devices", "Cardiomegaly", "No Finding")  # in another order, and without Edema and Hernia
    point = OperatingPoint("youden", known, (0.1, None, 0.7), {"Cardiomegaly": "no negatives"})
    one = assess(unseen, QUICK, name="m", tuning=Tuning({"youden": point}))
    np.testing.assert_array_equal(one.thresholds, [0.7, np.nan, np.nan, 0.1, np.nan])
    reasons = {name: row["f1"].reason for name, row in one.measures.findings.items()}
    unknown = "no threshold: not annotated on validation"
    assert reasons == {
        "No Finding": None,
        "Cardiomegaly": "no threshold: no negatives on validation",
        "Edema": unknown,
        "Support Devices": None,
        "Hernia": unknown,
    }
    for name in ("Cardiomegaly", "Edema", "Hernia"):
        assert one.sensitivity.findings[name] is one.specificity.findings[name] is None
    assert one.measures.macro["sensitivity"].over == ("No Finding", "Support Devices")


def test_intervals_are_the_bootstraps(unseen: Cases, found: Assessment) -> None:
    one, draws = unseen, draws_of(unseen)
    areas = draws.auroc(one.logit, one.target, one.mask)
    precisions = draws.average_precision(one.logit, one.target, one.mask)
    for j, name in enumerate(FIVE):
        assert found.auroc.findings[name] == areas.interval(j, 0.9)
        assert found.average_precision.findings[name] == precisions.interval(j, 0.9, "percentile")
    assert found.auroc.macro == areas.macro().interval(0, 0.9)
    assert found.average_precision.macro == precisions.macro().interval(0, 0.9, "percentile")
    assert found.auroc_micro == draws.auroc_micro(one.logit, one.target, one.mask).interval(0, 0.9)
    assert found.auroc.findings["Hernia"] is None
    assert found.auroc.macro.estimate == pytest.approx(found.evaluation.auroc_macro, abs=1e-12)
    assert found.auroc_micro.estimate == pytest.approx(found.evaluation.auroc_micro, abs=1e-12)
    for intervals, key in (
        (found.auroc, "auroc"),
        (found.average_precision, "average_precision"),
        (found.sensitivity, "sensitivity"),
        (found.specificity, "specificity"),
    ):
        values = {name: None if v is None else v.estimate for name, v in intervals.findings.items()}
        expected = {name: row[key].value for name, row in found.measures.findings.items()}
        assert values == pytest.approx(expected, abs=1e-12), key
        assert intervals.macro.estimate == pytest.approx(found.measures.macro[key].value, abs=1e-12)
        assert found.measures.macro[key].over == FOUR
        assert intervals.to_dict()["findings"]["Hernia"] is None


def test_intervals_of_sensitivity_and_specificity_by_hand(unseen: Cases, found: Assessment) -> None:
    one, j = unseen, 1

    def rate(rows: np.ndarray, truth: int) -> float:
        kept = rows[one.mask[rows, j] & (one.target[rows, j] == truth)]
        called = one.probability[kept, j] > found.thresholds[j]
        return called.mean() if truth else (~called).mean()

    for truth, intervals in ((1, found.sensitivity), (0, found.specificity)):
        drawn = [rate(rows, truth) for rows in copied_rows(one.patient, 3, 60, range(60))]
        left = [rate(np.flatnonzero(np.array(one.patient) != name), truth) for name in np.unique(one.patient)]
        whole = Bootstrap(np.array([rate(np.arange(300), truth)]), np.array(drawn)[:, None], np.array(left)[:, None])
        assert intervals.findings["Cardiomegaly"].to_dict() == pytest.approx(whole.interval(0, 0.9).to_dict())


def test_delong_where_there_are_two_of_each(unseen: Cases, found: Assessment) -> None:
    for j, name in enumerate(FOUR):
        kept = unseen.mask[:, j]
        assert found.delong[name] == delong_interval(unseen.logit[kept, j], unseen.target[kept, j], 0.9)
    assert found.delong["Hernia"] is None
    rare = unseen.target.copy()
    rare[:, 1] = 0
    rare[np.flatnonzero(unseen.mask[:, 1])[0], 1] = 1
    one = assess(replace(unseen, target=rare), QUICK, name="m")
    assert one.delong["Cardiomegaly"] is None
    assert one.auroc.findings["Cardiomegaly"] is not None


def test_bands_are_of_a_few_hundred_draws(unseen: Cases, found: Assessment, monkeypatch: pytest.MonkeyPatch) -> None:
    one = unseen

    def assert_bands(bands, replicates: int) -> None:
        draws = Draws(one.patient, replicates=replicates, seed=3)
        expected = curve_bands(draws, one.logit, one.target, one.mask, 0.9)
        for name, band in zip(FOUR, expected, strict=False):
            np.testing.assert_array_equal(bands[name].roc, band.roc)
            np.testing.assert_array_equal(bands[name].pr, band.pr)
        assert bands["Hernia"] is None

    assert_bands(found.bands, 60)
    monkeypatch.setattr(assessment, "BAND_REPLICATES", 20)
    assert_bands(assess(one, QUICK, name="m").bands, 20)


def test_calibrations(unseen: Cases, tuned: Tuning, found: Assessment) -> None:
    one = unseen
    assert tuple(found.calibrations) == (UNCALIBRATED, *KINDS) == ("as given", *KINDS)
    assert found.calibrations[UNCALIBRATED] == found.at_points[HALF]
    for kind in KINDS:
        probability = tuned.calibrations[kind].apply(one.logit)
        expected = cases(None, one.target, one.mask, patient=one.patient, probability=probability)
        assert found.calibrations[kind] == measure(expected, np.full(5, 0.5))
        kept = one.mask[:, 2]
        diagram = reliability(probability[kept, 2], one.target[kept, 2])
        np.testing.assert_array_equal(found.diagrams["Edema"][kind].observed, diagram.observed)
        pooled = reliability(probability[one.mask], one.target[one.mask])
        np.testing.assert_array_equal(found.diagrams[POOLED][kind].predicted, pooled.predicted)
        assert found.diagrams[POOLED][kind].count.sum() == one.mask.sum()
    assert list(found.diagrams) == [POOLED, *FIVE]
    assert set(found.diagrams["Edema"]) == {UNCALIBRATED, *KINDS}
    plain = reliability(one.probability[one.mask[:, 2], 2], one.target[one.mask[:, 2], 2])
    np.testing.assert_array_equal(found.diagrams["Edema"][UNCALIBRATED].observed, plain.observed)


def test_calibrations_find_their_columns_by_name(unseen: Cases, tuned: Tuning, found: Assessment) -> None:
    """Cases with some of the findings in another order, and probabilities alone."""
    order = [3, 1]
    some = replace(FIVE, name="some", findings=("Support Devices", "Cardiomegaly"), codes=("S", "C"))
    taken = {name: getattr(unseen, name)[:, order] for name in ("probability", "target", "mask")}
    one = assess(replace(unseen, labels=some, logit=None, **taken), QUICK, name="m", tuning=tuned)
    for kind in (UNCALIBRATED, *KINDS):
        for name in some:
            expected = found.calibrations[kind].findings[name]["brier"].value
            assert one.calibrations[kind].findings[name]["brier"].value == pytest.approx(expected, abs=1e-9)
    assert one.groups[0].underdiagnosis is None


def test_certain_probabilities_can_be_calibrated(unseen: Cases, tuned: Tuning) -> None:
    sure = replace(unseen, logit=None, probability=np.round(unseen.probability))
    assert np.isinf(logit_of(sure.probability)).all()
    one = assess(sure, QUICK, name="m", tuning=tuned)
    assert set(one.calibrations) == {UNCALIBRATED, *KINDS}
    assert one.measures.findings["Edema"]["log_loss"].reason.startswith("infinite: ")
    assert one.evaluation.reasons["loss"].startswith("infinite: ")


def test_cooccurrence_against_a_loop(unseen: Cases, found: Assessment) -> None:
    one = unseen
    assert found.cooccurrence.shape == (2, 5, 5)
    for i in range(5):
        for j in range(5):
            rows = [k for k in range(300) if one.mask[k, i] and one.target[k, i] == 1 and one.mask[k, j]]
            true = [one.target[k, j] == 1 for k in rows]
            called = [one.probability[k, j] > found.thresholds[j] for k in rows]
            shares = (np.mean(true), np.mean(called)) if rows else (np.nan, np.nan)
            if np.isnan(found.thresholds[j]):
                shares = (shares[0], np.nan)
            np.testing.assert_allclose(found.cooccurrence[:, i, j], shares, atol=1e-12)
    assert np.isnan(found.cooccurrence[:, 4]).all(), "Hernia never occurs"
    assert (np.diag(found.cooccurrence[0])[:4] == 1).all()


def test_groups_and_strata(unseen: Cases, found: Assessment) -> None:
    one, draws = unseen, draws_of(unseen)

    def scored(groups, thresholds=found.thresholds, minimum: int = 10) -> list[dict]:
        return [g.to_dict() for g in score_groups(one, groups, draws, thresholds, minimum=minimum, level=0.9)]

    assert [group.to_dict() for group in found.groups] == scored(metadata_groups(one))
    assert [group.to_dict() for group in found.strata] == scored(finding_groups(one, ["Support Devices"]))
    other = replace(QUICK, subgroups=["site", "age"], age_bands=[50.0], strata=["Edema + Cardiomegaly"], min_count=3)
    mine = assess(one, other, name="m")
    half = np.full(5, 0.5)
    expected = scored(metadata_groups(one, ["site", "age"], [50.0]), half, 3)
    assert [group.to_dict() for group in mine.groups] == expected
    assert [group.to_dict() for group in mine.strata] == scored(finding_groups(one, other.strata), half, 3)
    bare = assess(one, replace(QUICK, subgroups=[], strata=[]), name="m")
    assert bare.groups == bare.strata == []
    hidden = one.mask.copy()
    hidden[:, 3] = False
    assert assess(replace(one, mask=hidden), QUICK, name="m").strata == [], "Support Devices is not annotated"


def test_readers_and_another_model(unseen: Cases) -> None:
    one = unseen
    rng = np.random.default_rng(0)
    read = rng.random((300, 5)) < 0.9
    decision = read & (rng.random((300, 5)) < np.where(one.target == 1, 0.8, 0.2))
    readers = [Reader(name, one.key, "image", decision, read, FIVE, "r.csv") for name in ("R1", "R2")]
    logit = one.logit + rng.normal(size=one.logit.shape)
    other = replace(one, logit=logit, probability=sigmoid(logit))
    mine = assess(one, QUICK, name="first", against=("second", other), readers=readers)
    assert mine.readers == {reader.name: reader_points(reader, one) for reader in readers}
    assert mine.under == count_under(list(mine.readers.values()))
    assert mine.comparison == compare(one, other, draws_of(one), ("first", "second"), 0.9)
    alone = assess(one, QUICK, name="first")
    assert alone.comparison is None
    assert alone.readers == alone.under == {}
    with pytest.raises(DataError, match=r"first and second are not of the same cases"):
        assess(one, QUICK, name="first", against=("second", other.take(np.arange(299))))


def test_the_seed_decides_everything(unseen: Cases, tuned: Tuning, found: Assessment) -> None:
    again = assess(unseen, QUICK, name="model", tuning=tuned)
    text = json.dumps(numbers(found), allow_nan=False)
    assert json.dumps(numbers(again), allow_nan=False) == text
    np.testing.assert_array_equal(again.bands["Edema"].roc, found.bands["Edema"].roc)
    other = assess(unseen, replace(QUICK, seed=4), name="model", tuning=tuned)
    assert other.auroc.findings["Edema"] != found.auroc.findings["Edema"]
    assert other.measures == found.measures


def test_what_is_masked_never_matters(unseen: Cases, tuned: Tuning, found: Assessment) -> None:
    one = unseen
    rng = np.random.default_rng(0)
    other = replace(
        one,
        target=np.where(one.mask, one.target, rng.integers(0, 2, one.mask.shape)),
        logit=np.where(one.mask, one.logit, 30 * rng.normal(size=one.mask.shape)),
        probability=np.where(one.mask, one.probability, rng.random(one.mask.shape)),
    )
    mine = assess(other, QUICK, name="model", tuning=tuned)
    assert numbers(mine) == numbers(found)
    np.testing.assert_array_equal(mine.cooccurrence, found.cooccurrence)
    np.testing.assert_array_equal(mine.bands["Edema"].pr, found.bands["Edema"].pr)


def test_nothing_to_score_is_an_error(unseen: Cases) -> None:
    with pytest.raises(DataError, match=r"nothing to evaluate"):
        assess(replace(unseen, mask=np.zeros_like(unseen.mask)), QUICK, name="m")


@pytest.mark.parametrize("level", [0, 1, 95, -0.5, float("nan")])
def test_an_impossible_level_is_refused(level: float) -> None:
    with pytest.raises(ConfigError, match=r"between 0 and 1"):
        AssessOptions(level=level)


@pytest.mark.parametrize("option", [{"replicates": 0}, {"min_count": 0}, {"seed": -1}])
def test_impossible_numbers_are_refused(option: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"at least 1"):
        AssessOptions(**option)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"subgroups": ["ward"]}, r"no column ward"),
        ({"strata": ["Oedema"]}, r"no finding 'Oedema'"),
    ],
)
def test_options_that_do_not_fit_the_cases_are_refused(unseen: Cases, option: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        assess(unseen, replace(QUICK, **option), name="m")


def test_a_rate_of_0_or_1_has_the_exact_interval_with_a_trial_per_patient(unseen: Cases) -> None:
    """In every replicate it is the same, which says nothing of how sure it is."""
    sure = replace(unseen, probability=np.where(unseen.target == 1, 0.9, 0.6), logit=None)
    found = assess(sure, QUICK, name="m")
    for j, name in enumerate(unseen.labels):
        truth, kept = unseen.target[:, j], unseen.mask[:, j]
        for rate, rows, hits in (
            (found.sensitivity, kept & (truth == 1), 1),
            (found.specificity, kept & (truth == 0), 0),
        ):
            n = len({patient for patient, one in zip(unseen.patient, rows, strict=True) if one})
            interval = rate.findings[name]
            if n == 0:
                assert interval is None
                continue
            expected = binomtest(hits * n, n).proportion_ci(0.9, method="exact")
            assert interval is not None
            assert (interval.estimate, interval.low, interval.high) == pytest.approx(
                (hits, expected.low, expected.high)
            )


def test_too_few_replicates_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"replicates must be at least 20"):
        AssessOptions(replicates=19)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"at_specificity": 95.0}, r"at_specificity is 95\.0; give a number in \[0, 1\]"),
        ({"at_sensitivity": float("nan")}, r"at_sensitivity is nan"),
        ({"age_bands": [50.0, 20.0]}, r"age bands must ascend, got \[50\.0, 20\.0\]; give lower ends in years"),
        ({"age_bands": []}, r"age bands must ascend"),
        ({"age_bands": [float("nan")]}, r"age bands must ascend, got \[nan\]"),
        ({"age_bands": [0.0, float("inf")]}, r"age bands must ascend"),
        ({"subgroups": ["sex", "age", "sex"]}, r"subgroups names sex twice; name each once"),
        ({"strata": ["Edema", "Edema"]}, r"strata names Edema twice; name each once"),
    ],
)
def test_wishes_that_cannot_work_are_refused_at_once(option: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AssessOptions(**option)


def test_cases_of_one_patient_have_no_interval(unseen: Cases) -> None:
    """All figures stand without one, and say why; only a rate of 0 or 1 has the exact one of a single trial."""
    found = assess(replace(unseen, patient=("one",) * len(unseen)), QUICK, name="m")
    for one, key in (
        (found.auroc, "auroc"),
        (found.average_precision, "average_precision"),
        (found.sensitivity, "sensitivity"),
        (found.specificity, "specificity"),
    ):
        within = [name for name in unseen.labels if found.measures.findings[name][key].value not in (None, 0, 1)]
        assert len(within) >= 3
        assert {one.findings[name] for name in within} == {None}
        assert one.reasons == dict.fromkeys(within, ONE_PATIENT)
        assert (one.macro, one.macro_reason) == (None, ONE_PATIENT)
    assert (found.auroc_micro, found.auroc_micro_reason) == (None, ONE_PATIENT)
    assert set(found.bands.values()) == {None}
    stored = json.loads(json.dumps(numbers(found), allow_nan=False))["intervals"]
    assert stored["auroc"]["reasons"]["Edema"] == stored["auroc"]["macro_reason"] == ONE_PATIENT
    assert stored["auroc_micro_reason"] == ONE_PATIENT


def test_positives_of_one_patient_leave_a_sensitivity_without_interval(unseen: Cases) -> None:
    kept = unseen.mask[:, 2]
    ill = kept & (unseen.target[:, 2] == 1)
    patient = tuple("one" if one else name for name, one in zip(unseen.patient, ill, strict=True))
    found = assess(replace(unseen, patient=patient), QUICK, name="m")
    assert 0 < found.measures.findings["Edema"]["sensitivity"].value < 1
    assert (found.sensitivity.findings["Edema"], found.sensitivity.reasons["Edema"]) == (None, ONE_PATIENT)
    assert found.specificity.findings["Edema"] is not None
    assert found.sensitivity.macro is not None, "the other findings vary"


def test_a_mean_of_rates_at_an_end_has_no_interval(unseen: Cases) -> None:
    never = replace(unseen, probability=unseen.probability * 0.4, logit=None)
    found = assess(never, QUICK, name="m")
    assert found.measures.macro["sensitivity"].value == 0
    for one in (found.sensitivity, found.specificity):
        assert (one.macro, one.macro_reason) == (None, ALL_AT_AN_END)
    assert found.sensitivity.findings["Edema"].high > 0
    once = never.probability.copy()
    once[np.flatnonzero(unseen.mask[:, 2] & (unseen.target[:, 2] == 1))[:9], 2] = 0.9
    found = assess(replace(never, probability=once), QUICK, name="m")
    assert found.sensitivity.macro is not None, "a finding's varies"
    assert found.sensitivity.macro_reason is None
