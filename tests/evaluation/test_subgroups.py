"""Groups and their gaps against a naive computation: take the rows, copy them, ask scikit-learn."""

import json
from dataclasses import replace

import numpy as np
import pytest
from simulated import FIVE, cases, copied_rows, simulate
from sklearn.metrics import roc_auc_score

from mxa.errors import ConfigError
from mxa.evaluation.bootstrap import ALL_AT_AN_END, ONE_PATIENT, Bootstrap, Draws
from mxa.evaluation.cases import Cases
from mxa.evaluation.intervals import exact_rate
from mxa.evaluation.subgroups import Group, finding_groups, metadata_groups, score_groups, too_many_values
from mxa.labels import LabelSet

REPLICATES = 30
THRESHOLDS = np.array([0.4, 0.5, 0.5, 0.5, 0.5])


def by_name(groups: list[Group]) -> dict[str, Group]:
    return {one.value: one for one in groups}


def with_column(name: str, values, rows: int = 300) -> Cases:
    one = simulate(rows)
    return replace(one, frame=one.frame.assign(**{name: values}))


def aucs(one: Cases, rows: np.ndarray, columns: list[int]) -> np.ndarray:
    found = []
    for j in columns:
        kept = rows[one.mask[rows, j]]
        truth = one.target[kept, j] == 1
        found.append(roc_auc_score(truth, one.scores()[kept, j]) if 0 < truth.sum() < len(truth) else np.nan)
    return np.array(found)


def naive(one: Cases, figure) -> Bootstrap:
    """A figure of all rows, of the rows of each replicate, and without each patient."""
    everything = np.arange(len(one))
    drawn = [figure(rows) for rows in copied_rows(one.patient, 7, REPLICATES, range(REPLICATES))]
    left_out = [figure(np.flatnonzero(np.array(one.patient) != name)) for name in np.unique(one.patient)]
    return Bootstrap(figure(everything), np.array(drawn), np.array(left_out))


def assert_same(found, expected) -> None:
    assert (found is None) == (expected is None)
    if found is not None:
        assert found.to_dict() == pytest.approx(expected.to_dict(), abs=1e-12)


def test_a_group_against_a_naive_computation() -> None:
    one = simulate(200, 60)
    group = by_name(metadata_groups(one, ["sex"]))["F"]
    draws = Draws(one.patient, replicates=REPLICATES, seed=7)
    (found,) = score_groups(one, [group], draws, THRESHOLDS, minimum=5, level=0.9)
    sex = one.frame["sex"].to_numpy()
    assert (found.column, found.value, found.cases) == ("sex", "F", (sex == "F").sum())
    assert found.patients == len({p for p, s in zip(one.patient, sex, strict=True) if s == "F"})
    assert found.unknown == (sex == "").sum() > 0
    four = [0, 1, 2, 3]  # Hernia never occurs
    inside = naive(one, lambda rows: aucs(one, rows[sex[rows] == "F"], four))
    others = naive(one, lambda rows: aucs(one, rows[sex[rows] == "M"], four))
    gap = inside.minus(others)
    for j in four:
        figure = found.findings[FIVE.findings[j]]
        assert_same(figure.inside, inside.interval(j, 0.9))
        assert_same(figure.gap, gap.interval(j, 0.9))
        assert figure.reason is None
        counted = one.mask[:, j] & (sex == "F")
        assert figure.positives == (one.target[counted, j] == 1).sum()
        assert figure.negatives == (one.target[counted, j] == 0).sum()
    assert found.macro_over == FIVE.findings[:4]
    assert_same(found.macro.inside, inside.macro().interval(0, 0.9))
    assert_same(found.macro.gap, gap.macro().interval(0, 0.9))
    assert found.macro.gap.estimate == pytest.approx(found.macro.inside.estimate - others.estimate.mean())


def test_the_gaps_of_two_groups_mirror_each_other() -> None:
    one = simulate()
    women, men = score_groups(one, metadata_groups(one, ["sex"]), Draws(one.patient, replicates=50), THRESHOLDS)
    for name in FIVE.findings[:4]:
        up, down = women.findings[name].gap, men.findings[name].gap
        assert up.estimate == pytest.approx(-down.estimate)
        assert (up.low, up.high) == pytest.approx((-down.high, -down.low))


