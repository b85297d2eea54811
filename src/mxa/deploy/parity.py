"""Whether an exported network gives what the saved model gives, measured on real pictures.

Shapes: N pictures, L findings, n MXA blocks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mxa.evaluation.metrics import sigmoid
from mxa.evaluation.tuning import Tuning

if TYPE_CHECKING:
    from mxa.predictor import Runtime

BATCH_SIZES = (1, 5, 32)
TOLERANCE = 1e-4
"""Largest difference of a logit, or of a box's corner (in [0, 1] of the input), that passes."""
HALF = "0.5"
"""The decision that needs no operating point: a probability above 0.5."""


@dataclass(frozen=True)
class BatchParity:
    """Differences at one batch size.

    Attributes:
        batch_size: pictures per call; the last call is filled up with the first pictures.
        max_logit_difference: largest absolute one over all pictures and findings.
        max_box_difference: the same over the corners of all boxes; 0 without MXA.
        decisions: how many decisions were compared: pictures x findings x operating points, and 0.5.
        decisions_differing: by operating point, how many of them differ. One can differ within the tolerance only
            where a probability lies on its threshold.
    """

    batch_size: int
    max_logit_difference: float
    max_box_difference: float
    decisions: int
    decisions_differing: Mapping[str, int]


@dataclass(frozen=True)
class Parity:
    """Differences at all batch sizes.

    Attributes:
        pictures: how many different ones were compared.
        batches: one entry per batch size.
        tolerance: what passes.
    """

    pictures: int
    batches: tuple[BatchParity, ...]
    tolerance: float = TOLERANCE

    @property
    def max_logit_difference(self) -> float:
        """Over all batch sizes."""
        return _largest(batch.max_logit_difference for batch in self.batches)

    @property
    def max_box_difference(self) -> float:
        """Over all batch sizes."""
        return _largest(batch.max_box_difference for batch in self.batches)

    @property
    def decisions_differing(self) -> int:
        """Over all batch sizes and operating points."""
        return sum(sum(batch.decisions_differing.values()) for batch in self.batches)

    @property
    def passed(self) -> bool:
        """Whether logits and boxes agree within the tolerance; NaN does not."""
        return self.max_logit_difference <= self.tolerance and self.max_box_difference <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "pictures": self.pictures,
            "tolerance": self.tolerance,
            "passed": self.passed,
            "max_logit_difference": self.max_logit_difference,
            "max_box_difference": self.max_box_difference,
            "decisions_differing": self.decisions_differing,
            "batches": [asdict(batch) for batch in self.batches],
        }


def _largest(differences: Iterable[float]) -> float:
    """NaN if one is, wherever it stands; Python's own ``max`` finds it in the first place only."""
    return float(np.max(list(differences)))


def compare(
    runtime: "Runtime",
    pixels: npt.NDArray[np.uint8],
    logits: npt.NDArray[np.float32],
    boxes: Mapping[str, npt.NDArray[np.float32]],
    tuning: Tuning,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> Parity:
    """Run an exported network and compare.

    Args:
        runtime: of the exported network.
        pixels: (N, 1, S, S) uint8, N at least 1.
        logits: (N, L), the saved model's.
        boxes: (N, 4) by MXA block, the saved model's.
        tuning: its operating points.
        batch_sizes: pictures per call.
    """
    expected = decisions(logits, tuning)
    batches = []
    for size in batch_sizes:
        found, found_boxes = _run(runtime, pixels, size)
        decided = decisions(found, tuning)
        corners = [np.abs(found_boxes[block] - corner).max() for block, corner in boxes.items()]
        batches.append(
            BatchParity(
                batch_size=size,
                max_logit_difference=float(np.abs(found - logits).max()),
                max_box_difference=float(np.max(corners)) if corners else 0.0,
                decisions=sum(one.size for one in expected.values()),
                decisions_differing={name: int((decided[name] != one).sum()) for name, one in expected.items()},
            )
        )
    return Parity(len(pixels), tuple(batches))


def _run(
    runtime: "Runtime", pixels: npt.NDArray[np.uint8], size: int
) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.float32]]]:
    """Score all pictures in calls of exactly ``size``."""
    count = len(pixels)
    rows = np.arange(-(-count // size) * size) % count
    parts = [runtime(pixels[rows[start : start + size]]) for start in range(0, len(rows), size)]
    logits = np.concatenate([part for part, _ in parts])[:count]
    return logits, {block: np.concatenate([boxes[block] for _, boxes in parts])[:count] for block in parts[0][1]}


def decisions(logits: npt.NDArray[np.float32], tuning: Tuning) -> dict[str, npt.NDArray[np.bool_]]:
    """Of each operating point and at 0.5, whether a probability is above its threshold.

    Args:
        logits: (N, L).
        tuning: the operating points.

    Returns:
        By operating point, (N, findings that have a threshold).
    """
    probability = sigmoid(logits)
    decided = {HALF: probability > 0.5}
    for name, point in tuning.operating_points.items():
        thresholds = point.array()
        there = ~np.isnan(thresholds)
        decided[name] = probability[:, there] > thresholds[there]
    return decided
