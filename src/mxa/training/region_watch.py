"""Whether the MXA blocks' regions of interest are alive: their boxes and their predictors' gradients, epoch by epoch.

A region predictor that gets no gradient, or one that finds the same box best for every image, leaves a model that
classifies well and whose boxes say nothing. Its classification figures do not show it; these do.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import lightning as lt
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mxa.training.callbacks import EpochRows
from mxa.training.module import MXA, ClassifierModule, region_parameters

log = logging.getLogger(__name__)

WHOLE_AREA = 0.95
"""A box of this share of the map or more is (nearly) the whole map."""
ALIKE = 0.01
"""Boxes whose area and centre spread less than this over the images are all alike: 1% of the map's side is two pixels
of a 224-pixel input."""
GRADIENT_STEPS = 10
"""The gradients are measured at each epoch's first optimiser step, and then at every one of this many."""
BACKBONE = "backbone"

FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class BlockRegions:
    """One MXA block in one epoch.

    Lengths are fractions of the map's side and areas of its area. A spread is the standard deviation over the images.

    Attributes:
        epoch: the epoch, from 0.
        block: the block's name, such as ``stages.0.blocks.0``; with several regions one for each of them.
        x1, y1, x2, y2: corners of the mean box.
        area, area_spread: of the boxes' area, mean and spread.
        x, x_spread, y, y_spread: of the boxes' centre, mean and spread.
        whole: share of the boxes that are (nearly) the whole map (:data:`WHOLE_AREA`).
        moved: how far the mean box is from that of the first epoch on record: mean absolute change of its corners.
        gradient: norm of the region predictor's gradient before clipping, all its parameters taken as one vector; mean
            over the measured steps. NaN where there is no gradient.
        gradient_ratio: mean of that norm over the norm of these parameters, which can be compared between blocks and
            the backbone.
        backbone_gradient, backbone_gradient_ratio: the same of everything outside the MXA blocks.
    """

    epoch: int
    block: str
    x1: float
    y1: float
    x2: float
    y2: float
    area: float
    area_spread: float
    x: float
    x_spread: float
    y: float
    y_spread: float
    whole: float
    moved: float
    gradient: float
    gradient_ratio: float
    backbone_gradient: float
    backbone_gradient_ratio: float

    @property
    def corners(self) -> FloatArray:
        """(4,) the mean box."""
        return np.array([self.x1, self.y1, self.x2, self.y2])

    @property
    def spread(self) -> float:
        """The largest of the three spreads."""
        return max(self.area_spread, self.x_spread, self.y_spread)

    @property
    def same_for_all(self) -> bool:
        """Whether the boxes are the whole map, or all alike."""
        return self.area >= WHOLE_AREA or self.spread < ALIKE


def box_statistics(boxes: FloatArray, first: FloatArray | None = None) -> dict[str, float]:
    """The fields ``x1`` to ``moved`` of :class:`BlockRegions`.

    Args:
        boxes: (N, 4) corners x1, y1, x2, y2 in [0, 1], one box per image.
        first: (4,) mean box of the first epoch on record; None where this is that epoch.

    Raises:
        ValueError: there is no box, or they are not (N, 4).
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes):
        raise ValueError(f"needs boxes (N, 4) of at least one image, got {boxes.shape}")
    boxes = boxes.astype(np.float64)
    corners = boxes.mean(axis=0)
    sides = boxes[:, 2:] - boxes[:, :2]
    area = sides.prod(axis=1)
    values: dict[str, Any] = dict(zip(("x1", "y1", "x2", "y2"), corners, strict=True))
    for name, each in zip(("area", "x", "y"), (area, *(boxes[:, :2] + sides / 2).T), strict=True):
        values |= {name: each.mean(), f"{name}_spread": each.std()}
    values["whole"] = (area >= WHOLE_AREA).mean()
    values["moved"] = 0.0 if first is None else np.abs(corners - first).mean()
    return {name: float(value) for name, value in values.items()}


class GradientSizes:
    """Norms of the gradient of groups of parameters, and over those of the parameters themselves.

    A few operations for all parameters together, and nothing waits for the device.

    Args:
        groups: parameters by the group's name; no group is empty.
    """

    def __init__(self, groups: Mapping[str, Sequence[nn.Parameter]]) -> None:
        self.names = tuple(groups)
        self._parameters: list[Tensor] = [parameter for group in groups.values() for parameter in group]
        self._lengths = torch.tensor([len(group) for group in groups.values()])

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """(2, G): gradient norms of the G groups, and gradient norm over weight norm.

        A parameter without gradient counts as one whose gradient is 0.
        """
        if self._lengths.device != self._parameters[0].device:
            self._lengths = self._lengths.to(self._parameters[0].device)
        gradient = self._norms([p.new_zeros(()) if p.grad is None else p.grad for p in self._parameters])
        return torch.stack([gradient, gradient / self._norms(self._parameters)])

    def _norms(self, tensors: list[Tensor]) -> Tensor:
        squares = torch.stack(torch._foreach_norm(tensors)).square()
        return torch.segment_reduce(squares, "sum", lengths=self._lengths, unsafe=True).sqrt()


def gradient_groups(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Each MXA block's region predictor, by the block's name, and :data:`BACKBONE`, all outside the MXA blocks.

    Empty for a model without region predictors.
    """
    regions = region_parameters(model)
    if not regions:
        return {}
    return {**regions, BACKBONE: [parameter for name, parameter in model.named_parameters() if MXA not in name]}


