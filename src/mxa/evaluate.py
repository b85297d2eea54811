"""Scoring predictions, a saved model's or anybody's CSV, against a data set or a CSV of labels."""

import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mxa.data.options import CsvOptions, DataOptions, read
from mxa.data.table import Table
from mxa.errors import ConfigError, DataError
from mxa.evaluation.assessment import HALF, Assessment, AssessOptions, assess, groups_and_strata
from mxa.evaluation.assessment_report import WRITTEN, write_assessment
from mxa.evaluation.casefiles import PLURAL, comparable
from mxa.evaluation.cases import Cases, cases_of, join
from mxa.evaluation.comparison import require_comparable
from mxa.evaluation.localisation.page import WRITTEN as LOCALISATION_WRITTEN
from mxa.evaluation.localisation.page import write_localisation
from mxa.evaluation.notes import about_calibration, about_cases, about_comparison, about_groups, about_labels
from mxa.evaluation.predictions import FilePredictions, Predictions, read_predictions
from mxa.evaluation.readers import Reader, read_readers, reader_points
from mxa.evaluation.reference import Reference, read_reference, reference_of
from mxa.evaluation.tuning import Tuning, stored_tuning, tune
from mxa.labels import LabelSet, label_set
from mxa.version import __version__

if TYPE_CHECKING:  # scoring a CSV needs no torch
    from mxa.evaluate_localisation import Localised
    from mxa.models.artifact import Classifier

FOREIGN = (
    "The table differs from the one that the model was trained with: its validation split may hold images that the "
    "model has trained on or was chosen by; give the training run's --valid_fraction, --split_seed, --views and "
    "--policy."
)

PREDICTIONS = "predictions.csv"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """What is scored against what. Exactly one of ``model`` and ``predictions`` is given.

    Attributes:
        model: folder of a saved model, which then predicts.
        predictions: CSV of predictions.
        labels: CSV of labels; without it the labels are the data set's.
        data: the data set, and the policy for uncertain and blank labels.
        split: of the data set; None is valid, and goes with ``labels``.
        valid_predictions: CSV of the same model's predictions of validation data, which choose operating points and
            calibrations; a saved model has its own.
        valid_labels: CSV of their labels; without it the data set's validation split.
        against: CSV of another model's predictions of the same cases.
        readers: CSVs of human readers' decisions.
        aggregate: max or mean over a study's images; None scores each image.
        findings: of the files, where they are not CheXpert's or NIH's.
        localisation: where findings are marked in the data set's images; a saved model's boxes and maps are then scored
            against them.
    """

    model: Path | None
    predictions: Path | None
    labels: Path | None
    data: DataOptions
    split: str | None
    valid_predictions: Path | None = None
    valid_labels: Path | None = None
    against: Path | None = None
    readers: Sequence[Path] = ()
    aggregate: str | None = None
    findings: Sequence[str] = ()
    localisation: Path | None = None

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
        if self.labels is not None and self.data.root and not (self.valid_predictions and not self.valid_labels):
            raise ConfigError("--labels and --data both say what is true; give one of them")
        if self.labels is not None and (unused := self._unused()):
            raise ConfigError(f"--labels says what is true, so {', '.join(unused)} would do nothing; leave them out")
        if self.valid_labels and not self.valid_predictions:
            raise ConfigError("--valid_labels needs --valid_predictions, the predictions that they belong to")
        if self.model is not None and self.findings:
            raise ConfigError("a saved model has its own findings; --findings goes with --predictions")
        if self.model is None and self.localisation is not None:
            raise ConfigError(
                "--localisation goes with a saved model and --data: a CSV of predictions does not say where its model "
                "looked"
            )

    def _unused(self) -> list[str]:
        """The options of a data set that were given where none is read, or not for what is scored."""
        names = [] if self.split is None else ["--split"]
        return names if self.data.root else names + _given(self.data)

    @property
    def scored_split(self) -> str:
        """The split of the data set that is scored."""
        return self.split or "valid"

    @property
    def label_set(self) -> LabelSet | None:
        """The findings that the files may have; None stands for CheXpert's and NIH's."""
        return label_set(self.findings) if self.findings else None


