"""What is chosen on validation data keeps its promises there, and survives being stored."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from simulated import FIVE, cases, simulate
from sklearn.metrics import log_loss

from mxa.errors import ArtifactError, ConfigError, DataError
from mxa.evaluation import calibration
from mxa.evaluation.cases import Cases
from mxa.evaluation.metrics import sigmoid
from mxa.evaluation.tuning import RULES, Tuning, stored_tuning, tune
from mxa.labels import LabelSet

FOUR = FIVE.findings[:4]


@pytest.fixture(scope="module")
def valid() -> Cases:
    """Of a model that is too sure."""
    one = simulate(400, 200, seed=1)
    return replace(one, logit=2 * one.logit, probability=sigmoid(2 * one.logit))


@pytest.fixture(scope="module")
def tuned(valid: Cases) -> Tuning:
    return tune(valid, fitted_on={"dataset": "simulated", "images": 400})


def rates(one: Cases, j: int, threshold: float) -> tuple[float, float, float]:
    """Sensitivity, specificity and F1."""
    kept = one.mask[:, j]
    called, truth = one.probability[kept, j] > threshold, one.target[kept, j] == 1
    tp, fp, fn = (called & truth).sum(), (called & ~truth).sum(), (~called & truth).sum()
    return tp / truth.sum(), (~called & ~truth).sum() / (~truth).sum(), 2 * tp / (2 * tp + fp + fn)


def test_operating_points_reach_what_they_promise(valid: Cases, tuned: Tuning) -> None:
    assert tuple(tuned.operating_points) == RULES
    for j, name in enumerate(FOUR):
        cuts = [-1.0, *np.unique(valid.probability[valid.mask[:, j], j])]
        possible = np.array([rates(valid, j, cut) for cut in cuts])
        at = {rule: rates(valid, j, tuned.point(rule).array()[j]) for rule in RULES}
        sensitivity, specificity, f1 = possible.T
        assert at["sensitivity=0.9"][0] >= 0.9, name
        assert at["sensitivity=0.9"][1] == specificity[sensitivity >= 0.9].max()
        assert at["specificity=0.9"][1] >= 0.9, name
        assert at["specificity=0.9"][0] == sensitivity[specificity >= 0.9].max()
        assert sum(at["youden"][:2]) == pytest.approx((sensitivity + specificity).max(), abs=1e-12)
        assert at["f1"][2] == pytest.approx(f1.max(), abs=1e-12)
    for rule in RULES:
        assert tuned.point(rule).reasons == {"Hernia": "no positives"}
        assert np.isnan(tuned.point(rule).array()[4])


def test_calibrations_lower_the_loss_of_the_data_that_they_are_fitted_on(valid: Cases, tuned: Tuning) -> None:
    assert tuple(tuned.calibrations) == calibration.KINDS
    kept = valid.mask.copy()
    kept[:, 4] = False  # without positives nothing can be fitted

    def loss(probability: np.ndarray) -> float:
        return log_loss(valid.target[kept], probability[kept])

    for kind, one in tuned.calibrations.items():
        assert one.kind == kind
        assert one.findings == FIVE.findings
        assert one.reasons == {"Hernia": "no positives"}
        assert loss(one.apply(valid.logit)) < loss(valid.probability) - 0.01
        assert one == calibration.fit(kind, valid.logit, valid.target, valid.mask, FIVE)


def test_probabilities_alone_are_enough(valid: Cases, tuned: Tuning) -> None:
    found = tune(replace(valid, logit=None))
    assert found.operating_points == tuned.operating_points
    for kind, one in tuned.calibrations.items():
        np.testing.assert_allclose(found.calibrations[kind].apply(valid.logit), one.apply(valid.logit), atol=1e-6)


def test_certain_probabilities_still_have_operating_points() -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, (40, 5)).astype(float)
    probability = np.where(rng.random((40, 5)) < 0.8, target, 0.5)
    found = tune(cases(None, target, probability=probability))
    assert len(found.operating_points) == len(RULES)
    assert set(found.calibrations["platt"].reasons) == set(FIVE)
    assert found.calibrations["isotonic"].reasons == {}


def test_masked_elements_never_matter(valid: Cases, tuned: Tuning) -> None:
    rng = np.random.default_rng(0)
    other = replace(
        valid,
        target=np.where(valid.mask, valid.target, rng.integers(0, 2, valid.mask.shape)),
        logit=np.where(valid.mask, valid.logit, 50.0),
        probability=np.where(valid.mask, valid.probability, 1.0),
    )
    assert tune(other, fitted_on=tuned.fitted_on) == tuned


def test_only_what_is_asked_for_is_chosen(valid: Cases) -> None:
    found = tune(valid, rules=["cost=5", "sensitivity=0.90"], kinds=["platt"])
    assert list(found.operating_points) == ["cost=5", "sensitivity=0.9"], "named as their rule is written"
    assert list(found.calibrations) == ["platt"]
    assert found.fitted_on == {}
    with pytest.raises(ConfigError, match=r"'magic' is none of youden"):
        tune(valid, rules=["magic"])
    with pytest.raises(ConfigError, match=r"no calibration is called 'magic'"):
        tune(valid, kinds=["magic"])


def test_a_round_trip_through_json(valid: Cases, tuned: Tuning) -> None:
    stored = json.loads(json.dumps(tuned.to_dict(), allow_nan=False))
    back = Tuning.from_dict(stored, FIVE)
    assert back == tuned
    assert back.to_dict() == tuned.to_dict()
    assert back.fitted_on == {"dataset": "simulated", "images": 400}
    for kind in calibration.KINDS:
        np.testing.assert_array_equal(
            back.calibrations[kind].apply(valid.logit), tuned.calibrations[kind].apply(valid.logit)
        )


def test_a_model_without_any() -> None:
    assert Tuning.from_dict({}, FIVE) == Tuning()
    assert Tuning.from_dict(Tuning().to_dict(), FIVE) == Tuning()


@pytest.mark.parametrize("part", ["operating_points", "calibrations"])
def test_other_findings_are_refused(tuned: Tuning, part: str) -> None:
    stored = tuned.to_dict()
    alone = {"operating_points": {}, "calibrations": {}, "fitted_on": {}} | {part: stored[part]}
    for findings in (FIVE.findings[:4], FIVE.findings[::-1], tuple("abcde")):
        other = LabelSet("other", findings, tuple(f"c{k}" for k in range(len(findings))))
        with pytest.raises(ConfigError, match=r"the stored (youden|temperature) is not of the findings"):
            Tuning.from_dict(alone, other)
    assert Tuning.from_dict(alone, FIVE)


def put(value: object, *path: str):
    """Changes one place of the stored mapping."""

    def change(stored: dict) -> None:
        place = stored
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "garble",
    [
        lambda stored: stored.pop("operating_points"),
        lambda stored: stored.pop("calibrations"),
        lambda stored: stored.pop("fitted_on"),
        put(None, "operating_points"),
        put([], "operating_points"),
        put("youden", "calibrations"),
        put(3, "fitted_on"),
        put(["ab", 1], "fitted_on"),
        put(None, "operating_points", "youden"),
        put({}, "operating_points", "youden"),
        put("magic", "operating_points", "youden", "rule"),
        put("f1", "operating_points", "youden", "rule"),
        put(2.0, "operating_points", "youden", "thresholds", "Edema"),
        put("0.5", "operating_points", "youden", "thresholds", "Edema"),
        put(None, "operating_points", "youden", "thresholds", "Edema"),
        put({}, "operating_points", "youden", "reasons"),
        put("platt", "calibrations", "temperature", "kind"),
        put(["platt"], "calibrations", "platt", "kind"),
        put(None, "calibrations", "platt", "curves"),
        put({"slope": -1.0, "intercept": 0.0}, "calibrations", "platt", "curves", "Edema"),
        put({"slope": 1.0}, "calibrations", "platt", "curves", "Edema"),
        put([], "calibrations", "isotonic"),
    ],
)
def test_what_is_garbled_is_refused(tuned: Tuning, garble) -> None:
    stored = copy.deepcopy(tuned.to_dict())
    garble(stored)
    with pytest.raises(ConfigError):
        Tuning.from_dict(stored, FIVE)


def test_calibrations_under_each_others_names_are_refused(tuned: Tuning) -> None:
    stored = tuned.to_dict()
    kinds = stored["calibrations"]
    kinds["platt"], kinds["isotonic"] = kinds["isotonic"], kinds["platt"]
    with pytest.raises(ConfigError, match=r"'platt' holds 'isotonic', 'isotonic' holds 'platt'"):
        Tuning.from_dict(stored, FIVE)


def test_an_unknown_operating_point_lists_those_there_are(tuned: Tuning) -> None:
    assert tuned.point("f1") is tuned.operating_points["f1"]
    with pytest.raises(ConfigError, match=r"'F1'.*there are: youden, f1, sensitivity=0\.9, specificity=0\.9$"):
        tuned.point("F1")
    with pytest.raises(ConfigError, match=r"there are: none$"):
        Tuning().point("youden")


def test_what_predictions_use_is_among_what_there_is(tuned: Tuning) -> None:
    used = tuned.using("youden", "platt")
    assert Tuning.from_dict(used.to_dict(), FIVE) == used
    assert (tuned.operating_point, tuned.calibration) == ("", "")
    older = {key: value for key, value in tuned.to_dict().items() if key not in {"operating_point", "calibration"}}
    assert Tuning.from_dict(older, FIVE) == tuned
    with pytest.raises(ConfigError, match="no operating point 'nonsense'"):
        tuned.using("nonsense")
    with pytest.raises(ConfigError, match="no calibration 'nonsense'"):
        Tuning.from_dict({**tuned.to_dict(), "calibration": "nonsense"}, FIVE)


def test_nothing_annotated_chooses_nothing(valid: Cases) -> None:
    with pytest.raises(DataError, match=r"nothing is annotated on the validation data.*--policy\.uncertain"):
        tune(replace(valid, mask=np.zeros_like(valid.mask)))


def test_what_a_model_holds_is_the_models_fault(tuned: Tuning) -> None:
    assert stored_tuning(tuned.to_dict(), FIVE, Path("m")).operating_points == tuned.operating_points
    with pytest.raises(ArtifactError, match=r"^m: the stored operating points .* are garbled .*`mxa calibrate`$"):
        stored_tuning({"operating_points": {}}, FIVE, Path("m"))