class WatchRegions(lt.Callback):
    """Writes and logs a :class:`BlockRegions` for every epoch and MXA block; does nothing for a model without them.

    Lightning calls ``on_before_optimizer_step`` once the gradients of a step are complete (summed over its parts,
    averaged over the processes) and before ``configure_gradient_clipping``, so the gradients are those before clipping.

    Args:
        file: ``regions.csv`` of the run; a resumed run goes on in it.
    """

    def __init__(self, file: Path) -> None:
        self.rows = EpochRows(file)
        self._first: dict[str, FloatArray] = {}
        self._sizes: GradientSizes | None = None
        self._steps = 0  # of this epoch
        self._sum: Tensor | None = None  # of the measured ones' sizes, on the device

    def state_dict(self) -> dict[str, Any]:
        """The measured part of an epoch, for a checkpoint in its middle."""
        return {} if self._sum is None else {"steps": self._steps, "sum": self._sum.cpu()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on in the middle of that epoch."""
        self._steps, self._sum = state_dict["steps"], state_dict["sum"]

    def on_train_start(self, trainer: lt.Trainer, pl_module: lt.LightningModule) -> None:
        """A resumed run repeats the epochs after its checkpoint: drop their rows."""
        assert isinstance(pl_module, ClassifierModule)
        groups = gradient_groups(pl_module.model)
        self._sizes = GradientSizes(groups) if groups else None
        if trainer.is_global_zero:
            self.rows.rewind(trainer.current_epoch)
            for row in reversed(read_regions(self.rows.file)):
                self._first[row.block] = row.corners

    def on_before_optimizer_step(self, trainer: lt.Trainer, pl_module: lt.LightningModule, optimizer: Any) -> None:
        """Measure the gradients, now and then."""
        if self._sizes is None:
            return
        if self._steps % GRADIENT_STEPS == 0:
            sizes = self._sizes()
            self._sum = sizes if self._sum is None else self._sum.to(sizes.device) + sizes
        self._steps += 1

    def on_train_epoch_end(self, trainer: lt.Trainer, pl_module: lt.LightningModule) -> None:
        """Write the rows and log their numbers, on the first process."""
        assert isinstance(pl_module, ClassifierModule)
        if trainer.is_global_zero and pl_module.boxes:
            rows = self._describe(trainer.current_epoch, pl_module.boxes)
            self.rows.append(*map(asdict, rows))
            logged = {f"region/{row.block}/{name}": value for row in rows for name, value in _numbers(row).items()}
            pl_module.log_dict(logged, rank_zero_only=True)
        self._steps, self._sum = 0, None

    def _describe(self, epoch: int, boxes: Mapping[str, FloatArray]) -> list[BlockRegions]:
        """One row per block."""
        gradients = self._mean_gradients()
        unknown = float("nan"), float("nan")
        backbone, backbone_ratio = gradients.get(BACKBONE, unknown)
        rows = []
        for block, own in boxes.items():
            gradient, ratio = gradients.get(block.partition(".regions.")[0], unknown)
            statistics = box_statistics(own, self._first.get(block))
            row = BlockRegions(
                epoch,
                block,
                **statistics,
                gradient=gradient,
                gradient_ratio=ratio,
                backbone_gradient=backbone,
                backbone_gradient_ratio=backbone_ratio,
            )
            self._first.setdefault(block, row.corners)
            rows.append(row)
        return rows

    def _mean_gradients(self) -> dict[str, tuple[float, float]]:
        """Norm and ratio of each group over the epoch's measured steps; waits for the device."""
        if self._sizes is None or self._sum is None:
            return {}
        norms, ratios = (self._sum / math.ceil(self._steps / GRADIENT_STEPS)).tolist()
        return dict(zip(self._sizes.names, zip(norms, ratios, strict=True), strict=True))


def read_regions(file: Path) -> list[BlockRegions]:
    """All rows of a run's ``regions.csv``, in its order; none where there is no such file."""
    kinds = {field.name: {"epoch": int, "block": str}.get(field.name, float) for field in fields(BlockRegions)}
    return [BlockRegions(**{name: kinds[name](cell) for name, cell in row.items()}) for row in EpochRows(file).read()]


def last_epoch(rows: Sequence[BlockRegions]) -> list[BlockRegions]:
    """The rows of the last epoch."""
    return [row for row in rows if row.epoch == rows[-1].epoch]


def warn_if_the_same(rows: Sequence[BlockRegions]) -> None:
    """Say so in the log where every block's boxes are the whole map, or all alike.

    Args:
        rows: one per block, all of one epoch; at least one.
    """
    if all(row.same_for_all for row in rows):
        log.warning(
            "the MXA blocks' regions are the same for all images (mean areas from %.3f to %.3f of the map, largest "
            "spread of an area or a centre %.2g): they tell nothing about where a finding is",
            min(row.area for row in rows),
            max(row.area for row in rows),
            max(row.spread for row in rows),
        )


def to_record(rows: Iterable[BlockRegions]) -> dict[str, dict[str, float | None]]:
    """The numbers of each block, for JSON: None where a number is not finite."""
    return {
        row.block: {name: value if math.isfinite(value) else None for name, value in _numbers(row).items()}
        for row in rows
    }


def _numbers(row: BlockRegions) -> dict[str, float]:
    """All fields but the two that say which row it is."""
    return {name: value for name, value in asdict(row).items() if name not in {"epoch", "block"}}