def _given(data: DataOptions) -> list[str]:
    """What differs from the defaults, as the command calls it, but what says how labels and findings are taken."""
    plain, csv = DataOptions(), CsvOptions()
    names = [one.name for one in fields(data) if getattr(data, one.name) != getattr(plain, one.name)]
    inside = [one.name for one in fields(csv) if getattr(data.csv, one.name) != getattr(csv, one.name)]
    return [f"--{name}" for name in names if name not in {"root", "labels", "policy", "csv"}] + [
        f"--csv.{name}" for name in inside
    ]


def evaluate(sources: Sources, options: AssessOptions, out: Path, workers: int = 0) -> Assessment:
    """Score, and write ``report.html``, ``metrics.json``, tables and figures into ``out``.

    A saved model's ``predictions.csv`` (of its images, before any aggregation) is written too, and with marks
    ``localisation.json``, ``.csv``, ``.md`` and ``.png``, by image whatever the aggregation.

    Args:
        sources: what is scored against what.
        options: how.
        out: made if missing; must not hold results yet.
        workers: loading processes of a model.

    Raises:
        ConfigError: ``out`` holds a file that would be written, or options contradict each other or do not fit the
            cases.
        ArtifactError: the model cannot be loaded.
        DataError: files or the data set cannot be read, or do not fit each other.
    """
    _refuse(out, sources)
    # A bad file is refused before a model has predicted for an hour.
    other = None if sources.against is None else read_predictions(sources.against, sources.label_set)
    readers = read_readers(sources.readers, sources.label_set)
    scored = _read(sources, other) if sources.model is None else _predict(sources, options, workers, other, readers)
    notes = [*scored.notes, *about_labels(scored.reference, sources.data.policy), *about_cases(scored.cases)]
    notes += [*about_groups(scored.cases, options), *about_calibration(scored.cases, scored.tuning)]
    against = None
    if other is not None:
        against = _other_name(sources, scored.name), _beside(other, scored.reference, sources.aggregate)
        notes += about_comparison(scored.cases, *against)
    found = assess(scored.cases, options, name=scored.name, tuning=scored.tuning, against=against, readers=readers)
    _make(out)
    if scored.predictions is not None:
        scored.predictions.write_csv(out / PREDICTIONS)
    provenance, where, sections = _provenance(sources, scored), scored.localised, []
    if where is not None:
        sections = [write_localisation(out, where.found, where.notes, provenance)]
    write_assessment(out, found, f"mxa evaluate: {found.name}", notes, provenance, sections)
    for note in [*notes, *(where.notes if where else ())]:
        log.info(note)
    return found


def _refuse(out: Path, sources: Sources) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; --out is the folder for the results")
    names = [*WRITTEN, *([] if sources.model is None else [PREDICTIONS])]
    names += [] if sources.localisation is None else LOCALISATION_WRITTEN
    for name in names:
        if (out / name).exists():
            raise ConfigError(f"{out / name} exists; choose another --out or remove it")


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be made: {error.strerror}") from error


@dataclass(frozen=True, eq=False)
class _Scored:
    """What the two ways to predictions have in common; the last two only where a model made them."""

    name: str
    cases: Cases
    reference: Reference
    tuning: Tuning
    notes: list[str]
    source: str
    predictions: Predictions | None = None
    localised: "Localised | None" = None


