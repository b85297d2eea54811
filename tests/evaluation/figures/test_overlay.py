import itertools
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex

from mxa.errors import DataError
from mxa.evaluation.figures import auc_bars, distinct, roc_figure, save, training_curves
from mxa.evaluation.metrics import evaluate, roc_curve, sigmoid
from mxa.labels import CHEXPERT14, LabelSet

THREE = LabelSet("three", ("A", "B", "C"), ("a", "b", "c"))


def problem(labels, n=60):
    """Two models on one target whose second finding has no positives."""
    rng = np.random.default_rng(0)
    target = (rng.random((n, len(labels))) < 0.4).astype(float)
    target[:, 1] = 0
    mask = np.ones(target.shape, bool)
    mask[:5, 0] = False
    logits = {"plain": rng.normal(size=target.shape), "MXA": rng.normal(size=target.shape) + target * 2}
    return logits, target, mask


def panels(figure):
    """Axes by the first line of their title."""
    return {ax.get_title().split("\n")[0]: ax for ax in figure.axes}


def curves(ax):
    return [line for line in ax.get_lines() if not line.get_label().startswith("_")]


def texts(ax):
    return [text.get_text() for text in ax.texts]


# --- ROC


def test_roc_figure_has_a_panel_per_finding_and_the_pooled_one():
    logits, target, mask = problem(CHEXPERT14)
    figure = roc_figure({name: (sigmoid(z), target, mask) for name, z in logits.items()}, CHEXPERT14)
    assert list(panels(figure))[:15] == [*CHEXPERT14, "All labels pooled (micro)"]
    key = [text.get_text() for ax in figure.axes[15:] if ax.get_legend() for text in ax.get_legend().get_texts()]
    assert key == ["plain", "MXA"]


def test_roc_panel_holds_each_models_curve_area_and_counts():
    logits, target, mask = problem(THREE)
    figure = roc_figure({name: (sigmoid(z), target, mask) for name, z in logits.items()}, THREE)
    evaluations = {name: evaluate(z, target, mask, THREE) for name, z in logits.items()}
    ax = panels(figure)["A"]
    counted = mask[:, 0]
    assert len(curves(ax)) == 2
    for line, (name, z) in zip(curves(ax), logits.items(), strict=True):
        fpr, tpr, _ = roc_curve(z[counted, 0], target[counted, 0])
        np.testing.assert_allclose(line.get_xdata(), fpr)
        np.testing.assert_allclose(line.get_ydata(), tpr)
        assert line.get_label() == f"{evaluations[name].findings['A'].auroc:.3f}"
    assert ax.get_title() == f"A\n{int(target[counted, 0].sum())} of 55 positive"
    pooled = panels(figure)["All labels pooled (micro)"]
    assert [line.get_label() for line in curves(pooled)] == [f"{e.auroc_micro:.3f}" for e in evaluations.values()]
    assert pooled.get_title().split("\n")[1] == f"{int(target[mask].sum())} of 175 positive"


def test_undefined_finding_has_its_reason_and_no_curve():
    logits, target, mask = problem(THREE)
    mask[:, 2] = False
    figure = roc_figure({name: (sigmoid(z), target, mask) for name, z in logits.items()}, THREE)
    for name, reason, title in (("B", "no positives", "0 of 60 positive"), ("C", "not annotated", "0 of 0 positive")):
        ax = panels(figure)[name]
        assert curves(ax) == []
        assert ax.get_legend() is None
        assert texts(ax) == [reason]
        assert ax.get_title() == f"{name}\n{title}"
    assert texts(panels(figure)["A"]) == []


def test_models_scored_on_different_labels_are_told_apart():
    logits, target, mask = problem(THREE)
    other = mask.copy()
    other[:, 0] = False
    figure = roc_figure(
        {"plain": (sigmoid(logits["plain"]), target, mask), "MXA": (sigmoid(logits["MXA"]), target, other)}, THREE
    )
    ax = panels(figure)["A"]
    assert len(curves(ax)) == 1
    assert texts(ax) == ["MXA: not annotated"]
    assert ax.get_title().endswith("of 55 positive / 0 of 0 positive")


def test_models_differ_in_colour_and_in_line_style():
    logits, target, mask = problem(THREE)
    names = [f"model {i}" for i in range(28)]
    figure = roc_figure(dict.fromkeys(names, (sigmoid(logits["MXA"]), target, mask)), THREE)
    lines = curves(panels(figure)["A"])
    assert len({(to_hex(line.get_color()), line.get_linestyle()) for line in lines}) == 28
    for a, b in itertools.pairwise(lines):
        assert to_hex(a.get_color()) != to_hex(b.get_color())
        assert a.get_linestyle() != b.get_linestyle()


# --- AUROC dots


