"""Class-activation maps for the page, of models that have them."""

import threading
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mxa.deploy.locate import SAVED, Found
from mxa.errors import ConfigError


class Maps(Protocol):
    """Makes maps, or says why there are none.

    Attributes:
        missing: why there are no maps; "" where there are.
    """

    missing: str

    def __call__(self, grey: npt.NDArray[np.uint8]) -> dict[str, Any]:
        """The maps of one picture (H, W) uint8, as :class:`mxa.serve.schemas.MapsBody`.

        Raises:
            RuntimeError: there are none.
        """
        ...


class NoMaps:
    """Of a model without maps."""

    def __init__(self, missing: str) -> None:
        self.missing = missing

    def __call__(self, grey: npt.NDArray[np.uint8]) -> dict[str, Any]:
        """Refuse."""
        raise RuntimeError(self.missing)


class SavedMaps:
    """Of a saved model, by :mod:`mxa.explain`.

    Raises:
        ConfigError: the network has no exact maps.
    """

    missing = ""

    def __init__(self, found: Found, device: str) -> None:
        from mxa.models.artifact import load

        self._classifier = load(found.path, device=device)
        self._lock = threading.Lock()
        side = self._classifier.preprocess.size
        self(np.zeros((side, side), dtype=np.uint8))

    def __call__(self, grey: npt.NDArray[np.uint8]) -> dict[str, Any]:
        """See :class:`Maps`."""
        from mxa.explain.explanation import explain_grey

        with self._lock:
            one = explain_grey(self._classifier, grey)
        return {"cells": dict(zip(one.labels, one.maps.tolist(), strict=True)), "window": list(one.window)}


def open_maps(found: Found, device: str) -> Maps:
    """The maps of a model, if it has any."""
    if found.kind != SAVED:
        return NoMaps(
            "an exported model has no class-activation maps; serve the saved model's folder in torch for them"
        )
    try:
        return SavedMaps(found, device)
    except ConfigError as error:
        return NoMaps(str(error))