def _predict(
    sources: Sources,
    options: AssessOptions,
    workers: int,
    other: FilePredictions | None,
    readers: Sequence[Reader],
) -> _Scored:
    from mxa.models.artifact import fingerprint, load
    from mxa.predict import predict_table

    assert sources.model is not None
    classifier = load(sources.model)
    tuning = stored_tuning(classifier.tuning, classifier.labels, sources.model)
    if options.operating_point not in ("", HALF):
        tuning.point(options.operating_point)
    table = _table(sources.data, classifier.labels)
    part, name = table.split(sources.scored_split), classifier.architecture.name
    notes = _about_split(sources, classifier, tuning, table)
    # What does not fit, marks too, is refused before the whole split is predicted.
    _rehearse(sources, options, part, readers, None if other is None else (name, other))
    localised = _localise(sources, classifier, table, options, workers)
    predictions = predict_table(classifier, part, workers)
    cases = _folded(predictions, part, sources.aggregate)
    source = f"{sources.model} ({fingerprint(sources.model)[:16]})"
    return _Scored(name, cases, reference_of(part), tuning, notes, source, predictions, localised)


def _folded(predictions: Predictions, part: Table, aggregate: str | None) -> Cases:
    cases = cases_of(predictions, part)
    return cases.by_study(aggregate) if aggregate else cases


def _rehearse(
    sources: Sources,
    options: AssessOptions,
    part: Table,
    readers: Sequence[Reader],
    compared: tuple[str, FilePredictions] | None,
) -> None:
    """Do all that can be refused, with probabilities that stand in for the model's.

    Args:
        sources: what is scored against what.
        options: how.
        part: the images that the model is to predict.
        readers: of some of them.
        compared: the model's name, and another one's predictions.
    """
    half = np.full((len(part), len(part.labels)), 0.5)
    cases = _folded(
        Predictions(tuple(part.frame["path"]), tuple(part.frame["patient"]), half, part.labels), part, sources.aggregate
    )
    groups_and_strata(cases, options)
    for reader in readers:
        reader_points(reader, cases)
    if compared is not None:
        name, other = compared
        beside = _beside(other, reference_of(part), sources.aggregate)
        require_comparable(cases, beside, (name, _other_name(sources, name)))


def _localise(
    sources: Sources, classifier: "Classifier", table: Table, options: AssessOptions, workers: int
) -> "Localised | None":
    from mxa.evaluate_localisation import localise

    if sources.localisation is None:
        return None
    return localise(classifier, table, sources.scored_split, sources.localisation, options, workers)


def _table(data: DataOptions, labels: LabelSet | None = None) -> Table:
    """The data set with labels of 0 and 1 in every split, its smoothed ones (of training) too."""
    return read(replace(data, policy=data.policy.hardened()), labels=labels)


def _about_split(sources: Sources, classifier: "Classifier", tuning: Tuning, table: Table) -> list[str]:
    """What the model has seen of the cases already."""
    from mxa.training.provenance import split_otherwise

    found = []
    if sources.scored_split == "train":
        found.append("If the model was trained on this split, its figures say nothing of other patients.")
    if sources.scored_split == "valid":
        if split_otherwise(classifier.training, table):
            found.append(FOREIGN)
        if chosen := _chosen_on(classifier, tuning, table):
            found.append(f"This split chose the model's {chosen}: its figures are optimistic.")
    if sources.aggregate and (tuning.operating_points or tuning.calibrations):
        found.append(
            "Operating points and calibrations were chosen for single images; here a study has the "
            f"{sources.aggregate} over its images."
        )
    return found


def _chosen_on(classifier: "Classifier", tuning: Tuning, table: Table) -> str:
    """What of the model was chosen on the table's validation split, in words."""
    parts = []
    if classifier.training.get("data", {}).get("fingerprint") == table.fingerprint():
        parts.append("epoch and weights")
    if tuning.fitted_on.get("fingerprint") == table.split("valid").fingerprint():
        parts.append("operating points and calibrations")
    return ", ".join(parts)


