import numpy as np
import pytest
from matplotlib.colors import to_hex

from mxa.evaluation.figures import box_figure, interval_bars
from mxa.evaluation.intervals import Interval

VALUES = {
    "Run 1": {"plain": [0.5, 0.6, 0.7, 0.8, 0.9], "MXA": [0.7, 0.8, 0.9]},
    "Run 2": {"MXA": [0.6]},
}
ROWS = {"plain": Interval(0.8, 0.78, 0.83, 0.95), "MXA": Interval(0.85, 0.84, 0.86, 0.95)}


def points(ax, i):
    return next(line for line in ax.get_lines() if line.get_label() == f"_{i}")


def named(ax, label):
    return next(line for line in ax.get_lines() if line.get_label() == label)


def annotations(figure):
    return [text.get_text() for text in figure.axes[0].texts]


# --- boxes


def test_every_value_is_a_point_beside_its_models_place():
    ax = box_figure(VALUES, "AUROC").axes[0]
    for i, model in enumerate(("plain", "MXA")):
        np.testing.assert_array_equal(points(ax, i).get_ydata(), VALUES["Run 1"][model])
        aside = points(ax, i).get_xdata() - i
        assert (np.abs(aside) <= 0.2).all()
        assert len(set(aside)) == len(aside)
    assert points(ax, 0).get_marker() != points(ax, 1).get_marker()
    assert to_hex(points(ax, 0).get_color()) != to_hex(points(ax, 1).get_color())


def test_the_points_stand_where_they_stood_before():
    first, second = (points(box_figure(VALUES, "AUROC").axes[0], 0).get_xdata() for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_the_box_spans_the_quartiles_around_the_median():
    rng = np.random.default_rng(0)
    values = rng.normal(size=40)
    ax = box_figure({"Run 1": {"plain": values}}, "AUROC").axes[0]
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    (box,) = ax.patches
    corners = box.get_path().vertices[:, 1]
    assert (corners.min(), corners.max()) == pytest.approx((low, high))
    medians = [line for line in ax.get_lines() if line.get_linewidth() == 2.2]
    assert [line.get_ydata()[0] for line in medians] == pytest.approx([middle])
    reach = 1.5 * (high - low)
    inside = values[(values >= low - reach) & (values <= high + reach)]
    ends = [y for line in ax.get_lines() if not line.get_label().startswith("_0") for y in line.get_ydata()]
    assert (min(ends), max(ends)) == pytest.approx((inside.min(), inside.max()))


def test_panels_share_models_and_axis_and_say_what_is_missing():
    figure = box_figure(VALUES, "AUROC")
    one, two = figure.axes
    assert [ax.get_title() for ax in (one, two)] == ["Run 1", "Run 2"]
    for ax in (one, two):
        assert [tick.get_text() for tick in ax.get_xticklabels()] == ["plain", "MXA"]
    assert one.get_ylim() == two.get_ylim()
    assert (one.get_ylabel(), two.get_ylabel()) == ("AUROC", "")
    assert [(text.get_text(), text.get_position()[0]) for text in two.texts] == [("no values", 0)]
    assert not one.texts
    np.testing.assert_array_equal(points(two, 1).get_ydata(), [0.6])


def test_impossible_values_are_refused():
    with pytest.raises(ValueError, match="Run 1, 'plain': needs finite values"):
        box_figure({"Run 1": {"plain": [0.5, float("nan")]}}, "AUROC")
    for nothing in ({}, {"Run 1": {}}):
        with pytest.raises(ValueError, match="no model"):
            box_figure(nothing, "AUROC")


# --- intervals


def test_each_model_has_its_interval_and_number():
    figure = interval_bars(ROWS, "AUROC")
    ax = figure.axes[0]
    segments = [segment.tolist() for segment in ax.collections[0].get_segments()]
    assert segments == [[[0, 0.78], [0, 0.83]], [[1, 0.84], [1, 0.86]]]
    dots = named(ax, "mean with its 95% interval")
    assert (list(dots.get_xdata()), list(dots.get_ydata())) == ([0, 1], [0.8, 0.85])
    assert annotations(figure) == ["0.800", "0.850"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["plain", "MXA"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mean with its 95% interval"]
    low, high = ax.get_ylim()
    assert low < 0.78
    assert high > 0.86
    assert not ax.patches, "no bar, which would have to start at 0"


def test_published_values_are_hollow_named_and_at_their_models():
    figure = interval_bars(ROWS, "AUROC", {"MXA": 0.87, "CheXNet": 0.84})
    ax = figure.axes[0]
    hollow = named(ax, "published")
    np.testing.assert_allclose(hollow.get_xdata(), [1.15, 2])
    np.testing.assert_allclose(hollow.get_ydata(), [0.87, 0.84])
    assert to_hex(hollow.get_markerfacecolor()) == "#ffffff"
    ours = named(ax, "mean with its 95% interval")
    assert to_hex(ours.get_markerfacecolor()) != "#ffffff"
    assert ours.get_marker() != hollow.get_marker()
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["plain", "MXA", "CheXNet"]
    assert annotations(figure) == ["0.800", "0.850", "0.870", "0.840"]
    assert ax.get_ylim()[1] > 0.87


def test_published_values_alone_need_no_interval():
    figure = interval_bars({}, "AUROC", {"CheXNet": 0.84})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["published"]


@pytest.mark.parametrize(
    ("rows", "published", "message"),
    [
        ({}, None, "no model"),
        ({"a": Interval(0.5, 0.6, 0.4, 0.95)}, None, "'a' has an impossible interval"),
        ({"a": Interval(0.5, 0.4, float("nan"), 0.95)}, None, "'a' has an impossible interval"),
        (ROWS | {"a": Interval(0.5, 0.4, 0.6, 0.9)}, None, "different levels"),
        (ROWS, {"MXA": float("nan")}, "published value of 'MXA' is nan"),
    ],
)
def test_impossible_intervals_are_refused(rows, published, message):
    with pytest.raises(ValueError, match=message):
        interval_bars(rows, "AUROC", published)
