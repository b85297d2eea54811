"""A trained model on disk: ``model.safetensors``, ``config.json`` and ``README.md`` (the model card).

This is the Hugging Face hub's layout.
``config.json`` holds all that is needed to use the model without asking anybody: architecture, findings, preprocessing
contract, where the weights came from, and the size and SHA-256 of each weights file, which are checked on loading.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mxa.errors import ArtifactError, ConfigError
from mxa.labels import LabelSet
from mxa.models.build import build_model
from mxa.models.card import model_card
from mxa.models.efficientvit import MxaEfficientVit
from mxa.preprocess import Preprocess
from mxa.version import __version__

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"


@dataclass(frozen=True)
class Architecture:
    """What :func:`mxa.models.build.build_model` needs: a name and options."""

    name: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Classifier:
    """A model with all that belongs to it; what :func:`load` returns.

    Attributes:
        model: the network in eval mode: scaled floats (B, 1, S, S) -> logits (B, L).
        architecture: how to build the network.
        labels: the L findings, in the order of the logits.
        preprocess: the contract that its input must follow.
        training: provenance as saved: configuration, data, versions, validation figures.
        tuning: operating points and calibrations chosen on validation data, as
            :class:`mxa.evaluation.tuning.Tuning` reads them; empty where there are none.
    """

    model: nn.Module
    architecture: Architecture
    labels: LabelSet
    preprocess: Preprocess
    training: Mapping[str, Any]
    tuning: Mapping[str, Any] = field(default_factory=dict)

    @torch.inference_mode()
    def logits(self, pixels: Tensor) -> Tensor:
        """Score pictures that :meth:`mxa.preprocess.Preprocess.resize` made.

        Args:
            pixels: (B, 1, S, S) uint8, on the model's device.

        Returns:
            (B, L) float32 logits; the sigmoid has not been applied.
        """
        parameter = next(self.model.parameters())
        logits: Tensor = self.model(self.preprocess.scale(pixels.to(parameter.device, parameter.dtype)))
        return logits.float()

    @torch.inference_mode()
    def regions(self, pixels: Tensor) -> dict[str, Tensor]:
        """Where each MXA block looks, in one picture's [0, 1]; empty for a model without MXA.

        As :meth:`mxa.models.efficientvit.MxaEfficientVit.regions`, for pixels as :meth:`logits` takes them.
        """
        if not isinstance(self.model, MxaEfficientVit):
            return {}
        parameter = next(self.model.parameters())
        regions: dict[str, Tensor] = self.model.regions(
            self.preprocess.scale(pixels.to(parameter.device, parameter.dtype))
        )
        return regions


def save(
    classifier: Classifier, folder: str | Path, alternatives: Mapping[str, Mapping[str, Tensor]] | None = None
) -> Path:
    """Write a model folder.

    Args:
        classifier: what to save; its model's weights become ``model.safetensors``.
        folder: made if missing; must not hold a model yet.
        alternatives: further weights of the same network by name (``raw`` or ``ema``), saved beside as
            ``model-NAME.safetensors``.

    Raises:
        ArtifactError: the folder already holds a model.
    """
    folder = Path(folder)
    if (folder / CONFIG_FILE).exists():
        raise ArtifactError(f"{folder} already holds a model; choose another folder or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    states = {WEIGHTS_FILE: classifier.model.state_dict()}
    states |= {f"model-{name}.safetensors": dict(state) for name, state in (alternatives or {}).items()}
    for file, state in states.items():
        save_file(
            {key: value.detach().cpu().contiguous() for key, value in state.items()},
            folder / file,
            metadata={"format": "pt"},
        )
    config = {
        "format_version": FORMAT_VERSION,
        "mxa_version": __version__,
        "architecture": {"name": classifier.architecture.name, "options": dict(classifier.architecture.options)},
        "parameters": sum(parameter.numel() for parameter in classifier.model.parameters()),
        "labels": classifier.labels.to_dict(),
        "preprocess": classifier.preprocess.to_dict(),
        "files": {file: _describe(folder / file) for file in states},
        "training": dict(classifier.training),
        "tuning": dict(classifier.tuning),
    }
    _write_config(folder, config)
    return folder


def store_tuning(folder: str | Path, tuning: Mapping[str, Any]) -> None:
    """Replace a saved model's operating points and calibrations; its weights and fingerprint stay.

    Raises:
        ArtifactError: the folder holds no model, or cannot be written to.
    """
    folder = Path(folder)
    config = read_config(folder) | {"tuning": dict(tuning)}
    try:
        _write_config(folder, config)
    except OSError as error:
        raise ArtifactError(
            f"{folder} cannot be written to ({error.strerror}); no operating points are stored"
        ) from error


def _write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """The card, then the configuration, whole or not at all: with it the folder is a model."""
    (folder / CARD_FILE).write_text(model_card(config), encoding="utf-8")
    part = folder / f".{CONFIG_FILE}.part"
    part.write_text(json.dumps(config, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(folder / CONFIG_FILE)


def load(folder: str | Path, weights: str | None = None, device: str | torch.device = "cpu") -> Classifier:
    """Read a model folder.

    Args:
        folder: as written by :func:`save`.
        weights: None for the selected weights, or the name of an alternative (``raw``, ``ema``).
        device: where the network goes.

    Raises:
        ArtifactError: a file is missing, damaged, of an unknown version, or does not fit the others; the message says
            which.
    """
    folder = Path(folder)
    config = read_config(folder)
    try:
        labels = LabelSet.from_dict(config["labels"])
        preprocess = Preprocess.from_dict(config["preprocess"])
        architecture = Architecture(config["architecture"]["name"], config["architecture"]["options"])
        model = build_model(architecture.name, len(labels), preprocess.size, options=architecture.options)
        training, files, tuning = config["training"], config["files"], config.get("tuning", {})
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{folder / CONFIG_FILE} lacks or garbles {error}; save the model again") from error
    except ConfigError as error:
        raise ArtifactError(f"{folder / CONFIG_FILE}: {error}") from error
    state = _read_weights(folder, WEIGHTS_FILE if weights is None else f"model-{weights}.safetensors", files)
    _fit(model, state, labels, folder)
    return Classifier(model.eval().to(device), architecture, labels, preprocess, training, tuning)


def fingerprint(folder: str | Path) -> str:
    """SHA-256 of what decides a saved model's logits: architecture, findings, preprocessing and (selected) weights.

    Reads the configuration alone; :func:`load` checks that the weights are the ones that it names.

    Raises:
        ArtifactError: the folder holds no model, or its configuration is garbled.
    """
    config = read_config(folder)
    try:
        parts = [config[key] for key in ("architecture", "labels", "preprocess")]
        parts.append(config["files"][WEIGHTS_FILE]["sha256"])
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{Path(folder) / CONFIG_FILE} lacks or garbles {error}; save the model again") from error
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read_config(folder: str | Path) -> dict[str, Any]:
    """The contents of a saved model's ``config.json``.

    Raises:
        ArtifactError: the folder holds no model, or one of an unknown version.
    """
    folder = Path(folder)
    file = folder / CONFIG_FILE
    if folder.is_file():
        raise ArtifactError(
            f"{folder} is a file, not a saved model's folder. If it is a pickled network of TorchXRayVision, convert "
            "it once with `mxa teacher convert`; mxa opens no other pickle"
        )
    if not file.is_file():
        raise ArtifactError(
            f"{folder} is not a saved model: it has no {CONFIG_FILE}; give the folder that `mxa train` wrote "
            "(RUN/model)"
        )
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{file} is not valid JSON ({error}); save the model again") from error
    version = config.get("format_version") if isinstance(config, dict) else None
    if version != FORMAT_VERSION:
        raise ArtifactError(
            f"{file} has format version {version!r}, this mxa ({__version__}) reads {FORMAT_VERSION}; use the "
            "mxa version that wrote it"
        )
    return config


def _describe(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def _read_weights(folder: Path, name: str, files: Mapping[str, Any]) -> dict[str, Tensor]:
    """Check a weights file against the configuration, then read it."""
    if name not in files:
        raise ArtifactError(f"{folder / CONFIG_FILE} lists no {name}; it has {sorted(files)}")
    file = folder / name
    if not file.is_file():
        raise ArtifactError(f"{file} is missing; copy the whole model folder again")
    found, expected = _describe(file), files[name]
    for what in ("bytes", "sha256"):
        if found[what] != expected[what]:
            raise ArtifactError(
                f"{file} is damaged: {what} is {found[what]}, {CONFIG_FILE} says {expected[what]}; copy the "
                "folder again"
            )
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ArtifactError(f"{file} is not a safetensors file ({error}); save the model again") from error


def _fit(model: nn.Module, state: Mapping[str, Tensor], labels: LabelSet, folder: Path) -> None:
    """Load the weights strictly; say what differs, and speak of findings where it is the head."""
    own = model.state_dict()
    for key in sorted(set(own) & set(state)):
        if own[key].shape != state[key].shape:
            raise ArtifactError(
                f"{folder}: {key} has shape {tuple(state[key].shape)} in the weights, but {len(labels)} "
                "findings and the architecture in "
                f"{CONFIG_FILE} need {tuple(own[key].shape)}; the two files do not belong together"
            )
    missing, unknown = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    if missing or unknown:
        raise ArtifactError(
            f"{folder}: the weights lack {missing[:3]} and have the unknown {unknown[:3]}; they are not of the "
            f"architecture in {CONFIG_FILE}"
        )
    model.load_state_dict(dict(state))
