import numpy as np
import pytest
from matplotlib.colors import to_hex
from sklearn.metrics import average_precision_score, precision_recall_curve

from mxa.evaluation.figures import Band, Curve, pr_panels, roc_panels
from mxa.evaluation.metrics import roc_curve
from mxa.evaluation.scores import pr_curve

NOTHING = np.empty(0)
UNDEFINED = Curve(NOTHING, NOTHING, "", 0, 60, "no positives")


def sample(seed=0, n=60):
    rng = np.random.default_rng(seed)
    target = (rng.random(n) < 0.3).astype(float)
    return np.round(rng.normal(size=n) + target, 1), target


def curve(**changes):
    x = np.array([0.0, 0.5, 1.0])
    return Curve(**{"x": x, "y": x, "text": "0.500 (0.400 to 0.600)", "positives": 3, "counted": 12} | changes)


def drawn(ax):
    return [line for line in ax.get_lines() if not line.get_label().startswith("_")]


def named(ax, label):
    return [artist for artist in (*ax.get_lines(), *ax.collections) if artist.get_label() == label]


def key(figure):
    return [text.get_text() for text in figure.axes[-1].get_legend().get_texts()]


def test_roc_panel_holds_curve_chance_area_and_counts():
    score, target = sample()
    fpr, tpr, _ = roc_curve(score, target)
    one = Curve(fpr, tpr, "0.812 (0.780 to 0.841)", int(target.sum()), 60)
    figure = roc_panels({"Edema": one, "Hernia": UNDEFINED})
    edema, hernia, last = figure.axes
    (line,) = drawn(edema)
    np.testing.assert_array_equal(line.get_xdata(), fpr)
    np.testing.assert_array_equal(line.get_ydata(), tpr)
    assert line.get_drawstyle() == "default"
    (chance,) = named(edema, "_chance")
    assert [list(chance.get_xdata()), list(chance.get_ydata())] == [[0, 1], [0, 1]]
    assert edema.get_title() == f"Edema\n{int(target.sum())} of 60 positive"
    assert [text.get_text() for text in edema.get_legend().get_texts()] == ["0.812 (0.780 to 0.841)"]
    assert edema.get_legend().get_title().get_text() == "AUROC"
    assert drawn(hernia) == []
    assert hernia.get_legend() is None
    assert [text.get_text() for text in hernia.texts] == ["no positives"]
    assert hernia.get_title() == "Hernia\n0 of 60 positive"
    assert not last.axison
    assert key(figure) == ["Model", "Chance"]


@pytest.mark.parametrize("seed", range(5))
def test_the_area_under_the_pr_staircase_is_the_average_precision(seed):
    score, target = sample(seed)
    recall, precision, _ = pr_curve(score, target)
    figure = pr_panels({"Edema": Curve(recall, precision, "a", int(target.sum()), 60)})
    (line,) = drawn(figure.axes[0])
    x, y = line.get_xdata(), line.get_ydata()
    assert line.get_drawstyle() == "steps-pre", "up to each recall the precision at that recall"
    assert (x[0], x[-1]) == (0, 1)
    assert (np.diff(x) * y[1:]).sum() == pytest.approx(average_precision_score(target, score), abs=1e-12)
    theirs, at, _ = precision_recall_curve(target, score)
    assert set(zip(x[1:].round(9), y[1:].round(9), strict=True)) <= set(zip(at.round(9), theirs.round(9), strict=True))


def test_chance_of_a_pr_panel_is_the_prevalence():
    figure = pr_panels({"Edema": curve(), "Hernia": UNDEFINED})
    (chance,) = named(figure.axes[0], "_chance")
    assert set(chance.get_ydata()) == {0.25}
    assert named(figure.axes[1], "_chance") == []
    assert figure.axes[0].get_legend().get_title().get_text() == "Average precision"


def test_the_pr_legend_keeps_away_from_the_curve():
    x = np.linspace(0.01, 1, 100)
    low, high = (pr_panels({"a": curve(x=x, y=y)}).axes[0].get_legend() for y in (0.3 - 0.2 * x, 1 - 0.2 * x))
    assert (low._loc, high._loc) == (1, 3), "upper right above a low curve, lower left below a high one"