def _read(sources: Sources, other: FilePredictions | None) -> _Scored:
    assert sources.predictions is not None  # Sources has seen to it
    if sources.labels is not None:
        reference = read_reference(sources.labels, sources.label_set, sources.data.policy)
    else:
        reference = reference_of(_table(sources.data, sources.label_set).split(sources.scored_split))
    predictions = read_predictions(sources.predictions, sources.label_set)
    if sources.aggregate and not any(one is not None and one.unit == "image" for one in (predictions, other)):
        raise ConfigError(f"{sources.predictions} is by study already; leave --aggregate out")
    cases = _beside(predictions, reference, sources.aggregate)
    tuning, notes = Tuning(), []
    if sources.valid_predictions is not None:
        valid = _validation(sources, sources.valid_predictions)
        notes = _require_others(valid, cases)
        where = str(sources.valid_labels or f"{sources.data.root}, valid")
        tuning = tune(valid, fitted_on={"dataset": where, "split": "valid", PLURAL[valid.unit]: len(valid)})
    return _Scored(sources.predictions.stem, cases, reference, tuning, notes, str(sources.predictions))


def _beside(predictions: FilePredictions, reference: Reference, aggregate: str | None) -> Cases:
    """Of several files, those by image are folded to studies."""
    return join(predictions, reference, aggregate if predictions.unit == "image" else None)


def _validation(sources: Sources, predictions: Path) -> Cases:
    """The validation cases that choose operating points and calibrations."""
    if sources.valid_labels is not None:
        reference = read_reference(sources.valid_labels, sources.label_set, sources.data.policy)
    elif sources.data.root:
        reference = reference_of(_table(sources.data, sources.label_set).split("valid"))
    else:
        raise ConfigError("--valid_predictions needs --valid_labels, or --data with a validation split")
    valid = _beside(read_predictions(predictions, sources.label_set), reference, sources.aggregate)
    if valid.decisions_only:
        raise ConfigError(f"{predictions} holds decisions (0 and 1), which leave no threshold to choose")
    return valid


def _require_others(valid: Cases, cases: Cases) -> list[str]:
    """Refuse validation cases that are scored too; the note says where that cannot be seen."""
    both = sorted(set(comparable(valid.key)) & set(comparable(cases.key))) or sorted(_named(valid) & _named(cases))
    if both:
        raise DataError(
            f"{len(both)} of the validation cases (or their patients) are scored too, such as {both[0]}: what chooses "
            "thresholds must not be scored; give predictions of other patients"
        )
    if valid.patients_known and cases.patients_known:
        return []
    return ["Patients are not named in all files: whether some stand in both validation and scored cases is not known."]


def _named(cases: Cases) -> set[str]:
    return set(cases.patient) if cases.patients_known else set()


def _other_name(sources: Sources, name: str) -> str:
    """The other model's: its file's, with the folder where the two would have the same."""
    assert sources.against is not None
    return sources.against.stem if sources.against.stem != name else str(sources.against)


def _provenance(sources: Sources, scored: _Scored) -> dict[str, str]:
    data, split = sources.data, sources.scored_split
    truth = str(sources.labels) if sources.labels else f"{data.dataset} at {data.root}, {split}"
    policy, cases, fitted = data.policy.hardened(), scored.cases, scored.tuning.fitted_on
    folded = f"; {sources.aggregate} over the images of a study" if sources.aggregate else ""
    more = {
        "thresholds chosen on": ", ".join(f"{key}: {value}" for key, value in fitted.items()),
        "compared with": str(sources.against or ""),
        "readers": ", ".join(map(str, sources.readers)),
        "marks": "" if scored.localised is None else scored.localised.marks,
    }
    return {
        "command": shlex.join(sys.argv),
        "scored": scored.source,
        "labels": f"{truth}; uncertain: {policy.uncertain}, blank: {policy.blank}",
        "cases": f"{len(cases)} {PLURAL[cases.unit]} of {len(set(cases.patient))} patients{folded}",
        **{name: value for name, value in more.items() if value},
        "versions": f"mxa {__version__}, numpy {np.__version__}",
    }
