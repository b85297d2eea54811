"""Scoring predictions, a saved model's or anybody's CSV, against a data set or a CSV of labels."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mxa.data.options import DataOptions, read
from mxa.data.table import Table
from mxa.errors import ConfigError, DataError
from mxa.evaluation.assessment import Assessment, AssessOptions, assess
from mxa.evaluation.assessment_report import NUMBERS, write_assessment
from mxa.evaluation.cases import Cases, cases_of, join
from mxa.evaluation.predictions import read_predictions
from mxa.evaluation.readers import read_readers
from mxa.evaluation.reference import Reference, read_reference, reference_of
from mxa.evaluation.tuning import Tuning, tune
from mxa.version import __version__

if TYPE_CHECKING:  # scoring a CSV needs no torch
    from mxa.evaluation.predictions import Predictions
    from mxa.models.artifact import Classifier

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """What is scored against what. Exactly one of ``model`` and ``predictions`` is given.

    Attributes:
        model: folder of a saved model, which then predicts.
        predictions: CSV of predictions.
        labels: CSV of labels; without it the labels are the data set's.
        data: the data set, and the policy for uncertain and blank labels.
        split: of the data set.
        valid_predictions: CSV of the same model's predictions of validation data, which choose operating points and
            calibrations; a saved model has its own.
        valid_labels: CSV of their labels; without it the data set's validation split.
        against: CSV of another model's predictions of the same cases.
        readers: CSVs of human readers' decisions.
        aggregate: max or mean over a study's images; None scores each image.
    """

    model: Path | None
    predictions: Path | None
    labels: Path | None
    data: DataOptions
    split: str
    valid_predictions: Path | None = None
    valid_labels: Path | None = None
    against: Path | None = None
    readers: Sequence[Path] = ()
    aggregate: str | None = None

    def __post_init__(self) -> None:
        if (self.model is None) == (self.predictions is None):
            raise ConfigError("give either the folder of a saved model or --predictions, one of them")
        if self.model is not None and self.labels is not None:
            raise ConfigError("--labels goes with --predictions; a saved model needs the images too: give --data")
        if self.model is not None and (self.valid_predictions or self.valid_labels):
            raise ConfigError(
                "a saved model has operating points of its own; --valid_predictions goes with --predictions "
                "(`mxa calibrate` chooses a model's anew)"
            )
        if self.labels is None and not self.data.root:
            raise ConfigError("say what is true: --data, or with --predictions also --labels")
        if self.valid_labels and not self.valid_predictions:
            raise ConfigError("--valid_labels needs --valid_predictions, the predictions that they belong to")


def evaluate(sources: Sources, options: AssessOptions, out: Path, workers: int = 0) -> Assessment:
    """Score, and write ``report.html``, ``metrics.json``, tables and figures into ``out``.

    A saved model's ``predictions.csv`` (of its images, before any aggregation) is written too.

    Args:
        sources: what is scored against what.
        options: how.
        out: made if missing; must not hold results yet.
        workers: loading processes of a model.

    Raises:
        ConfigError: ``out`` holds results already, or options contradict each other.
        ArtifactError: the model cannot be loaded.
        DataError: files or the data set cannot be read, or do not fit each other.
    """
    if (out / NUMBERS).exists():
        raise ConfigError(f"{out / NUMBERS} exists; choose another --out or remove it")
    scored = _read(sources) if sources.model is None else _predict(sources, workers)
    cases, notes = scored.cases, [*_about_labels(scored.reference), *scored.notes]
    notes += _about_cases(cases)
    against = None
    if sources.against is not None:
        other = join(read_predictions(sources.against), scored.reference, sources.aggregate)
        against = sources.against.stem, other
    found = assess(
        cases,
        options,
        name=scored.name,
        tuning=scored.tuning,
        against=against,
        readers=read_readers(sources.readers),
    )
    out.mkdir(parents=True, exist_ok=True)
    if scored.predictions is not None:
        scored.predictions.write_csv(out / "predictions.csv")
    write_assessment(out, found, f"mxa evaluate: {found.name}", notes, _provenance(sources, scored))
    for note in notes:
        log.info(note)
    return found


@dataclass(frozen=True, eq=False)
class _Scored:
    """What the two ways to predictions have in common; ``predictions`` only where a model made them."""

    name: str
    cases: Cases
    reference: Reference
    tuning: Tuning
    notes: list[str]
    source: str
    predictions: "Predictions | None" = None


def _predict(sources: Sources, workers: int) -> _Scored:
    from mxa.models.artifact import fingerprint, load
    from mxa.predict import predict_table

    assert sources.model is not None
    classifier = load(sources.model)
    table = read(sources.data, labels=classifier.labels)
    if sources.split == "valid":
        warn_if_foreign(classifier, table)
    part = table.split(sources.split)
    predictions = predict_table(classifier, part, workers)
    cases, notes = cases_of(predictions, part), []
    if sources.split == "valid":
        notes.append("This split chose the model's epoch, weights and operating points: its figures are optimistic.")
    if sources.aggregate:
        cases = cases.by_study(sources.aggregate)
        notes.append(
            "Operating points and calibrations were chosen for single images; here a study has the "
            f"{sources.aggregate} over its images."
        )
    source = f"{sources.model} ({fingerprint(sources.model)[:16]})"
    tuning = Tuning.from_dict(classifier.tuning, classifier.labels)
    return _Scored(classifier.architecture.name, cases, reference_of(part), tuning, notes, source, predictions)


def warn_if_foreign(classifier: "Classifier", table: Table) -> None:
    """The same data set split otherwise than in training would score training images as validation."""
    from mxa.training.provenance import split_otherwise

    if split_otherwise(classifier.training, table):
        log.warning(
            "the table differs from the one that the model was trained with: its validation split may hold images that "
            "the model has trained on; give the training run's --valid_fraction, --split_seed, --views and --policy"
        )


def _read(sources: Sources) -> _Scored:
    assert sources.predictions is not None  # Sources has seen to it
    if sources.labels is not None:
        reference = read_reference(sources.labels, policy=sources.data.policy)
    else:
        reference = reference_of(read(sources.data).split(sources.split))
    cases = join(read_predictions(sources.predictions), reference, sources.aggregate)
    tuning = _tuned_on_files(sources, cases)
    return _Scored(sources.predictions.stem, cases, reference, tuning, [], str(sources.predictions))


def _tuned_on_files(sources: Sources, cases: Cases) -> Tuning:
    """Operating points and calibrations from validation predictions; none without them."""
    if sources.valid_predictions is None:
        return Tuning()
    if sources.valid_labels is not None:
        reference = read_reference(sources.valid_labels, policy=sources.data.policy)
        name = str(sources.valid_labels)
    elif sources.data.root:
        reference, name = reference_of(read(sources.data).split("valid")), f"{sources.data.root}, valid"
    else:
        raise ConfigError("--valid_predictions needs --valid_labels, or --data with a validation split")
    valid = join(read_predictions(sources.valid_predictions), reference, sources.aggregate)
    both = sorted(set(valid.key) & set(cases.key)) or sorted(_named(valid) & _named(cases))
    if both:
        raise DataError(
            f"{len(both)} of the validation cases (or their patients) are scored too, such as {both[0]}: what chooses "
            "thresholds must not be scored; give predictions of other patients"
        )
    if valid.decisions_only:
        raise ConfigError(f"{sources.valid_predictions} holds decisions (0 and 1), which leave no threshold to choose")
    about = {"dataset": name, "split": "valid", "images": len(valid)}
    return tune(valid, fitted_on=about)


def _named(cases: Cases) -> set[str]:
    return set(cases.patient) if cases.patients_known else set()


def _about_labels(reference: Reference) -> list[str]:
    """Uncertain and blank labels are never taken for something in silence."""
    found = []
    for count, what, option in (
        (reference.uncertain, "uncertain", "uncertain"),
        (reference.blank, "blank (not mentioned)", "blank"),
    ):
        if count:
            found.append(f"{count} labels are {what}; what they count as is the option --policy.{option}.")
    return found


def _about_cases(cases: Cases) -> list[str]:
    found = []
    if not cases.patients_known:
        found.append(
            "No patients are named: every case counts as a patient of its own, so intervals may be too narrow."
        )
    if cases.decisions_only:
        found.append(
            "The predictions are decisions (0 or 1): each ROC curve has one point, and there is no calibration."
        )
    if cases.not_scored:
        found.append("Not scored: " + ", ".join(f"{name} ({why})" for name, why in cases.not_scored.items()) + ".")
    return found


def _provenance(sources: Sources, scored: _Scored) -> dict[str, str]:
    truth = str(sources.labels) if sources.labels else f"{sources.data.dataset} at {sources.data.root}, {sources.split}"
    policy, cases = sources.data.policy, scored.cases
    folded = f"; {sources.aggregate} over the images of a study" if sources.aggregate else ""
    return {
        "command": " ".join(sys.argv),
        "scored": scored.source,
        "labels": f"{truth}; uncertain: {policy.uncertain}, blank: {policy.blank}",
        "cases": f"{len(cases)} ({cases.unit}) of {len(set(cases.patient))} patients{folded}",
        "versions": f"mxa {__version__}, numpy {np.__version__}",
    }