def test_the_band_lies_between_its_ends():
    x = np.linspace(0, 1, 5)
    band = Band(x, x / 2, np.minimum(x + 0.2, 1))
    figure = roc_panels({"Edema": curve(band=band)})
    (area,) = named(figure.axes[0], "_band")
    corners = {tuple(point) for point in area.get_paths()[0].vertices.round(9)}
    for at, low, high in zip(band.x, band.low, band.high, strict=True):
        assert {(at, low.round(9)), (at, high.round(9))} <= corners
    assert key(figure) == ["Model", "Its interval", "Chance"]


def test_the_band_of_a_staircase_is_one_too():
    x = np.array([0.0, 0.5, 1.0])
    (area,) = named(pr_panels({"Edema": curve(band=Band(x, 0.2 - x / 10, 0.9 - x / 10))}).axes[0], "_band")
    corners = {tuple(point) for point in area.get_paths()[0].vertices.round(9)}
    assert {(0, 0.85), (0.5, 0.85), (0.5, 0.8), (0, 0.15), (0.5, 0.15), (0.5, 0.1)} <= corners


def test_an_undefined_part_of_the_band_is_a_gap():
    x = np.linspace(0, 1, 6)
    low = np.where(x == x[2], np.nan, 0.1)
    (area,) = named(pr_panels({"Edema": curve(band=Band(x, low, low + 0.2))}).axes[0], "_band")
    assert len(area.get_paths()) == 2
    np.testing.assert_array_equal(area.get_facecolor()[0, 3], 0.2)


def test_points_look_alike_in_every_panel_and_are_named_in_the_key():
    reader, cut = {"Reader 1": (0.2, 0.7)}, {"Operating point": (0.1, 0.6)}
    figure = roc_panels({"A": curve(points=cut | reader), "B": curve(points=reader)})
    first, second = (named(ax, "_Reader 1")[0] for ax in figure.axes[:2])
    assert (list(second.get_xdata()), list(second.get_ydata())) == ([0.2], [0.7])
    assert (first.get_marker(), first.get_color()) == (second.get_marker(), second.get_color())
    other = named(figure.axes[0], "_Operating point")[0]
    assert other.get_marker() != first.get_marker()
    assert to_hex(other.get_color()) != to_hex(first.get_color())
    assert named(figure.axes[1], "_Operating point") == []
    assert key(figure) == ["Model", "Chance", "Operating point", "Reader 1"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"y": np.array([0.0, 1.0])}, r"one shape \(K,\)"),
        ({"y": np.array([0.0, 0.5, 1.1])}, r"y outside \[0, 1\]"),
        ({"y": np.array([0.0, np.nan, 1.0])}, "NaN"),
        ({"x": np.array([0.0, 1.0, 0.5])}, "ascends"),
        ({"x": np.array([0.0, np.nan, 1.0])}, "ascends"),
        ({"positives": 13}, "13 positives among 12"),
        ({"reason": "no positives"}, "either points x and y, or the reason"),
        ({"x": NOTHING, "y": NOTHING}, "either points x and y, or the reason"),
        ({"x": NOTHING, "y": NOTHING, "reason": "r", "points": {"a": (0.0, 0.0)}}, "neither a band nor points"),
        ({"points": {"Reader": (0.5, 1.5)}}, "'Reader' is outside"),
        ({"points": {"Reader": (0.5, float("nan"))}}, "'Reader' is outside"),
    ],
)
def test_an_impossible_curve_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        curve(**wrong)


def test_an_impossible_band_is_refused():
    x = np.array([0.0, 1.0])
    with pytest.raises(ValueError, match="above its upper end"):
        Band(x, x, x / 2)
    with pytest.raises(ValueError, match=r"high outside \[0, 1\]"):
        Band(x, x, 2 * x)


@pytest.mark.parametrize("draw", [roc_panels, pr_panels])
def test_no_curve_is_refused(draw):
    with pytest.raises(ValueError, match="no curve"):
        draw({})
