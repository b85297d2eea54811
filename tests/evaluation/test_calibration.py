"""Calibrations against scikit-learn, fine grids and the conditions of a minimum."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import _sigmoid_calibration
from sklearn.isotonic import IsotonicRegression

from mxa.errors import ConfigError, DataError
from mxa.evaluation import calibration
from mxa.evaluation.calibration import KINDS, Calibration, Isotonic, Platt, Temperature, fit, from_dict, logit_of
from mxa.evaluation.metrics import log_loss, sigmoid
from mxa.evaluation.scores import calibration_error
from mxa.labels import LabelSet

ONE = LabelSet("one", ("A",), ("a",))
FOUR = LabelSet("four", ("A", "B", "C", "D"), ("a", "b", "c", "d"))


def example(seed: int = 0, images: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits that are too sure, targets and mask of A, B (fitted), C (no counted negative), D (not annotated)."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(size=(images, 4)) * 3
    target = (rng.random((images, 4)) < sigmoid(logit / 2.5 - 0.4)).astype(float)
    mask = rng.random((images, 4)) < 0.8
    mask[:, 2] &= target[:, 2] == 1
    mask[:, 3] = False
    target[~mask] = np.nan
    return logit, target, mask


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, 1) on a grid, so that rounding ties or turns none, and targets with both classes."""
    n = draw(st.integers(2, 30))
    logit = draw(st.lists(st.integers(-40, 40), min_size=n, max_size=n))
    target = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda y: 0 < sum(y) < len(y)))
    return np.array(logit)[:, None] / 8, np.array(target)[:, None]


def fit_one(kind: str, logit: np.ndarray, target: np.ndarray) -> Calibration:
    return fit(kind, logit, target, np.ones(logit.shape, dtype=bool), ONE)


def loop_gradient(logit: np.ndarray, target: np.ndarray, slope: float, intercept: float) -> tuple[float, float]:
    """Derivative of the mean cross-entropy of sigmoid(slope x logit + intercept), image by image."""
    error = [1 / (1 + math.exp(-slope * z - intercept)) - y for z, y in zip(logit, target, strict=True)]
    by_slope = math.fsum(e * z for e, z in zip(error, logit, strict=True)) / len(logit)
    return by_slope, math.fsum(error) / len(logit)


# --- temperature


def test_the_temperature_is_the_minimum() -> None:
    logit, target, mask = example()
    found = fit("temperature", logit, target, mask, FOUR)
    assert set(found.curves) == {"A", "B"}
    assert found.curves["A"] == found.curves["B"], "one temperature for the model"
    temperature = found.curves["A"].temperature
    used = mask[:, :2]
    z, y = logit[:, :2][used], target[:, :2][used]
    grid = np.geomspace(0.2, 20, 4001)
    losses = [log_loss(z[:, None] / t, y[:, None], np.ones((len(z), 1), dtype=bool)) for t in grid]
    assert temperature == pytest.approx(grid[np.argmin(losses)], rel=2e-3)
    assert temperature > 1.5, "the logits were too sure"
    assert loop_gradient(z, y, 1 / temperature, 0)[0] == pytest.approx(0, abs=1e-10)
    assert log_loss(logit_of(found.apply(logit)), target, mask & (np.arange(4) < 2)) < min(losses) + 1e-12


@pytest.mark.parametrize("factor", [1e-6, 0.01, 30, 1e6])
def test_the_temperature_scales_with_the_logits(factor: float) -> None:
    logit, target, mask = example()
    plain = fit("temperature", logit, target, mask, FOUR)
    scaled = fit("temperature", logit * factor, target, mask, FOUR)
    assert scaled.curves["A"].temperature == pytest.approx(plain.curves["A"].temperature * factor, rel=1e-9)
    np.testing.assert_allclose(scaled.apply(logit * factor)[:, :2], plain.apply(logit)[:, :2], atol=1e-9)


