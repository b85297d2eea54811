"""The comparison finds what differs, counts it right, and lets nothing undefined pass."""

from dataclasses import replace

import numpy as np
import pytest

from deploy.small import tuning
from mxa.deploy.parity import BATCH_SIZES, compare, decisions
from mxa.evaluation.tuning import Tuning

PIXELS = np.arange(7, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 16, 16), dtype=np.uint8)
LOGITS = np.random.default_rng(0).normal(size=(7, 14)).astype(np.float32)
BOXES = {"a": np.random.default_rng(1).random((7, 4)).astype(np.float32)}


class Fake:
    """Looks the right answers up by the pictures' grey, adds an error, and remembers the batch sizes."""

    name = "fake"

    def __init__(self, logit_error: object = 0.0, box_error: float = 0.0) -> None:
        self.logits, self.boxes, self.sizes = LOGITS + np.float32(logit_error), BOXES["a"] + np.float32(box_error), []

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        rows = pixels[:, 0, 0, 0]
        self.sizes.append(len(rows))
        return self.logits[rows], {"a": self.boxes[rows]}


def test_equal_networks() -> None:
    fake = Fake()
    parity = compare(fake, PIXELS, LOGITS, BOXES, tuning())
    assert fake.sizes == [1] * 7 + [5, 5] + [32]
    assert (parity.pictures, parity.max_logit_difference, parity.max_box_difference) == (7, 0, 0)
    assert [batch.batch_size for batch in parity.batches] == [1, 5, 32]
    # At 0.5 all 14 findings, at the two operating points the 13 that have a threshold.
    assert [batch.decisions for batch in parity.batches] == [7 * (14 + 13 + 13)] * 3
    assert parity.decisions_differing == 0
    assert parity.passed


def test_one_logit_that_crosses() -> None:
    error = np.zeros_like(LOGITS)
    row, column = 3, 5
    error[row, column] = -2 * LOGITS[row, column]  # to the other side of 0
    parity = compare(Fake(error), PIXELS, LOGITS, BOXES, Tuning())
    assert parity.max_logit_difference == pytest.approx(2 * abs(LOGITS[row, column]), rel=1e-6)
    assert [batch.decisions_differing for batch in parity.batches] == [{"0.5": 1}] * 3
    assert not parity.passed
    assert parity.to_dict()["decisions_differing"] == 3


@pytest.mark.parametrize(
    ("fake", "passed"),
    [(Fake(9e-5), True), (Fake(1.2e-4), False), (Fake(0, 9e-5), True), (Fake(0, 1.2e-4), False), (Fake(np.nan), False)],
)
def test_the_tolerance(fake: Fake, passed: bool) -> None:
    assert compare(fake, PIXELS, LOGITS, BOXES, Tuning()).passed is passed


@pytest.mark.parametrize("where", ["logits", "boxes"])
@pytest.mark.parametrize("size", BATCH_SIZES)
@pytest.mark.parametrize("row", [0, 3, 6])
def test_nan_never_passes_at_whatever_batch_size_and_picture(where: str, size: int, row: int) -> None:
    class Sometimes(Fake):
        def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
            logits, boxes = super().__call__(pixels)
            given = logits if where == "logits" else boxes["a"]
            given[(pixels[:, 0, 0, 0] == row) & (len(pixels) == size), -1] = np.nan
            return logits, boxes

    parity = compare(Sometimes(), PIXELS, LOGITS, BOXES, Tuning())
    assert not parity.passed
    assert np.isnan(parity.max_logit_difference if where == "logits" else parity.max_box_difference)


def test_networks_without_mxa() -> None:
    fake = Fake()
    parity = compare(lambda pixels: (fake(pixels)[0], {}), PIXELS, LOGITS, {}, Tuning())
    assert parity.passed
    assert parity.max_box_difference == 0


def test_decisions_are_those_of_the_thresholds() -> None:
    point = tuning().point("youden")
    found = decisions(LOGITS, replace(tuning(), operating_points={"youden": point}))
    p = 1 / (1 + np.exp(-LOGITS.astype(float)))
    np.testing.assert_array_equal(found["0.5"], p > 0.5)
    expected = [[p[i, j] > limit for j, limit in enumerate(point.thresholds) if limit is not None] for i in range(7)]
    np.testing.assert_array_equal(found["youden"], expected)
