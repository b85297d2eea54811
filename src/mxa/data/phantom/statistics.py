"""Draw CheXpert-like label rows: what a report says, and what is really there.

The shipped ``chexpert_statistics.json`` holds sums over CheXpert's training table (written by
``benchmarks/phantom_statistics.py``), per group of studies (AP or PA, with or without a lateral): the fractions of
the four label states, the co-occurrence of positives and its tetrachoric correlations. A share of the studies is
plainly normal (a copula alone gives too few of these); the others are drawn from a Gaussian copula with these
correlations. A finding whose latent value is above a first cut is positive, between the first and the second
uncertain, and below the second negative or blank.

What is drawn follows from the label:

* ``1``: present. ``0``: absent.
* ``-1``: present with probability :data:`UNCERTAIN_PRESENT`, and then harder to see.
* blank: absent, but for a fraction :data:`OMITTED` of the finding's prevalence (a report leaves things out); never
  with "No Finding".
* A drawn Edema, Consolidation, Pneumonia, Lung Lesion or Atelectasis is a Lung Opacity, whatever the label says. In
  CheXpert's training labels only 38 to 67 percent of these have the parent marked, so the labels do not close the
  hierarchy and the truth does. Enlarged Cardiomediastinum is not closed over Cardiomegaly: the label follows it in 7
  percent of the table's rows.
"""

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from mxa.labels import CHEXPERT14, NO_FINDING, SUPPORT_DEVICES

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

UNCERTAIN_PRESENT = 0.5
OMITTED = 0.1
# How much of a finding's latent value stays with the patient from one study to the next.
PERSISTENCE = 0.4

FINDINGS = CHEXPERT14.findings
LUNG_OPACITY = FINDINGS.index("Lung Opacity")
OPACITIES = tuple(FINDINGS.index(f) for f in ("Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis"))
_PATHOLOGY = np.array([f not in {NO_FINDING, SUPPORT_DEVICES} for f in FINDINGS])


@dataclass(frozen=True)
class Group:
    """The label statistics of one group of studies; F = 13 findings, CheXpert's without "No Finding".

    Attributes:
        states: (F, 4), fraction of studies that are positive, negative, uncertain, blank.
        both_positive: (F, F), fraction of studies with both findings positive; the diagonal is the prevalence.
        normal: Share of plainly normal studies, outside the copula.
        devices_if_normal: P(Support Devices is 1) in these.
        cut_positive: (F,), latent value above which a finding is positive.
        cut_uncertain: (F,), latent value above which it is positive or uncertain.
        factor: (F, F), lower Cholesky factor of the latent correlations.
        clear: Fraction of studies with no pathology positive or uncertain.
        no_finding_if_clear: P("No Finding" is 1) in these, without and with devices.
        negative: (2, F), P(0 rather than blank) where neither positive nor uncertain; row 1 is for clear studies.
    """

    states: Floats
    both_positive: Floats
    normal: float
    devices_if_normal: float
    cut_positive: Floats
    cut_uncertain: Floats
    factor: Floats
    clear: float
    no_finding_if_clear: tuple[float, float]
    negative: Floats


@dataclass(frozen=True)
class Statistics:
    """What the shipped file says.

    Attributes:
        male: Fraction of male patients.
        age_percentiles: Ages at 0, 5, ..., 100 percent, years.
        kinds: Fractions of studies by their views, such as {"AP": 0.81, "PA,L": 0.14}.
        groups: Label statistics by the group that :func:`group_of` names.
    """

    male: float
    age_percentiles: Floats
    kinds: dict[str, float]
    groups: dict[str, Group]


@functools.cache
def load_statistics() -> Statistics:
    """Read the shipped statistics."""
    raw = json.loads(resources.files(__package__).joinpath("chexpert_statistics.json").read_text(encoding="utf-8"))
    groups = {name: _group(data) for name, data in raw["groups"].items()}
    return Statistics(raw["male"], np.array(raw["age_percentiles"]), dict(raw["kinds"]), groups)


def group_of(kind: str) -> str:
    """Return the label group of a kind of study: "AP,AP" has the labels of "AP", "AP,L,L" those of "AP,L"."""
    views = kind.split(",")
    return views[0] + (",L" if "L" in views else "")


