import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from mxa.evaluation.figures import cooccurrence_figure
from mxa.labels import CHEXPERT14, LabelSet

THREE = LabelSet("three", ("First", "Second", "Third"), ("A", "B", "C"))
TRUTH = np.array([[1.0, 0.25, 0.0], [0.5, 1.0, 0.996], [np.nan, np.nan, np.nan]])
PREDICTED = np.array([[0.8, 0.3, 0.004], [0.1, 0.9, 0.5], [np.nan, np.nan, np.nan]])


def cells(ax):
    """The annotations as rows of words."""
    found = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in ax.texts}
    return [[found[i, j] for j in range(3)] for i in range(3)]


def test_every_cell_says_its_percentage():
    left, right, bar = cooccurrence_figure(TRUTH, PREDICTED, THREE).axes
    assert cells(left) == [["100", "25", "0"], ["50", "100", ">99"], ["–"] * 3]
    assert cells(right) == [["80", "30", "<1"], ["10", "90", "50"], ["–"] * 3]
    np.testing.assert_allclose(left.images[0].get_array().filled(np.nan), 100 * TRUTH)
    np.testing.assert_allclose(right.images[0].get_array().filled(np.nan), 100 * PREDICTED)
    assert all(ax.images[0].get_clim() == (0, 100) for ax in (left, right)), "one scale for both"
    assert "%" in bar.get_ylabel()


def test_rows_and_columns_have_the_short_names_and_the_diagonal_is_explained():
    left, right, _ = cooccurrence_figure(TRUTH, PREDICTED, THREE).axes
    for ax in (left, right):
        assert [tick.get_text() for tick in ax.get_xticklabels()] == ["A", "B", "C"]
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["A", "B", "C"]
    assert "sensitivity" in right.get_title()
    assert "truly" in left.get_xlabel()
    assert "predicted" in right.get_xlabel()


def test_undefined_cells_are_hatched():
    left, _, _ = cooccurrence_figure(TRUTH, PREDICTED, THREE).axes
    hatched = [patch for patch in left.patches if isinstance(patch, Rectangle) and patch.get_hatch()]
    assert sorted(patch.get_xy() for patch in hatched) == [(-0.5, 1.5), (0.5, 1.5), (1.5, 1.5)]


def test_text_stands_out_from_its_cell():
    left, _, _ = cooccurrence_figure(TRUTH, PREDICTED, THREE).axes
    colours = {text.get_text(): to_rgba(text.get_color()) for text in left.texts}
    assert colours["0"] == to_rgba("white"), "on the dark end"
    assert colours["100"] == to_rgba("black"), "on the bright end"


def test_wrong_shares_are_refused():
    with pytest.raises(ValueError, match=r"truth must be \(14, 14\) for chexpert14, got \(3, 3\)"):
        cooccurrence_figure(TRUTH, PREDICTED, CHEXPERT14)
    with pytest.raises(ValueError, match=r"predicted must be \(3, 3\)"):
        cooccurrence_figure(TRUTH, PREDICTED[:2], THREE)
    with pytest.raises(ValueError, match=r"predicted has a share outside \[0, 1\]"):
        cooccurrence_figure(TRUTH, PREDICTED * 100, THREE)
