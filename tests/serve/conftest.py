"""The small model, ready to be served."""

import pytest

from deploy.small import exported
from mxa.predictor import Predictor, open_predictor
from serve.serving import Site, site


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    """In ONNX Runtime, with MXA, operating points and calibrations."""
    return open_predictor(exported("onnx"), threads=1)


@pytest.fixture(scope="module")
def here(predictor: Predictor) -> Site:
    """It served, with the options' defaults."""
    with site(predictor) as made:
        yield made
