"""A run's teacher: where each batch's teacher logits come from, and what is kept about them.

Live, the teacher sees the augmented picture that the student sees and runs in every step; cached, it saw the picture
without augmentation, once, and a step costs one indexing.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from mxa.data.loader import Batch, EpochSampler, RadiographDataset, make_loader
from mxa.data.table import Table
from mxa.errors import ConfigError
from mxa.evaluation.metrics import Evaluation, evaluate
from mxa.labels import NO_FINDING, LabelSet
from mxa.models.adapter import TeacherOutputAdapter
from mxa.models.artifact import read_config
from mxa.models.cam import class_activation_maps
from mxa.models.teacher import load_teachers, ready_teacher, teacher_fingerprint
from mxa.training.config import TrainConfig
from mxa.training.loaders import loading_processes
from mxa.training.losses import DistillationLoss, DistillationTerms
from mxa.training.provenance import split_otherwise
from mxa.training.taught_regions import region_distance, taught_regions
from mxa.training.teacher_cache import open_cache

log = logging.getLogger(__name__)
BATCH_SIZE = 32


class TeacherLogits(Protocol):
    """Gives the teacher's logits of training batches.

    Attributes:
        description: what the run remembers of the teachers, as plain JSON values.
    """

    description: list[dict[str, Any]]

    @property
    def known(self) -> Tensor:
        """(L,) bool, findings that the teacher knows."""

    def ready(self, training: RadiographDataset, validation: RadiographDataset) -> Tensor:
        """Check the pictures where that is needed; gives the (N, L) logits of the validation split."""

    def to(self, device: torch.device) -> None:
        """Move to a device, in place."""

    def __call__(self, batch: Batch) -> Tensor:
        """(B, L) logits of the student's findings."""

    def look(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits, and (B, 4) where the batch's own findings are, NaN where that cannot be told."""


class LiveTeacher:
    """Runs the teacher on each batch.

    Args:
        config: names the teachers.
        table: the data set.

    Raises:
        ConfigError: regions are to be taught and a teacher has no exact class-activation map.
    """

    def __init__(self, config: TrainConfig, table: Table) -> None:
        models = load_teachers(config.kd.teachers)
        self.teacher = ready_teacher(models, table.labels, config.kd.no_finding)
        self.description = [one.describe() for one in models]
        self._config = config
        self._placed = torch.tensor([finding != NO_FINDING for finding in table.labels])
        if config.kd.regions:
            for one in models:  # the check waits for the device: once, not in every step
                class_activation_maps(one.classifier, _noise(one.classifier.preprocess.size))

    @property
    def known(self) -> Tensor:
        """(L,) bool."""
        return self.teacher.known

    def ready(self, training: RadiographDataset, validation: RadiographDataset) -> Tensor:
        """Run over the validation split."""
        sampler = EpochSampler(len(validation), shuffle=False)
        device = self.known.device
        batches = make_loader(validation, sampler, BATCH_SIZE, workers=self._workers(validation))
        return torch.cat([self.teacher(batch.image.to(device)).cpu() for batch in batches])

    def _workers(self, dataset: RadiographDataset) -> int:
        return loading_processes(self._config, light=dataset.pixels is not None)

    def to(self, device: torch.device) -> None:
        """Move to a device, in place."""
        self.teacher.to(device)
        self._placed = self._placed.to(device)

    def __call__(self, batch: Batch) -> Tensor:
        """(B, L) logits."""
        logits: Tensor = self.teacher(batch.image)
        return logits

    def look(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits and regions, in one pass."""
        logits, maps = self.teacher.look(batch.image)
        return logits, taught_regions(maps, self._shown(batch))

    def _shown(self, batch: Batch) -> Tensor:
        """(B, L) bool: findings that the labels say are there, that the teacher knows and that have a place."""
        return (batch.target > 0.5) & batch.mask & self.known & self._placed


def _noise(side: int) -> Tensor:
    """(1, 1, S, S) uint8 for which a map differs from place to place: of an even one any head's would be the logit."""
    draw = torch.Generator().manual_seed(0)  # its own: the run's random numbers stay as they are
    return torch.randint(0, 256, (1, 1, side, side), generator=draw, dtype=torch.uint8)


class CachedTeacher:
    """Looks the logits up by the batch's rows.

    Args:
        config: names the teachers and the cache.
        table: the data set.
    """

    def __init__(self, config: TrainConfig, table: Table) -> None:
        prints = [teacher_fingerprint(one) for one in config.kd.teachers]
        self.description = [
            {"path": path, "fingerprint": one} for path, one in zip(config.kd.teachers, prints, strict=True)
        ]
        cache = open_cache(Path(config.kd.cache), prints, config.preprocess)
        adapter = TeacherOutputAdapter(cache.names, table.labels, config.kd.no_finding)
        self._parts = {split: cache.rows_of(table.split(split)) for split in ("train", "valid")}
        self.known, self.logits = adapter.known, adapter(self._parts["train"].outputs)
        self._validation: Tensor = adapter(self._parts["valid"].outputs)

    def ready(self, training: RadiographDataset, validation: RadiographDataset) -> Tensor:
        """Compare the pictures with those that the teacher saw."""
        for split, dataset in (("train", training), ("valid", validation)):
            self._parts[split].check_pictures(dataset)
        return self._validation

    def to(self, device: torch.device) -> None:
        """Move to a device, in place."""
        self.logits, self.known = self.logits.to(device), self.known.to(device)

    def __call__(self, batch: Batch) -> Tensor:
        """(B, L) logits."""
        return self.logits[batch.row]

    def look(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Refuse: a cache holds no maps.

        Raises:
            ConfigError: always; :class:`mxa.training.config.KdConfig` refuses such a run before it gets here.
        """
        raise ConfigError("kd.regions needs the teacher's maps, but kd.cache holds logits alone; leave kd.cache out")


class Distiller:
    """The loss of a batch with a teacher, and the mean of the findings' weights over an epoch.

    Args:
        source: where the teacher's logits come from.
        loss: the loss; its configuration says whether regions are taught.
        validation: the teacher's own figures on the validation split.
        description: what the run remembers of the teacher, as plain JSON values.
    """

    def __init__(
        self, source: TeacherLogits, loss: DistillationLoss, validation: Evaluation, description: dict[str, Any]
    ) -> None:
        self.source, self.loss = source, loss
        self.validation, self.description = validation, description
        self._weights: Tensor | None = None
        self._steps = 0

    def to(self, device: torch.device) -> None:
        """Move to a device, in place."""
        self.source.to(device)
        self.loss = self.loss.to(device)

    @property
    def teaches_regions(self) -> bool:
        """Whether the loss needs the student's boxes."""
        return self.loss.config.regions > 0

    def __call__(self, student: Tensor, batch: Batch, boxes: Mapping[str, Tensor]) -> DistillationTerms:
        """The loss of a batch.

        Args:
            student: (B, L) its logits.
            batch: the batch.
            boxes: of each MXA block (B, 4), where regions are taught.
        """
        logits, regions = self.source.look(batch) if self.teaches_regions else (self.source(batch), None)
        terms = self.loss(student, logits, batch.target, batch.mask)
        if regions is not None:
            distance = region_distance(boxes, regions)
            terms = terms._replace(total=terms.total + self.loss.config.regions * distance, regions=distance.detach())
        self._weights = terms.weights if self._weights is None else self._weights + terms.weights
        self._steps += 1
        return terms

    def start_epoch(self) -> None:
        """Forget the last epoch's weights."""
        self._weights, self._steps = None, 0

    def mean_weights(self, labels: LabelSet) -> dict[str, float]:
        """Each taught finding's mean weight over the steps since the epoch's start (or since it was resumed)."""
        if self._weights is None:
            return {}
        means, known = (self._weights / self._steps).tolist(), self.source.known.tolist()
        return {finding: mean for finding, mean, taught in zip(labels, means, known, strict=True) if taught}


def open_teacher(config: TrainConfig, table: Table) -> TeacherLogits | None:
    """Load the run's teacher, or open its cached logits; cheap enough to fail before any picture is decoded.

    Returns:
        None where the run has no teacher.

    Raises:
        ArtifactError: a teacher or the cache cannot be read.
        ConfigError: the teacher has no finding in common with the data, or the cache is of another teacher or contract.
        DataError: the cache is of other data.
    """
    if not config.kd.teachers:
        return None
    source = CachedTeacher(config, table) if config.kd.cache else LiveTeacher(config, table)
    _warn_if_trained_otherwise(config.kd.teachers, table)
    return source


def make_distiller(
    config: TrainConfig,
    source: TeacherLogits,
    table: Table,
    training: RadiographDataset,
    validation: RadiographDataset,
) -> Distiller:
    """Score the teacher on the validation split and join it with the loss.

    Args:
        config: the run.
        source: its teacher.
        table: the data set.
        training: pictures of its training split.
        validation: pictures of its validation split.

    Raises:
        DataError: the cache was made of other pictures.
    """
    part, known = table.split("valid"), source.known.cpu()
    logits = source.ready(training, validation)
    result = evaluate(logits.numpy(), part.target, part.mask & known.numpy(), table.labels)
    taught = dict(zip(table.labels, known.tolist(), strict=True))
    description = {
        "teachers": source.description,
        "taught": [finding for finding, yes in taught.items() if yes],
        "not_taught": [finding for finding, yes in taught.items() if not yes],
        "cache": config.kd.cache,
        "validation": result.to_dict(),
    }
    _announce(description, result)
    return Distiller(source, DistillationLoss(config.kd, known), result, description)


def _warn_if_trained_otherwise(teachers: Sequence[str], table: Table) -> None:
    """A teacher that trained on this data set with another split may know the validation images' labels by heart."""
    for one in teachers:
        if split_otherwise(read_config(one).get("training", {}), table):
            log.warning(
                "the teacher %s was trained on this data set, but with another split or other labels: it may have seen "
                "images that are validation images here, and its figures and the student's may be too good",
                one,
            )


def _announce(description: dict[str, Any], result: Evaluation) -> None:
    macro = "undefined" if result.auroc_macro is None else f"{result.auroc_macro:.4f}"
    log.info(
        "the teacher teaches %d findings%s; its macro AUROC on the validation split is %s over %d findings%s",
        len(description["taught"]),
        f", not {', '.join(description['not_taught'])}" if description["not_taught"] else "",
        macro,
        len(result.auroc_macro_over),
        "; cached: it has seen the pictures without augmentation" if description["cache"] else "",
    )
