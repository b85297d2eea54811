"""Every cell of the tables against the assessment it shows, and against scikit-learn."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from assessed import bare, everything
from simulated import FIVE, simulate
from sklearn.metrics import average_precision_score, f1_score, recall_score, roc_auc_score

from mxa.evaluation import assessment_tables
from mxa.evaluation.assessment import AssessOptions, assess
from mxa.evaluation.assessment_tables import MACRO, MICRO, NONE, tables
from mxa.evaluation.bootstrap import ALL_AT_AN_END, ONE_PATIENT
from mxa.evaluation.comparison import Comparison
from mxa.evaluation.tables import Table, to_csv


def rows(table: Table) -> dict[str, dict[str, object]]:
    """By the first cell, then by the header."""
    assert len(set(table.header)) == len(table.header), "a program could not tell two columns apart"
    return {str(row[0]): dict(zip(table.header, row, strict=True)) for row in table.rows}


def counted(j: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth and probability of one finding."""
    cases = everything().cases
    kept = cases.mask[:, j]
    return cases.target[kept, j], cases.probability[kept, j]


def test_what_there_is_a_table_for() -> None:
    assert list(tables(everything())) == [
        "results",
        "measures",
        "operating-points",
        "thresholds",
        "calibration",
        "comparison",
        "subgroups",
        "subgroup-findings",
        "strata",
        "strata-findings",
        "readers",
    ]
    assert list(tables(bare())) == ["results", "measures"], "nothing was chosen, so there is nothing to show of it"


@pytest.mark.parametrize("name", list(tables(everything())))
def test_each_table_has_a_caption_and_columns_that_differ(name: str) -> None:
    table = tables(everything())[name]
    assert table.caption
    header = next(csv.reader(io.StringIO(to_csv(table))))
    assert len(set(header)) == len(header)


def test_results_are_the_figures_with_their_intervals() -> None:
    found = everything()
    shown = rows(assessment_tables.results(found))
    assert list(shown) == [MACRO, MICRO, *FIVE]
    for j, finding in enumerate(FIVE.findings[:4]):
        truth, probability = counted(j)
        called = probability > found.tuning.point("youden").array()[j]
        expected = {
            "AUROC": (roc_auc_score(truth, probability), found.auroc),
            "Average precision": (average_precision_score(truth, probability), found.average_precision),
            "Sensitivity": (recall_score(truth, called), found.sensitivity),
            "Specificity": (recall_score(1 - truth, ~called), found.specificity),
        }
        for column, (value, intervals) in expected.items():
            one = intervals.findings[finding]
            assert shown[finding][column] == f"{value:.3f} ({one.low:.3f} to {one.high:.3f})"
        assert shown[finding]["Positives"] == truth.sum()
        assert shown[finding]["Negatives"] == (truth == 0).sum()
        assert shown[finding]["Ignored"] == 200 - len(truth)
    mean = np.mean([roc_auc_score(*counted(j)) for j in range(4)])
    assert str(shown[MACRO]["AUROC"]).startswith(f"{mean:.3f} (")
    pooled = [np.concatenate(parts) for parts in zip(*map(counted, range(5)), strict=True)]
    assert str(shown[MICRO]["AUROC"]).startswith(f"{roc_auc_score(*pooled):.3f} (")
    assert shown[MICRO]["Positives"] == pooled[0].sum()


def test_the_results_say_what_they_are() -> None:
    caption = assessment_tables.results(everything()).caption
    for words in ("ours", "95% intervals", "40 replicates", "youden, chosen on validation data", "4 of 5 findings"):
        assert words in caption
    assert "leave out the 1 findings without a threshold" in caption
    assert "a probability above 0.5" in assessment_tables.results(bare()).caption
    assert "threshold" not in assessment_tables.results(bare()).caption
    narrow = replace(everything(), options=replace(everything().options, level=0.999))
    assert "99.9% intervals" in assessment_tables.results(narrow).caption


def test_the_undefined_says_why() -> None:
    chosen, plain = (rows(assessment_tables.results(found)) for found in (everything(), bare()))
    assert chosen["Hernia"]["AUROC"] == "no positives"
    assert chosen["Hernia"]["Sensitivity"] == "no threshold: no positives on validation"
    assert plain["Hernia"]["Sensitivity"] == "no positives"
    assert plain["Support Devices"]["AUROC"] == "not annotated"
    assert plain["Support Devices"]["Ignored"] == 30


