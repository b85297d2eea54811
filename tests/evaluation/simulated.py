"""Simulated cases with all that is awkward: ties, masks, images of one patient, unknown metadata, an absent finding."""

import numpy as np
import pandas as pd

from mxa.evaluation.cases import Cases
from mxa.evaluation.metrics import sigmoid
from mxa.labels import NO_FINDING, SUPPORT_DEVICES, LabelSet

FIVE = LabelSet("five", (NO_FINDING, "Cardiomegaly", "Edema", SUPPORT_DEVICES, "Hernia"), ("N", "C", "E", "S", "H"))
"""Hernia never occurs among the cases of :func:`simulate`."""


def cases(logit, target, mask=None, *, labels=FIVE, patient=None, frame=None, probability=None, key=None) -> Cases:
    """Cases of arrays; with ``probability`` given, no logits are known. What is masked out has a target of NaN."""
    target = np.asarray(target, dtype=float)
    mask = np.ones(target.shape, dtype=bool) if mask is None else np.asarray(mask)
    key = [f"{i}.png" for i in range(len(target))] if key is None else key
    return Cases(
        key=tuple(key),
        unit="image",
        patient=tuple(key if patient is None else patient),
        study=("",) * len(key),
        probability=sigmoid(logit) if probability is None else np.asarray(probability, dtype=float),
        target=np.where(mask, target, np.nan),
        mask=mask,
        labels=labels,
        frame=pd.DataFrame(index=range(len(key))) if frame is None else pd.DataFrame(frame),
        not_scored={},
        logit=None if logit is None else np.asarray(logit, dtype=float),
        patients_known=patient is not None,
    )


def simulate(images: int = 300, patients: int = 120, seed: int = 0, *, logits: bool = True) -> Cases:
    """Images of patients in mixed order; scores are worth something, and rounded so that some tie."""
    rng = np.random.default_rng(seed)
    of = rng.integers(0, patients, images)
    ill = rng.normal(size=(patients, 5))[of]
    target = ill + 0.5 * rng.normal(size=(images, 5)) > np.array([0.2, 0.6, 0.4, 0.3, 99.0])
    logit = np.round(ill + rng.normal(size=(images, 5)) - 0.4, 1)
    frame = {
        "sex": rng.choice(["F", "M", ""], images, p=[0.45, 0.45, 0.1]),
        "age": np.where(rng.random(images) < 0.1, np.nan, rng.integers(5, 95, images)),
        "view": np.full(images, "frontal"),
        "site": rng.choice(["north", "south", "west"], images),
    }
    return cases(
        logit if logits else None,
        target,
        rng.random((images, 5)) < 0.85,
        patient=[f"p{k}" for k in of],
        frame=frame,
        probability=None if logits else sigmoid(logit),
    )


def copied_rows(patient, seed: int, replicates: int, wanted) -> list[np.ndarray]:
    """The row numbers of some bootstrap replicates, each row as often as its patient is drawn."""
    names = np.unique(patient)
    counts = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=replicates)
    rows_of = [np.flatnonzero(np.asarray(patient) == name) for name in names]
    return [
        np.concatenate([np.repeat(rows, k) for rows, k in zip(rows_of, counts[r], strict=True)]).astype(int)
        for r in wanted
    ]
