"""Measure how long the intervals of a large test set take.

    python benchmarks/bootstrap.py [--images 25000] [--patients 8000] [--replicates 2000] [--rounds 3]

14 findings, replicates clustered by patient. For comparison: scikit-learn's roc_auc_score on really copied rows, timed
for a few replicates and scaled up; unlike the AUROC's side it gives no jackknife.
"""

from collections.abc import Callable, Sequence

import numpy as np
from record import Table, make_parser, positive, publish
from sklearn.metrics import roc_auc_score
from timing import interleaved

from mxa.evaluation.bootstrap import Draws

FINDINGS, COPIES = 14, 5
AUROC, COPIED = "AUROC with jackknife (BCa)", "scikit-learn's AUROC on copied rows, scaled"


def sample(images: int, patients: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Scores without ties, targets, masks and patients."""
    rng = np.random.default_rng(0)
    target = (rng.random((images, FINDINGS)) < 0.15).astype(float)
    score = rng.normal(size=target.shape) + target
    return score, target, np.ones(target.shape, dtype=bool), [str(k) for k in rng.integers(0, patients, images)]


def copied(score: np.ndarray, target: np.ndarray, patient: list[str]) -> None:
    """A few replicates as they are usually computed."""
    names, cluster = np.unique(patient, return_inverse=True)
    rows = [np.flatnonzero(cluster == k) for k in range(len(names))]
    rng = np.random.default_rng(0)
    for _ in range(COPIES):
        drawn = np.concatenate([rows[k] for k in rng.integers(0, len(names), len(names))])
        for j in range(FINDINGS):
            roc_auc_score(target[drawn, j], score[drawn, j])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = make_parser(__doc__, rounds=3, seconds=None)
    parser.add_argument("--images", type=positive, default=25_000)
    parser.add_argument("--patients", type=positive, default=8_000)
    parser.add_argument("--replicates", type=positive, default=2_000)
    options = parser.parse_args(argv)
    score, target, mask, patient = sample(options.images, options.patients)
    draws = Draws(patient, replicates=options.replicates)
    jobs: dict[str, Callable[[], object]] = {
        "drawing the patients": lambda: Draws(patient, replicates=options.replicates),
        AUROC: lambda: draws.auroc(score, target, mask),
        "micro AUROC with jackknife": lambda: draws.auroc_micro(score, target, mask),
        "average precision": lambda: draws.average_precision(score, target, mask),
        "sensitivity (a rate)": lambda: draws.rate(score > 0.5, target == 1),
        COPIED: lambda: copied(score, target, patient),
    }
    timings = interleaved(jobs, options.rounds)
    timings[COPIED] = timings[COPIED].times(options.replicates / COPIES)
    table = Table(f"{options.replicates:,} replicates", timings, against={COPIED: {AUROC: COPIED}})
    publish("bootstrap", parser, options, table, copied_replicates=COPIES)


if __name__ == "__main__":
    main()
