"""What an exported file carries beside the network: all that is needed to use it without asking anybody.

One JSON text under one key, :data:`KEY`. It holds the saved model's whole ``config.json`` (findings, preprocessing
contract, operating points, calibrations, where the weights came from) and the model's fingerprint. Nothing here needs
torch.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mxa.errors import ArtifactError, ConfigError
from mxa.evaluation.tuning import Tuning
from mxa.labels import LabelSet
from mxa.preprocess import Preprocess
from mxa.version import __version__

KEY = "mxa"
"""Where the JSON text stands: ONNX's metadata property, OpenVINO's runtime info, torch.export's extra file."""

FORMAT_VERSION = 1
PRECISIONS = ("float32", "int8")


@dataclass(frozen=True)
class Metadata:
    """The contents of the JSON text.

    Attributes:
        model_hash: fingerprint of the saved model, as :func:`mxa.models.artifact.fingerprint`.
        blocks: names of the MXA blocks, in the order of the graph's boxes.
        config: the saved model's ``config.json``.
        precision: float32, or int8 for a quantised network.
        measured: of a quantised network, what it lost and gained; else empty.
        network: bytes and sha256 of the network, as :func:`describe` gives them: of an ``.onnx`` file's first bytes, of
            OpenVINO's ``.bin`` file. Empty for torch.export, whose file has checksums of its own.

    Raises:
        ArtifactError: a part is missing or garbled.
    """

    model_hash: str
    blocks: tuple[str, ...]
    config: Mapping[str, Any]
    precision: str = "float32"
    measured: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    labels: LabelSet = field(init=False)
    preprocess: Preprocess = field(init=False)
    tuning: Tuning = field(init=False)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ArtifactError(f"the model's precision is {self.precision!r}, not one of {', '.join(PRECISIONS)}")
        try:
            labels = LabelSet.from_dict(self.config["labels"])
            object.__setattr__(self, "labels", labels)
            object.__setattr__(self, "preprocess", Preprocess.from_dict(self.config["preprocess"]))
            object.__setattr__(self, "tuning", Tuning.from_dict(self.config.get("tuning", {}), labels))
        except (KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"the model's configuration lacks or garbles {error}") from error
        except ConfigError as error:
            raise ArtifactError(f"the model's configuration: {error}") from error

    @property
    def notes(self) -> tuple[str, ...]:
        """What must stand on every prediction."""
        if self.precision == "float32":
            return ()
        change = self.measured.get("auroc_macro_change")
        return (f"{self.precision} network: macro AUROC {change:+.4f} against float32 where it was measured",)

    def to_json(self) -> str:
        """The text."""
        return json.dumps(
            {
                "format_version": FORMAT_VERSION,
                "mxa_version": __version__,
                "model_hash": self.model_hash,
                "blocks": list(self.blocks),
                "precision": self.precision,
                "measured": dict(self.measured),
                "network": dict(self.network),
                "config": dict(self.config),
            },
            allow_nan=False,
        )

    def check_network(self, file: Path) -> None:
        """Compare the network with what was exported.

        Args:
            file: holds it.

        Raises:
            ArtifactError: the file is shorter or has other bytes.
        """
        if not file.is_file():
            raise ArtifactError(f"{file} is missing; copy it again with the rest of the model")
        with file.open("rb") as stream:
            found = describe(stream.read(self.network.get("bytes", 0)))
        if found != self.network:
            raise ArtifactError(
                f"{file} is damaged: its network is {found}, exported was {self.network}; copy it again"
            )

    @classmethod
    def from_json(cls, text: str | None, file: object) -> "Metadata":
        """Read and check the text.

        Args:
            text: as :meth:`to_json` wrote it; None where the file has none.
            file: named in messages.

        Raises:
            ArtifactError: there is no text, it is garbled, or of another version.
        """
        if text is None:
            raise ArtifactError(f"{file} was not exported by mxa: it lacks the metadata {KEY!r}; use `mxa export`")
        try:
            data = json.loads(text)
            version = data["format_version"]
            if version != FORMAT_VERSION:
                raise ArtifactError(
                    f"{file} has format version {version!r}, this mxa ({__version__}) reads {FORMAT_VERSION}; export "
                    "the model again"
                )
            named = {key: data[key] for key in ("model_hash", "config", "precision", "measured", "network")}
            blocks = tuple(data["blocks"])
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{file}: the metadata are garbled ({error!r}); export the model again") from error
        try:
            return cls(blocks=blocks, **named)
        except ArtifactError as error:
            raise ArtifactError(f"{file}: {error}; export the model again") from error


def describe(data: bytes) -> dict[str, Any]:
    """Length and SHA-256."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
