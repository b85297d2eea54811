"""Human readers beside a model's curve: hand-made curves, and interpolation in exact fractions."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from mxa.errors import ConfigError, DataError
from mxa.evaluation.cases import Cases
from mxa.evaluation.readers import Reader, ReaderPoint, below_curve, count_under, read_readers, reader_points
from mxa.labels import CHEXPERT14, LabelSet

TWO = LabelSet("two", ("A", "B"), ("a", "b"))


def some_cases(probability, target, mask=None, logit=None, key=None, unit="study") -> Cases:
    target = np.array(target, dtype=float)
    key = tuple(f"c{i}" for i in range(len(target))) if key is None else tuple(key)
    return Cases(
        key=key,
        unit=unit,
        patient=key,
        study=key,
        probability=np.array(probability, dtype=float),
        target=target,
        mask=np.ones(target.shape, bool) if mask is None else mask,
        labels=TWO,
        frame=pd.DataFrame(index=range(len(key))),
        not_scored={},
        logit=logit,
        patients_known=False,
    )


def some_reader(key, decision, read=None, labels=TWO, unit="study") -> Reader:
    decision = np.array(decision, dtype=bool)
    return Reader("R", tuple(key), unit, decision, np.ones_like(decision) if read is None else read, labels, "r.csv")


def drawn(seed: int) -> tuple[Cases, Reader]:
    """30 cases of which the reader read some, in another order and not for every finding."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, (30, 2))
    cases = some_cases(np.round(rng.random((30, 2)), 1), target, rng.random((30, 2)) < 0.8)
    rows = rng.permutation(30)[:20]
    read = rng.random((20, 2)) < 0.8
    return cases, some_reader([f"c{i}" for i in rows], (rng.random((20, 2)) < 0.5) & read, read)


# --- the curve


def height(score: np.ndarray, target: np.ndarray, x: Fraction) -> Fraction:
    """The upper end of the ROC curve at x, from its definition at every threshold, in exact fractions."""
    positives, negatives = int(target.sum()), int((~target).sum())
    corners = sorted(
        {
            (
                Fraction(int((~target & (score >= t)).sum()), negatives),
                Fraction(int((target & (score >= t)).sum()), positives),
            )
            for t in [*score, np.inf]
        }
    )
    at = [y for corner, y in corners if corner == x]
    if at:
        return max(at)
    (x0, y0), (x1, y1) = next((a, b) for a, b in pairwise(corners) if a[0] < x < b[0])
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 2))
def test_below_is_strictly_below_the_interpolated_curve(seed: int, decimals: int) -> None:
    """Every point of the grid, of a curve with ties; in floating point some of those on the curve would be below."""
    rng = np.random.default_rng(seed)
    positives, negatives = rng.integers(1, 8, 2)
    target = rng.permutation(np.r_[np.ones(positives, bool), np.zeros(negatives, bool)])
    score = np.round(rng.random(len(target)), decimals)
    for called in range(negatives + 1):
        top = height(score, target, Fraction(called, int(negatives)))
        for hits in range(positives + 1):
            expected = Fraction(hits, int(positives)) < top
            assert below_curve(called, hits, score, target) == expected, (called, hits)


def test_a_curve_by_hand() -> None:
    """Corners (0, 0), (0, 1/2), (1/2, 1/2), (1, 1): a vertical step, a level one, and a tie of both classes."""
    score, target = np.array([0.9, 0.6, 0.3, 0.3]), np.array([True, False, True, False])
    below = {(called, hits) for called in range(3) for hits in range(3) if below_curve(called, hits, score, target)}
    assert below == {(0, 0), (1, 0), (2, 0), (2, 1)}, "(0, 0) is on the step, whose upper end counts"
    constant = np.full(4, 0.5)
    assert not below_curve(1, 1, constant, target), "on the diagonal"
    assert below_curve(1, 0, constant, target)