def test_measures_keep_every_digit() -> None:
    found = everything()
    shown = rows(assessment_tables.measures(found))
    for j, finding in enumerate(FIVE.findings[:4]):
        truth, probability = counted(j)
        assert shown[finding]["AUROC"] == pytest.approx(roc_auc_score(truth, probability), abs=1e-12)
        assert shown[finding]["F1"] == pytest.approx(f1_score(truth, probability > found.thresholds[j]), abs=1e-12)
        assert shown[finding]["Brier score"] == pytest.approx(np.mean((probability - truth) ** 2), abs=1e-12)
    over = [shown[finding]["F1"] for finding in FIVE.findings[:4]]
    assert shown[MACRO]["F1"] == pytest.approx(np.mean(over))
    assert {"Sensitivity at specificity 0.9", "Specificity at sensitivity 0.9"} <= set(shown["Edema"])
    assert str(rows(assessment_tables.measures(bare()))["Edema"]["Log loss"]).startswith("infinite")


def test_operating_points_are_means_at_their_thresholds() -> None:
    found = everything()
    shown = rows(assessment_tables.operating_points(found))
    assert list(shown) == ["0.5", "youden", "f1", "sensitivity=0.9", "specificity=0.9"]
    for name, row in shown.items():
        at = np.full(5, 0.5) if name == "0.5" else found.tuning.point(name).array()
        rates = [recall_score(truth, p > at[j]) for j in range(4) for truth, p in [counted(j)]]
        assert row["Sensitivity"] == pytest.approx(np.mean(rates)), name
        assert row["Findings"] == "4 of 5"


def test_thresholds_or_the_reason() -> None:
    found = everything()
    shown = rows(assessment_tables.thresholds(found))
    assert shown["Hernia"]["youden"] == "no positives"
    for name, point in found.tuning.operating_points.items():
        assert [shown[finding][name] for finding in FIVE.findings[:4]] == list(point.thresholds[:4])
    without = {
        name: replace(found.tuning.point("f1"), findings=("Edema",), thresholds=(0.3,), reasons={}) for name in "f"
    }
    fewer = replace(found, tuning=replace(found.tuning, operating_points=without))
    assert rows(assessment_tables.thresholds(fewer))["Cardiomegaly"]["f"] == "not annotated on validation"


def test_calibrations_are_scored_here() -> None:
    found = everything()
    shown = rows(assessment_tables.calibration(found))
    assert list(shown) == ["as given", "temperature", "platt", "isotonic"]
    kept = found.cases.mask
    for kind, row in shown.items():
        p = found.cases.probability if kind == "as given" else found.tuning.calibrations[kind].apply(found.cases.logit)
        assert row["Brier (pooled)"] == pytest.approx(np.mean((p - found.cases.target)[kept] ** 2))
    assert shown["temperature"]["AUROC (mean)"] == pytest.approx(shown["as given"]["AUROC (mean)"])


def test_a_comparison_shows_differences_and_p_values() -> None:
    found = everything().comparison
    assert found is not None
    shown = rows(assessment_tables.comparison(found))
    edema = found.findings["Edema"]
    assert shown["Edema"]["ours"] == edema.first
    assert shown["Edema"]["Difference"] == edema.bootstrap.signed()
    assert shown["Edema"]["p"] == f"{edema.p_bootstrap[0]:.4f}"
    assert shown["Edema"]["p (DeLong, Holm)"] in {f"{edema.p_delong[1]:.4f}", "<0.0001"}
    assert (shown["Hernia"]["ours"], shown["Hernia"]["Difference"], shown["Hernia"]["p"]) == (
        NONE,
        "no positives",
        NONE,
    )
    assert shown[MACRO]["Difference"] == found.macro.signed()
    assert "prefer the bootstrap" in assessment_tables.comparison(found).caption
    single = replace(found, clustered=False)
    assert "prefer the bootstrap" not in assessment_tables.comparison(single).caption


def test_a_tiny_p_value_is_not_shown_as_zero() -> None:
    found = everything().comparison
    tiny = {name: replace(one, p_delong=(1e-9, 0.0001)) for name, one in found.findings.items()}
    one = Comparison(**{**vars(found), "findings": tiny})
    table = assessment_tables.comparison(one)
    row = rows(table)["Edema"]
    assert (row["p (DeLong)"], row["p (DeLong, Holm)"]) == ("<0.0001", "0.0001")
    assert table.numeric[table.header.index("p (DeLong)")]


def test_groups_give_figure_gap_or_reason_once() -> None:
    found = everything()
    table = tables(found)["subgroups"]
    assert [row[0] for row in table.rows] == [one.column for one in found.groups]
    for one, row in zip(found.groups, table.rows, strict=True):
        cells = dict(zip(table.header, row, strict=True))
        assert (cells["Group"], cells["Cases"], cells["Patients"]) == (one.value, one.cases, one.patients)
        if one.macro.inside is None:
            assert (cells["AUROC (mean)"], cells["Gap of AUROC"]) == (one.macro.reason, NONE)
        else:
            assert (cells["AUROC (mean)"], cells["Gap of AUROC"]) == (str(one.macro.inside), one.macro.gap.signed())
        assert cells["Over"] == f"{len(one.macro_over)} of 5"
    assert any(one.macro.inside is None for one in found.groups)
    assert any(one.macro.inside is not None for one in found.groups)
    unknown = {one.column: one.unknown for one in found.groups}
    assert f"unknown: {unknown['sex']} (sex), {unknown['age']} (age)." in table.caption


