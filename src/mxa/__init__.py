"""Small, fast multi-label chest radiograph classifiers: EfficientViT with the Medical X-ray Attention (MXA) block.

After ``import mxa``, ``timm.create_model("mxa_efficientvit_m5", num_classes=14, in_chans=1)`` works, where timm is
installed. :func:`mxa.load` opens a trained model, saved or exported, for prediction; whoever wants the network itself
calls :func:`mxa.models.artifact.load`. Importing mxa loads neither torch nor timm until something needs them.
"""

from typing import TYPE_CHECKING, Any

import wrapt

from mxa.errors import ArtifactError, ConfigError, DataError, MxaError
from mxa.version import __version__

if TYPE_CHECKING:
    from mxa.deploy.hub import push_to_hub
    from mxa.predictor import Prediction, Predictor
    from mxa.predictor import open_predictor as load

__all__ = [
    "ArtifactError",
    "ConfigError",
    "DataError",
    "MxaError",
    "Prediction",
    "Predictor",
    "__version__",
    "load",
    "push_to_hub",
]


@wrapt.when_imported("timm")
def _register_models(timm: object) -> None:
    """Put our models into timm's registry once timm is there, whichever of the two is imported first."""
    import mxa.models.efficientvit  # noqa: F401


def __getattr__(name: str) -> Any:
    if name in {"Prediction", "Predictor", "load"}:
        from mxa import predictor

        return getattr(predictor, "open_predictor" if name == "load" else name)
    if name == "push_to_hub":
        from mxa.deploy import hub

        return hub.push_to_hub
    raise AttributeError(f"module 'mxa' has no attribute {name!r}")
