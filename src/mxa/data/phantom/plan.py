"""Who is in the phantom: patients, their studies and labels, and the splits; nothing is drawn here."""

import bisect
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mxa.data.phantom.signs import TRAITS, Sign, draw_visibility
from mxa.data.phantom.statistics import FINDINGS, OPACITIES, draw_kinds, draw_labels, draw_person

# CheXpert numbers the patients of train from 1, of valid from 64541, of test from 64741.
FIRST_NUMBER = {"train": 1, "valid": 64541, "test": 64741}

# Independent streams of one patient, as the last part of a seed.
_PERSON, _SIGNS, BODY, POSES = range(4)


@dataclass(frozen=True)
class Study:
    """One visit of a patient.

    Attributes:
        number: From 1.
        age: Years.
        views: "AP", "PA" or "L", frontals first.
        labels: (14,) what the report says: 1, 0, -1 or NaN.
        truth: (14,) bool, what is drawn.
        signs: What is drawn and how.
    """

    number: int
    age: int
    views: tuple[str, ...]
    labels: npt.NDArray[np.float64]
    truth: npt.NDArray[np.bool_]
    signs: tuple[Sign, ...]


@dataclass(frozen=True)
class Case:
    """One patient of the phantom.

    Attributes:
        index: Position among all patients; with the seed it determines all about the patient.
        sex: "Male" or "Female".
        studies: Three to five, fewer only where the last patient is cut short.
    """

    index: int
    sex: str
    studies: tuple[Study, ...]

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(len(study.views) for study in self.studies)


def draw_case(seed: int, index: int) -> Case:
    """Draw the patient with the given index; it depends on the seed and the index alone."""
    rng = np.random.default_rng([seed, index, _PERSON])
    sex, age = draw_person(rng)
    kinds = draw_kinds(rng, int(rng.integers(3, 6)))
    later = np.cumsum(rng.random(len(kinds)) < 0.15)
    labels, truth = draw_labels(rng, kinds)
    studies = []
    for s, kind in enumerate(kinds):
        signs = _draw_signs(np.random.default_rng([seed, index, _SIGNS, s]), labels[s], truth[s])
        views = tuple(kind.split(","))
        # CheXpert gives no age above 90.
        studies.append(Study(s + 1, min(age + int(later[s]), 90), views, labels[s], truth[s], signs))
    return Case(index, sex, tuple(studies))


def draw_cases(images: int, seed: int) -> list[Case]:
    """Draw patients until there are exactly ``images`` images; the last patient is cut short to fit."""
    cases: list[Case] = []
    missing = images
    while missing > 0:
        case = draw_case(seed, len(cases))
        if case.images > missing:
            case = _cut(case, missing)
        cases.append(case)
        missing -= case.images
    return cases


def split_cases(cases: list[Case], seed: int, valid_fraction: float, test_fraction: float) -> dict[str, list[Case]]:
    """Deal patients out to train, valid and test.

    Args:
        cases: All patients.
        seed: Decides who goes where.
        valid_fraction: Fraction of the images for valid; the patient that crosses it still goes there.
        test_fraction: Likewise.

    Returns:
        Patients by split, each in the order of their indices. With three patients or more, each split that is asked
        for has one.
    """
    order = [int(i) for i in np.random.default_rng([seed, 1 << 32]).permutation(len(cases))]
    ends = np.cumsum([cases[i].images for i in order]).tolist()
    total = ends[-1]
    test = _stop(ends, test_fraction * total, 0)
    valid = (
        _stop(ends, (test_fraction + valid_fraction) * total, test if valid_fraction > 0 else len(ends))
        if valid_fraction
        else test
    )
    # Someone has to be left to train on.
    valid = min(valid, len(cases) - 1)
    test = min(test, max(valid - (1 if valid_fraction > 0 else 0), 0))
    parts = {"train": order[valid:], "valid": order[test:valid], "test": order[:test]}
    return {name: [cases[i] for i in sorted(part)] for name, part in parts.items()}


def numbers(parts: dict[str, list[Case]]) -> dict[int, int]:
    """Number the patients as CheXpert does: train from 1, valid from 64541, test from 64741, or after those before."""
    out: dict[int, int] = {}
    after = 1
    for name in ("train", "valid", "test"):
        first = max(FIRST_NUMBER[name], after)
        out.update({case.index: first + k for k, case in enumerate(parts[name])})
        after = first + len(parts[name])
    return out


def _stop(ends: list[int], goal: float, start: int) -> int:
    """Return how many patients it takes to reach ``goal`` images, more than ``start`` where the goal is above 0."""
    if goal <= 0:
        return start
    return max(bisect.bisect_left(ends, goal) + 1, start + 1)


def _cut(case: Case, images: int) -> Case:
    studies: list[Study] = []
    for study in case.studies:
        left = images - sum(len(s.views) for s in studies)
        if left <= 0:
            break
        views = study.views[:left]
        studies.append(Study(study.number, study.age, views, study.labels, study.truth, study.signs))
    return Case(case.index, case.sex, tuple(studies))


def _draw_signs(
    rng: np.random.Generator, labels: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]
) -> tuple[Sign, ...]:
    """Draw strength and traits of every finding, present or not, so that one does not shift the others' randomness."""
    alone = not truth[list(OPACITIES)].any()
    signs = []
    for j, finding in enumerate(FINDINGS[1:], start=1):
        visibility, traits = draw_visibility(rng, bool(labels[j] == -1)), tuple(rng.random(TRAITS).tolist())
        if truth[j]:
            signs.append(Sign(finding, visibility, traits, alone))
    return tuple(signs)
