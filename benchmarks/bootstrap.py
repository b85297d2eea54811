"""How long the intervals of a large test set take: 2,000 replicates of 14 findings on 25,000 images of 8,000 patients.

Each figure is computed once for warming up on a tenth of the images, then timed in turn over three rounds; medians. For
comparison: scikit-learn's roc_auc_score on really copied rows, timed for a few replicates and scaled up.

    python benchmarks/bootstrap.py
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
from sklearn.metrics import roc_auc_score

from mxa.evaluation.bootstrap import Draws

IMAGES, FINDINGS, PATIENTS, REPLICATES, ROUNDS, COPIES = 25_000, 14, 8_000, 2_000, 3, 5


def sample(images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Scores without ties, targets, masks and patients."""
    rng = np.random.default_rng(0)
    target = (rng.random((images, FINDINGS)) < 0.15).astype(float)
    score = rng.normal(size=target.shape) + target
    return score, target, np.ones(target.shape, dtype=bool), [str(k) for k in rng.integers(0, PATIENTS, images)]


def copied(score: np.ndarray, target: np.ndarray, patient: list[str]) -> None:
    """A few replicates as they are usually computed."""
    names, cluster = np.unique(patient, return_inverse=True)
    rows = [np.flatnonzero(cluster == k) for k in range(len(names))]
    rng = np.random.default_rng(0)
    for _ in range(COPIES):
        drawn = np.concatenate([rows[k] for k in rng.integers(0, len(names), len(names))])
        for j in range(FINDINGS):
            roc_auc_score(target[drawn, j], score[drawn, j])


def seconds(job: Callable[[], object]) -> float:
    """Wall clock of one call."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def main() -> None:
    """Print one line per figure."""
    small = sample(IMAGES // 10)
    Draws(small[3], replicates=100).auroc(*small[:3])
    score, target, mask, patient = sample(IMAGES)
    draws = Draws(patient, replicates=REPLICATES)
    jobs: dict[str, Callable[[], object]] = {
        "drawing the patients": lambda: Draws(patient, replicates=REPLICATES),
        "AUROC with jackknife (BCa)": lambda: draws.auroc(score, target, mask),
        "micro AUROC with jackknife": lambda: draws.auroc_micro(score, target, mask),
        "average precision": lambda: draws.average_precision(score, target, mask),
        "sensitivity (a rate)": lambda: draws.rate(score > 0.5, target == 1),
        f"scikit-learn on copied rows, {COPIES} replicates": lambda: copied(score, target, patient),
    }
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(ROUNDS):
        for name, job in jobs.items():
            times[name].append(seconds(job))
    for name, found in times.items():
        print(f"{name}: {statistics.median(found):.2f} s ({min(found):.2f} to {max(found):.2f})")
    scaled = statistics.median(times[list(jobs)[-1]]) * REPLICATES / COPIES
    print(f"scikit-learn on copied rows, scaled to {REPLICATES} replicates: {scaled:.0f} s")


if __name__ == "__main__":
    main()
