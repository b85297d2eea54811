"""Anybody's CSVs and saved models, scored: files in the layouts that people have, and what is wrong with them."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    log_loss,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from conftest import ROOT_NAME, write_chexpert
from mxa.data.options import CsvOptions, DataOptions, read
from mxa.errors import ArtifactError, ConfigError, DataError
from mxa.evaluate import Sources, evaluate
from mxa.evaluation.assessment import Assessment, AssessOptions
from mxa.labels import CHEXPERT14, LabelPolicy
from mxa.models.artifact import Architecture, Classifier, load, save
from mxa.models.build import build_model
from mxa.predict import predict_table
from mxa.preprocess import Preprocess

FOUR = ["Cardiomegaly", "Edema", "Atelectasis", "Pleural Effusion"]
"""In the order of CheXpert's files."""
BOARD = ["Pleural Effusion", "Atelectasis", "Cardiomegaly", "Edema"]
"""In the order of somebody's predictions."""
FEW = AssessOptions(replicates=20)


def hospital(rng: np.random.Generator, first: int, split: str, folder: str) -> pd.DataFrame:
    """Labels in the layout of CheXpert's valid.csv: 40 patients with one or two studies of one or two images."""
    rows = []
    for patient in range(first, first + 40):
        sex, age = rng.choice(["Male", "Female"]), int(rng.integers(18, 95))
        for study in range(1, 2 + int(rng.random() < 0.3)):
            present = rng.random(4) < 0.4
            for view in ["view1_frontal", "view2_lateral"][: 1 + int(rng.random() < 0.5)]:
                path = f"{folder}/{split}/patient{patient:05d}/study{study}/{view}.jpg"
                frontal = view.endswith("frontal")
                meta = [sex, age, "Frontal" if frontal else "Lateral", "AP" if frontal else ""]
                rows.append([path, *meta, *(f"{int(one)}.0" for one in present)])
    return pd.DataFrame(rows, columns=["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FOUR])


def predicted(rng: np.random.Generator, labels: pd.DataFrame, gain: float) -> pd.DataFrame:
    """Probabilities that are worth something, findings and rows in an order of their own."""
    logit = gain * labels[FOUR].astype(float) - 1 + rng.normal(size=(len(labels), 4))
    found = (1 / (1 + np.exp(-logit)))[BOARD]
    found.insert(0, "Path", labels["Path"])
    return found.sample(frac=1, random_state=0)


def by_study(frame: pd.DataFrame, folder: str) -> pd.DataFrame:
    """One row per study, as in groundtruth.csv and the leaderboard's predictions."""
    study = folder + frame["Path"].str.extract(r"^[^/]+(/.*/study\d+)/")[0]
    values = frame.drop(columns="Path").select_dtypes("number").groupby(study, sort=False).max()
    return values.rename_axis("Study").reset_index()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of CSVs in the layouts that people have; do not change them."""
    folder, rng = tmp_path_factory.mktemp("csv"), np.random.default_rng(0)
    labels, validation = hospital(rng, 64741, "valid", "small"), hospital(rng, 1, "train", "small")
    scored = predicted(rng, labels, 2.5)
    truth = by_study(labels.assign(**labels[FOUR].astype(float)), "CheXpert-v1.0")
    truth.insert(3, "Fracture", 0.0)
    board = by_study(scored, "CheXpert").sample(frac=1, random_state=1)
    reader = truth.drop(columns="Fracture").assign(Edema=1 - truth["Edema"])
    reader.loc[0, "Cardiomegaly"] = np.nan
    for name, frame in {
        "labels": labels,
        "valid_labels": validation,
        "predictions": scored,
        "rival": predicted(rng, labels, 1.0),
        "valid_predictions": predicted(rng, validation, 2.5),
        "groundtruth": truth,
        "board": board,
        "decisions": board.set_index("Study").gt(0.5).astype(int).reset_index(),
        "reader": reader.drop(columns="Age"),
    }.items():
        frame.drop(columns=[c for c in ["Age"] if name == "groundtruth"]).to_csv(folder / f"{name}.csv", index=False)
    return folder


def sources(files: Path, predictions: str = "predictions", labels: str = "labels", **more: object) -> Sources:
    paths = {k: files / f"{v}.csv" for k, v in more.items() if k in {"valid_predictions", "valid_labels", "against"}}
    named = {"predictions": files / f"{predictions}.csv", "labels": files / f"{labels}.csv", "data": DataOptions()}
    return Sources(**{"model": None, "split": None, **named, **more, **paths})  # type: ignore[arg-type]


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Nothing is drawn; what would have been written is remembered."""
    seen: dict[str, object] = {}

    def write(
        out: Path, found: Assessment, title: str, notes: list[str], provenance: dict[str, str], more: list[object]
    ) -> None:
        seen.update(notes=" ".join(notes), title=title, provenance=provenance)

    monkeypatch.setattr("mxa.evaluate.write_assessment", write)
    return seen


def beside(files: Path, predictions: str = "predictions", labels: str = "labels") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Truth and probability of the four findings in one order, joined by pandas."""
    truth, scored = (pd.read_csv(files / f"{name}.csv") for name in (labels, predictions))
    key = truth.columns[0]
    places = [frame[key].str.extract(r"((?:valid|train)/.*)")[0] for frame in (truth, scored)]
    scored = scored.set_index(places[1]).loc[places[0]]
    return truth[FOUR], scored[FOUR]


def areas(truth: pd.DataFrame, scored: pd.DataFrame) -> dict[str, float]:
    return {name: roc_auc_score(truth[name].to_numpy(), scored[name].to_numpy()) for name in FOUR}


# --- what comes out


@pytest.fixture(scope="module")
def full(files: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Assessment]:
    """Everything at once, written to disk."""
    out = tmp_path_factory.mktemp("full") / "new" / "folder"
    more = {"valid_predictions": "valid_predictions", "valid_labels": "valid_labels", "against": "rival"}
    return out, evaluate(sources(files, **more), FEW, out)


def test_every_figure_is_scikit_learns(files: Path, full: tuple[Path, Assessment]) -> None:
    stored = json.loads((full[0] / "metrics.json").read_text(encoding="utf-8"))
    truth, scored = beside(files)
    assert list(stored["findings"]) == FOUR
    for name in FOUR:
        y, p = truth[name].to_numpy(), scored[name].to_numpy()
        one = {key: cell["value"] for key, cell in stored["measures"]["findings"][name].items()}
        assert stored["findings"][name]["auroc"] == pytest.approx(roc_auc_score(y, p))
        assert one["auroc"] == pytest.approx(roc_auc_score(y, p))
        assert one["average_precision"] == pytest.approx(average_precision_score(y, p))
        assert one["brier"] == pytest.approx(brier_score_loss(y, p))
        assert one["log_loss"] == pytest.approx(log_loss(y, p))
        assert stored["comparison"]["findings"][name]["second"] == pytest.approx(
            roc_auc_score(y, beside(files, "rival")[1][name])
        )
    pooled = roc_auc_score(truth.to_numpy().ravel(), scored.to_numpy().ravel())
    assert stored["auroc_micro"] == pytest.approx(pooled)
    assert stored["auroc_macro"] == pytest.approx(np.mean(list(areas(truth, scored).values())))


def test_validation_chooses_and_the_scored_cases_are_decided(files: Path, full: tuple[Path, Assessment]) -> None:
    """The threshold lies where Youden's index is largest on validation; the figures are those of the scored cases."""
    found = full[1]
    assert found.operating_point == "youden"
    truth, scored = beside(files)
    chosen_on = beside(files, "valid_predictions", "valid_labels")
    for j, name in enumerate(FOUR):
        false, true, _ = roc_curve(*(frame[name].to_numpy() for frame in chosen_on), drop_intermediate=False)
        called = chosen_on[1][name].to_numpy() > found.thresholds[j]
        y = chosen_on[0][name].to_numpy()
        assert called[y == 1].mean() - called[y == 0].mean() == pytest.approx((true - false).max())
        called = scored[name].to_numpy() > found.thresholds[j]
        assert found.measures.findings[name]["sensitivity"].value == pytest.approx(recall_score(truth[name], called))
        assert found.measures.findings[name]["specificity"].value == pytest.approx(
            recall_score(1 - truth[name], ~called)
        )


def test_the_record_says_what_was_done(full: tuple[Path, Assessment]) -> None:
    stored = json.loads((full[0] / "metrics.json").read_text(encoding="utf-8"))
    told = stored["provenance"]
    assert told["cases"] == f"{len(full[1].cases)} images of 40 patients"
    assert "valid_labels.csv" in told["thresholds chosen on"]
    assert told["compared with"].endswith("rival.csv")
    assert stored["tuning"]["fitted_on"]["split"] == "valid"
    assert (stored["comparison"]["first"], stored["comparison"]["second"]) == ("predictions", "rival")


def test_scored_labels_choose_nothing(files: Path, tmp_path: Path, quiet: dict[str, object]) -> None:
    """Turned-round labels of the scored cases change every figure, but no threshold and no calibration."""
    labels = pd.read_csv(files / "labels.csv")
    labels[FOUR] = 1 - labels[FOUR]
    labels.to_csv(tmp_path / "turned.csv", index=False)
    more = {"valid_predictions": "valid_predictions", "valid_labels": "valid_labels"}
    first = sources(files, **more)
    found = [
        evaluate(one, FEW, tmp_path / name)
        for name, one in (("a", first), ("b", replace(first, labels=tmp_path / "turned.csv")))
    ]
    assert found[0].evaluation.auroc_macro == pytest.approx(1 - found[1].evaluation.auroc_macro)
    assert found[0].tuning == found[1].tuning
    assert np.array_equal(found[0].thresholds, found[1].thresholds)


# --- layouts


def test_leaderboard_files_work_as_they_come(files: Path, tmp_path: Path, quiet: dict[str, object]) -> None:
    """By study, five findings on one side, other order, another name before test/."""
    one = sources(files, "board", "groundtruth", readers=[files / "reader.csv"])
    found = evaluate(one, FEW, tmp_path / "out")
    assert found.cases.unit == "study"
    truth, scored = beside(files, "board", "groundtruth")
    for name, area in areas(truth, scored).items():
        assert found.evaluation.findings[name].auroc == pytest.approx(area)
    assert found.cases.not_scored == {"Fracture": "not in the predictions"}
    assert "Not scored: Fracture (not in the predictions)." in str(quiet["notes"])
    point = found.readers["reader"]
    assert (point["Edema"].sensitivity, point["Edema"].specificity) == (0, 0)
    assert (point["Cardiomegaly"].sensitivity, point["Cardiomegaly"].specificity) == (1, 1)
    assert point["Cardiomegaly"].positives + point["Cardiomegaly"].negatives == len(truth) - 1


def test_decisions_have_one_point(files: Path, tmp_path: Path, quiet: dict[str, object]) -> None:
    found = evaluate(sources(files, "decisions", "groundtruth"), FEW, tmp_path / "out")
    truth, scored = beside(files, "decisions", "groundtruth")
    assert found.operating_point == "0.5"
    for name in FOUR:
        one = found.measures.findings[name]
        assert one["sensitivity"].value == pytest.approx(recall_score(truth[name], scored[name]))
        assert str(one["log_loss"].reason).startswith("infinite")
    assert not [name for name in found.measures.names if "_at_" in name], "there is no rate to fix"
    assert "decisions (0 or 1)" in str(quiet["notes"])


@pytest.mark.parametrize("how", ["max", "mean"])
@pytest.mark.parametrize("labels", ["labels", "groundtruth"])
def test_images_become_studies(how: str, labels: str, files: Path, tmp_path: Path, quiet: dict[str, object]) -> None:
    found = evaluate(sources(files, labels=labels, aggregate=how), FEW, tmp_path / "out")
    truth, scored = beside(files)
    study = pd.read_csv(files / "labels.csv")["Path"].str.rsplit("/", n=1).str[0].to_numpy()
    folded = scored.groupby(study, sort=False).agg(how)
    for name, area in areas(truth.groupby(study, sort=False).max(), folded).items():
        assert found.evaluation.findings[name].auroc == pytest.approx(area)
    assert f"{how} over the images of a study" in quiet["provenance"]["cases"]  # type: ignore[index]


def test_findings_of_ones_own(files: Path, tmp_path: Path, quiet: dict[str, object]) -> None:
    own = {"Edema": "Wet lung", "Cardiomegaly": "Large heart"}
    for name in ("predictions", "labels"):
        frame = pd.read_csv(files / f"{name}.csv").drop(columns=["Atelectasis", "Pleural Effusion"])
        frame.rename(columns=own).to_csv(tmp_path / f"{name}.csv", index=False)
    with pytest.raises(DataError, match=r"unknown columns|no column is a finding"):
        evaluate(sources(tmp_path), FEW, tmp_path / "out")
    found = evaluate(sources(tmp_path, findings=["Large heart", "Wet lung"]), FEW, tmp_path / "out")
    assert found.cases.labels.findings == ("Large heart", "Wet lung")
    theirs = areas(*beside(files))
    assert found.evaluation.findings["Wet lung"].auroc == pytest.approx(theirs["Edema"])


def test_images_beside_studies_of_another_model(files: Path, tmp_path: Path, quiet: dict[str, object]) -> None:
    """What is by image is folded, what is by study already is not."""
    found = evaluate(sources(files, aggregate="max", against="board"), FEW, tmp_path / "a")
    assert all(one.first == one.second for one in found.comparison.findings.values())
    found = evaluate(
        sources(files, "board", "groundtruth", aggregate="max", against="predictions"), FEW, tmp_path / "b"
    )
    assert all(one.first == one.second for one in found.comparison.findings.values())


def test_other_columns_group_the_cases(files: Path, tmp_path: Path, quiet: dict[str, object]) -> None:
    labels = pd.read_csv(files / "labels.csv")
    labels["scanner"] = np.where(np.arange(len(labels)) % 3 == 0, "old", "new")
    labels.loc[0, "scanner"] = None
    labels.to_csv(tmp_path / "more.csv", index=False)
    options = replace(FEW, subgroups=["sex", "scanner"], strata=["Edema"], min_count=5)
    found = evaluate(replace(sources(files), labels=tmp_path / "more.csv"), options, tmp_path / "out")
    groups = {(one.column, one.value): one for one in found.groups}
    assert set(groups) == {("sex", "F"), ("sex", "M"), ("scanner", "new"), ("scanner", "old")}
    assert groups["scanner", "old"].unknown == 1
    women = (labels["Sex"] == "Female").to_numpy()
    truth, scored = beside(files)
    for name, one in groups["sex", "F"].findings.items():
        if one.inside:
            assert one.inside.estimate == pytest.approx(
                roc_auc_score(truth[name][women], scored[name].to_numpy()[women])
            )
    assert [one.value for one in found.strata] == ["Edema", "no Edema"]


# --- what the reader is told


@pytest.mark.parametrize(("uncertain", "blank"), [("u-ones", "negative"), ("u-ignore", "ignore")])
def test_uncertain_and_blank_labels_are_told(
    uncertain: str, blank: str, files: Path, tmp_path: Path, quiet: dict[str, object]
) -> None:
    labels = pd.read_csv(files / "labels.csv")
    labels.loc[:2, "Edema"] = -1
    labels.loc[:4, "Cardiomegaly"] = np.nan
    labels.to_csv(tmp_path / "l.csv", index=False)
    data = DataOptions(policy=LabelPolicy(uncertain=uncertain, blank=blank))
    found = evaluate(replace(sources(files), labels=tmp_path / "l.csv", data=data), FEW, tmp_path / "out")
    assert f"3 labels are uncertain; --policy.uncertain says what they count as: {uncertain}." in str(quiet["notes"])
    assert f"5 labels are blank (not mentioned); --policy.blank says what they count as: {blank}." in str(
        quiet["notes"]
    )
    ignored = [found.evaluation.findings[name].ignored for name in ("Edema", "Cardiomegaly")]
    assert ignored == ([3, 5] if uncertain == "u-ignore" else [0, 0])


def test_what_validation_lacks_is_told(files: Path, tmp_path: Path, quiet: dict[str, object]) -> None:
    labels = pd.read_csv(files / "valid_labels.csv")
    labels[["Path", "Edema", "Atelectasis"]].assign(Atelectasis=0.0).to_csv(tmp_path / "v.csv", index=False)
    one = sources(files, valid_predictions="valid_predictions")
    found = evaluate(replace(one, valid_labels=tmp_path / "v.csv"), FEW, tmp_path / "a")
    assert np.isnan(found.thresholds).tolist() == [True, False, True, True]
    reasons = {name: found.measures.findings[name]["f1"].reason for name in FOUR}
    assert reasons["Cardiomegaly"] == "no threshold: not annotated on validation"
    assert reasons["Atelectasis"] == "no threshold: no positives on validation"
    assert "No calibration is shown: Cardiomegaly, Pleural Effusion (not annotated on validation)." in str(
        quiet["notes"]
    )
    labels.assign(Atelectasis=0.0).to_csv(tmp_path / "w.csv", index=False)
    found = evaluate(replace(one, valid_labels=tmp_path / "w.csv"), FEW, tmp_path / "b")
    assert list(found.calibrations) == ["as given", "temperature", "platt", "isotonic"]
    assert "Not calibrated by platt: Atelectasis (no positives)." in str(quiet["notes"])


def test_findings_that_one_model_lacks_are_not_compared(files: Path, tmp_path: Path, quiet: dict[str, object]) -> None:
    pd.read_csv(files / "rival.csv")[["Path", "Edema"]].assign(Fracture=0.5).to_csv(tmp_path / "few.csv", index=False)
    found = evaluate(replace(sources(files), against=tmp_path / "few.csv"), FEW, tmp_path / "out")
    assert list(found.comparison.findings) == ["Edema"]
    assert "Not compared: Cardiomegaly, Atelectasis, Pleural Effusion (not scored for few)." in str(quiet["notes"])


def test_two_models_of_one_name_are_told_apart(files: Path, tmp_path: Path, quiet: dict[str, object]) -> None:
    other = tmp_path / "predictions.csv"
    other.write_bytes((files / "rival.csv").read_bytes())
    found = evaluate(replace(sources(files), against=other), FEW, tmp_path / "out")
    assert (found.comparison.first, found.comparison.second) == ("predictions", str(other))


def test_unnamed_patients_are_told(files: Path, tmp_path: Path, quiet: dict[str, object]) -> None:
    """Without patients the intervals are too narrow, and nobody can see whom validation shares."""
    for name in ("labels", "predictions", "valid_labels", "valid_predictions"):
        frame = pd.read_csv(files / f"{name}.csv")
        frame["Path"] = frame["Path"].str.replace("/", "_")
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    evaluate(
        sources(tmp_path, valid_predictions="valid_predictions", valid_labels="valid_labels"), FEW, tmp_path / "out"
    )
    assert "No patients are named" in str(quiet["notes"])
    assert "whether some stand in both validation and scored cases is not known" in str(quiet["notes"])


def test_the_command_can_be_run_again(
    files: Path, tmp_path: Path, quiet: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["mxa", "evaluate", "--out", "my results", "--subgroups", "[sex, age]"])
    evaluate(sources(files), FEW, tmp_path / "out")
    assert shlex.split(quiet["provenance"]["command"]) == sys.argv  # type: ignore[index]


def test_a_column_of_many_values_is_told(files: Path, tmp_path: Path, quiet: dict[str, object]) -> None:
    """It neither groups nor stops the report, unless it is asked for."""
    labels = pd.read_csv(files / "labels.csv")
    labels["AP/PA"] = [f"view {k % 30}" for k in range(len(labels))]
    labels.to_csv(tmp_path / "l.csv", index=False)
    one = replace(sources(files), labels=tmp_path / "l.csv")
    found = evaluate(one, FEW, tmp_path / "a")
    assert {group.column for group in found.groups} == {"sex", "age", "view"}
    assert "Not grouped by projection: it has 30 values, more than 20." in str(quiet["notes"])
    evaluate(one, replace(FEW, subgroups=["sex"]), tmp_path / "b")
    assert "Not grouped" not in str(quiet["notes"])
    with pytest.raises(ConfigError, match=r"'projection' has 30 values, .*--subgroups"):
        evaluate(one, replace(FEW, subgroups=["projection"]), tmp_path / "c")


def test_odd_names_are_drawn(files: Path, tmp_path: Path) -> None:
    """Matplotlib takes what stands between two dollars for mathematics."""
    labels = pd.read_csv(files / "labels.csv")
    labels["income"] = np.where(np.arange(len(labels)) % 2, "$10k_$20k", "$20k")
    labels.to_csv(tmp_path / "l.csv", index=False)
    reader = pd.read_csv(files / "reader.csv").assign(reader="$r_$x")
    reader["Study"] = reader["Study"].astype(str)
    reader.to_csv(tmp_path / "r.csv", index=False)
    (tmp_path / "a$_$.csv").write_bytes((files / "rival.csv").read_bytes())
    one = sources(files, aggregate="max", readers=[tmp_path / "r.csv"])
    one = replace(one, labels=tmp_path / "l.csv", against=tmp_path / "a$_$.csv")
    found = evaluate(one, replace(FEW, subgroups=["income"], min_count=1), tmp_path / "out")
    assert {group.value for group in found.groups} == {"$10k_$20k", "$20k"}


# --- what is refused


def with_row(frame: pd.DataFrame, row: int, **cells: object) -> pd.DataFrame:
    return pd.concat([frame, frame.iloc[[row]].assign(**cells)])


def with_cell(name: str, value: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.astype(object)
        frame.iloc[2, list(frame.columns).index(name)] = value
        return frame

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.iloc[1:], r"1 have no prediction \(.*patient\d+/study"),
        (lambda f: with_row(f, 3), r"bad\.csv: 1 images occur more than once \(small/valid/patient.*one row per image"),
        (
            lambda f: with_row(f, 3, Path="small/valid/patient99999/study1/view1_frontal.jpg"),
            r"1 are predicted but have no labels \(small/valid/patient99999",
        ),
        (with_cell("Edema", "inf"), r"bad\.csv, line 4: Edema is 'inf', which is not between 0 and 1"),
        (with_cell("Edema", "nan"), r"bad\.csv, line 4: Edema is blank"),
        (with_cell("Edema", ""), r"bad\.csv, line 4: Edema is blank, a probability cannot be left out"),
        (with_cell("Edema", "maybe"), r"bad\.csv, line 4: Edema is 'maybe', which is not a number"),
        (with_cell("Edema", "-2.5"), r"bad\.csv, line 4: Edema is '-2.5', .*if these are logits, apply a sigmoid"),
        (lambda f: f.assign(Edma=0.5), r"bad\.csv: unknown columns 'Edma'; take them out; the findings are .*Edema"),
        (lambda f: f.rename(columns={"Path": "File"}), r"bad\.csv: no column names the rows; .* but there are File"),
        (lambda f: f[["Path"]], r"bad\.csv: no column is a finding"),
        (lambda f: f[["Path"]].assign(Fracture=0.5), r"have no finding in common"),
        (lambda f: f.iloc[:0], r"bad\.csv: no row below the header"),
        (
            lambda f: f.assign(Path=[f"{i}.png" for i in range(len(f))]),
            r"no image in common: one has 'small/valid/.*the names must be the same",
        ),
    ],
)
def test_bad_predictions_are_named(
    change: Callable[[pd.DataFrame], pd.DataFrame], message: str, files: Path, tmp_path: Path
) -> None:
    change(pd.read_csv(files / "predictions.csv")).to_csv(tmp_path / "bad.csv", index=False)
    for one in (replace(sources(files), predictions=tmp_path / "bad.csv"), sources(files)):
        other = None if one.predictions == tmp_path / "bad.csv" else tmp_path / "bad.csv"
        with pytest.raises(DataError, match=message):
            evaluate(replace(one, against=other), FEW, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_cell("Edema", "2.0"), r"bad\.csv:4: illegal label: column 'Edema' is 2.0"),
        (lambda f: with_row(f, 3), r"bad\.csv: 1 images occur more than once"),
        (lambda f: f.drop(columns=FOUR), r"bad\.csv: no column is a finding"),
    ],
)
def test_bad_labels_are_named(
    change: Callable[[pd.DataFrame], pd.DataFrame], message: str, files: Path, tmp_path: Path
) -> None:
    change(pd.read_csv(files / "labels.csv")).to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(DataError, match=message):
        evaluate(replace(sources(files), labels=tmp_path / "bad.csv"), FEW, tmp_path / "out")


