"""The figures of an assessment: which there are, and what stands in them."""

import math
from dataclasses import replace

import numpy as np
from assessed import bare, everything
from matplotlib.figure import Figure
from simulated import FIVE, simulate
from sklearn.metrics import auc, roc_auc_score, roc_curve

from mxa.evaluation.assessment import AssessOptions, assess
from mxa.evaluation.assessment_figures import draw
from mxa.evaluation.bootstrap import ONE_PATIENT


def words(figure: Figure) -> list[str]:
    """Every text in a figure."""
    return [text.get_text() for text in figure.findobj(lambda one: hasattr(one, "get_text")) if text.get_text()]


def panel(figure: Figure, finding: str):
    return next(ax for ax in figure.axes if ax.get_title().startswith(finding))


def test_what_there_is_a_figure_for() -> None:
    always = {"roc", "pr", "auroc", "cooccurrence"}
    more = {"reliability", "comparison", "subgroups", "subgroups-gaps", "strata", "strata-gaps"}
    assert set(draw(everything())) == always | more
    assert set(draw(bare())) == always, "decisions of 0 and 1 have no reliability"


def test_roc_panels_show_scikit_learns_curve_and_the_points() -> None:
    found = everything()
    ax = panel(draw(found)["roc"], "Edema")
    kept = found.cases.mask[:, 2]
    truth, score = found.cases.target[kept, 2], found.cases.logit[kept, 2]
    x, y, _ = roc_curve(truth, score)
    curves = [np.asarray(line.get_xydata()) for line in ax.lines]
    corners = set(zip(x.tolist(), y.tolist(), strict=True))
    assert any(
        math.isclose(auc(*c.T), roc_auc_score(truth, score)) and corners <= set(map(tuple, c.tolist()))
        for c in curves
        if len(c) > 2
    )
    called = score > np.log(found.thresholds[2] / (1 - found.thresholds[2]))
    point = [np.mean(called[truth == 0]), np.mean(called[truth == 1])]
    reader = found.readers["Ann"]["Edema"]
    shown = [c[0] for c in curves if len(c) == 1] + [c for s in ax.collections for c in np.asarray(s.get_offsets())]
    for wanted in (point, [1 - reader.specificity, reader.sensitivity]):
        assert any(np.allclose(one, wanted) for one in shown), wanted
    assert {"operating point youden", "Ann", "Bob"} <= set(words(draw(found)["roc"]))


def test_a_finding_without_both_classes_says_why() -> None:
    for name in ("roc", "pr"):
        figure = draw(everything())[name]
        assert "no positives" in " ".join(text.get_text() for text in panel(figure, "Hernia").texts)
        assert not [line for line in panel(figure, "Hernia").lines if len(line.get_xydata()) > 2]
    assert "not annotated" in " ".join(words(draw(bare())["roc"]))


def test_the_forest_has_every_finding_and_what_is_undefined() -> None:
    shown = words(draw(everything())["auroc"])
    for text in (*FIVE, "Mean of the findings (macro)", "All labels pooled (micro)", "no positives"):
        assert text in shown
    assert str(everything().auroc.findings["Edema"]) in shown


def test_the_comparison_names_both_and_gives_corrected_p() -> None:
    found = everything()
    shown = " | ".join(words(draw(found)["comparison"]))
    assert "AUROC of ours minus theirs" in shown
    assert f"p (Holm) {found.comparison.findings['Edema'].p_bootstrap[1]:.3f}" in shown
    tiny = {
        name: replace(one, p_bootstrap=(1e-5, 1e-5)) if one.p_bootstrap else one
        for name, one in found.comparison.findings.items()
    }
    smaller = replace(found, comparison=replace(found.comparison, findings=tiny))
    assert "p (Holm) <0.001" in " | ".join(words(draw(smaller)["comparison"]))


def test_groups_name_their_size_and_their_gaps() -> None:
    found = everything()
    drawn = draw(found)
    shown = words(drawn["subgroups"])
    for one in found.groups:
        assert f"{one.value} (n = {one.cases})" in shown
    gaps = words(drawn["subgroups-gaps"])
    assert {"mean AUROC", "rate of false No Finding", "no finding has enough cases on both sides"} <= set(gaps)
    assert next(one for one in found.groups if one.macro.gap).macro.gap.signed() in gaps


def test_reliability_shows_every_calibration() -> None:
    shown = words(draw(everything())["reliability"])
    assert {"as given", "temperature", "platt", "isotonic"} <= set(shown)


def test_figures_without_interval_say_why() -> None:
    cases = simulate(80, 40)
    cases = replace(cases, patient=("one",) * 80)
    found = assess(cases, AssessOptions(replicates=20, min_count=1), name="m", against=("n", cases))
    drawn = draw(found)
    edema = f"{found.measures.findings['Edema']['auroc'].value:.3f} ({ONE_PATIENT})"
    assert edema in words(drawn["auroc"])
    assert f"{found.measures.macro['auroc'].value:.3f} ({ONE_PATIENT})" in words(drawn["auroc"])
    assert f"{found.groups[0].macro.value:.3f} ({ONE_PATIENT})" in words(drawn["subgroups"])
    assert ONE_PATIENT in words(drawn["subgroups-gaps"])
    assert words(drawn["comparison"]).count(ONE_PATIENT) == 5, "four findings and their mean"
    assert "Its interval" not in words(drawn["roc"])
