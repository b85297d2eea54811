"""Two models compared: against the bootstrap by hand, DeLong, Holm, and simulated models that are equally good."""

import json
from dataclasses import replace

import numpy as np
import pytest
from simulated import FIVE, cases, simulate
from sklearn.metrics import roc_auc_score

from mxa.errors import DataError
from mxa.evaluation.bootstrap import ONE_PATIENT, Bootstrap, Draws
from mxa.evaluation.cases import Cases
from mxa.evaluation.comparison import compare
from mxa.evaluation.delong import delong_difference
from mxa.evaluation.metrics import sigmoid
from mxa.labels import LabelSet

NAMES = ("one", "two")
FOUR = FIVE.findings[:4]
TWO = LabelSet("two", ("A", "B"), ("a", "b"))


def draws_of(one: Cases, replicates: int = 200) -> Draws:
    return Draws(one.patient, replicates=replicates, seed=3)


def rescored(one: Cases, seed: int = 9, noise: float = 0.5) -> Cases:
    """Another model's predictions of the same cases."""
    logit = one.logit + noise * np.random.default_rng(seed).normal(size=one.logit.shape)
    return replace(one, logit=logit, probability=sigmoid(logit))


def holm_by_hand(p: list[float]) -> list[float]:
    """The smallest p times their number, the next times one less and so on, never falling and at most 1."""
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, p[i] * (len(p) - rank)))
        adjusted[i] = highest
    return adjusted


def test_a_comparison_by_hand() -> None:
    one = simulate()
    two = rescored(one)
    found = compare(one, two, draws_of(one), NAMES, 0.9)
    areas = [draws_of(one).auroc(side.logit, side.target, side.mask) for side in (one, two)]
    difference = Bootstrap(
        areas[0].estimate - areas[1].estimate,
        areas[0].replicates - areas[1].replicates,
        areas[0].jackknife - areas[1].jackknife,
    )
    delongs = []
    for j, name in enumerate(FOUR):
        kept = one.mask[:, j]
        truth = one.target[kept, j]
        figure = found.findings[name]
        assert figure.first == pytest.approx(roc_auc_score(truth, one.logit[kept, j]), abs=1e-12)
        assert figure.second == pytest.approx(roc_auc_score(truth, two.logit[kept, j]), abs=1e-12)
        assert figure.bootstrap == difference.interval(j, 0.9)
        delongs.append(delong_difference(one.logit[kept, j], two.logit[kept, j], truth, 0.9))
        assert figure.delong == delongs[-1][0]
        assert figure.reason is None
    for column, p in (
        ("p_bootstrap", [difference.p_value(j) for j in range(4)]),
        ("p_delong", [d[1] for d in delongs]),
    ):
        pairs = [getattr(found.findings[name], column) for name in FOUR]
        assert [pair[0] for pair in pairs] == p
        assert [pair[1] for pair in pairs] == pytest.approx(holm_by_hand(p))
    assert found.findings["Hernia"].reason == "no positives"
    assert found.findings["Hernia"].bootstrap is found.findings["Hernia"].p_delong is None
    assert found.macro_over == FOUR
    macro = Bootstrap(
        difference.estimate[:4].mean(keepdims=True),
        difference.replicates[:, :4].mean(axis=1, keepdims=True),
        difference.jackknife[:, :4].mean(axis=1, keepdims=True),
    )
    assert found.macro.to_dict() == pytest.approx(macro.interval(0, 0.9).to_dict(), abs=1e-12)
    assert found.p_macro == macro.p_value()
    assert (found.first, found.second) == NAMES


