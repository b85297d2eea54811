"""Small, fast multi-label chest radiograph classifiers: EfficientViT with the Medical X-ray Attention (MXA) block.

After ``import mxa``, ``timm.create_model("mxa_efficientvit_m5", num_classes=14, in_chans=1)`` works; :func:`mxa.load`
and :func:`mxa.save` read and write trained models. Importing mxa loads neither torch nor timm until something needs
them.
"""

from typing import TYPE_CHECKING, Any

import wrapt

from mxa.errors import ArtifactError, ConfigError, DataError, MxaError
from mxa.version import __version__

if TYPE_CHECKING:
    from mxa.models.artifact import Classifier, load, save

__all__ = ["ArtifactError", "Classifier", "ConfigError", "DataError", "MxaError", "__version__", "load", "save"]


@wrapt.when_imported("timm")
def _register_models(timm: object) -> None:
    """Put our models into timm's registry once timm is there, whichever of the two is imported first."""
    import mxa.models.efficientvit  # noqa: F401


def __getattr__(name: str) -> Any:
    if name in {"Classifier", "load", "save"}:
        from mxa.models import artifact

        return getattr(artifact, name)
    raise AttributeError(f"module 'mxa' has no attribute {name!r}")