def draw_kinds(rng: np.random.Generator, studies: int) -> list[str]:
    """Draw the kinds of a patient's studies, such as "AP" or "PA,L"."""
    kinds = load_statistics().kinds
    edges = np.cumsum(list(kinds.values()))
    names = list(kinds)
    return [names[min(int(i), len(names) - 1)] for i in np.searchsorted(edges, rng.random(studies) * edges[-1])]


def draw_person(rng: np.random.Generator) -> tuple[str, int]:
    """Draw a sex, "Male" or "Female", and an age in years at the first study."""
    stats = load_statistics()
    sex = "Male" if rng.random() < stats.male else "Female"
    points = stats.age_percentiles
    return sex, round(float(np.interp(rng.random(), np.linspace(0, 1, len(points)), points)))


def draw_labels(rng: np.random.Generator, kinds: list[str]) -> tuple[Floats, Bools]:
    """Draw the labels and the truth of one patient's studies.

    Args:
        rng: Source of randomness.
        kinds: Kind of each of the S studies, see :func:`draw_kinds`.

    Returns:
        Labels (S, 14) in CheXpert's order, each 1, 0, -1 or NaN (blank), and the truth (S, 14): what is to be drawn.
    """
    size = len(FINDINGS) - 1
    lasting = rng.standard_normal(size)
    fleeting = rng.standard_normal((len(kinds), size))
    dice = rng.random((len(kinds), 2, size + 2))
    latent = np.sqrt(PERSISTENCE) * lasting + np.sqrt(1 - PERSISTENCE) * fleeting
    labels = np.full((len(kinds), size + 1), np.nan)
    truth = np.zeros((len(kinds), size + 1), dtype=bool)
    for s, kind in enumerate(kinds):
        group = load_statistics().groups[group_of(kind)]
        labels[s] = _report(group, group.factor @ latent[s], dice[s, 0])
        truth[s] = _truth(group, labels[s], dice[s, 1, 1:])
    return labels, truth


def _report(group: Group, z: Floats, dice: Floats) -> Floats:
    """Turn latent values into one row of labels."""
    positive, mentioned = z > group.cut_positive, z > group.cut_uncertain
    if dice[0] < group.normal:
        positive[:-1] = mentioned[:-1] = False
        positive[-1] = mentioned[-1] = dice[0] < group.normal * group.devices_if_normal
    clear = not mentioned[:-1].any()
    absent = np.where(dice[2:] < group.negative[int(clear)], 0.0, np.nan)
    row = np.where(positive, 1.0, np.where(mentioned, -1.0, absent))
    normal = clear and dice[1] < group.no_finding_if_clear[int(positive[-1])]
    return np.concatenate([[1.0 if normal else np.nan], row])


def _truth(group: Group, label: Floats, dice: Floats) -> Bools:
    """Decide what is really there, given one row of labels."""
    truth = label == 1
    truth |= (label == -1) & (dice < UNCERTAIN_PRESENT)
    if label[0] != 1:
        truth[1:] |= np.isnan(label[1:]) & (dice[1:] < OMITTED * group.states[:, 0])
    truth[LUNG_OPACITY] |= truth[list(OPACITIES)].any()
    truth[0] = not (truth & _PATHOLOGY).any()
    return truth


def _group(data: dict[str, Any]) -> Group:
    states = np.array(data["states"])
    given = data["no_finding_if_clear"]
    negative = data["negative_if_not_positive"]
    normal, devices = data["normal"], data["devices_if_clear"]
    # Positive and mentioned fractions among the studies that are not plainly normal.
    positive, mentioned = states[:, 0].copy(), states[:, 0] + states[:, 2]
    positive[-1] -= normal * devices
    mentioned[-1] -= normal * devices
    return Group(
        states=states,
        both_positive=np.array(data["both_positive"]),
        normal=normal,
        devices_if_normal=devices,
        cut_positive=-ndtri(positive / (1 - normal)),
        cut_uncertain=-ndtri(mentioned / (1 - normal)),
        factor=np.linalg.cholesky(np.array(data["correlation"])),
        clear=data["clear"],
        no_finding_if_clear=(given["without_devices"], given["with_devices"]),
        negative=np.array([negative["other"], negative["clear"]]),
    )