def test_groups_of_equal_cases_have_no_gap() -> None:
    """Every case twice, once per group, of one patient: each replicate's gap is exactly 0."""
    one = simulate(100, 40)
    twice = one.take(np.repeat(np.arange(100), 2))
    twice = replace(twice, frame=twice.frame.assign(sex=["F", "M"] * 100))
    for found in score_groups(
        twice, metadata_groups(twice, ["sex"]), Draws(twice.patient, replicates=40), THRESHOLDS, minimum=1
    ):
        for figure in (found.macro, found.underdiagnosis, *(found.findings[name] for name in FIVE.findings[:4])):
            assert (figure.gap.estimate, figure.gap.low, figure.gap.high) == pytest.approx((0, 0, 0), abs=1e-15)


def test_the_macro_gap_is_over_the_same_findings_in_each_replicate() -> None:
    """A finding with one positive per side is in a replicate's gap only if both sides have it."""
    rng = np.random.default_rng(0)
    target = np.stack([rng.integers(0, 2, 40), np.zeros(40)], axis=1)
    target[[0, 39], 1] = 1
    two = LabelSet("two", ("A", "B"), ("a", "b"))
    one = cases(
        rng.normal(size=(40, 2)),
        target,
        labels=two,
        patient=[str(k) for k in range(40)],
        frame={"sex": ["F"] * 20 + ["M"] * 20},
    )
    draws = Draws(one.patient, replicates=REPLICATES, seed=7)
    found = score_groups(one, metadata_groups(one, ["sex"]), draws, np.full(2, 0.5), minimum=1)[0]
    assert found.macro_over == ("A", "B")
    inside, others = (
        naive(one, lambda rows, side=side: aucs(one, rows[side(rows)], [0, 1]))
        for side in (lambda rows: rows < 20, lambda rows: rows >= 20)
    )
    assert np.isnan(inside.replicates[:, 1]).any()
    assert_same(found.macro.gap, inside.minus(others).macro().interval())