@given(problems())
def test_a_temperature_is_found_exactly_where_the_loss_has_a_minimum(problem) -> None:
    """The loss is convex in 1 / T: it falls at 0 and rises again if and only if a minimum lies between."""
    logit, target = problem
    falls_at_first = loop_gradient(logit[:, 0], target[:, 0], 0, 0)[0] < -1e-9
    rises_at_last = loop_gradient(logit[:, 0], target[:, 0], 100, 0)[0] > 1e-9  # 100 x 1/8 decides every logit but 0
    if falls_at_first and rises_at_last:
        temperature = fit_one("temperature", logit, target).curves["A"].temperature
        assert loop_gradient(logit[:, 0], target[:, 0], 1 / temperature, 0)[0] == pytest.approx(0, abs=1e-9)
    else:
        with pytest.raises(DataError, match=r"temperature would be (0|infinite)"):
            Temperature.fit(logit[:, 0], target[:, 0])


def test_a_temperature_that_does_not_exist_is_refused() -> None:
    target = np.array([0, 0, 1, 1])
    with pytest.raises(DataError, match=r"no counted logit has the wrong sign"):
        Temperature.fit(np.array([-2.0, -1, 1, 2]), target)
    with pytest.raises(DataError, match=r"no more than chance"):
        Temperature.fit(np.array([2.0, 1, -1, -2]), target)
    with pytest.raises(DataError, match=r"no more than chance"):
        Temperature.fit(np.zeros(4), target)
    with pytest.raises(DataError, match=r"no more than chance"):  # the margins' mean is 0 up to rounding
        Temperature.fit(np.array([-0.1, -0.2, -0.3, 0.0]), target)
    with pytest.raises(DataError, match=r"1 of 4 counted logits are infinite .* use isotonic"):
        Temperature.fit(np.array([-2.0, 1, -1, np.inf]), target)


def test_findings_without_a_temperature_say_why_and_keep_their_sigmoid() -> None:
    logit = np.array([[-2.0], [-1], [1], [2]])
    found = fit_one("temperature", logit, np.array([[0], [0], [1], [1]]))
    assert not found.curves
    assert "no counted logit has the wrong sign" in found.reasons["A"]
    np.testing.assert_array_equal(found.apply(logit), sigmoid(logit))


# --- platt


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_platt_equals_sklearn_and_is_a_minimum(seed: int) -> None:
    logit, target, mask = example(seed)
    found = fit("platt", logit, target, mask, FOUR)
    for j, name in enumerate("AB"):
        z, y = logit[mask[:, j], j], target[mask[:, j], j]
        curve = found.curves[name]
        a, b = _sigmoid_calibration(z, y)
        assert (curve.slope, curve.intercept) == pytest.approx((-a, -b), rel=1e-3, abs=1e-3)
        positives = y.sum()
        smooth = np.where(y == 1, (positives + 1) / (positives + 2), 1 / (len(y) - positives + 2))
        assert loop_gradient(z, smooth, curve.slope, curve.intercept) == pytest.approx((0, 0), abs=1e-10)


@pytest.mark.parametrize("outlier", [10.0, 1e4])
def test_platt_is_a_minimum_with_one_positive_far_away(outlier: float) -> None:
    """Undamped Newton steps run away here."""
    logit = np.r_[np.linspace(-1, 1, 80), outlier]
    target = (logit > 1).astype(float)
    curve = fit_one("platt", logit[:, None], target[:, None]).curves["A"]
    smooth = np.where(target == 1, 2 / 3, 1 / 82)
    assert loop_gradient(logit, smooth, curve.slope, curve.intercept) == pytest.approx((0, 0), abs=1e-9)


@pytest.mark.parametrize("shift", [-1000.0, 0.0, 1000.0])
@pytest.mark.parametrize("gap", [1e-3, 1.0, 1e4])
def test_platt_stays_finite_on_separable_data(gap: float, shift: float) -> None:
    """Two distinct logits: the fit goes through both smoothed targets, 1/5 and 5/6."""
    logit = np.array([[0.0]] * 3 + [[gap]] * 4) + shift
    target = np.array([[0]] * 3 + [[1]] * 4)
    found = fit_one("platt", logit, target).apply(logit)[[0, -1], 0]
    assert found == pytest.approx([1 / 5, 5 / 6], abs=1e-9)