def test_auc_bars_shows_every_area_at_its_row():
    logits, target, mask = problem(THREE)
    evaluations = {name: evaluate(z, target, mask, THREE) for name, z in logits.items()}
    ax = auc_bars(evaluations, THREE).axes[0]
    rows = [tick.get_text() for tick in ax.get_yticklabels()]
    assert rows == ["A", "B", "C", "Mean of the defined (macro)", "All labels pooled (micro)"]
    assert ax.yaxis_inverted()
    assert [line.get_label() for line in curves(ax)] == ["plain", "MXA"]
    for line, one in zip(curves(ax), evaluations.values(), strict=True):
        expected = [one.findings["A"].auroc, np.nan, one.findings["C"].auroc, one.auroc_macro, one.auroc_micro]
        np.testing.assert_array_equal(line.get_xdata(), expected)
        np.testing.assert_array_equal(np.round(line.get_ydata()), range(5))
        assert ax.get_xlim()[0] < np.nanmin(line.get_xdata())
    assert [(text.get_text(), text.get_position()[1]) for text in ax.texts] == [("no positives", 1)]


def test_auc_bars_names_the_models_in_its_key():
    logits, target, mask = problem(THREE)
    figure = auc_bars({name: evaluate(z, target, mask, THREE) for name, z in logits.items()}, THREE)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["plain", "MXA"]


def test_auc_bars_refuses_other_findings():
    logits, target, mask = problem(THREE)
    evaluation = evaluate(logits["MXA"], target, mask, THREE)
    with pytest.raises(ValueError, match="'MXA' is not over the findings of chexpert14"):
        auc_bars({"MXA": evaluation}, CHEXPERT14)


# --- training curves

HISTORY = {
    "plain": [{"epoch": i, "train_loss": 0.7 - 0.1 * i, "val_loss": 0.8 - 0.1 * i, "lr": 1e-3} for i in range(4)],
    "MXA": [
        {"epoch": 1, "train_loss": 0.5, "val_auroc": 0.6},
        {"epoch": 2, "train_loss": None, "val_auroc": None},
        {"epoch": 3, "train_loss": 0.3, "val_auroc": 0.7},
    ],
}


def test_training_curves_draw_what_was_recorded():
    figure = training_curves(HISTORY)
    by_title = panels(figure)
    assert list(by_title) == ["Training loss", "Validation loss", "Validation AUROC"]
    plain, mxa = curves(by_title["Training loss"])
    np.testing.assert_array_equal(plain.get_xdata(), range(4))
    np.testing.assert_allclose(plain.get_ydata(), [0.7, 0.6, 0.5, 0.4])
    np.testing.assert_array_equal(mxa.get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(mxa.get_ydata(), [0.5, np.nan, 0.3])
    assert np.isnan(curves(by_title["Validation AUROC"])[0].get_ydata()).all()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["plain", "MXA"]


def test_points_without_neighbours_get_a_dot_as_no_line_shows_them():
    plain, mxa = curves(panels(training_curves(HISTORY))["Training loss"])
    assert plain.get_markevery() == []
    assert mxa.get_markevery() == [0, 2]


def test_a_panel_without_values_says_so():
    by_title = panels(training_curves({"plain": HISTORY["plain"]}))
    assert texts(by_title["Validation AUROC"]) == ["not recorded"]
    assert texts(by_title["Validation loss"]) == []


def test_a_record_without_epoch_is_refused():
    with pytest.raises(DataError, match="'plain' has no epoch in record 1"):
        training_curves({"plain": [{"epoch": 0}, {"train_loss": 0.5}]})


# --- all


def test_long_names_are_wrapped_in_the_key():
    name = "mxa_efficientvit_m5 with distillation, seed 0"
    legend = training_curves({name: HISTORY["plain"]}).legends[0].get_texts()[0].get_text()
    assert legend.replace("\n", " ") == name
    assert max(map(len, legend.split("\n"))) <= 28


@pytest.mark.parametrize(
    "draw", [lambda: roc_figure({}, THREE), lambda: auc_bars({}, THREE), lambda: training_curves({})]
)
def test_no_model_is_refused(draw):
    with pytest.raises(ValueError, match="no model"):
        draw()


def test_distinct_keeps_order_and_drops_repeats():
    assert distinct([12, 12]) == "12"
    assert distinct([15, 12, 15]) == "15 / 12"


def test_save_writes_the_format_of_the_suffix(tmp_path):
    figure = training_curves(HISTORY)
    save(figure, tmp_path / "a.png")
    save(figure, str(tmp_path / "a.svg"))
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "a.svg").read_text(encoding="utf-8")
    with pytest.raises(DataError, match="cannot write"):
        save(figure, tmp_path / "missing" / "a.png")
    with pytest.raises(ValueError, match="not supported"):
        save(figure, tmp_path / "a.nothing")


def test_no_pyplot_and_so_no_display_is_needed():
    code = "import sys, mxa.evaluation.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