def test_the_macro_figure_leaves_out_what_the_others_lack() -> None:
    """The second finding has enough cases among the women alone: it is in neither their mean nor the gap."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, (60, 2)).astype(float)
    target[30:, 1] = 0
    two = LabelSet("two", ("A", "B"), ("a", "b"))
    one = cases(rng.normal(size=(60, 2)), target, labels=two, frame={"sex": ["F"] * 30 + ["M"] * 30})
    draws = Draws(one.patient, replicates=50)
    found = score_groups(one, metadata_groups(one, ["sex"]), draws, np.full(2, 0.5), minimum=5)[0]
    assert found.findings["B"].inside is not None
    assert found.findings["B"].gap is None
    assert found.macro_over == ("A",)
    assert found.macro.inside == found.findings["A"].inside
    assert found.macro.gap == found.findings["A"].gap


def test_the_underdiagnosis_rate_by_hand() -> None:
    one = simulate(200, 60)
    group = by_name(metadata_groups(one, ["sex"]))["M"]
    (found,) = score_groups(
        one, [group], Draws(one.patient, replicates=REPLICATES, seed=7), THRESHOLDS, minimum=5, level=0.9
    )
    sex = one.frame["sex"].to_numpy()
    ill = one.mask[:, 0] & (one.target[:, 0] == 0)

    def rate(rows: np.ndarray, value: str) -> np.ndarray:
        rows = rows[ill[rows] & (sex[rows] == value)]
        return np.array([(one.probability[rows, 0] > 0.4).mean()])

    inside, others = (naive(one, lambda rows, value=value: rate(rows, value)) for value in "MF")
    assert found.underdiagnosis is not None
    assert_same(found.underdiagnosis.inside, inside.interval(0, 0.9))
    assert_same(found.underdiagnosis.gap, inside.minus(others).interval(0, 0.9))
    assert found.underdiagnosis.positives == (ill & (sex == "M")).sum()
    assert (found.underdiagnosis.negatives, found.underdiagnosis.reason) == (0, None)


def test_the_underdiagnosis_rate_needs_a_threshold_and_the_label() -> None:
    one = simulate()
    groups, draws = metadata_groups(one, ["sex"]), Draws(one.patient, replicates=5)
    (found, _) = score_groups(one, groups, draws, np.array([np.nan, 0.5, 0.5, 0.5, 0.5]))
    assert found.underdiagnosis is not None
    assert found.underdiagnosis.inside is found.underdiagnosis.gap is None
    assert found.underdiagnosis.reason == "no threshold for No Finding"
    other = replace(one, labels=LabelSet("other", ("A", "B", "C", "D", "E"), ("a", "b", "c", "d", "e")))
    assert score_groups(other, groups, draws, THRESHOLDS)[0].underdiagnosis is None


def test_too_few_cases_say_so() -> None:
    target = np.zeros((60, 1))
    target[:6] = target[30:50] = 1
    one = cases(
        np.linspace(-1, 1, 60)[:, None],
        target,
        labels=LabelSet("one", ("No Finding",), ("N",)),
        frame={"sex": ["F"] * 30 + ["M"] * 30},
    )
    draws, groups = Draws(one.patient, replicates=200), metadata_groups(one)

    def scored(minimum: int) -> list:
        return score_groups(one, groups, draws, np.array([0.5]), minimum=minimum)

    women, men = scored(7)
    assert women.findings["No Finding"].inside is None
    assert women.findings["No Finding"].gap is None
    assert women.findings["No Finding"].reason == "6 positives, 24 negatives (minimum 7)"
    assert men.findings["No Finding"].inside is not None, "its own side is enough"
    assert men.findings["No Finding"].gap is None
    assert men.findings["No Finding"].reason == "others: 6 positives, 24 negatives (minimum 7)"
    assert women.macro.reason == men.macro.reason == "no finding has enough cases on both sides"
    assert women.macro_over == ()
    assert women.macro.inside is None
    women, men = scored(6)
    assert women.findings["No Finding"].reason is None
    assert women.macro.gap is not None
    women, men = scored(11)
    assert women.underdiagnosis.reason == "others: 10 cases with a finding (minimum 11)"
    assert women.underdiagnosis.inside is not None
    assert women.underdiagnosis.gap is None
    assert men.underdiagnosis.reason == "10 cases with a finding (minimum 11)"
    assert men.underdiagnosis.inside is None
    with pytest.raises(ConfigError, match=r"at least 1, got 0"):
        scored(0)


def test_unknown_values_are_on_neither_side() -> None:
    one = simulate()
    sex = one.frame["sex"].to_numpy()
    groups = by_name(metadata_groups(one, ["sex"]))
    assert list(groups) == ["F", "M"]
    np.testing.assert_array_equal(groups["F"].rows, sex == "F")
    np.testing.assert_array_equal(groups["F"].others, sex == "M")
    assert groups["F"].unknown == groups["M"].unknown == (sex == "").sum()
    messy = replace(one.take(np.arange(5)), frame=one.frame.iloc[:5].assign(sex=["F", " F ", "  ", None, "M"]))
    groups = by_name(metadata_groups(messy, ["sex"]))
    assert groups["F"].rows.tolist() == [True, True, False, False, False]
    assert groups["F"].unknown == 2


def test_age_bands_begin_at_their_lower_end() -> None:
    ages = [0, 19.9, 20, 39.99, 40, 79, 80, 120, np.nan]
    one = replace(simulate(9, 9), frame=simulate(9, 9).frame.assign(age=ages))
    groups = metadata_groups(one, ["age"])
    assert [group.value for group in groups] == ["0-20", "20-40", "40-60", "60-80", "80+"]
    where = {group.value: np.flatnonzero(group.rows).tolist() for group in groups}
    assert where == {"0-20": [0, 1], "20-40": [2, 3], "40-60": [4], "60-80": [5], "80+": [6, 7]}
    for group in groups:
        assert group.unknown == 1
        assert group.others.sum() == 8 - group.rows.sum()


def test_ages_below_the_first_band_are_a_group_too() -> None:
    ages = [17, 18, 64.9, 65, 3]
    one = replace(simulate(5, 5), frame=simulate(5, 5).frame.assign(age=ages))
    where = {g.value: np.flatnonzero(g.rows).tolist() for g in metadata_groups(one, ["age"], [18, 65])}
    assert list(where.items()) == [("under 18", [0, 4]), ("18-65", [1, 2]), ("65+", [3])]


def test_groups_are_in_the_order_of_their_numbers() -> None:
    one = simulate(6, 6)
    one = replace(one, frame=one.frame.assign(age=[0.2, 0.7, 3, 11, 50, 105], site=["10", "9", "2.5", "²", "b", "1"]))
    bands = metadata_groups(one, ["age"], [0, 0.5, 2, 10, 100])
    assert [group.value for group in bands] == ["0-0.5", "0.5-2", "2-10", "10-100", "100+"]
    assert [group.value for group in metadata_groups(one, ["site"])] == ["b", "²", "1", "2.5", "9", "10"]


def test_what_is_grouped_by_default() -> None:
    one = simulate()
    assert {group.column for group in metadata_groups(one)} == {"sex", "age"}, "a single view is no grouping"
    assert {group.column for group in metadata_groups(one, ["site"])} == {"site"}
    assert metadata_groups(one, []) == []
    assert metadata_groups(cases(np.zeros((2, 5)), np.zeros((2, 5)))) == []


@pytest.mark.parametrize("bands", [[], [20, 10], [0, 20, 20], [np.nan], [0, np.inf]])
def test_bands_that_do_not_ascend_are_refused(bands: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"age bands must ascend"):
        metadata_groups(simulate(5, 5), None, bands)


def test_columns_that_cannot_group_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no column ward, x to group by; the labels have: sex, age, view, site"):
        metadata_groups(simulate(), ["sex", "ward", "x"])
    twenty = with_column("ward", [f"w{k % 20}" for k in range(300)])
    assert len(metadata_groups(twenty, ["ward"])) == 20
    with pytest.raises(ConfigError, match=r"'ward' has 21 values, too many .*leave it out of --subgroups"):
        metadata_groups(with_column("ward", [f"w{k % 21}" for k in range(300)]), ["ward"])


def test_a_default_column_with_too_many_values_is_left_out() -> None:
    """Somebody's projections may be free text; the other columns group all the same."""
    many = with_column("projection", [f"p{k % 21}" for k in range(300)])
    assert too_many_values(many) == {"projection": 21}
    assert {group.column for group in metadata_groups(many)} == {"sex", "age"}
    with pytest.raises(ConfigError, match=r"'projection' has 21 values, too many .*--subgroups"):
        metadata_groups(many, ["projection"])
    few = with_column("projection", [f"p{k % 20}" for k in range(300)])
    assert too_many_values(few) == {}
    assert {group.column for group in metadata_groups(few)} == {"sex", "age", "projection"}


