import numpy as np
import pytest
from matplotlib.colors import to_hex

from mxa.evaluation.figures import reliability_figure
from mxa.evaluation.scores import Reliability, reliability

NOTHING = Reliability(np.empty(0), np.empty(0), np.empty(0, dtype=np.int64))


def diagram(predicted=(0.1, 0.2, 0.4), observed=(0.0, 0.25, 0.5), count=(10, 20, 40)):
    return Reliability(np.array(predicted), np.array(observed), np.array(count))


def drawn(ax):
    return [line for line in ax.get_lines() if not line.get_label().startswith("_")]


def test_every_diagram_is_drawn_with_its_bins():
    before, after = diagram(), diagram(predicted=(0.02, 0.2, 0.45), count=(30, 20, 20))
    figure = reliability_figure({"Edema": {"as the network gives": before, "temperature": after}})
    ax = figure.axes[0]
    for line, marks, one in zip(drawn(ax), ax.collections, (before, after), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), one.predicted)
        np.testing.assert_array_equal(line.get_ydata(), one.observed)
        np.testing.assert_array_equal(marks.get_offsets(), np.stack([one.predicted, one.observed], axis=1))
    first, second = drawn(ax)
    assert to_hex(first.get_color()) != to_hex(second.get_color())
    assert first.get_linestyle() != second.get_linestyle()
    names = [text.get_text() for text in figure.axes[-1].get_legend().get_texts()]
    assert names == ["as the network gives", "temperature", "Perfect calibration"]


def test_the_area_of_a_marker_grows_evenly_with_the_images():
    small, middle, large = reliability_figure({"Edema": {"a": diagram()}}).axes[0].collections[0].get_sizes()
    assert small < middle < large
    assert (large - middle) == pytest.approx(2 * (middle - small)), "10, 20, 40 images"


def test_the_title_counts_what_the_bins_hold():
    rng = np.random.default_rng(0)
    p = rng.random(300)
    y = (rng.random(300) < p).astype(float)
    figure = reliability_figure({"Edema": {"a": reliability(p, y), "b": reliability(p**2, y)}})
    assert figure.axes[0].get_title() == f"Edema\n{int(y.sum())} of 300 positive"


def test_a_rare_finding_is_shown_at_its_own_scale():
    rare = diagram(predicted=(0.001, 0.004, 0.02), observed=(0.0, 0.005, 0.03))
    figure = reliability_figure({"Hernia": {"a": rare}, "Edema": {"a": diagram()}})
    hernia, edema, _ = figure.axes
    assert hernia.get_xlim() == hernia.get_ylim()
    assert hernia.get_aspect() == 1
    low, high = hernia.get_xlim()
    assert -0.01 < low < 0
    assert 0.03 < high < 0.04
    assert edema.get_xlim()[1] > 0.5
    (perfect,) = [line for line in hernia.get_lines() if line.get_label() == "_perfect"]
    assert perfect.get_slope() == 1
    assert perfect.get_xy1() == (0, 0)


def test_points_that_coincide_still_get_a_panel_of_some_width():
    low, high = reliability_figure({"A": {"a": diagram((0.5,), (0.5,), (9,))}}).axes[0].get_xlim()
    assert low == pytest.approx(0.495)
    assert high == pytest.approx(0.505)


def test_what_has_no_images_says_so():
    figure = reliability_figure({"A": {"a": NOTHING, "b": NOTHING}, "B": {"a": NOTHING, "b": diagram()}})
    assert [text.get_text() for text in figure.axes[0].texts] == ["not annotated"]
    assert drawn(figure.axes[0]) == []
    assert figure.axes[0].get_title() == "A\n0 of 0 positive"
    assert [text.get_text() for text in figure.axes[1].texts] == ["a: not annotated"]
    assert figure.axes[1].get_title() == "B\n0 of 0 positive / 25 of 70 positive"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "no diagram"),
        ({"A": {}}, "no diagram"),
        ({"A": {"a": diagram()}, "B": {}}, "no diagram"),
        ({"A": {"a": diagram(count=(1, 2))}}, r"A, 'a': .* must all be \(B,\)"),
        ({"A": {"a": diagram(observed=(0.0, 1.5, 0.0))}}, r"A, 'a': observed has a value outside"),
        ({"A": {"a": diagram(predicted=(0.0, np.nan, 0.1))}}, r"A, 'a': predicted has a value outside"),
        ({"A": {"a": diagram(count=(1, 0, 2))}}, "without images"),
    ],
)
def test_impossible_diagrams_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        reliability_figure(wrong)
