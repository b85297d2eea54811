"""One finding's images in the order of their scores, found once; ranking figures of many weightings are then sums.

A bootstrap replicate weights each image by how often its patient was drawn. With the negatives' weights accumulated
along the order, what a positive outranks is one look-up: thousands of replicates need neither copies nor sorting.

Shapes: n images, R weightings, P patients. Ties count half in AUROC; in average precision, as in scikit-learn, tied
images are called positive together.
"""

import numpy as np
import numpy.typing as npt

from mxa.evaluation.metrics import BoolArray, FloatArray

IntArray = npt.NDArray[np.int64]


class Ranked:
    """Positives and negatives of one finding, each sorted by score.

    Args:
        score: (n,) finite.
        truth: (n,) bool.
        cluster: (n,) number of each image's patient.
    """

    def __init__(self, score: FloatArray, truth: BoolArray, cluster: IntArray) -> None:
        self.score, self.truth, self.cluster = score, truth, cluster
        negative, positive = np.sort(score[~truth]), np.sort(score[truth])
        self.negative_patient = cluster[~truth][np.argsort(score[~truth], kind="stable")]
        self.positive_patient = cluster[truth][np.argsort(score[truth], kind="stable")]
        # For each positive: negatives below it, negatives up to its score, and where its run of equal scores begins.
        self.below = np.searchsorted(negative, positive, "left")
        self.upto = np.searchsorted(negative, positive, "right")
        self.run = np.searchsorted(positive, positive, "left")

    @property
    def patients(self) -> tuple[int, int]:
        """How many the positives have, and the negatives."""
        return len(np.unique(self.positive_patient)), len(np.unique(self.negative_patient))

    def auroc(self, counts: FloatArray) -> FloatArray:
        """(R, P) how often each patient was drawn -> (R,) AUROC, NaN where a class is missing."""
        weight, negatives = counts[:, self.positive_patient], self._accumulate(counts[:, self.negative_patient])
        outranked = negatives[:, self.below] + negatives[:, self.upto]
        return _divide(np.einsum("rk,rk->r", weight, outranked) / 2, weight.sum(axis=1) * negatives[:, -1])

    def average_precision(self, counts: FloatArray) -> FloatArray:
        """(R, P) how often each patient was drawn -> (R,) average precision, NaN where a class is missing."""
        weight, negatives = counts[:, self.positive_patient], self._accumulate(counts[:, self.negative_patient])
        positives = self._accumulate(weight)
        found = positives[:, -1:] - positives[:, self.run]
        alarms = negatives[:, -1:] - negatives[:, self.below]
        precision = np.divide(found, found + alarms, out=np.zeros_like(found), where=found > 0)
        total = positives[:, -1] * (negatives[:, -1] > 0)
        # Row by row in memory: einsum, or another order, rounds a single row differently from several.
        return _divide(np.multiply(weight, precision, order="C").sum(axis=1), total)

    def auroc_without_each(self, patients: int) -> FloatArray:
        """(P,) AUROC without each patient: the pairs that a patient takes part in are subtracted from all pairs."""
        wins, losses = placements(self.score, self.truth)
        positives, negatives = (np.bincount(self.cluster[k], minlength=patients) for k in (self.truth, ~self.truth))
        taken = np.bincount(self.cluster, wins * self.truth + losses * ~self.truth, minlength=patients)
        lost = taken - self._inside(patients, (positives > 0) & (negatives > 0))
        pairs = (positives.sum() - positives) * (negatives.sum() - negatives)
        return _divide(wins[self.truth].sum() - lost, pairs)

    def _inside(self, patients: int, mixed: BoolArray) -> FloatArray:
        """Pairs won between images of one and the same patient, which were subtracted twice."""
        inside = np.zeros(patients)
        rows = np.flatnonzero(mixed[self.cluster])
        rows = rows[np.argsort(self.cluster[rows], kind="stable")]
        for group in np.split(rows, np.flatnonzero(np.diff(self.cluster[rows])) + 1):
            if len(group):
                score, truth = self.score[group], self.truth[group]
                inside[self.cluster[group[0]]] = placements(score, truth)[0][truth].sum()
        return inside

    @staticmethod
    def _accumulate(weight: FloatArray) -> FloatArray:
        """(R, k) -> (R, k + 1): column i is the weight of the first i."""
        result = np.zeros((len(weight), weight.shape[1] + 1))
        np.cumsum(weight, axis=1, out=result[:, 1:])
        return result


def placements(score: FloatArray, truth: BoolArray) -> tuple[FloatArray, FloatArray]:
    """For each image the pairs won by positives against it or by it: against all negatives, and against all positives.

    Args:
        score: (n,), in any order.
        truth: (n,) bool.

    Returns:
        ``wins`` (n,): negatives below the image, ties half. ``losses`` (n,): positives above the image, ties half.
    """
    negative, positive = np.sort(score[~truth]), np.sort(score[truth])
    wins = (np.searchsorted(negative, score, "left") + np.searchsorted(negative, score, "right")) / 2
    under = (np.searchsorted(positive, score, "left") + np.searchsorted(positive, score, "right")) / 2
    return wins, len(positive) - under


def _divide(numerator: FloatArray, denominator: FloatArray | IntArray) -> FloatArray:
    """NaN where there is nothing to divide by."""
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator > 0)