# --- points


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_points_against_scikit_learn_and_fractions(seed: int) -> None:
    cases, reader = drawn(seed)
    points = reader_points(reader, cases)
    rows = [cases.key.index(key) for key in reader.key]
    for j, name in enumerate(TWO):
        kept = [(i, row) for i, row in enumerate(rows) if reader.read[i, j] and cases.mask[row, j]]
        truth = np.array([cases.target[row, j] == 1 for _, row in kept])
        called = np.array([reader.decision[i, j] for i, _ in kept])
        score = np.array([cases.probability[row, j] for _, row in kept])
        (tn, fp), (fn, tp) = confusion_matrix(truth, called, labels=[False, True])
        point = points[name]
        assert (point.positives, point.negatives) == (tp + fn, tn + fp)
        assert point.sensitivity == (pytest.approx(tp / (tp + fn)) if tp + fn else None)
        assert point.specificity == (pytest.approx(tn / (tn + fp)) if tn + fp else None)
        if point.reason is None:
            x, y = Fraction(int(fp), int(tn + fp)), Fraction(int(tp), int(tp + fn))
            assert point.under_curve == (y < height(score, truth, x))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_neither_the_order_of_rows_nor_a_monotone_transform_matters(seed: int) -> None:
    cases, reader = drawn(seed)
    order = np.random.default_rng(seed).permutation(20)
    mixed = some_reader([reader.key[i] for i in order], reader.decision[order], reader.read[order])
    transformed = some_cases(cases.probability**2, cases.target, cases.mask, logit=3 * cases.probability - 1)
    assert reader_points(mixed, transformed) == reader_points(reader, cases)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_flipped_labels_and_decisions_swap_sensitivity_and_specificity(seed: int) -> None:
    cases, reader = drawn(seed)
    flipped = some_cases(1 - cases.probability, 1 - cases.target, cases.mask)
    other = reader_points(some_reader(reader.key, ~reader.decision & reader.read, reader.read), flipped)
    for name, point in reader_points(reader, cases).items():
        assert (point.sensitivity, point.specificity) == (other[name].specificity, other[name].sensitivity)


def test_the_curve_is_of_the_cases_that_were_read() -> None:
    """On the two cases that were read the model is perfect; on all of them it is not."""
    target = [[1, 1], [0, 0], [0, 0], [1, 1]]
    cases = some_cases([[0.9, 0.9], [0.1, 0.1], [1.0, 1.0], [0.0, 0.0]], target)
    found = reader_points(some_reader(["c1", "c0"], [[True, True], [True, True]]), cases)["A"]
    assert found == ReaderPoint(1.0, 0.0, 1, 1, False, None)
    found = reader_points(some_reader(["c1", "c0"], [[False, False], [False, False]]), cases)["A"]
    assert found == ReaderPoint(0.0, 1.0, 1, 1, True, None)


def test_logits_rank_where_probabilities_saturate() -> None:
    """By its logits the model is perfect, by its probabilities it says nothing; the reader guesses."""
    target, ones = np.array([[1, 1], [1, 1], [0, 0], [0, 0]]), np.ones((4, 2))
    reader = some_reader(["c0", "c1", "c2", "c3"], [[1, 1], [0, 0], [1, 1], [0, 0]])
    assert reader_points(reader, some_cases(ones, target))["A"].under_curve is False
    assert reader_points(reader, some_cases(ones, target, logit=50.0 + target))["A"].under_curve is True


def test_what_is_undefined_has_a_reason() -> None:
    cases = some_cases(np.full((3, 2), 0.5), [[1, 0], [1, 0], [1, 0]])
    points = reader_points(some_reader(["c0", "c1", "c2"], [[1, 0], [0, 1], [1, 1]]), cases)
    assert points["A"] == ReaderPoint(pytest.approx(2 / 3), None, 3, 0, None, "no negatives")
    assert points["B"] == ReaderPoint(None, pytest.approx(1 / 3), 0, 3, None, "no positives")
    masked = some_cases(np.full((3, 2), 0.5), np.ones((3, 2)), np.zeros((3, 2), bool))
    assert reader_points(some_reader(["c0"], [[1, 1]]), masked)["A"].reason == "not annotated"
    one = LabelSet("one", ("B",), ("b",))
    points = reader_points(some_reader(["c0"], [[1]], labels=one), cases)
    assert points["A"] == ReaderPoint(None, None, 0, 0, None, "not read")
    assert points["B"].negatives == 1
    unread = np.array([[False, True]])
    assert reader_points(some_reader(["c0"], [[0, 1]], unread), cases)["A"].reason == "not read"


def test_readers_are_counted_where_it_is_defined() -> None:
    below, above = ReaderPoint(0.0, 1.0, 1, 1, True, None), ReaderPoint(1.0, 1.0, 1, 1, False, None)
    undefined = ReaderPoint(None, 1.0, 0, 1, None, "no positives")
    points = [{"A": below, "B": undefined}, {"A": above, "B": undefined}, {"A": below, "B": below}]
    assert count_under(points) == {"A": (2, 3), "B": (1, 1)}
    assert count_under([]) == {}