def test_platt_refuses_with_a_reason_and_keeps_the_plain_sigmoid() -> None:
    rng = np.random.default_rng(3)
    logit = rng.normal(size=(50, 4))
    target = (rng.random((50, 4)) < sigmoid(2 * logit)).astype(float)
    target[:, 1] = 1 - target[:, 1]
    logit[:, 2] = 0.7
    logit[4, 3] = np.inf
    found = fit("platt", logit, target, np.ones((50, 4), dtype=bool), FOUR)
    assert set(found.curves) == {"A"}
    assert re.fullmatch(r"the scores rank backwards: the fitted slope is -\d\.\d+", found.reasons["B"])
    assert found.reasons["C"] == "all logits are equal"
    assert found.reasons["D"] == "infinite logits (probabilities of exactly 0 or 1)"
    np.testing.assert_array_equal(found.apply(logit)[:, 1:], sigmoid(logit)[:, 1:])


def test_a_platt_fit_that_is_not_found_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "NEWTON_STEPS", 1)
    logit, target, mask = example()
    assert fit("platt", logit, target, mask, FOUR).reasons["A"] == "no fit after 1 Newton steps"


@given(problems())
def test_platt_minimises_whatever_the_data(problem) -> None:
    logit, target = problem
    found = fit_one("platt", logit, target)
    positives, n = target.sum(), len(target)
    smooth = np.where(target == 1, (positives + 1) / (positives + 2), 1 / (n - positives + 2))[:, 0]
    if found.curves:
        curve = found.curves["A"]
        assert loop_gradient(logit[:, 0], smooth, curve.slope, curve.intercept) == pytest.approx((0, 0), abs=1e-9)
    else:
        # At the best flat curve the loss does not fall towards rising ones.
        flat = math.log(smooth.mean() / (1 - smooth.mean()))
        assert np.ptp(logit) == 0 or loop_gradient(logit[:, 0], smooth, 0, flat)[0] > -1e-9


# --- isotonic


@given(problems())
def test_isotonic_equals_sklearn(problem) -> None:
    logit, target = problem
    theirs = IsotonicRegression(out_of_bounds="clip").fit(sigmoid(logit[:, 0]), target[:, 0])
    new = np.linspace(-9, 9, 181)[:, None]
    found = fit_one("isotonic", logit, target)
    for z in (logit, new):
        np.testing.assert_allclose(found.apply(z)[:, 0], theirs.predict(sigmoid(z[:, 0])), atol=1e-12)


def test_isotonic_keeps_only_the_knots_that_it_needs() -> None:
    logit = np.arange(8.0)[:, None]
    found = fit_one("isotonic", logit, np.array([0, 0, 0, 1, 0, 1, 1, 1])[:, None]).curves["A"]
    assert found.probability == tuple(sigmoid([0, 2, 3, 4, 5, 7]))
    assert found.observed == (0, 0, 0.5, 0.5, 1, 1)
    equal = fit_one("isotonic", np.ones((4, 1)), np.array([[0], [1], [0], [0]]))
    assert equal.curves["A"].observed == (0.25,)
    assert equal.apply([[-3.0], [1.0], [9.0]]).tolist() == [[0.25]] * 3


def test_isotonic_copes_with_certainty() -> None:
    logit = np.array([[-np.inf], [-np.inf], [0.0], [np.inf], [np.inf], [np.inf]])
    target = np.array([[0], [1], [1], [1], [0], [1]])
    found = fit_one("isotonic", logit, target).apply(logit)
    assert found[:, 0].tolist() == pytest.approx([0.5, 0.5, 0.75, 0.75, 0.75, 0.75])
    middle = fit_one("isotonic", logit, target).apply(logit_of([[0.25]]))
    assert middle.item() == pytest.approx(0.625), "half-way between the knots at 0 and 0.5"