def test_the_other_way_round_turns_the_sign() -> None:
    one = simulate()
    two = rescored(one)
    up, down = compare(one, two, draws_of(one), NAMES), compare(two, one, draws_of(one), NAMES)
    for a, b in zip([*up.findings.values(), up], [*down.findings.values(), down], strict=True):
        here, there = (x.macro if x in (up, down) else x.bootstrap for x in (a, b))
        if here is not None:
            assert (here.estimate, here.low, here.high) == pytest.approx((-there.estimate, -there.high, -there.low))
    assert up.p_macro == down.p_macro
    assert up.findings["Edema"].p_bootstrap == down.findings["Edema"].p_bootstrap


def test_equal_models_do_not_differ() -> None:
    """The other model's logits are a rising function of the first's."""
    one = simulate()
    found = compare(one, replace(one, logit=3 * one.logit - 2), draws_of(one), NAMES)
    for name in FOUR:
        figure = found.findings[name]
        for interval in (figure.bootstrap, figure.delong):
            assert (interval.estimate, interval.low, interval.high) == (0, 0, 0)
        assert figure.p_bootstrap == figure.p_delong == (1.0, 1.0)
    assert (found.macro.estimate, found.macro.low, found.macro.high, found.p_macro) == (0, 0, 0, 1)


def test_findings_are_matched_by_name() -> None:
    one = simulate()
    order = [3, 1, 2]
    part = LabelSet("part", tuple(FIVE.findings[j] for j in order), ("S", "C", "E"))
    two = rescored(one)
    taken = {name: getattr(two, name)[:, order] for name in ("probability", "target", "mask", "logit")}
    found = compare(one, replace(two, labels=part, **taken), draws_of(one), NAMES)
    whole = compare(one, two, draws_of(one), NAMES)
    assert tuple(found.findings) == found.macro_over == ("Cardiomegaly", "Edema", "Support Devices")
    for name in found.findings:
        assert found.findings[name].bootstrap == whole.findings[name].bootstrap


def test_what_is_undefined_says_why() -> None:
    rng = np.random.default_rng(0)
    target, mask = rng.integers(0, 2, (30, 5)).astype(float), np.ones((30, 5), dtype=bool)
    target[:, 0], target[:, 1], mask[:, 2] = 0, 1, False
    target[:, 3] = np.arange(30) == 4
    one = cases(rng.normal(size=(30, 5)), target, mask)
    found = compare(one, rescored(one), draws_of(one), NAMES)
    reasons = [figure.reason for figure in found.findings.values()]
    few = "DeLong's method needs two positives and two negatives"
    assert reasons == ["no positives", "no negatives", "not annotated", few, None]
    single = found.findings["Support Devices"]
    assert single.bootstrap is not None
    assert single.delong is single.p_delong is None
    assert found.macro_over == FIVE.findings[3:]
    assert found.findings["Hernia"].p_delong[1] == found.findings["Hernia"].p_delong[0], "corrected over one"
    nothing = cases(np.zeros((3, 5)), np.zeros((3, 5)))
    empty = compare(nothing, nothing, draws_of(nothing), NAMES)
    assert empty.macro is empty.p_macro is None
    assert empty.macro_over == ()
    assert empty.to_dict()["macro"] is None


def test_patients_with_several_cases_are_noticed() -> None:
    one = simulate()
    assert compare(one, rescored(one), draws_of(one, 5), NAMES).clustered
    alone = replace(one, patient=one.key)
    assert not compare(alone, rescored(alone), draws_of(alone, 5), NAMES).clustered


def test_different_cases_labels_or_findings_are_refused() -> None:
    one = simulate()
    draws = draws_of(one, 5)
    with pytest.raises(
        DataError, match=r"one and two are not of the same cases.*first to differ are 0\.png and 1\.png"
    ):
        compare(one, one.take([1, 0, *range(2, 300)]), draws, NAMES)
    with pytest.raises(DataError, match=r"not of the same cases.*there are 300 and 299"):
        compare(one, one.take(np.arange(299)), draws, NAMES)
    row, column = np.argwhere(one.mask)[7]
    where = rf"{FIVE.findings[column]} of {row}\.png"
    target, mask = one.target.copy(), one.mask.copy()
    target[row, column] = 1 - target[row, column]
    with pytest.raises(DataError, match=rf"different labels: 1 differ, the first is {where}"):
        compare(one, replace(one, target=target), draws, NAMES)
    mask[row, column] = False
    with pytest.raises(DataError, match=rf"different labels: 1 differ, the first is {where}"):
        compare(one, replace(one, mask=mask), draws, NAMES)
    with pytest.raises(DataError, match=r"no finding in common"):
        compare(one, replace(one, labels=LabelSet("x", tuple("vwxyz"), tuple("vwxyz"))), draws, NAMES)


