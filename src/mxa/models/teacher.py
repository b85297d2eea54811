"""Teachers: frozen classifiers that tell a student's logits what to be [3.4, 5].

Any saved model can teach. Each keeps its own preprocessing contract: the teachers get the pictures as the student's
data set gives them, before the student's scaling, and resize and scale them by themselves (spec, known mistake 5).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from mxa.errors import ArtifactError
from mxa.labels import LabelSet
from mxa.models.adapter import TeacherOutputAdapter
from mxa.models.artifact import Classifier, fingerprint, load
from mxa.models.cam import activation_maps
from mxa.models.xrv import PREFIX
from mxa.preprocess import Preprocess


@dataclass(frozen=True)
class TeacherModel:
    """A saved model that teaches.

    Attributes:
        path: its folder.
        fingerprint: of its weights and contract, see :func:`mxa.models.artifact.fingerprint`.
        classifier: the model itself.
    """

    path: str
    fingerprint: str
    classifier: Classifier

    def describe(self) -> dict[str, Any]:
        """What a run and a cache remember of it, as plain JSON values."""
        return {
            "path": self.path,
            "fingerprint": self.fingerprint,
            "architecture": self.classifier.architecture.name,
            "outputs": trained_outputs(self.classifier),
            "preprocess": self.classifier.preprocess.to_dict(),
        }


def trained_outputs(classifier: Classifier) -> list[str]:
    """The names of a classifier's outputs, '' for those that training cannot have taught anything.

    A finding that the training split never had as positive (none of its rows annotated it, say) has an output all the
    same, and it would teach noise (spec, known mistake 14).
    """
    counts = classifier.training.get("data", {}).get("counts", {}).get("train", {})
    return [name if counts.get(name, {}).get("positive", 1) else "" for name in classifier.labels]


def load_teachers(folders: Sequence[str]) -> list[TeacherModel]:
    """Load saved models as teachers.

    Raises:
        ArtifactError: a folder is not a saved model, or is the name of a TorchXRayVision model, which must be converted
            first; the message says how.
    """
    return [TeacherModel(folder, teacher_fingerprint(folder), load(folder)) for folder in folders]


def teacher_fingerprint(folder: str) -> str:
    """The fingerprint of a teacher's folder, without loading its weights.

    Raises:
        ArtifactError: as :func:`load_teachers`.
    """
    if not Path(folder).exists() and folder.startswith(PREFIX):
        raise ArtifactError(
            f"kd.teacher is {folder!r}, a TorchXRayVision model: convert it once with `mxa teacher convert {folder} "
            f"--out teachers/{folder}` and give the new folder"
        )
    return fingerprint(folder)


class Teacher(nn.Module):
    """One or several frozen classifiers behind one interface: pictures -> logits of the student's findings.

    It stays in evaluation mode whatever :meth:`train` says, needs no gradient and gives none: a module that holds it
    may be switched to training without moving its batch norm statistics.

    Args:
        classifiers: the teachers.
        labels: the student's L findings.
        no_finding: see :class:`mxa.models.adapter.TeacherOutputAdapter`.

    Attributes:
        labels: the student's L findings, the columns of the logits.
        known: (L,) bool, False where the output means nothing.

    Raises:
        ConfigError: a teacher has no finding in common with the student.
    """

    def __init__(self, classifiers: Sequence[Classifier], labels: LabelSet, no_finding: str = "product") -> None:
        super().__init__()
        self.labels = labels
        self.adapter = TeacherOutputAdapter([trained_outputs(one) for one in classifiers], labels, no_finding)
        self.networks = nn.ModuleList(one.model.to(memory_format=torch.channels_last) for one in classifiers)
        self.contracts: list[Preprocess] = [one.preprocess for one in classifiers]
        self.names = [one.architecture.name for one in classifiers]
        self.requires_grad_(False)
        self.train(False)

    @property
    def known(self) -> Tensor:
        """(L,) bool, True where some teacher knows the finding."""
        return self.adapter.known

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def outputs(self, pixels: Tensor) -> Tensor:
        """The teachers' raw logits side by side.

        Args:
            pixels: (B, 1, S, S) uint8, as the student's data set gives them.

        Returns:
            (B, T) float32, each teacher's own outputs in its order; no sigmoid, no operating points.
        """
        raw = (net(_input(pixels, own)) for net, own in zip(self.networks, self.contracts, strict=True))
        return torch.cat([one.float() for one in raw], dim=1)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 1, S, S) uint8 -> (B, L) float32 logits of the student's findings, 0 where ``known`` is False."""
        return self.adapter(self.outputs(pixels))

    @torch.no_grad()
    def look(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The logits, taken apart by place (:mod:`mxa.models.cam`).

        Args:
            pixels: (B, 1, S, S) uint8, as the student's data set gives them.

        Returns:
            Logits (B, L) as :meth:`forward` gives them, and maps (B, L, h, w) of the same findings: what the logits
            would be if the whole map were as it is there. Several teachers' maps are brought to the size of the finest.

        Raises:
            ConfigError: a teacher has no exact class-activation map.
        """
        looked = [
            activation_maps(net, name, _input(pixels, own))[:2]
            for net, own, name in zip(self.networks, self.contracts, self.names, strict=True)
        ]
        finest = max((maps.shape[-2:] for _, maps in looked), key=lambda size: size[0] * size[1])
        maps = torch.cat([nnf.interpolate(maps.float(), finest, mode="bilinear") for _, maps in looked], dim=1)
        logits = self.adapter(torch.cat([logits.float() for logits, _ in looked], dim=1))
        return logits, self.adapter(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _input(pixels: Tensor, contract: Preprocess) -> Tensor:
    """The student's pictures at one teacher's size and scale; resized as TorchXRayVision does, with antialiasing."""
    grey = pixels.float()
    if grey.shape[-1] != contract.size:
        grey = nnf.interpolate(grey, size=(contract.size, contract.size), mode="bilinear", antialias=True)
    return contract.scale(grey)


def ready_teacher(models: Sequence[TeacherModel], labels: LabelSet, no_finding: str) -> Teacher:
    """The teachers on the accelerator, where there is one.

    Raises:
        ConfigError: see :class:`Teacher`.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Teacher([one.classifier for one in models], labels, no_finding).to(device)