def test_names_are_joined_as_predictions_are() -> None:
    keys = [f"CheXpert-v1.0/test/patient{i}/study1" for i in range(2)]
    cases = some_cases([[0.9, 0.1], [0.1, 0.9]], [[1, 0], [0, 1]], key=keys)
    points = reader_points(some_reader(["test/patient1/study1/", "test/patient0/study1"], [[0, 1], [1, 0]]), cases)
    assert (points["A"].sensitivity, points["A"].specificity) == (1, 1)


def test_cases_that_do_not_fit_are_refused() -> None:
    cases = some_cases(np.full((3, 2), 0.5), np.zeros((3, 2)))
    with pytest.raises(DataError, match=r"reader R \(r\.csv\): 1 studies are not among the cases \(x\); take them out"):
        reader_points(some_reader(["c0", "x"], np.zeros((2, 2))), cases)
    with pytest.raises(DataError, match=r"reader R \(r\.csv\) and the cases have no study in common: one has 'x'"):
        reader_points(some_reader(["x"], np.zeros((1, 2))), cases)
    with pytest.raises(DataError, match=r"1 studies occur more than once \(c0\)"):
        reader_points(some_reader(["c0", "c0/"], np.zeros((2, 2))), cases)
    with pytest.raises(DataError, match=r"decided per image, but the cases are studies"):
        reader_points(some_reader(["c0"], np.zeros((1, 2)), unit="image"), cases)
    images = some_cases(np.full((3, 2), 0.5), np.zeros((3, 2)), unit="image")
    with pytest.raises(ConfigError, match=r"decided per study, but the cases are images: choose --aggregate"):
        reader_points(some_reader(["c0"], np.zeros((1, 2))), images)


# --- files


def test_files_of_one_and_of_several_readers(tmp_path: Path) -> None:
    (tmp_path / "bc4.csv").write_text("Study,Edema,Cardiomegaly\ns1,1,0.0\ns2,,1\n")
    (tmp_path / "panel.csv").write_text("path,Reader,Edema\na,x,1\na,y,0\nb,y,\n")
    one, x, y = read_readers([tmp_path / "bc4.csv", tmp_path / "panel.csv"], CHEXPERT14)
    assert (one.name, one.key, one.unit) == ("bc4", ("s1", "s2"), "study")
    assert one.labels.findings == ("Cardiomegaly", "Edema")
    assert one.decision.tolist() == [[False, True], [True, False]]
    assert one.read.tolist() == [[True, True], [True, False]]
    assert (x.name, x.key, x.unit, x.decision.tolist()) == ("x", ("a",), "image", [[True]])
    assert (y.name, y.key) == ("y", ("a", "b"))
    assert y.read.tolist() == [[True], [False]]


def test_the_ending_is_no_part_of_the_readers_name(tmp_path: Path) -> None:
    (tmp_path / "dr.who.csv").write_text("path,Edema\na,1\n")
    assert read_readers([tmp_path / "dr.who.csv"])[0].name == "dr.who"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,Edema\na,0.5\n", r"r\.csv, line 2: Edema is '0\.5'; a decision is 0, 1 or blank"),
        ("path,Edema\na,1\nb,yes\n", r"r\.csv, line 3: Edema is 'yes'; a decision"),
        ("path,Edema\na,-1\n", r"Edema is '-1'; a decision"),
        ("path,Edema,Oedema\na,1,1\n", r"r\.csv: unknown columns 'Oedema'"),
        ("path\na\n", r"r\.csv: no column is a finding"),
        ("file,Edema\na,1\n", r"no column names the rows"),
        ("path,reader,Edema\na,,1\n", r"r\.csv, line 2: reader is blank"),
        ("path,reader,Reader,Edema\na,x,x,1\n", r"the columns reader and Reader say the same"),
        ("path,reader,Edema\na,x,1\na,x,0\n", r"r\.csv, reader x: 1 images occur more than once \(a\)"),
        ("path,Edema\na,1\na,1\n", r"reader r: 1 images occur more than once"),
    ],
)
def test_broken_files_are_refused_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_readers([tmp_path / "r.csv"], CHEXPERT14)


def test_two_readers_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for folder in (tmp_path, tmp_path / "more"):
        (folder / "bc4.csv").write_text("path,Edema\na,1\n")
    with pytest.raises(DataError, match=r"more/bc4\.csv and .*bc4\.csv both have a reader called 'bc4'; rename one"):
        read_readers([tmp_path / "bc4.csv", tmp_path / "more" / "bc4.csv"])