def test_a_stratum_of_too_many_findings_names_its_option() -> None:
    rng = np.random.default_rng(0)
    five = cases(rng.normal(size=(400, 5)), rng.integers(0, 2, (400, 5)))
    with pytest.raises(ConfigError, match=r"has 32 values, too many .*leave it out of --strata"):
        finding_groups(five, [" + ".join(FIVE)])


def test_strata_are_the_cases_with_and_without_a_finding() -> None:
    one = simulate()
    groups = by_name(finding_groups(one, ["Support Devices"]))
    assert list(groups) == ["Support Devices", "no Support Devices"]
    known, there = one.mask[:, 3], one.target[:, 3] == 1
    np.testing.assert_array_equal(groups["Support Devices"].rows, known & there)
    np.testing.assert_array_equal(groups["Support Devices"].others, known & ~there)
    np.testing.assert_array_equal(groups["no Support Devices"].rows, known & ~there)
    assert groups["Support Devices"].unknown == (~known).sum()
    (found, _) = score_groups(one, list(groups.values()), Draws(one.patient, replicates=20), THRESHOLDS)
    rows = known & there & one.mask[:, 2]
    assert found.findings["Edema"].inside.estimate == pytest.approx(
        roc_auc_score(one.target[rows, 2], one.logit[rows, 2])
    )
    assert found.findings["Support Devices"].reason.endswith(" positives, 0 negatives (minimum 10)")


def test_joined_findings_give_every_combination() -> None:
    one = simulate()
    groups = finding_groups(one, ["Support Devices + Edema"])
    assert {group.column for group in groups} == {"Support Devices + Edema"}
    known = one.mask[:, 3] & one.mask[:, 2]
    expected = {
        f"{'' if s else 'no '}Support Devices, {'' if e else 'no '}Edema": known
        & ((one.target[:, 3] == 1) == s)
        & ((one.target[:, 2] == 1) == e)
        for s in (True, False)
        for e in (True, False)
    }
    assert {group.value for group in groups} == set(expected)
    for group in groups:
        np.testing.assert_array_equal(group.rows, expected[group.value])
        np.testing.assert_array_equal(group.others, known & ~expected[group.value])


def test_a_finding_that_never_occurs_is_no_stratum() -> None:
    assert finding_groups(simulate(), ["Hernia"]) == []


