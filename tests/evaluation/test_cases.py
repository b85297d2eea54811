"""Predictions joined to the truth, against dictionaries in plain Python."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mxa.data.chexpert import read_chexpert
from mxa.errors import ConfigError, DataError
from mxa.evaluation.cases import Cases, cases_of, find_rows, join
from mxa.evaluation.predictions import FilePredictions, Predictions, read_predictions
from mxa.evaluation.reference import Reference, read_reference
from mxa.labels import CHEXPERT14, LabelSet

TWO = LabelSet("two", ("A", "B"), ("a", "b"))


def predicted(key, probability, study=None, unit="image", labels=TWO, patient=None) -> FilePredictions:
    study = ("",) * len(key) if study is None else tuple(study)
    patients = tuple(key) if patient is None else tuple(patient)
    array = np.array(probability, dtype=float).reshape(len(key), len(labels))
    return FilePredictions(tuple(key), unit, study, patients, patient is not None, array, labels, "p.csv")


def labelled(key, target, study=None, unit="image", labels=TWO, patient=None, mask=None, frame=None) -> Reference:
    array = np.array(target, dtype=float).reshape(len(key), len(labels))
    return Reference(
        key=tuple(key),
        unit=unit,
        study=("",) * len(key) if study is None else tuple(study),
        patient=tuple(key) if patient is None else tuple(patient),
        target=array,
        mask=np.ones(array.shape, bool) if mask is None else np.array(mask),
        labels=labels,
        frame=pd.DataFrame(index=range(len(key))) if frame is None else pd.DataFrame(frame),
        uncertain=0,
        blank=0,
        patients_known=patient is not None,
        source="t.csv",
    )


def drawn(seed: int, studies: int = 5, images: int = 12) -> tuple[FilePredictions, Reference]:
    """Some images per study, labels by study; probabilities with ties."""
    rng = np.random.default_rng(seed)
    of = np.concatenate([np.arange(studies), rng.integers(0, studies, images - studies)])
    key = [f"{i}.png" for i in range(images)]
    study = [f"s{k}" for k in of]
    truth, counted = rng.integers(0, 2, (studies, 2)), rng.random((studies, 2)) < 0.8
    probability = np.round(rng.random((images, 2)), 1)
    patient = [f"p{k // 2}" for k in of]
    sex = [f"{k % 2}" for k in of]
    reference = labelled(
        key, truth[of], study, patient=patient, mask=counted[of], frame={"sex": sex, "x": rng.random(images)}
    )
    return predicted(key, probability, study), reference


def shuffled_predictions(one: FilePredictions, order) -> FilePredictions:
    return replace(
        one,
        **{name: tuple(getattr(one, name)[i] for i in order) for name in ("key", "study", "patient")},
        probability=one.probability[order],
    )


def shuffled_reference(one: Reference, order) -> Reference:
    return replace(
        one,
        **{name: tuple(getattr(one, name)[i] for i in order) for name in ("key", "study", "patient")},
        target=one.target[order],
        mask=one.mask[order],
        frame=one.frame.iloc[order].reset_index(drop=True),
    )


def by_key(cases: Cases) -> dict[str, tuple]:
    rows = zip(
        cases.key,
        cases.patient,
        cases.study,
        cases.probability.tolist(),
        cases.target.tolist(),
        cases.mask.tolist(),
        cases.frame.astype(object).fillna("unknown").to_numpy().tolist(),
        strict=True,
    )
    return {key: tuple(rest) for key, *rest in rows}


# --- joining


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([None, "max", "mean"]))
def test_the_order_of_rows_never_matters(seed: int, aggregate: str | None) -> None:
    predictions, reference = drawn(seed)
    rng = np.random.default_rng(seed + 1)
    one, two = rng.permutation(12), rng.permutation(12)
    plain = join(predictions, reference, aggregate)
    assert by_key(join(shuffled_predictions(predictions, one), reference, aggregate)) == by_key(plain)
    mixed = join(shuffled_predictions(predictions, one), shuffled_reference(reference, two), aggregate)
    assert by_key(mixed) == by_key(plain), "to the last bit"
    if aggregate is None:
        assert mixed.key == tuple(reference.key[i] for i in two), "the labels' order"


def test_each_probability_meets_its_own_label() -> None:
    cases = join(
        predicted("ba", [[0.1, 0.2], [0.3, 0.4]]), labelled("ab", [[1, 0], [0, 1]], mask=[[True, True], [False, True]])
    )
    assert cases.key == ("a", "b")
    assert cases.probability.tolist() == [[0.3, 0.4], [0.1, 0.2]]
    assert cases.target.tolist() == [[1, 0], [0, 1]]
    assert cases.mask.tolist() == [[True, True], [False, True]]
    assert cases.logit is None
    assert cases.scores() is cases.probability


def test_findings_of_one_side_are_not_scored_and_it_says_so() -> None:
    three, other = LabelSet("t", ("A", "B", "C"), ("a", "b", "c")), LabelSet("o", ("D", "C", "A"), ("d", "c", "a"))
    cases = join(predicted("x", [0.1, 0.2, 0.3], labels=other), labelled("x", [1, 0, 0], labels=three))
    assert cases.labels.findings == ("A", "C")
    assert cases.probability.tolist() == [[0.3, 0.2]]
    assert cases.target.tolist() == [[1, 0]]
    assert cases.not_scored == {"B": "not in the predictions", "D": "not in the labels"}
    with pytest.raises(DataError, match=r"p\.csv and t\.csv have no finding in common: one has A, B, the other D"):
        join(predicted("x", [0, 0]), labelled("x", [1], labels=LabelSet("d", ("D",), ("d",))))


def test_patients_and_studies_are_the_labels_else_the_predictions() -> None:
    known = predicted("ba", np.zeros(4), study=("t2", "t1"), patient=("q2", "q1"))
    taken = join(known, labelled("ab", np.zeros(4)))
    assert (taken.patient, taken.study, taken.patients_known) == (("q1", "q2"), ("t1", "t2"), True)
    kept = join(known, labelled("ab", np.zeros(4), study=("s", ""), patient=("p", "p")))
    assert (kept.patient, kept.study, kept.patients_known) == (("p", "p"), ("s", ""), True)
    unknown = join(predicted("ba", np.zeros(4)), labelled("ab", np.zeros(4)))
    assert (unknown.patient, unknown.patients_known) == (("a", "b"), False)


def test_missing_and_extra_rows_are_counted_and_named() -> None:
    with pytest.raises(
        DataError,
        match=r"p\.csv and t\.csv must hold the same images: 4 have no prediction \(b, c, d, \.\.\.\); "
        r"1 are predicted but have no labels \(z\)",
    ):
        join(predicted("az", np.zeros(4)), labelled("abcde", np.zeros(10)))
    with pytest.raises(DataError, match=r"1 are predicted but have no labels \(b\)"):
        join(predicted("ab", np.zeros(4)), labelled("a", np.zeros(2)))
    with pytest.raises(DataError, match=r"same studies: 1 have no prediction \(b\)"):
        join(predicted("a", np.zeros(2), unit="study"), labelled("ab", np.zeros(4), unit="study"))


def test_nothing_in_common_shows_one_name_of_each() -> None:
    with pytest.raises(DataError, match=r"t\.csv and p\.csv have no image in common: one has 'x/a', the other 'a'"):
        join(predicted(["a", "b"], np.zeros(4)), labelled(["x/a", "x/b"], np.zeros(4)))


IMAGE = "valid/patient00001/study1/view1_frontal.jpg"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (f"/data/CheXpert-v1.0-small/{IMAGE}", IMAGE),
        (f"CheXpert-v1.0/{IMAGE}", f"CheXpert-v1.0-small/{IMAGE}"),
        ("CheXpert-v1.0/test/patient64741/study1/", "test/patient64741/study1"),
        ("any/name/", "any/name"),
    ],
)
def test_names_that_are_the_same(ours: str, theirs: str) -> None:
    cases = join(predicted([ours], [0.1, 0.2]), labelled([theirs], [0, 1]))
    assert cases.key == (theirs,)
    assert cases.probability.tolist() == [[0.1, 0.2]]


def test_chexpert_names_that_become_one_are_duplicates() -> None:
    twice = predicted([f"CheXpert-v1.0/{IMAGE}", f"CheXpert-v1.0-small/{IMAGE}"], np.zeros(4))
    with pytest.raises(DataError, match=r"p\.csv: 1 images occur more than once \(valid/patient00001"):
        join(twice, labelled([IMAGE], np.zeros(2)))
    with pytest.raises(DataError, match=r"t\.csv: 1 images occur more than once"):
        join(predicted([IMAGE], np.zeros(2)), labelled([IMAGE, f"x/{IMAGE}"], np.zeros(4)))


def test_names_are_cut_only_if_all_of_a_side_have_the_form() -> None:
    with pytest.raises(DataError, match="no image in common"):
        join(predicted([f"x/{IMAGE}", "b"], np.zeros(4)), labelled([IMAGE, "c"], np.zeros(4)))
    assert find_rows(["b", "a"], "one", ["a", "c"], "two", "image").tolist() == [-1, 0]


# --- images and studies


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_a_study_has_the_maximum_or_mean_of_its_images(seed: int) -> None:
    predictions, reference = drawn(seed)
    images = {}
    for key, study, row in zip(predictions.key, predictions.study, predictions.probability.tolist(), strict=True):
        images.setdefault(study, []).append((key, row))
    for how in ("max", "mean"):
        cases = join(predictions, reference, how)
        assert cases.unit == "study"
        assert cases.key == cases.study == tuple(dict.fromkeys(reference.study)), "in order of first appearance"
        for i, study in enumerate(cases.key):
            column = list(zip(*(row for _, row in images[study]), strict=True))
            expected = [max(values) if how == "max" else sum(values) / len(values) for values in column]
            np.testing.assert_allclose(cases.probability[i], expected, rtol=1e-15)
            first = reference.key.index(images[study][0][0])
            assert cases.target[i].tolist() == reference.target[first].tolist()
            assert cases.mask[i].tolist() == reference.mask[first].tolist()
            assert cases.patient[i] == reference.patient[first]
            assert cases.frame["sex"].iloc[i] == reference.frame["sex"].iloc[first]
            assert np.isnan(cases.frame["x"].iloc[i]) == (len(images[study]) > 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["max", "mean"]))
def test_one_image_per_study_changes_nothing(seed: int, how: str) -> None:
    predictions, reference = drawn(seed, studies=9, images=9)
    cases, folded = join(predictions, reference), join(predictions, reference, how)
    for name in ("probability", "target", "mask"):
        np.testing.assert_array_equal(getattr(folded, name), getattr(cases, name))
    assert (folded.key, folded.patient, folded.study) == (cases.study, cases.patient, cases.study)
    pd.testing.assert_frame_equal(folded.frame, cases.frame)


def test_equal_images_in_another_order_have_equal_means() -> None:
    """0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1 in floating point, but the two studies must be a tie."""
    values = [0.1, 0.2, 0.3, 0.3, 0.2, 0.1]
    cases = join(
        predicted("abcdef", np.repeat(values, 2), study="sssttt"),
        labelled("abcdef", np.zeros(12), study="sssttt"),
        "mean",
    )
    assert cases.probability[0, 0] == cases.probability[1, 0]


@pytest.mark.parametrize("how", ["max", "mean"])
def test_all_ways_to_studies_agree(how: str) -> None:
    """Folding after the join, folding predictions to labels by study, and labels to predictions by study."""
    predictions, images = drawn(3)
    after = join(predictions, images, how)
    studies = labelled(after.key, after.target, after.key, "study", patient=after.patient, mask=after.mask)
    folded = join(predictions, studies, how)
    given_by_study = predicted(after.key, after.probability, after.key, "study")
    labels_folded = join(given_by_study, images)
    for other in (folded, labels_folded):
        assert other.unit == "study"
        assert (other.key, other.patient, other.study) == (after.key, after.patient, after.study)
        for name in ("probability", "target", "mask"):
            np.testing.assert_array_equal(getattr(other, name), getattr(after, name))
    pd.testing.assert_frame_equal(labels_folded.frame, after.frame)


def test_units_that_do_not_go_together_are_refused() -> None:
    image, study = predicted("a", [0, 0], "s"), predicted("s", [0, 0], unit="study")
    with pytest.raises(ConfigError, match=r"the labels are per study: choose --aggregate max or mean"):
        join(image, labelled("s", [0, 0], unit="study"))
    for reference in (labelled("s", [0, 0], unit="study"), labelled("a", [0, 0], "s")):
        with pytest.raises(ConfigError, match=r"the predictions are per study already; leave --aggregate out"):
            join(study, reference, "max")
    with pytest.raises(ConfigError, match=r"aggregate is 'median'; choose from max, mean"):
        join(image, labelled("a", [0, 0], "s"), "median")
    folded = join(image, labelled("a", [0, 0], "s"), "max")
    with pytest.raises(ConfigError, match="studies already"):
        folded.by_study("max")
    with pytest.raises(ConfigError, match="aggregate is 'min'"):
        join(image, labelled("a", [0, 0], "s")).by_study("min")


def test_images_that_cannot_be_folded_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"the cases: the study of 4 images is unknown \(b, c, d, \.\.\.\); add a study"
    ):
        join(predicted("abcde", np.zeros(10)), labelled("abcde", np.zeros(10), study=("s", "", "", "", "")), "max")
    with pytest.raises(DataError, match=r"p\.csv: the study of 1 images is unknown \(a\)"):
        join(predicted("a", [0, 0]), labelled("s", [0, 0], unit="study"), "max")
    with pytest.raises(DataError, match=r"images of study t have different labels for B.*\(1 such studies\)"):
        join(predicted("abc", np.zeros(6), "stt"), labelled("abc", [0, 1, 1, 0, 1, 1], "stt"), "max")
    mask = [[True, True], [False, True]]
    with pytest.raises(DataError, match=r"t\.csv: the images of study s have different labels for A"):
        join(predicted("s", [0, 0], unit="study"), labelled("ab", np.zeros(4), "ss", mask=mask))
    with pytest.raises(DataError, match=r"study s has images of several patients"):
        join(predicted("ab", np.zeros(4)), labelled("ab", np.zeros(4), "ss", patient="pq"), "mean")


def test_labels_that_do_not_count_may_differ() -> None:
    mask = np.zeros((2, 2), bool)
    cases = join(predicted("ab", np.zeros(4)), labelled("ab", [0, 1, 1, 0], "ss", mask=mask), "max")
    assert not cases.mask.any()


def test_metadata_on_which_a_study_differs_becomes_blank() -> None:
    frame = {
        "view": ["frontal", "lateral", "frontal"],
        "age": [50.0, 50.0, np.nan],
        "n": [1, 2, 3],
        "sex": ["M", "M", "F"],
    }
    cases = join(predicted("abc", np.zeros(6)), labelled("abc", np.zeros(6), "sst", frame=frame), "max")
    assert cases.frame["view"].tolist() == ["", "frontal"]
    assert cases.frame["sex"].tolist() == ["M", "F"]
    np.testing.assert_array_equal(cases.frame["age"], [50, np.nan])
    np.testing.assert_array_equal(cases.frame["n"], [np.nan, 3])
    assert cases.patient == ("s", "t"), "unknown patients are the studies"


# --- a model's own predictions, selection


def test_a_models_own_predictions_keep_logits_and_the_tables_order(tiny_chexpert: Path) -> None:
    table = read_chexpert(tiny_chexpert).split("valid")
    logit = np.random.default_rng(0).normal(size=(len(table), 14))
    order = np.random.default_rng(1).permutation(len(table))
    frame = table.frame.iloc[order]
    cases = cases_of(Predictions.from_logit(frame["path"], frame["patient"], logit[order], CHEXPERT14), table)
    assert cases.key == tuple(table.frame["path"])
    np.testing.assert_array_equal(cases.logit, logit)
    assert cases.scores() is cases.logit
    np.testing.assert_array_equal(cases.target, table.target)
    assert not cases.not_scored
    folded = cases.by_study("max")
    assert len(folded) == len(table) // 2
    np.testing.assert_array_equal(folded.logit, logit.reshape(-1, 2, 14).max(axis=1))
    assert cases.by_study("mean").logit is None
    assert folded.frame["view"].tolist() == [""] * len(folded), "frontal and lateral"
    with pytest.raises(ValueError, match="for a table of"):
        cases_of(Predictions.from_logit(["a"], ["p"], [[0.0, 0.0]], TWO), table)
    with pytest.raises(DataError, match="have no prediction"):
        cases_of(Predictions.from_logit(["a"], ["p"], logit[:1], CHEXPERT14), table)


def test_files_from_end_to_end(tmp_path: Path) -> None:
    study = "CheXpert-v1.0/test/patient64741/study"
    (tmp_path / "p.csv").write_text(f"Study,Edema,Cardiomegaly\n{study}2,1,0\n{study}1,0,1\n")
    path = "CheXpert-v1.0-small/test/patient64741/study"
    (tmp_path / "t.csv").write_text(
        f"Path,Cardiomegaly,Edema\n{path}1/v1.jpg,1,0\n{path}1/v2.jpg,1,0\n{path}2/v.jpg,0,1\n"
    )
    cases = join(read_predictions(tmp_path / "p.csv"), read_reference(tmp_path / "t.csv"))
    assert cases.labels.findings == ("Cardiomegaly", "Edema")
    np.testing.assert_array_equal(cases.probability, cases.target)
    np.testing.assert_array_equal(cases.target, [[1, 0], [0, 1]])
    assert cases.decisions_only
    assert cases.patient == ("patient64741",) * 2


def test_selection() -> None:
    predictions, reference = drawn(0)
    cases = join(predictions, reference)
    rows = [3, 1]
    some = cases.take(rows)
    assert some.key == (cases.key[3], cases.key[1])
    assert by_key(some) == {key: by_key(cases)[key] for key in some.key}
    assert cases.take(np.isin(np.arange(12), rows)).key == (cases.key[1], cases.key[3])
    with_logit = replace(cases, logit=cases.probability * 2).take(rows)
    np.testing.assert_array_equal(with_logit.logit, cases.probability[rows] * 2)
    assert len(cases.take([])) == 0
    assert not cases.decisions_only


def test_construction_checks_what_must_fit_together() -> None:
    good = join(*drawn(0))
    for name in ("probability", "target", "mask", "logit"):
        with pytest.raises(ValueError, match=rf"{name} must be \(cases, findings\) = \(12, 2\), got \(12, 3\)"):
            replace(good, **{name: np.zeros((12, 3))})
    with pytest.raises(ValueError, match="1 patients"):
        replace(good, patient=("p",))