def test_findings_of_groups_have_their_counts() -> None:
    found = everything()
    table = tables(found)["subgroup-findings"]
    by = {row[:3]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    cases = found.cases
    inside = (cases.frame["sex"] == "F").to_numpy() & cases.mask[:, 2]
    row = by["sex", "F", "Edema"]
    assert row["Positives"] == int(cases.target[inside, 2].sum())
    assert row["Negatives"] == int((cases.target[inside, 2] == 0).sum())
    assert str(row["AUROC"]).startswith(f"{roc_auc_score(cases.target[inside, 2], cases.probability[inside, 2]):.3f} (")
    assert by["sex", "F", "Hernia"]["Gap of AUROC"] == NONE
    assert "minimum 8" in str(by["sex", "F", "Hernia"]["AUROC"])


def test_strata_are_the_cases_with_and_without() -> None:
    table = tables(everything())["strata"]
    assert [row[:2] for row in table.rows] == [
        ("Support Devices", "Support Devices"),
        ("Support Devices", "no Support Devices"),
    ]


def test_readers_stand_beside_the_curve() -> None:
    found = everything()
    shown = rows(assessment_tables.readers(found))
    point = found.readers["Ann"]["Edema"]
    under, total = found.under["Edema"]
    assert shown["Edema"]["Readers under the curve"] == f"{under} of {total}"
    ann, bob = str(shown["Edema"]["Sensitivity / specificity of each"]).split("; ")
    assert ann == f"Ann {point.sensitivity:.2f} / {point.specificity:.2f}"
    assert bob.startswith("Bob ")
    assert shown["Hernia"]["Readers under the curve"] == NONE
    nobody = {name: {**one, "Edema": replace(one["Edema"], reason="not read")} for name, one in found.readers.items()}
    assert (
        rows(assessment_tables.readers(replace(found, readers=nobody)))["Edema"]["Sensitivity / specificity of each"]
        == "not read"
    )


def test_a_figure_without_interval_stands_with_the_reason() -> None:
    cases = simulate(80, 40)
    cases = replace(cases, patient=("one",) * 80)
    found = assess(cases, AssessOptions(replicates=20, min_count=1), name="m", against=("n", cases))
    shown = rows(assessment_tables.results(found))
    value = roc_auc_score(cases.target[cases.mask[:, 2], 2], cases.logit[cases.mask[:, 2], 2])
    assert shown["Edema"]["AUROC"] == f"{value:.3f} ({ONE_PATIENT})"
    for name in (MACRO, MICRO):
        assert str(shown[name]["AUROC"]).endswith(f" ({ONE_PATIENT})")
    compared = rows(assessment_tables.comparison(found.comparison))
    assert (compared["Edema"]["Difference"], compared["Edema"]["p"]) == (ONE_PATIENT, NONE)
    assert compared["Edema"]["Difference (DeLong)"] == "+0.000 (+0.000 to +0.000)"
    assert (compared[MACRO]["Difference"], compared[MACRO]["p"]) == (ONE_PATIENT, NONE)
    table = tables(found)["subgroups"]
    first = dict(zip(table.header, table.rows[0], strict=True))
    assert first["AUROC (mean)"] == f"{found.groups[0].macro.value:.3f} ({ONE_PATIENT})"
    assert first["Gap of AUROC"] == NONE


def test_a_mean_of_rates_at_an_end_says_so() -> None:
    cases = simulate(80, 40, logits=False)
    found = assess(replace(cases, probability=cases.probability * 0.4), AssessOptions(replicates=20), name="m")
    table = assessment_tables.results(found)
    assert rows(table)[MACRO]["Sensitivity"] == f"0.000 ({ALL_AT_AN_END})"
    assert rows(table)[MACRO]["Specificity"] == f"1.000 ({ALL_AT_AN_END})"
    assert "exact where a finding's rate is 0 or 1, which the mean's interval takes as it is" in table.caption
    groups = tables(found)["subgroups"]
    first = dict(zip(groups.header, groups.rows[0], strict=True))
    assert str(first["False No Finding"]).startswith("0.000 (0.000 to 0.")
    assert first["Gap of false No Finding"] == ALL_AT_AN_END
