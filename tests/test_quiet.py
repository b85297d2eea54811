"""Other packages are quiet for a while, and then as before."""

import logging
import warnings

from mxa.quiet import quiet


def test_afterwards_all_is_as_before() -> None:
    logger, shown = logging.getLogger("pydicom"), warnings.showwarning
    handlers = list(logger.handlers)
    with quiet():
        assert warnings.showwarning is not shown
        assert not logger.propagate
    assert warnings.showwarning is shown
    assert logger.propagate
    assert logger.handlers == handlers