@pytest.mark.parametrize("condition", ["Oedema", "Edema + ", ""])
def test_an_unknown_finding_is_refused(condition: str) -> None:
    with pytest.raises(ConfigError, match=r"has no finding"):
        finding_groups(simulate(), [condition])


def test_masked_elements_never_matter() -> None:
    one = simulate()
    rng = np.random.default_rng(0)
    other = replace(
        one,
        target=np.where(one.mask, one.target, rng.integers(0, 2, one.mask.shape)),
        logit=np.where(one.mask, one.logit, 1e6 * rng.normal(size=one.mask.shape)),
        probability=np.where(one.mask, one.probability, rng.random(one.mask.shape)),
    )

    def scored(these: Cases) -> list[dict]:
        groups = metadata_groups(these) + finding_groups(these, ["Support Devices + Edema"])
        draws = Draws(these.patient, replicates=20)
        return [found.to_dict() for found in score_groups(these, groups, draws, THRESHOLDS)]

    assert scored(other) == scored(one)


def test_results_are_plain_json() -> None:
    one = simulate()
    (found, _) = score_groups(one, metadata_groups(one, ["sex"]), Draws(one.patient, replicates=20), THRESHOLDS)
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (data["column"], data["value"], data["unknown"]) == ("sex", "F", found.unknown)
    assert data["auroc_macro"]["over"] == list(FIVE.findings[:4])
    assert data["findings"]["Hernia"]["inside"] is None
    assert data["findings"]["Hernia"]["reason"].startswith("0 positives, ")
    assert data["underdiagnosis"]["gap"] == found.underdiagnosis.gap.to_dict()


def test_a_group_of_one_patient_has_neither_interval_nor_gap() -> None:
    one = simulate()
    women = (one.frame["sex"] == "F").to_numpy()
    one = replace(one, patient=tuple("her" if k else name for name, k in zip(one.patient, women, strict=True)))
    draws = Draws(one.patient, replicates=60)
    her, men = score_groups(one, metadata_groups(one, ["sex"]), draws, THRESHOLDS)
    assert her.patients == 1
    kept = women & one.mask[:, 2]
    assert her.findings["Edema"].value == pytest.approx(roc_auc_score(one.target[kept, 2], one.logit[kept, 2]))
    assert her.macro.value == pytest.approx(np.mean([her.findings[name].value for name in her.macro_over]))
    assert her.underdiagnosis.value is not None
    for hers, his in (
        (her.findings["Edema"], men.findings["Edema"]),
        (her.macro, men.macro),
        (her.underdiagnosis, men.underdiagnosis),
    ):
        assert hers.inside is hers.gap is his.gap is None
        assert hers.reason == ONE_PATIENT
        assert his.inside.low < his.inside.high
    assert men.findings["Edema"].reason == men.underdiagnosis.reason == f"others: {ONE_PATIENT}"
    assert men.macro.reason == ONE_PATIENT
    stored = json.loads(json.dumps(her.to_dict(), allow_nan=False))
    assert stored["findings"]["Edema"]["inside"] is None
    assert stored["findings"]["Edema"]["value"] == her.findings["Edema"].value


def test_an_underdiagnosis_rate_of_0_or_1_has_the_exact_interval() -> None:
    one = simulate(logits=False)
    groups = metadata_groups(one, ["sex"])
    draws = Draws(one.patient, replicates=40)
    for probability, rate in ((0.1, 0), (0.9, 1)):
        same = replace(one, probability=np.full_like(one.probability, probability))
        for group, found in zip(groups, score_groups(same, groups, draws, THRESHOLDS, level=0.9), strict=True):
            ill = group.rows & one.mask[:, 0] & (one.target[:, 0] == 0)
            patients = len({name for name, kept in zip(one.patient, ill, strict=True) if kept})
            assert found.underdiagnosis.inside == exact_rate(rate * patients, patients, 0.9)
            assert (found.underdiagnosis.gap, found.underdiagnosis.reason) == (None, ALL_AT_AN_END)
    half = one.probability.copy()
    half[groups[0].rows] = 0.1
    women, men = score_groups(replace(one, probability=half), groups, draws, THRESHOLDS)
    assert women.underdiagnosis.inside.low == 0 < women.underdiagnosis.inside.high
    assert women.underdiagnosis.gap is not None, "the men's rate varies"
    assert women.underdiagnosis.reason is men.underdiagnosis.reason is None
