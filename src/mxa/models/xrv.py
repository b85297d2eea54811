"""TorchXRayVision's DenseNet-121 classifiers as ordinary saved models: the one place where a pickle is opened.

TorchXRayVision (Cohen et al., "TorchXRayVision: A library of chest X-ray datasets and models", MIDL 2022) publishes its
weights as pickled modules. :func:`convert` opens such a file once and writes safetensors with labels, hash and source;
everything afterwards uses that.

What the conversion takes care of (spec, known mistakes 5 to 7, 14):

* Raw logits. With its weights loaded the library's model returns probabilities bent by operating points; they stay
  behind, and only the network is taken. Its layers are those of timm's ``densenet121``, which then runs it.
* The library's own contract: one channel in [-1024, 1024], 224 px, the central square of the picture.
* Labels by name. Outputs named '' were never trained; they are dropped.
"""

import hashlib
import pickle
import types
import urllib.error
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mxa.errors import ArtifactError, ConfigError
from mxa.labels import label_set
from mxa.models.artifact import Architecture, Classifier, save
from mxa.models.build import build_model
from mxa.preprocess import Preprocess

PREFIX = "densenet121-res224-"
WEIGHTS = tuple(PREFIX + name for name in ("all", "nih", "pc", "chex", "rsna", "mimic_nb", "mimic_ch"))
"""TorchXRayVision's names."""

CONTRACT = Preprocess(size=224, fit="crop", interpolation="bilinear", mean=0.5, std=1 / 2048)
"""(pixel / 255 - 0.5) * 2048 is the library's (2 pixel / 255 - 1) * 1024."""

PARITY = 1e-3
"""Largest difference of logits between the converted and the library's network, relative where they exceed 1."""


def convert(weights: str, out: str | Path, cache_dir: str | Path | None = None, *, trust: bool = False) -> Path:
    """Convert one of TorchXRayVision's DenseNets to a saved model.

    Args:
        weights: one of :data:`WEIGHTS`.
        out: new folder for the saved model.
        cache_dir: where the library's file lies, or is downloaded to; None is the library's own cache.
        trust: open the pickle without limits. It can run any code: only for a file whose origin you are sure of, and
            only if the default, which admits nothing but a DenseNet's parts, refuses it.

    Returns:
        The new folder.

    Raises:
        ConfigError: ``weights`` is unknown.
        ArtifactError: TorchXRayVision is not installed; the file is neither there nor can be downloaded; it is damaged
            or not such a DenseNet; the converted network gives other logits than the library's; ``out`` holds a model.
    """
    if weights not in WEIGHTS:
        raise ConfigError(f"{weights!r} is not a DenseNet-121 of TorchXRayVision; choose one of {', '.join(WEIGHTS)}")
    library = _library()
    file = _find(library, weights, cache_dir)
    outputs: list[str] = library.models.model_urls[weights]["labels"]
    state = _state(_unpickle(library, file, trust), file)
    model, labels = _as_timm(state, outputs, file)
    _check_parity(library, state, outputs, model, file)
    source = {
        "library": f"torchxrayvision {library.__version__}",
        "weights": weights,
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "outputs": outputs,
    }
    named = replace(label_set(labels), name=weights)
    return save(Classifier(model, Architecture("densenet121", {}), named, CONTRACT, {"source": source}), out)


def _library() -> Any:
    # Its import installs a global filter that silences every warning of the process; that stays here.
    with warnings.catch_warnings():
        try:
            import torchxrayvision
        except ImportError as error:
            raise ArtifactError("TorchXRayVision is not installed; `pip install 'mxa[xrv]'` brings it") from error
    return torchxrayvision


def _find(library: Any, weights: str, cache_dir: str | Path | None) -> Path:
    """The weights file where the library keeps it, downloaded if need be."""
    url: str = library.models.model_urls[weights]["weights_url"]
    folder = Path(cache_dir) if cache_dir is not None else Path(library.utils.get_cache_dir())
    file = folder / url.rpartition("/")[2]
    if file.is_file():
        return file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), progress=False)
    except (urllib.error.URLError, OSError) as error:
        raise ArtifactError(
            f"the weights {file.name} of {weights} are not in {folder}, and could not be downloaded ({error}); get "
            f"{url} on a machine with a network and put the file into that folder, or give its folder as --cache_dir"
        ) from error
    return file


