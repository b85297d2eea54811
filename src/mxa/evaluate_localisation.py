"""Where a saved model looked, scored against the marks of a data set's images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mxa.data.marks import Mark, read_marks
from mxa.data.table import SPLITS, Table
from mxa.errors import DataError
from mxa.evaluation.assessment import AssessOptions
from mxa.evaluation.localisation import Localisation, Located, choose_stage, learn, score
from mxa.explain.locate import locate, regions_on_grid
from mxa.models.artifact import Classifier

MOST_TRAINING_MARKS = 4000
"""The baselines learn from no more, drawn at random: each mark takes 64 kB, and a mean box does not gain by more."""


@dataclass(frozen=True, eq=False)
class Localised:
    """What :func:`localise` returns.

    Attributes:
        found: the scores.
        notes: what a reader must know before them, in sentences.
        marks: where the marks come from and what each split's were used for, in words.
    """

    found: Localisation
    notes: list[str]
    marks: str


def localise(
    classifier: Classifier, table: Table, split: str, source: Path, options: AssessOptions, workers: int = 0
) -> Localised:
    """Score where a model looks in one split's marked images.

    The training split's marks teach the baselines, without the model seeing an image of it; the validation split's
    choose the best stage. A split that is scored does neither, and marks of patients who are scored do neither.

    Args:
        classifier: the model.
        table: the data set, all splits, with the model's findings.
        split: whose marks are scored.
        source: of the marks, see :func:`mxa.data.marks.read_marks`.
        options: level, replicates and seed of the intervals.
        workers: loading processes.

    Raises:
        ConfigError: the network has neither boxes nor maps.
        DataError: the marks cannot be read, none is in the split, or an image cannot be read.
    """
    marks = read_marks(source, table)
    parts = _Parts.of(marks.marks, table, split, source)
    scored = parts.marks[split]
    located = locate(classifier, table, scored, workers=workers)
    teaching, why_not_taught = _training_marks(parts, options.seed)
    choosing, why_not_chosen = _validation_marks(parts, located)
    findings = [finding for finding in classifier.labels if finding in set(located.findings)]
    found = score(
        located,
        learn([mark.finding for mark in teaching], regions_on_grid(teaching)) if teaching else None,
        best_stage=choose_stage(locate(classifier, table, choosing, workers=workers)) if choosing else None,
        findings=findings,
        replicates=options.replicates,
        seed=options.seed,
        level=options.level,
    )
    notes = [
        *_about_marks(parts, marks.unmatched),
        *_about_model(located, classifier),
        *why_not_taught,
        *why_not_chosen,
    ]
    used = [f"{len(scored)} of {split} are scored"]
    used += [f"{len(teaching)} of train teach the baselines"] if teaching else []
    used += [f"{len(choosing)} of valid chose the best stage"] if choosing else []
    return Localised(found, notes, f"{marks.source} at {source}: {', '.join(used)}")


@dataclass(frozen=True, eq=False)
class _Parts:
    """The marks of a source by split.

    Attributes:
        marks: by the names of all splits; those of other splits are of patients who are not scored.
        split: the one that is scored.
        source: of the marks.
        left_out: of each other split, how many marks are of patients who are scored.
    """

    marks: Mapping[str, Sequence[Mark]]
    split: str
    source: Path
    left_out: Mapping[str, int]

    @classmethod
    def of(cls, marks: Sequence[Mark], table: Table, split: str, source: Path) -> "_Parts":
        split_of, patient_of = (
            dict(zip(table.frame["path"], table.frame[name], strict=True)) for name in ("split", "patient")
        )
        parts = {name: [mark for mark in marks if split_of[mark.path] == name] for name in SPLITS}
        if not parts[split]:
            there = ", ".join(f"{name} ({len(own)} marks)" for name, own in parts.items() if own) or "no split"
            raise DataError(
                f"{source}: marks no image of split {split!r} of {table.root}; it has marks in {there}. Choose another "
                "--split, or the marks of this one"
            )
        patients = {patient_of[mark.path] for mark in parts[split]}
        others = {
            name: own if name == split else [mark for mark in own if patient_of[mark.path] not in patients]
            for name, own in parts.items()
        }
        return cls(others, split, source, {name: len(own) - len(others[name]) for name, own in parts.items()})


def _about_marks(parts: _Parts, unmatched: Sequence[str]) -> list[str]:
    found = []
    if unmatched:
        found.append(f"{len(unmatched)} marked images are not in the data set, such as {unmatched[0]}.")
    found += [
        f"{count} marks of split {name} are of patients who are scored; they are left out."
        for name, count in parts.left_out.items()
        if count and name != "test"  # test marks are never used but to be scored
    ]
    return found


def _about_model(located: Located, classifier: Classifier) -> list[str]:
    name = classifier.architecture.name
    found = []
    if located.maps is None:
        found.append(f"{name} has no exact class-activation map: its boxes alone are scored.")
    if not located.boxes:
        found.append(f"{name} has no MXA regions: its maps alone are scored.")
    return found


def _training_marks(parts: _Parts, seed: int) -> tuple[Sequence[Mark], list[str]]:
    """The marks that teach the baselines, and why there are none or not all."""
    if parts.split == "train":
        return [], ["The training split itself is scored, so its marks teach the baselines nothing."]
    marks = parts.marks["train"]
    if not marks:
        return [], [f"{parts.source} marks no training image that could teach the baselines."]
    if len(marks) <= MOST_TRAINING_MARKS:
        return marks, []
    drawn = np.sort(np.random.default_rng(seed).choice(len(marks), MOST_TRAINING_MARKS, replace=False))
    note = f"Of {len(marks)} training marks {MOST_TRAINING_MARKS}, drawn at random, teach the baselines."
    return [marks[i] for i in drawn], [note]


def _validation_marks(parts: _Parts, located: Located) -> tuple[Sequence[Mark], list[str]]:
    """The marks that choose the best stage, and why there are none."""
    if not located.boxes:
        return [], []
    if parts.split == "valid":
        return [], ["No best stage is shown: the validation marks, which would choose it, are scored themselves."]
    marks = parts.marks["valid"]
    if not marks:
        return [], [f"No best stage is shown: {parts.source} marks no validation image that could choose it."]
    return marks, []
