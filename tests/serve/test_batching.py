"""Pictures of several callers are scored together, and each caller gets its own."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from deploy.small import exported, pictures
from mxa.predictor import Predictor, open_predictor
from mxa.serve.batching import Batching, Scores


class Sums:
    """A runtime whose scores tell the picture; its first call waits until it is let go."""

    name = "sums"

    def __init__(self) -> None:
        self.go = threading.Event()
        self.began = threading.Event()
        self.sizes: list[int] = []
        self.threads: set[int] = set()

    def __call__(self, pixels: np.ndarray) -> Scores:
        self.began.set()
        self.go.wait(60)
        self.sizes.append(len(pixels))
        self.threads.add(threading.get_ident())
        if (pixels == 255).any():
            raise ValueError("white")
        sums = pixels.reshape(len(pixels), -1).sum(1).astype(np.float32)
        return sums[:, None], {"block": np.repeat(sums[:, None], 4, axis=1)}


def picture(value: int, count: int = 1) -> np.ndarray:
    return np.full((count, 1, 2, 2), value, dtype=np.uint8)


def wait_for(batching: Batching, jobs: int) -> None:
    """Until so many wait, while the thread is at others."""
    while batching._jobs.qsize() < jobs:
        time.sleep(0.001)


def score(batching: Batching, runtime: Sums, values: list[int]) -> list[Scores | Exception]:
    """The first value alone, the others while it is scored."""

    def one(value: int) -> Scores | Exception:
        try:
            return batching(picture(value))
        except ValueError as error:
            return error

    with ThreadPoolExecutor(len(values)) as pool:
        jobs = [pool.submit(one, values[0])]
        assert runtime.began.wait(60)
        jobs += [pool.submit(one, value) for value in values[1:]]
        wait_for(batching, len(values) - 1)
        runtime.go.set()
        return [job.result(60) for job in jobs]


def test_what_waits_is_scored_together_and_in_one_thread() -> None:
    runtime, seen = Sums(), []
    batching = Batching(runtime, 4, 0.0, seen.append)
    found = score(batching, runtime, list(range(1, 12)))
    batching.close()
    for value, result in enumerate(found, 1):
        assert isinstance(result, tuple)
        assert result[0].tolist() == [[4 * value]]
        assert result[1]["block"].tolist() == [[4 * value] * 4]
    assert runtime.sizes == seen == [1, 4, 4, 2]
    assert len(runtime.threads) == 1
    assert threading.get_ident() not in runtime.threads


def test_an_error_reaches_its_batch_and_ends_nothing() -> None:
    runtime = Sums()
    batching = Batching(runtime, 2, 0.0)
    found = score(batching, runtime, [1, 255, 255, 3])
    assert [isinstance(result, ValueError) for result in found] in (
        [False, True, True, False],
        [False, True, True, True],  # in the queue the last one may come before the others
    )
    assert batching(picture(5))[0].tolist() == [[20]]
    assert batching.alive
    batching.close()


def test_several_pictures_of_one_caller_stay_together() -> None:
    runtime = Sums()
    runtime.go.set()
    batching = Batching(runtime, 2, 0.0)
    logits, boxes = batching(picture(3, 5))
    assert logits.tolist() == [[12]] * 5
    assert boxes["block"].shape == (5, 4)
    batching.close()


def test_closing_executes_what_waits() -> None:
    runtime = Sums()
    batching = Batching(runtime, 2, 0.0)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(batching, picture(0))]
        assert runtime.began.wait(60)
        jobs += [pool.submit(batching, picture(value)) for value in (1, 2)]
        wait_for(batching, 2)
        closing = pool.submit(batching.close)
        runtime.go.set()
        assert sorted(job.result(60)[0].item() for job in jobs) == [0, 4, 8]
        closing.result(60)
    assert not batching.alive
    batching.close()
    with pytest.raises(RuntimeError, match="closed"):
        batching(picture(1))


def test_a_model_gives_the_same_in_batches() -> None:
    predictor: Predictor = open_predictor(exported("onnx"), threads=1)
    batching = Batching(predictor.runtime, 8, 1.0)
    pixels = pictures(8)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda one: batching(one[None]), pixels))
    batching.close()
    for one, (logits, boxes) in zip(pixels, found, strict=True):
        alone, own_boxes = predictor.score(one[None])
        np.testing.assert_allclose(logits, alone, atol=1e-4, rtol=0)
        assert list(boxes) == list(own_boxes)
        for block in boxes:
            np.testing.assert_allclose(boxes[block], own_boxes[block], atol=1e-5, rtol=0)