# All that a pickled DenseNet consists of, in the PyTorch of 2020 and of today. "__builtin__" is what protocol 2 calls
# "builtins".
_LAYERS = {
    "container": ("Sequential",),
    "conv": ("Conv2d",),
    "batchnorm": ("BatchNorm2d",),
    "activation": ("ReLU",),
    "pooling": ("MaxPool2d", "AvgPool2d"),
    "linear": ("Linear",),
    "upsampling": ("Upsample",),
}
_ADMITTED = frozenset(
    {
        *(("torchxrayvision.models", name) for name in ("DenseNet", "_DenseLayer", "_DenseBlock", "_Transition")),
        *((f"torch.nn.modules.{module}", name) for module, names in _LAYERS.items() for name in names),
        *(("torch._utils", name) for name in ("_rebuild_tensor_v2", "_rebuild_parameter")),
        *((module, "set") for module in ("builtins", "__builtin__")),
        ("collections", "OrderedDict"),
        *(("numpy", name) for name in ("ndarray", "dtype")),
        *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
        ("torch.nn.backends.thnn", "_get_thnn_function_backend"),  # an attribute of every module before 2020
        ("_codecs", "encode"),  # how protocol 2 writes an array's bytes
    }
)


class _DenseNetUnpickler(pickle.Unpickler):
    """Refuses everything that is no part of a DenseNet, so that a manipulated file cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        """Look a class or function up, if it is admitted."""
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def _load(stream: Any, **options: Any) -> Any:
    return _DenseNetUnpickler(stream, **options).load()


def _unpickle(library: Any, file: Path, trust: bool) -> nn.Module:
    """The pickled module."""
    restricted = types.ModuleType("restricted_pickle")
    restricted.Unpickler, restricted.load = _DenseNetUnpickler, _load  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings():  # files of 2020 carry the source of their classes, which has changed since
            warnings.simplefilter("ignore", torch.serialization.SourceChangeWarning)
            module = torch.load(file, "cpu", pickle if trust else restricted, weights_only=False)
    except pickle.UnpicklingError as error:
        raise ArtifactError(
            f"{file} is damaged, or more than a DenseNet of TorchXRayVision: {error}. Download it again; if you are "
            "sure of its origin, --trust opens it without limits"
        ) from error
    except (RuntimeError, EOFError, OSError, AttributeError, KeyError, ValueError) as error:
        raise ArtifactError(f"{file} is damaged ({error}); remove it and download it again") from error
    if not isinstance(module, library.models.DenseNet):
        raise ArtifactError(f"{file} holds a {type(module).__name__}, not a DenseNet of TorchXRayVision")
    return module


def _state(module: nn.Module, file: Path) -> dict[str, Tensor]:
    """Parameters and buffers, without the operating points.

    Not ``state_dict``: modules pickled by the PyTorch of 2020 lack an attribute that it asks for.
    """
    state: dict[str, Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    state.pop("op_threshs", None)
    broken = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise ArtifactError(f"{file}: {broken[0]} is not finite ({len(broken)} such entries); download the file again")
    return state


def _as_timm(state: Mapping[str, Tensor], outputs: Sequence[str], file: Path) -> tuple[nn.Module, list[str]]:
    """timm's DenseNet-121 with these weights and the trained outputs alone."""
    trained = [i for i, name in enumerate(outputs) if name]
    own = dict(state)
    for key in ("classifier.weight", "classifier.bias"):
        if key not in state or len(state[key]) != len(outputs):
            raise ArtifactError(f"{file}: {key} is not of {len(outputs)} outputs; the file does not fit these weights")
        own[key] = state[key][trained]
    model = build_model("densenet121", len(trained), CONTRACT.size)
    try:
        model.load_state_dict(own)
    except RuntimeError as error:
        raise ArtifactError(f"{file} is not a DenseNet-121 of TorchXRayVision: {error}") from error
    return model.eval(), [outputs[i] for i in trained]


@torch.no_grad()
def _check_parity(
    library: Any, state: Mapping[str, Tensor], outputs: Sequence[str], model: nn.Module, file: Path
) -> None:
    """Compare the converted network with the library's own on random pictures, in the library's own scaling."""
    theirs = library.models.DenseNet(num_classes=len(outputs)).eval()
    theirs.load_state_dict(state)
    grey = torch.randint(0, 256, (2, 1, CONTRACT.size, CONTRACT.size), generator=torch.Generator().manual_seed(0))
    expected = theirs.classifier(theirs.features2((2 * grey / 255 - 1) * 1024))[:, [bool(name) for name in outputs]]
    error = float((model(CONTRACT.scale(grey.float())) - expected).abs().max() / expected.abs().max().clamp(min=1))
    if not error < PARITY:
        raise ArtifactError(
            f"{file}: the converted network differs from TorchXRayVision {library.__version__} by {error:.2g}; its "
            "DenseNet has changed, please report it"
        )
