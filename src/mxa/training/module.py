"""The Lightning module: one training step, one validation pass over raw and averaged weights."""

from collections.abc import Mapping
from typing import Any

import lightning as lt
import numpy as np
import numpy.typing as npt
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn

from mxa.data.batch_augment import BatchAugmenter, Layer
from mxa.data.loader import Batch, ResumableLoader
from mxa.errors import ConfigError, DataError
from mxa.evaluation.metrics import Evaluation, evaluate
from mxa.labels import LabelSet
from mxa.preprocess import Preprocess
from mxa.training.clipping import AdaptiveClip
from mxa.training.config import OptimConfig
from mxa.training.distillation import Distiller
from mxa.training.distributed import average_buffers, gather_rows, together
from mxa.training.ema import Ema
from mxa.training.losses import masked_bce_with_logits

FINITE_CHECK_STEPS = 50
"""On an accelerator the loss is looked at this often, because looking waits for the device; on the CPU at every
step."""
MXA = ".mixer.mxa."
"""In the names of an MXA block's parameters, behind the block's own name."""
REGION = f"{MXA}region."
"""In the names of a region predictor's."""


class ClassifierModule(lt.LightningModule):
    """Trains a model and keeps the moving average of its weights.

    Args:
        model: (B, 1, S, S) scaled floats -> (B, L) logits.
        preprocess: scales the batches' pixels.
        optim: optimiser, schedule, clipping, averaging.
        labels: the L findings.
        files: names of the training rows, for the message when the loss is not finite.
        distiller: the teacher's loss, or None. It is no submodule: the teacher is neither trained nor saved.
        augmenter: changes whole training batches on the model's device, or None.
        compiled: train by torch.compile. Validation is not compiled: its last batch is of another size.

    Attributes:
        evaluations: the last validation's figures, by kind of weights.
        boxes: where each MXA block of the raw weights looked in the last validation, by the block's name: (N, 4)
            corners x1, y1, x2, y2 in [0, 1] of all processes' N images. Empty for a model without MXA.

    Raises:
        ConfigError: the options speak of region predictors that the model does not have.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocess: Preprocess,
        optim: OptimConfig,
        labels: LabelSet,
        files: list[str],
        distiller: Distiller | None = None,
        augmenter: BatchAugmenter | None = None,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        teaches_regions = distiller is not None and distiller.teaches_regions
        if teaches_regions and not region_parameters(model):
            raise ConfigError(
                "kd.regions is given, but the model has no region predictor; train a model with MXA blocks"
            )
        if optim.needs_regions and not region_parameters(model):
            raise ConfigError(
                f"optim.region_lr is {optim.region_lr!r}, optim.region_warmup_epochs {optim.region_warmup_epochs!r} "
                f"and optim.region_area {optim.region_area!r}, but the model has no region predictor; leave them at 1, "
                "0 and 0, or train a model with MXA blocks"
            )
        # Convolutions run a third faster in this memory order; it changes no value's meaning.
        self.model = model.to(memory_format=torch.channels_last)
        self.preprocess = preprocess
        self.optim = optim
        self.labels = labels
        self.files = files
        self.distiller = distiller
        self.augmenter = augmenter
        self._plan: list[Layer] = []
        self._needs_boxes = optim.region_area > 0 or teaches_regions
        network: Any = model.forward_with_regions if self._needs_boxes else model.forward
        self._network = torch.compile(network) if compiled else network
        # The head is left out, as in timm.
        self._clip = AdaptiveClip(list(model.parameters())[:-2], optim.agc) if optim.agc else None
        self.ema = Ema(model, optim.ema_decay) if optim.ema_decay else None
        self.evaluations: dict[str, Evaluation] = {}
        self.boxes: dict[str, npt.NDArray[np.float32]] = {}
        self._outputs: dict[str, list[np.ndarray]] = {}
        self._blocks: tuple[str, ...] = ()
        self._region_start = 0
        # Row numbers of the first batch whose loss was not finite, or -1: kept on the device, read rarely.
        self._bad_rows: Tensor | None = None

    @property
    def weights(self) -> tuple[str, ...]:
        """The kinds of weights that are validated."""
        return kinds_of_weights(self.optim)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, S, S) uint8 pixels -> (B, L) logits of the raw weights, as in training."""
        return self._see(image)[0]

    def _see(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The logits, and each block's boxes (B, 4) where the loss needs them."""
        seen = self._network(self.preprocess.scale(image.to(self.dtype)))
        return seen if self._needs_boxes else (seen, {})

    # ---------------------------------------------------------------- training

    def on_fit_start(self) -> None:
        """The teacher goes where the student is."""
        if self.distiller is not None:
            self.distiller.to(self.device)

    def on_train_epoch_start(self) -> None:
        """Each epoch has its own mean of the teacher's weights."""
        if self.distiller is not None:
            self.distiller.start_epoch()

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Plan a training batch's augmentation while its rows are still on the CPU: nothing waits for the device."""
        if self.augmenter is not None and self.trainer.training:
            self._plan = self.augmenter.plan(self.current_epoch, batch.row.numpy())
        return batch

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Carry the plan out where the model is; a live teacher then sees the same pictures."""
        if self.augmenter is None or not self.trainer.training:
            return batch
        return batch._replace(image=self.augmenter.apply(batch.image, self._plan))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        logits, boxes = self._see(batch.image)
        loss = self._loss(logits.float(), batch, boxes)
        if self.optim.region_area:
            loss = loss + self.optim.region_area * mean_area(boxes)
        self._watch(loss.detach(), batch.row)
        size = len(batch.row)
        self.log("train/loss", loss.detach(), on_step=True, on_epoch=True, batch_size=size, sync_dist=together())
        return loss

    def _loss(self, logits: Tensor, batch: Batch, boxes: Mapping[str, Tensor]) -> Tensor:
        """On the labels, and on the teacher where there is one."""
        if self.distiller is None:
            return masked_bce_with_logits(logits, batch.target, batch.mask)
        terms = self.distiller(logits, batch, boxes)
        parts = {"train/base_loss": terms.base, "train/distill_loss": terms.distill}
        if terms.regions is not None:
            parts["train/region_loss"] = terms.regions
        self.log_dict(parts, on_step=False, on_epoch=True, batch_size=len(batch.row), sync_dist=together())
        return terms.total

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Tell the loader where training is: a checkpoint may be written once this batch is done."""
        loader = self.trainer.train_dataloader
        if isinstance(loader, ResumableLoader):
            loader.mark(self.current_epoch, batch_idx + 1)

    def _watch(self, loss: Tensor, rows: Tensor) -> None:
        """Keep the rows of the first non-finite batch, without waiting for the device at each step."""
        if self._bad_rows is None:
            self._bad_rows = torch.full_like(rows, -1)
        fresh = ~loss.isfinite() & (self._bad_rows[0] < 0)
        self._bad_rows = torch.where(fresh, rows, self._bad_rows)
        if self.device.type == "cpu" or self.global_step % FINITE_CHECK_STEPS == 0:
            self._raise_if_not_finite()

    def _raise_if_not_finite(self) -> None:
        if self._bad_rows is None or self._bad_rows[0] < 0:
            return
        names = [self.files[row] for row in self._bad_rows.tolist()]
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        raise DataError(
            f"the loss became infinite or NaN in epoch {self.current_epoch} near step {self.global_step}, on "
            f"the batch of {shown}; "
            "lower optim.lr, use precision: '32', or look at these images"
        )

    def on_train_epoch_end(self) -> None:
        """The last steps since the last look; the teacher's part."""
        self._raise_if_not_finite()
        self.log_dict(self.kd_figures())

    def kd_figures(self) -> dict[str, float]:
        """The findings' mean weights of this epoch and the teacher's own AUROC; empty without a teacher."""
        if self.distiller is None:
            return {}
        macro = self.distiller.validation.auroc_macro
        weights = self.distiller.mean_weights(self.labels)
        return {
            "kd/teacher_auroc_macro": float("nan") if macro is None else macro,
            **{f"kd/weight/{finding}": weight for finding, weight in weights.items()},
        }

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then let the average follow."""
        super().optimizer_step(*args, **kwargs)
        if self.ema is not None:
            self.ema.update(self.model, step=self.global_step)

    def configure_optimizers(self) -> Any:
        """AdamW and timm's cosine schedule, stepped at every update."""
        optim, scale = self.optim, self.optim.lr_scale
        optimizer = create_optimizer_v2(
            self.model,
            opt="adamw",
            lr=optim.lr * scale,
            weight_decay=optim.weight_decay,
            filter_bias_and_bn=True,
            fused=True,
        )
        per_epoch = int(self.trainer.estimated_stepping_batches) // optim.epochs
        self._region_start = round(optim.region_warmup_epochs * per_epoch)
        if optim.regions_apart:
            _set_regions_apart(optimizer, self.model, self._region_scale(0))
        scheduler = CosineLRScheduler(
            optimizer,
            t_initial=round((optim.epochs - optim.cooldown_epochs) * per_epoch),
            lr_min=optim.min_lr * scale,
            warmup_t=round(optim.warmup_epochs * per_epoch),
            warmup_lr_init=optim.warmup_lr * scale,
            t_in_epochs=False,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """timm's schedulers are told the update's number; they multiply a group's rate by its ``lr_scale``."""
        for group in scheduler.optimizer.param_groups:
            if "lr_scale" in group:
                group["lr_scale"] = self._region_scale(self.global_step)
        scheduler.step_update(self.global_step)

    def _region_scale(self, step: int) -> float:
        """The region predictors' learning rate relative to the others', for the update after ``step`` of them."""
        return self.optim.region_lr if step >= self._region_start else 0.0

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Adaptive gradient clipping of everything but the head, as in timm."""
        if self._clip is not None:
            self._clip()

    # -------------------------------------------------------------- validation

    def on_validation_epoch_start(self) -> None:
        """Fresh lists, and one opinion of the statistics."""
        average_buffers(self)
        self._outputs = {name: [] for name in (*self.weights, "boxes", "target", "mask", "row")}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Logits of raw and averaged weights, and the raw ones' boxes (B, K, 4) of K MXA blocks."""
        scaled = self.preprocess.scale(batch.image.to(self.dtype))
        logits, boxes = _look(self.model, scaled)
        self._outputs["raw"].append(logits.float().cpu().numpy())
        if boxes:
            self._blocks = tuple(boxes)
            self._outputs["boxes"].append(torch.stack(list(boxes.values()), 1).float().cpu().numpy())
        if self.ema is not None:
            averaged = self.ema.refresh() if batch_idx == 0 else self.ema.module
            self._outputs["ema"].append(averaged(scaled).float().cpu().numpy())
        for name in ("target", "mask", "row"):
            self._outputs[name].append(getattr(batch, name).cpu().numpy())

    def on_validation_epoch_end(self) -> None:
        """Score all rows, of whatever process, and log under val/ and val_ema/."""
        own = {name: np.concatenate(parts) for name, parts in self._outputs.items() if parts}
        gathered = gather_rows(own.pop("row"), own)
        self.boxes = {block: gathered["boxes"][:, number] for number, block in enumerate(self._blocks)}
        for name in self.weights:
            result = evaluate(gathered[name], gathered["target"], gathered["mask"], self.labels)
            self.evaluations[name] = result
            self.log_dict({f"{prefix(name)}/{key}": value for key, value in summary(result).items()})


def region_parameters(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The parameters of each MXA block's region predictor, by the block's name, in the model's order.

    Empty for a model without one.
    """
    found: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        block, region, _ = name.partition(REGION)
        if region:
            found.setdefault(block, []).append(parameter)
    return found


def mean_area(boxes: Mapping[str, Tensor]) -> Tensor:
    """Mean over blocks and images of the area of boxes (B, 4), a fraction of the map's."""
    corners = torch.cat(list(boxes.values()))
    return (corners[:, 2:] - corners[:, :2]).prod(1).mean()


def _set_regions_apart(optimizer: torch.optim.Optimizer, model: nn.Module, scale: float) -> None:
    """Move the region predictors' parameters into groups behind the others, which timm's schedulers scale."""
    regions = {id(parameter) for block in region_parameters(model).values() for parameter in block}
    for group in list(optimizer.param_groups):
        apart = [parameter for parameter in group["params"] if id(parameter) in regions]
        if apart:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in regions]
            optimizer.add_param_group({**group, "params": apart, "lr_scale": scale})


def _look(model: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits (B, L), and the boxes (B, 4) of each MXA block where the model has some."""
    with_regions = getattr(model, "forward_with_regions", None)
    logits, boxes = (model(images), {}) if with_regions is None else with_regions(images)
    return logits, boxes


def kinds_of_weights(optim: OptimConfig) -> tuple[str, ...]:
    """raw, and ema where the average is kept."""
    return ("raw", "ema") if optim.ema_decay else ("raw",)


def prefix(weights: str) -> str:
    """Where the metrics of raw or ema weights are logged."""
    return "val" if weights == "raw" else f"val_{weights}"


def summary(result: Evaluation) -> dict[str, float]:
    """The five numbers of an evaluation, NaN where undefined."""
    names = ("loss", "accuracy", "f1_micro", "auroc_micro", "auroc_macro")
    return {name: float("nan") if getattr(result, name) is None else float(getattr(result, name)) for name in names}
