"""Assessments of simulated cases, made once for all tests that look at tables, figures and pages."""

from dataclasses import replace
from functools import cache

import numpy as np
from simulated import cases, simulate

from mxa.evaluation.assessment import Assessment, AssessOptions, assess
from mxa.evaluation.readers import Reader
from mxa.evaluation.tuning import tune


@cache
def everything() -> Assessment:
    """All that an assessment may have: operating points, another model, readers, subgroups, strata."""
    scored = simulate(200, 80, seed=0)
    validation = simulate(200, 80, seed=1)
    other = simulate(200, 80, seed=2)
    rival = replace(scored, logit=other.logit, probability=other.probability)
    called = scored.probability > 0.6
    readers = [
        Reader("Ann", scored.key, "image", called, np.ones_like(called), scored.labels, "ann.csv"),
        Reader("Bob", scored.key[:50], "image", ~called[:50], np.ones_like(called[:50]), scored.labels, "bob.csv"),
    ]
    tuning = tune(validation, fitted_on={"dataset": "simulated", "split": "valid", "images": 200})
    options = AssessOptions(replicates=40, subgroups=["sex", "age", "site"], age_bands=[0, 10, 60], min_count=8)
    return assess(scored, options, name="ours", tuning=tuning, against=("theirs", rival), readers=readers)


@cache
def bare() -> Assessment:
    """Decisions of 0 and 1 on few cases, with nothing chosen, nobody to compare with and no metadata."""
    rng = np.random.default_rng(0)
    target = np.concatenate([[[1, 1, 1, 1, 0]], [[0, 0, 0, 0, 0]], rng.integers(0, 2, (28, 5)) * [1, 1, 1, 1, 0]])
    mask = np.ones(target.shape, dtype=bool)
    mask[:, 3] = False
    called = np.where(rng.random(target.shape) < 0.2, 1 - target, target)
    return assess(
        cases(None, target, mask, probability=called.astype(float)), AssessOptions(replicates=20), name="bare"
    )
