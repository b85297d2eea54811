"""The work behind a prediction: decode in a few threads, score together in one, answer."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from mxa.errors import ConfigError, DataError
from mxa.predictor import Predictor
from mxa.serve.batching import Batching
from mxa.serve.maps import Maps
from mxa.serve.metrics import Metrics
from mxa.serve.options import ServeOptions
from mxa.serve.pictures import decode, to_data_url
from mxa.serve.refusal import Refusal
from mxa.serve.schemas import Ask, PredictionBody
from mxa.serve.upload import Upload


class Service:
    """A model at work.

    Args:
        predictor: the model.
        maps: its class-activation maps.
        options: for threads and batches.
        metrics: are told of every picture.
    """

    def __init__(self, predictor: Predictor, maps: Maps, options: ServeOptions, metrics: Metrics) -> None:
        self._maps, self._options, self._metrics = maps, options, metrics
        self._batching = Batching(
            predictor.runtime, options.batch_size, options.batch_seconds, observe=metrics.batch.observe
        )
        self._predictor = replace(predictor, runtime=self._batching)
        self._decoding = threading.Semaphore(options.decoders)
        # While one batch is scored, the next one is decoded.
        self._pool = ThreadPoolExecutor(2 * options.batch_size, thread_name_prefix="mxa-predict")

    @property
    def ready(self) -> bool:
        """Whether predictions are made."""
        return self._batching.alive

    def check(self, ask: Ask) -> None:
        """Refuse what the model cannot do, before anything is uploaded.

        Raises:
            Refusal: 422, it has no such operating point or calibration, or no maps.
        """
        tuning = self._predictor.tuning
        if ask.operating_point and ask.operating_point not in tuning.operating_points:
            known = ", ".join(tuning.operating_points) or "none"
            raise Refusal(422, f"operating_point: the model has no {ask.operating_point!r}; it has {known}")
        if ask.calibration and ask.calibration not in tuning.calibrations:
            known = ", ".join(tuning.calibrations) or "none"
            raise Refusal(422, f"calibration: the model has no {ask.calibration!r}; it has {known}")
        if ask.maps and self._maps.missing:
            raise Refusal(422, f"maps: {self._maps.missing}")

    def submit(self, upload: Upload, ask: Ask) -> "Future[bytes]":
        """Begin a prediction; the result is a :class:`mxa.serve.schemas.PredictionBody` as JSON.

        The result's error is a :class:`mxa.serve.refusal.Refusal` if the upload is at fault.
        """
        return self._pool.submit(self.answer, upload, ask)

    def answer(self, upload: Upload, ask: Ask) -> bytes:
        """As :meth:`submit`, in this thread."""
        try:
            with self._decoding, self._metrics.decoding.time():
                source = decode(
                    upload,
                    self._predictor.preprocess,
                    self._options.max_pixels,
                    views=ask.views or self._predictor.views,
                    force=ask.force,
                )
        except DataError as error:
            raise Refusal(422, str(error)) from None
        except ConfigError as error:  # a decoder is missing
            raise Refusal(501, str(error)) from None
        prediction = self._predictor.predict(
            source.grey, operating_point=ask.operating_point, calibration=ask.calibration
        )
        self._metrics.pictures.labels(upload.kind).inc()
        found: dict[str, Any] = replace(prediction, notes=prediction.notes + source.notes).to_dict()
        if ask.view:
            found["view"] = to_data_url(source.grey)
        if ask.maps:
            found["maps"] = self._maps(source.grey)
        return PredictionBody(**found).model_dump_json().encode()

    def close(self) -> None:
        """Finish what was begun."""
        self._pool.shutdown(cancel_futures=True)
        self._batching.close()


def find_blocks(predictor: Predictor) -> tuple[str, ...]:
    """The MXA blocks of a model, whose boxes its predictions have; found by scoring a black picture.

    The first call of a runtime is slow; this is it.
    """
    side = predictor.preprocess.size
    _, boxes = predictor.score(np.zeros((1, 1, side, side), dtype=np.uint8))
    return tuple(boxes)