def test_what_chooses_is_not_scored(files: Path, tmp_path: Path) -> None:
    """The same cases, other images of the same patients, and studies of the same patients."""
    own = sources(files, valid_predictions="predictions", valid_labels="labels")
    with pytest.raises(
        DataError, match=r"of the validation cases \(or their patients\) are scored too, such as valid/"
    ):
        evaluate(own, FEW, tmp_path / "out")
    for name in ("labels", "predictions"):
        frame = pd.read_csv(files / f"{name}.csv")
        frame["Path"] = frame["Path"].str.replace("view", "another", regex=False)
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    renamed = {"valid_predictions": tmp_path / "predictions.csv", "valid_labels": tmp_path / "labels.csv"}
    with pytest.raises(DataError, match=r"40 of the validation cases .* such as patient64741"):
        evaluate(replace(sources(files), **renamed), FEW, tmp_path / "out")
    with pytest.raises(DataError, match=r"such as patient64741"):
        evaluate(replace(sources(files, "board", "groundtruth"), **renamed), FEW, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"decisions\.csv holds decisions .* no threshold to choose"):
        evaluate(
            sources(files, valid_predictions="decisions", valid_labels="groundtruth", aggregate="max"), FEW, tmp_path
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predictions": None}, "either the folder of a saved model or --predictions"),
        ({"model": Path("m")}, "either the folder of a saved model or --predictions"),
        ({"model": Path("m"), "predictions": None}, "--labels goes with --predictions"),
        ({"labels": None}, "say what is true: --data, or with --predictions also --labels"),
        ({"data": DataOptions(root="x")}, "--labels and --data both say what is true"),
        ({"valid_labels": Path("v")}, "--valid_labels needs --valid_predictions"),
        (
            {"model": Path("m"), "predictions": None, "labels": None, "valid_predictions": Path("v")},
            "a saved model has operating points of its own",
        ),
        (
            {"model": Path("m"), "predictions": None, "labels": None, "data": DataOptions("x"), "findings": ["A"]},
            "a saved model has its own findings",
        ),
        ({"localisation": Path("marks")}, "--localisation goes with a saved model and --data"),
        ({"split": "test"}, "--labels says what is true, so --split would do nothing; leave them out"),
        (
            {"split": "test", "data": DataOptions("x"), "valid_predictions": Path("v")},
            "--labels says what is true, so --split would do nothing",
        ),
        (
            {"data": DataOptions(dataset="nih", views=["frontal"], split_seed=1, valid_fraction=0.2)},
            "so --dataset, --views, --valid_fraction, --split_seed would do nothing",
        ),
        (
            {"data": DataOptions(projections=["AP"], csv=CsvOptions(file="l.csv"))},
            r"so --projections, --csv\.file would do nothing",
        ),
        (
            {"model": Path("m"), "predictions": None, "labels": None, "localisation": Path("marks")},
            "say what is true: --data",
        ),
    ],
)
def test_contradictions_are_refused(change: dict[str, object], message: str, files: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(sources(files), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "options", "message"),
    [
        ({"labels": "groundtruth"}, FEW, r"per image, but the labels are per study: choose --aggregate max or mean"),
        (
            {"predictions": "board", "labels": "groundtruth", "aggregate": "max"},
            FEW,
            r"board\.csv is by study already; leave --aggregate out",
        ),
        ({"aggregate": "median"}, FEW, r"aggregate is 'median'; choose from max, mean"),
        ({"valid_predictions": "valid_predictions"}, FEW, r"--valid_predictions needs --valid_labels"),
        ({}, replace(FEW, operating_point="youden"), r"no operating point 'youden' was chosen on validation data"),
        ({}, replace(FEW, subgroups=["ward"]), r"no column ward to group by; the labels have: sex, age"),
        ({}, replace(FEW, strata=["Fracture"]), r"no finding 'Fracture'"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    one: dict[str, str], options: AssessOptions, message: str, files: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate(sources(files, **one), options, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_results_and_files_are_not_overwritten(files: Path, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("mine")
    with pytest.raises(ConfigError, match=r"metrics\.json exists; choose another --out"):
        evaluate(sources(files), FEW, tmp_path)
    with pytest.raises(ConfigError, match=r"metrics\.json is a file; --out is the folder"):
        evaluate(sources(files), FEW, tmp_path / "metrics.json")
    with pytest.raises(ConfigError, match=r"inside cannot be made: Not a directory"):
        evaluate(sources(files), FEW, tmp_path / "metrics.json" / "inside")
    assert (tmp_path / "metrics.json").read_text() == "mine"


@pytest.mark.parametrize("name", ["report.html", "tables", "tables.md", "tables.tex", "roc.png", "subgroups-gaps.png"])
def test_no_file_is_overwritten(name: str, files: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=rf"{name} exists; choose another --out or remove it"):
        evaluate(sources(files), FEW, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_other_files_may_lie_beside_the_results(files: Path, tmp_path: Path, quiet: dict[str, object]) -> None:
    """A model's own predictions are not written where a CSV is scored."""
    for name in ("predictions.csv", "localisation.json"):
        (tmp_path / name).write_text("mine")
    evaluate(sources(files), FEW, tmp_path)
    assert (tmp_path / "predictions.csv").read_text() == "mine"


def test_a_models_results_overwrite_no_predictions(
    model: Path, tiny_chexpert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mxa.predict.predict_table", never)
    one = of_model(model, tiny_chexpert, "test")
    for name, wish in (("predictions.csv", {}), ("localisation.csv", {"localisation": tmp_path})):
        out = tmp_path / name.partition(".")[0]
        out.mkdir()
        (out / name).write_text("mine")
        with pytest.raises(ConfigError, match=rf"{name} exists; choose another --out"):
            evaluate(replace(one, **wish), FEW, out)
        assert (out / name).read_text() == "mine"


def test_missing_files_are_named(files: Path, tmp_path: Path) -> None:
    for name in ("predictions", "labels", "against"):
        with pytest.raises(DataError, match=r"gone\.csv: no such file"):
            evaluate(replace(sources(files), **{name: tmp_path / "gone.csv"}), FEW, tmp_path / "out")
    with pytest.raises(DataError, match=r"gone\.csv: no such file"):
        evaluate(replace(sources(files), readers=[tmp_path / "gone.csv"]), FEW, tmp_path / "out")


def test_scoring_a_csv_needs_no_torch(files: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", "--replicates", "20", "--out", str(tmp_path / "out")]
    arguments += ["--predictions", str(files / "board.csv"), "--labels", str(files / "groundtruth.csv")]
    code = (
        "import sys; from mxa.cli import main; code = main(sys.argv[1:]); "
        "print(sorted({'torch', 'torchvision', 'timm', 'lightning'} & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# --- a saved model


@pytest.fixture(scope="module")
def model(tiny_chexpert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network that says it was trained on the tiny data set."""
    torch.manual_seed(0)
    network = build_model("efficientvit_m0", 14, 64).eval()
    data = {"dataset": "chexpert", "fingerprint": read(DataOptions(root=str(tiny_chexpert))).fingerprint()}
    data |= {"images": {"train": 40}, "policy": {"uncertain": "u-ones", "blank": "negative"}}
    one = Classifier(network, Architecture("efficientvit_m0", {}), CHEXPERT14, Preprocess(size=64), {"data": data})
    return save(one, tmp_path_factory.mktemp("model") / "model")


def of_model(model: Path, root: Path, split: str, **more: object) -> Sources:
    return Sources(model=model, predictions=None, labels=None, data=DataOptions(root=str(root)), split=split, **more)  # type: ignore[arg-type]


def test_a_models_predictions_can_be_scored_again(
    model: Path, tiny_chexpert: Path, tmp_path: Path, quiet: dict[str, object]
) -> None:
    """The CSV gives the same figures against the data set and against its CSV, by image and by study."""
    for aggregate in (None, "max"):
        first = evaluate(of_model(model, tiny_chexpert, "test", aggregate=aggregate), FEW, tmp_path / f"m{aggregate}")
        assert "optimistic" not in str(quiet["notes"])
        again = Sources(
            model=None,
            predictions=tmp_path / f"m{aggregate}" / "predictions.csv",
            labels=None,
            data=DataOptions(root=str(tiny_chexpert)),
            split="test",
            aggregate=aggregate,
        )
        csv = replace(again, data=DataOptions(), split=None, labels=tiny_chexpert / ROOT_NAME / "test.csv")
        for k, one in enumerate((again, csv)):
            found = evaluate(one, FEW, tmp_path / f"{aggregate}{k}")
            for name in CHEXPERT14:
                assert found.evaluation.findings[name].auroc == first.evaluation.findings[name].auroc
            assert found.evaluation.auroc_macro == pytest.approx(first.evaluation.auroc_macro, abs=1e-12)


def test_what_the_model_has_seen_is_told(
    model: Path, tiny_chexpert: Path, tmp_path: Path, quiet: dict[str, object]
) -> None:
    evaluate(of_model(model, tiny_chexpert, "valid"), FEW, tmp_path / "valid")
    assert "This split chose the model's epoch and weights: its figures are optimistic." in str(quiet["notes"])
    train = of_model(model, tiny_chexpert, "train")
    smooth = replace(train, data=replace(train.data, policy=LabelPolicy(uncertain="u-ones-smooth")))
    assert set(np.unique(evaluate(smooth, FEW, tmp_path / "train").cases.target)) == {0, 1}
    assert "--policy.uncertain says what they count as: u-ones." in str(quiet["notes"])
    assert "its figures say nothing of other patients" in str(quiet["notes"])
    other = write_chexpert(tmp_path / "other", {"train": 4, "valid": 4}, seed=5)
    evaluate(of_model(model, other, "valid"), FEW, tmp_path / "foreign")
    assert "differs from the one that the model was trained with" in str(quiet["notes"])
    assert "optimistic" not in str(quiet["notes"])


def never(*arguments: object) -> None:
    raise AssertionError("the model was asked")


def test_a_wrong_wish_is_refused_before_anything_is_predicted(
    model: Path, tiny_chexpert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mxa.predict.predict_table", never)
    one = of_model(model, tiny_chexpert, "test")
    with pytest.raises(ConfigError, match=r"no operating point 'f1' was chosen"):
        evaluate(one, replace(FEW, operating_point="f1"), tmp_path / "out")
    gone = tmp_path / "gone.csv"
    for wish in ({"against": gone}, {"readers": [gone]}):
        with pytest.raises(DataError, match=r"gone\.csv"):
            evaluate(replace(one, **wish), FEW, tmp_path / "out")
    for options, message in (
        (replace(FEW, strata=["Edma"]), r"no finding 'Edma'"),
        (replace(FEW, subgroups=["scanner"]), r"no column scanner to group by; the labels have: sex, age"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate(one, options, tmp_path / "out")
    with pytest.raises(AssertionError, match="the model was asked"):
        evaluate(one, replace(FEW, operating_point="0.5"), tmp_path / "out")


def test_files_that_do_not_fit_are_refused_before_anything_is_predicted(
    model: Path, tiny_chexpert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mxa.predict.predict_table", never)
    (foreign := tmp_path / "foreign.csv").write_text("path,Edema\nnope.jpg,1\n")
    test = read(DataOptions(root=str(tiny_chexpert))).split("test").frame
    (unlike := tmp_path / "unlike.csv").write_text(
        "Path,Fracture 2\n" + "".join(f"{path},0.5\n" for path in test["path"])
    )
    (by_study := tmp_path / "study.csv").write_text(
        "Study,Edema\n" + "".join(f"test/{study},1\n" for study in dict.fromkeys(test["study"]))
    )
    one = of_model(model, tiny_chexpert, "test")
    for wish, error, message in (
        ({"readers": [foreign]}, DataError, r"reader foreign .* have no image in common"),
        ({"readers": [by_study]}, ConfigError, r"decided per study, but the cases are images"),
        ({"against": foreign}, DataError, r"foreign\.csv .*no image in common"),
        ({"against": unlike}, DataError, r"unlike\.csv: unknown columns 'Fracture 2'"),
        ({"against": by_study}, DataError, r"efficientvit_m0 and study are not of the same cases"),
    ):
        with pytest.raises(error, match=message):
            evaluate(replace(one, **wish), FEW, tmp_path / "out")
    with pytest.raises(AssertionError, match="the model was asked"):
        evaluate(replace(one, readers=[by_study], against=by_study, aggregate="max"), FEW, tmp_path / "out")


def test_garbled_operating_points_are_the_models_fault(model: Path, tiny_chexpert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "garbled"
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tuning": {"operating_points": {}}}))
    with pytest.raises(ArtifactError, match=r"garbled: .*are garbled .*mxa calibrate"):
        evaluate(of_model(folder, tiny_chexpert, "test"), FEW, tmp_path / "out")


def test_a_models_probabilities_are_those_of_its_logits(
    model: Path, tiny_chexpert: Path, tmp_path: Path, quiet: dict[str, object]
) -> None:
    found = evaluate(of_model(model, tiny_chexpert, "test"), FEW, tmp_path / "out")
    table = read(DataOptions(root=str(tiny_chexpert))).split("test")
    expected = predict_table(load(model), table)
    assert np.array_equal(found.cases.logit, expected.logit)
    assert np.array_equal(found.cases.target, table.target)


def test_images_without_a_study_column_are_no_studies(files: Path, tmp_path: Path, quiet: dict[str, object]) -> None:
    labels = pd.read_csv(files / "labels.csv")
    labels["Path"] = [f"{k}.png" for k in range(len(labels))]
    labels.to_csv(tmp_path / "l.csv", index=False)
    labels[["Path"]].assign(Edema=0.5).to_csv(tmp_path / "p.csv", index=False)
    columns = CsvOptions(file=str(tmp_path / "l.csv"), path="Path", only_split="valid")
    data = DataOptions(root=str(tmp_path), dataset="csv", labels=FOUR, csv=columns)
    one = replace(sources(tmp_path, "p"), labels=None, data=data, findings=FOUR, aggregate="max")
    with pytest.raises(DataError, match=r"the study of \d+ images is unknown .*add a study column, or score by image"):
        evaluate(one, FEW, tmp_path / "out")
    evaluate(replace(one, aggregate=None), FEW, tmp_path / "out")
