import pytest
from matplotlib.colors import to_hex

from mxa.evaluation.figures import ForestRow, forest_figure
from mxa.evaluation.intervals import Interval

EDEMA = Interval(0.8, 0.75, 0.84, 0.95)
FRACTURE = Interval(0.61, 0.4, 0.79, 0.95)


def named(ax, label):
    return [line for line in ax.get_lines() if line.get_label() == label]


def rows_of(ax):
    """The labels at the left by their place."""
    return dict(zip([tick.get_text() for tick in ax.get_yticklabels()], ax.get_yticks(), strict=True))


def words(ax):
    """The texts at the right by their place."""
    return {text.get_position()[1]: text.get_text() for text in ax.texts}


def test_every_row_has_its_dot_line_and_numbers():
    figure = forest_figure({"": [ForestRow("Edema", EDEMA), ForestRow("Fracture", FRACTURE, "p = 0.03")]}, "AUROC", 0.5)
    ax = figure.axes[0]
    assert rows_of(ax) == {"Edema": 0, "Fracture": 1}
    assert ax.yaxis_inverted()
    for y, (dot, line, one) in enumerate(
        zip(named(ax, "_estimate"), named(ax, "_interval"), (EDEMA, FRACTURE), strict=True)
    ):
        assert (list(dot.get_xdata()), list(dot.get_ydata())) == ([one.estimate], [y])
        assert (list(line.get_xdata()), list(line.get_ydata())) == ([one.low, one.high], [y, y])
    assert words(ax)[0] == "0.800 (0.750 to 0.840)"
    assert words(ax)[1] == "0.610 (0.400 to 0.790)  p = 0.03"
    assert "Estimate (95% interval)" in words(ax).values()
    (reference,) = named(ax, "_reference")
    assert set(reference.get_xdata()) == {0.5}
    assert ax.get_xlabel() == "AUROC"
    assert figure.legends == []


def test_everything_lies_inside_the_axis():
    outside = Interval(0.9, 0.2, 0.7, 0.95)  # a bias-corrected interval may leave its estimate out
    ax = forest_figure({"": [ForestRow("A", outside)]}, "AUROC", 0).axes[0]
    low, high = ax.get_xlim()
    assert low < 0
    assert high > 0.9
    bottom, top = ax.get_ylim()
    assert top < 0 < bottom


def test_an_undefined_row_shows_its_note_and_no_mark():
    ax = forest_figure({"": [ForestRow("Hernia", None, "no positives")]}, "AUROC", 0.5).axes[0]
    assert words(ax) == {0: "no positives"}
    assert named(ax, "_estimate") == named(ax, "_interval") == []


def test_headings_are_bold_and_set_groups_apart():
    groups = {
        "": [ForestRow("All", EDEMA)],
        "Sex": [ForestRow("female", EDEMA), ForestRow("male", FRACTURE)],
        "Nothing": [],
        "View": [ForestRow("AP", EDEMA)],
    }
    ax = forest_figure(groups, "AUROC", None).axes[0]
    assert rows_of(ax) == {"All": 0, "Sex": 1.5, "female": 2.5, "male": 3.5, "View": 5, "AP": 6}
    bold = [tick.get_text() for tick in ax.get_yticklabels() if tick.get_fontweight() == "bold"]
    assert bold == ["Sex", "View"]
    assert named(ax, "_reference") == []
    assert [line.get_ydata()[0] for line in named(ax, "_estimate")] == [0, 2.5, 3.5, 6]


def test_series_of_one_label_stand_together_and_differ():
    rows = [
        ForestRow("Edema", EDEMA, series="plain"),
        ForestRow("Fracture", None, "no positives", series="plain"),
        ForestRow("Edema", FRACTURE, series="MXA"),
        ForestRow("Fracture", FRACTURE, series="MXA"),
    ]
    figure = forest_figure({"": rows}, "AUROC", 0.5)
    ax = figure.axes[0]
    assert rows_of(ax) == {"Edema": 0.5, "Fracture": 2.5}
    plain, mxa, other = named(ax, "_estimate")
    assert [line.get_ydata()[0] for line in (plain, mxa, other)] == [0, 1, 3]
    assert [line.get_xdata()[0] for line in (plain, mxa, other)] == [0.8, 0.61, 0.61]
    assert to_hex(mxa.get_color()) == to_hex(other.get_color()) != to_hex(plain.get_color())
    assert mxa.get_marker() == other.get_marker() != plain.get_marker()
    assert words(ax)[2] == "no positives"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["plain", "MXA"]
    shaded = [(patch.get_y(), patch.get_y() + patch.get_height()) for patch in ax.patches]
    assert shaded == [(-0.5, 1.5)]


def test_the_height_grows_with_the_rows():
    few, many = (
        forest_figure({"": [ForestRow(str(k), EDEMA) for k in range(n)]}, "AUROC", 0.5).get_figheight() for n in (5, 25)
    )
    assert many - few == pytest.approx(20 * 0.2)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ForestRow("A", None), "note must say why"),
        (lambda: ForestRow("A", Interval(0.5, 0.6, 0.4, 0.95)), "impossible interval"),
        (lambda: ForestRow("A", Interval(float("nan"), 0.4, 0.6, 0.95)), "impossible interval"),
        (lambda: forest_figure({}, "x", None), "no row"),
        (lambda: forest_figure({"Sex": []}, "x", None), "no row"),
        (
            lambda: forest_figure({"S": [ForestRow("A", EDEMA)] * 2}, "x", None),
            "'S' has the row 'A' .* twice",
        ),
        (
            lambda: forest_figure({"": [ForestRow("A", EDEMA), ForestRow("B", Interval(0, 0, 0, 0.9))]}, "x", None),
            r"different levels .* \[0.9, 0.95\]",
        ),
    ],
)
def test_what_cannot_be_shown_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