def test_masked_labels_may_differ() -> None:
    one = simulate()
    other = replace(one, target=np.where(one.mask, one.target, 1.0))
    assert compare(one, other, draws_of(one, 20), NAMES).macro.estimate == 0


def test_results_are_plain_json() -> None:
    one = simulate()
    found = compare(one, rescored(one), draws_of(one), NAMES)
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    edema = found.findings["Edema"]
    assert data["findings"]["Edema"]["delong"]["p_holm"] == edema.p_delong[1]
    assert data["findings"]["Edema"]["bootstrap"]["p"] == edema.p_bootstrap[0]
    assert data["macro"]["p"] == found.p_macro
    assert data["findings"]["Hernia"] == {"first": None, "second": None, "reason": "no positives"}


def test_type_one_error_of_the_macro_difference_by_simulation() -> None:
    """Two models with the same signal and own noise, two findings, two images per patient: 3 to 7% differ."""
    rng = np.random.default_rng(0)
    patient = [str(k) for k in np.repeat(np.arange(100), 2)]
    draws = Draws(patient, replicates=400, seed=1)
    rejected, runs = 0, 500
    for _ in range(runs):
        label = np.repeat(rng.random((100, 2)) < 0.4, 2, axis=0)
        shared = rng.normal(size=(100, 2))
        logit = [
            label + np.repeat(shared + 0.6 * rng.normal(size=(100, 2)), 2, axis=0) + 0.6 * rng.normal(size=(200, 2))
            for _ in NAMES
        ]
        one, two = (cases(z, label, labels=TWO, patient=patient) for z in logit)
        p = compare(one, two, draws, NAMES).p_macro
        assert p is not None
        rejected += p < 0.05
    assert 0.03 <= rejected / runs <= 0.07


def test_a_difference_without_estimated_variance_has_no_delong() -> None:
    """One model is perfect, the other the reverse: DeLong's p-value would be exactly 0."""
    target = np.tile([[1.0, 0.0], [0.0, 1.0]], (6, 1))
    one = cases(target - 0.5, target, labels=TWO)
    two = cases(np.stack([0.5 - target[:, 0], np.arange(12.0)], axis=1), target, labels=TWO)
    found = compare(one, two, draws_of(one), NAMES)
    first, second = found.findings["A"], found.findings["B"]
    assert (first.first, first.second) == (1, 0)
    assert first.delong is first.p_delong is None
    assert first.reason == "DeLong's method has no estimated variance"
    assert first.bootstrap is not None
    assert second.p_delong[0] == second.p_delong[1] > 0, "corrected over one"
    assert "delong" not in found.to_dict()["findings"]["A"]
    assert found.to_dict()["findings"]["A"]["reason"] == first.reason


def test_models_on_one_patient_are_not_compared_by_resampling() -> None:
    one = simulate(80, 40)
    one = replace(one, patient=("one",) * 80)
    found = compare(one, rescored(one), draws_of(one), NAMES)
    for name in FOUR:
        figure = found.findings[name]
        assert figure.bootstrap is figure.p_bootstrap is None
        assert figure.reason == ONE_PATIENT
        assert figure.delong is not None
    assert found.macro is found.p_macro is None
    assert found.macro_reason == found.to_dict()["macro_reason"] == ONE_PATIENT