def test_interpolation_never_rounds_above_the_next_knot() -> None:
    """Just below a knot, plain interpolation is now and then one rounding step above it, where the line would fall."""
    rng = np.random.default_rng(0)
    plain_above = 0
    for _ in range(3000):
        x, y = (rng.random(2) * [0.1, 0.02] + [0, start] for start in (0.48, 0.5))
        logit = logit_of(x[1]) - np.arange(12) * 1e-16
        below = logit[sigmoid(logit) < x[1]]
        assert (Isotonic(tuple(x), tuple(y))(below) <= y[1]).all()
        plain_above += (np.interp(sigmoid(below), x, y) > y[1]).any()
    assert plain_above > 0


# --- all kinds


@pytest.mark.parametrize("kind", KINDS)
@given(problem=problems(), new=st.lists(st.integers(-60, 60), min_size=2, max_size=20))
def test_the_ranking_is_kept(kind: str, problem, new: list[int]) -> None:
    logit, target = problem
    try:
        found = fit_one(kind, logit, target)
    except DataError:
        assert kind == "temperature"
        return
    z = np.unique(np.concatenate([logit[:, 0], np.array(new) / 8]))[:, None]
    p = found.apply(z)[:, 0]
    assert ((p >= 0) & (p <= 1)).all()
    assert (np.diff(p) >= 0).all()
    plain = [c.slope if kind == "platt" else 1 / c.temperature for c in found.curves.values() if kind != "isotonic"]
    if plain and 1e-3 < plain[0] < 2:  # neither flat nor saturated within float64
        assert (np.diff(p) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_json_gives_the_same_map_to_the_bit(kind: str) -> None:
    logit, target, mask = example()
    found = fit(kind, logit, target, mask, FOUR)
    text = json.dumps(found.to_dict(), allow_nan=False)
    again = from_dict(json.loads(text))
    assert again == found
    assert json.loads(text) == found.to_dict(), "JSON types only"
    np.testing.assert_array_equal(again.apply(logit), found.apply(logit))
    assert found.reasons == {"C": "no negatives", "D": "not annotated"}
    np.testing.assert_array_equal(found.apply(logit)[:, 2:], sigmoid(logit)[:, 2:])


@pytest.mark.parametrize("kind", KINDS)
def test_calibration_helps_on_new_images(kind: str) -> None:
    fitted = fit(kind, *example(0, 4000), FOUR)
    logit, target, mask = example(1, 4000)
    kept = mask[:, 0]
    before = calibration_error(sigmoid(logit[kept, 0]), target[kept, 0])
    after = calibration_error(fitted.apply(logit)[kept, 0], target[kept, 0])
    assert after < before * 0.7


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_mask_leaves_out_never_matters(kind: str) -> None:
    logit, target, mask = example()
    other = np.where(mask, target, 7)
    wild = np.where(mask, logit, np.inf)
    assert fit(kind, wild, other, mask, FOUR) == fit(kind, logit, target, mask, FOUR)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_fit_is_all_reasons(kind: str) -> None:
    found = fit(kind, np.zeros((2, 1)), np.zeros((2, 1)), np.ones((2, 1), dtype=bool), ONE)
    assert (found.curves, found.reasons) == ({}, {"A": "no positives"})


@pytest.mark.parametrize("curve", [Temperature(2.0), Platt(0.5, -1.0)])
def test_certainty_stays_certain(curve: Temperature | Platt) -> None:
    assert curve(np.array([-np.inf, np.inf])).tolist() == [0, 1]


def test_logit_of_is_the_inverse_of_the_sigmoid() -> None:
    p = np.array([[0.0, 1e-300, 0.1], [0.5, 0.9, 1.0]])
    expected = [[-math.inf, math.log(1e-300), math.log(0.1 / 0.9)], [0.0, math.log(0.9 / 0.1), math.inf]]
    np.testing.assert_allclose(logit_of(p), expected, rtol=1e-14)
    z = np.linspace(-30, 10, 81)
    np.testing.assert_allclose(logit_of(sigmoid(z)), z, atol=1e-11)
    assert logit_of(0.5).shape == ()
    for bad in (1.5, [0.1, -0.1], [[math.nan]]):
        with pytest.raises(DataError, match=r"probabilit"):
            logit_of(bad)


# --- refusals


def test_wrong_input_is_refused() -> None:
    logit, target, mask = example()
    with pytest.raises(ConfigError, match=r"no calibration is called 'beta'; choose from temperature, platt, isotonic"):
        fit("beta", logit, target, mask, FOUR)
    with pytest.raises(ValueError, match=r"logits must be \(N, 4\), got \(200, 3\)"):
        fit("platt", logit[:, :3], target, mask, FOUR)
    with pytest.raises(ValueError, match=r"mask must be bool"):
        fit("platt", logit, target, mask.astype(int), FOUR)
    with pytest.raises(DataError, match=r"neither 0 nor 1"):
        fit("platt", logit, target + 0.5, mask, FOUR)
    logit[3, 1] = np.nan
    with pytest.raises(DataError, match=r"1 logits are NaN; the first is in row 3, counting from 0, B"):
        fit("isotonic", logit, target, mask, FOUR)
    with pytest.raises(DataError, match=r"row 3"):
        fit("isotonic", *example(), FOUR).apply(logit)
    with pytest.raises(ValueError, match=r"logits must be \(N, 4\), got \(4,\)"):
        fit("isotonic", *example(), FOUR).apply(logit[0])


STEPS = {"probability": [0.1, 0.5], "observed": [0.2, 0.2]}


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("temperature", {"temperature": 0}, r"above 0, got 0"),
        ("temperature", {"temperature": "2"}, r"finite number, got '2'"),
        ("temperature", {"temperature": True}, r"finite number, got True"),
        ("temperature", {"slope": 1}, r"curve of 'A' needs exactly \['temperature'\]"),
        ("temperature", 2.0, r"curve of 'A' needs exactly \['temperature'\]"),
        ("platt", {"slope": -1, "intercept": 0}, r"turn the ranking round; got -1"),
        ("platt", {"slope": 1, "intercept": math.inf}, r"intercept .* got inf"),
        ("isotonic", STEPS | {"observed": [0.2]}, r"2 probabilities but 1 observed"),
        ("isotonic", {"probability": [], "observed": []}, r"0 probabilities but 0 observed"),
        ("isotonic", STEPS | {"observed": [0.3, 0.2]}, r"must rise"),
        ("isotonic", STEPS | {"probability": [0.5, 0.5]}, r"must rise"),
        ("isotonic", STEPS | {"observed": [0.2, 1.2]}, r"in \[0, 1\]"),
        ("isotonic", STEPS | {"observed": "0.2"}, r"list of numbers"),
        ("isotonic", STEPS | {"observed": [None, 0.2]}, r"finite number, got None"),
        ("magic", {}, r"no calibration is called 'magic'"),
    ],
)
def test_a_garbled_curve_is_refused(kind: str, parameters: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict({"kind": kind, "findings": ["A"], "curves": {"A": parameters}, "reasons": {}})


GOOD = {
    "kind": "temperature",
    "findings": ["A", "B"],
    "curves": {"A": {"temperature": 2.0}},
    "reasons": {"B": "no positives"},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"findings": "AB"}, r"list of names"),
        ({"findings": ["A", 2]}, r"list of names"),
        ({"findings": ["A", "B", "C"]}, r"a curve or a reason for each of A, B, C"),
        ({"reasons": {}}, r"a curve or a reason for each"),
        ({"reasons": {"A": "why", "B": "no positives"}}, r"a curve or a reason for each"),
        ({"reasons": {"B": 3}}, r"in words"),
        ({"curves": []}, r"mapping by finding"),
        ({"extra": 1}, r"exactly kind, findings, curves and reasons"),
    ],
)
def test_a_garbled_calibration_is_refused(change: dict, message: str) -> None:
    assert from_dict(GOOD).findings == ("A", "B")
    with pytest.raises(ConfigError, match=message):
        from_dict(GOOD | change)


def test_a_curve_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"not all curves .* platt"):
        Calibration("platt", ("A",), {"A": Temperature(1.0)}, {})
