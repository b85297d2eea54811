"""What a training run is told: typed dataclasses, one field per option, filled from YAML and the command line.

The defaults are the paper's [6.2, 6.3]. Where the paper's text leaves a choice, the field's description says which was
made.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mxa.data.augment import Augment
from mxa.data.options import DataOptions
from mxa.errors import ConfigError
from mxa.labels import NO_FINDING_RULES
from mxa.preprocess import Preprocess

PRECISIONS = ("auto", "32", "bf16")
KD_TYPES = ("soft", "hard")


def _require(condition: bool, name: str, value: object, wanted: str) -> None:
    if not condition or (isinstance(value, float) and not math.isfinite(value)):
        raise ConfigError(f"{name} is {value!r}; it must be {wanted}")


@dataclass(frozen=True)
class ModelConfig:
    """Which network, and what it starts from."""

    name: str = "mxa_efficientvit_m5"
    """A timm model name: mxa_efficientvit_m0 to m5, the plain efficientvit_m0 to m5, or any other timm classifier."""
    pretrained: bool = False
    """Start from timm's ImageNet weights (downloaded to, or already in, the Hugging Face cache)."""
    warm_start: str = ""
    """Start from the weights of a saved model (a folder with model.safetensors); the head is kept where the findings
    are the same."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the model, for example {mxa_reduction: 8, mxa_stages: [1, 2]}."""

    def __post_init__(self) -> None:
        if self.pretrained and self.warm_start:
            raise ConfigError("model.pretrained and model.warm_start both say what to start from; give one of them")


@dataclass(frozen=True)
class OptimConfig:
    """AdamW, its schedule and the clipping [6.2]."""

    epochs: int = 50
    """Passes over the training split, warm-up and cool-down included."""
    batch_size: int = 512
    """Images per optimiser step, over all processes and accumulated parts."""
    accumulate: int = 1
    """Parts that a process takes its images of a step in, one after the other, to save memory. Batch norm sees the
    parts alone, and so do the findings' weights of a distillation."""
    lr: float = 1e-3
    """Learning rate at ``lr_batch_size`` images per step; scaled linearly to ``batch_size``."""
    lr_batch_size: int = 512
    """The batch size that ``lr`` is meant for."""
    min_lr: float = 1e-5
    """Where the cosine ends, and the rate of the cool-down; scaled like ``lr``."""
    warmup_lr: float = 1e-6
    """Where the warm-up starts; scaled like ``lr``."""
    warmup_epochs: float = 5.0
    """Linear rise from ``warmup_lr``, cut off the cosine's beginning as in timm."""
    cooldown_epochs: float = 10.0
    """Epochs at ``min_lr`` at the end. (The paper's decay rate 0.1 and 30 decay epochs belong to timm's step schedule
    and do nothing in a cosine of one cycle; there is no option for them.)"""
    weight_decay: float = 0.025
    """On weights with two or more dimensions, except attention biases, as in timm."""
    agc: float = 0.02
    """Adaptive gradient clipping: a unit's gradient norm over its weight norm, at most; the head is left out, as in
    timm. 0 is off."""
    ema_decay: float = 0.99996
    """Of the moving average of the weights (with warm-up). 0 is off."""
    region_lr: float = 1.0
    """Learning rate of the MXA blocks' region predictors, relative to ``lr``: it multiplies the schedule at every step,
    its warm-up and its end included. 0 keeps their weights as they are."""
    region_warmup_epochs: float = 0.0
    """The region predictors' rate stays 0 for that many epochs, so that the boxes start to move only when the features
    mean something; then it is what it would have been."""
    region_area: float = 0.0
    """Weight of the mean area of the MXA blocks' boxes, a fraction of the map's, in the loss: a prior for small boxes.
    0 is off."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "lr_batch_size", "accumulate"):
            _require(getattr(self, name) >= 1, f"optim.{name}", getattr(self, name), "at least 1")
        rates = ("lr", "min_lr", "warmup_lr", "weight_decay", "agc", "region_lr", "region_area")
        for name in (*rates, "warmup_epochs", "cooldown_epochs", "region_warmup_epochs"):
            _require(getattr(self, name) >= 0, f"optim.{name}", getattr(self, name), "0 or more")
        _require(0 <= self.ema_decay < 1, "optim.ema_decay", self.ema_decay, "from 0 (off) to below 1")
        room = self.epochs - self.cooldown_epochs
        _require(
            self.warmup_epochs < room,
            "optim.warmup_epochs",
            self.warmup_epochs,
            f"less than epochs - cooldown_epochs = {room:g}; a short run needs fewer of both",
        )
        _require(
            self.region_warmup_epochs < self.epochs,
            "optim.region_warmup_epochs",
            self.region_warmup_epochs,
            f"less than epochs = {self.epochs} (region_lr: 0 trains none of them)",
        )

    @property
    def regions_apart(self) -> bool:
        """Whether the region predictors have a learning rate of their own."""
        return self.region_lr != 1 or self.region_warmup_epochs > 0

    @property
    def needs_regions(self) -> bool:
        """Whether it says something of region predictors, which the model must then have."""
        return self.regions_apart or self.region_area > 0

    @property
    def lr_scale(self) -> float:
        """What the learning rates are multiplied by: ``batch_size / lr_batch_size``."""
        return self.batch_size / self.lr_batch_size


@dataclass(frozen=True)
class KdConfig:
    """Knowledge distillation [3.4, 5]; off without a teacher."""

    teacher: str | list[str] = ""
    """Folder of the saved model that teaches, or a list of them (mean of the logits over those that know a finding).
    Any saved model can teach; `mxa teacher convert` makes one of a TorchXRayVision DenseNet-121."""
    type: str = "soft"
    """soft (the teacher's probabilities are the targets, the paper's) or hard (1 where they exceed 0.5)."""
    alpha: float = 0.5
    """Weight of the distillation loss; the loss on the labels has 1 - alpha."""
    tau: float = 1.0
    """Temperature of soft distillation: both logits are divided by it, the loss is multiplied by its square."""
    dynamic_weights: bool = True
    """Weight finding j by 1 - the teacher's mean probability of it in the batch [5.2]."""
    no_finding: str = "product"
    """Where a teacher has no output for "No Finding": product (of its pathologies' absences, the paper's) or ignore (it
    does not teach it)."""
    full_weight_untaught: bool = False
    """Give the labels of findings that no teacher knows their full weight instead of the paper's 1 - alpha."""
    teach_masked: bool = False
    """Distil also where the label is masked (uncertain with u-ignore, blank with ignore, not annotated)."""
    regions: float = 0.0
    """Weight of the distance between the MXA blocks' boxes and where the teacher's class-activation maps of an image's
    own findings have their weight. The teacher must run live (no cache). 0 is off."""
    cache: str = ""
    """Folder of logits that `mxa teacher predict` stored; used instead of running the teacher in each step. The teacher
    has then seen the pictures without augmentation. Empty runs it."""

    def __post_init__(self) -> None:
        if self.type not in KD_TYPES:
            raise ConfigError(f"kd.type is {self.type!r}; choose one of {', '.join(KD_TYPES)}")
        if self.no_finding not in NO_FINDING_RULES:
            raise ConfigError(f"kd.no_finding is {self.no_finding!r}; choose one of {', '.join(NO_FINDING_RULES)}")
        _require(0 <= self.alpha <= 1, "kd.alpha", self.alpha, "from 0 to 1")
        _require(self.tau > 0, "kd.tau", self.tau, "positive")
        _require(self.regions >= 0, "kd.regions", self.regions, "0 or more")
        if self.type == "hard" and self.tau != 1:
            raise ConfigError(
                f"kd.tau is {self.tau!r}, but hard targets have no temperature; leave it at 1 or use soft"
            )
        if self.cache and not self.teachers:
            raise ConfigError("kd.cache is given without kd.teacher; name the teacher whose logits it holds")
        if self.regions and (self.cache or not self.teachers):
            raise ConfigError(
                f"kd.regions is {self.regions!r}, but a cache holds logits alone: give kd.teacher without kd.cache"
                if self.cache
                else f"kd.regions is {self.regions!r}, but kd.teacher is not given; name the teacher that shows them"
            )

    @property
    def teachers(self) -> tuple[str, ...]:
        """The teachers' folders; empty where there is no distillation."""
        if isinstance(self.teacher, str):
            return (self.teacher,) if self.teacher else ()
        return tuple(self.teacher)


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run."""

    out: str = "runs/train"
    """The run's folder; it must not exist yet, unless the run is resumed."""
    seed: int = 0
    """Decides initial weights, order, augmentation and dropout. (Random label smoothing has data.policy.seed, the split
    data.split_seed: the same for all runs on the same data.)"""
    data: DataOptions = field(default_factory=DataOptions)
    preprocess: Preprocess = field(default_factory=Preprocess)
    augment: Augment = field(default_factory=Augment)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    kd: KdConfig = field(default_factory=KdConfig)
    pack: str = ""
    """Pack of the data (`mxa data pack`) to take the pictures from, instead of decoding them in every run."""
    precision: str = "auto"
    """auto (bf16 autocast on a GPU that has it, else 32-bit), 32 or bf16."""
    cache_gib: float = 4.0
    """Decoded pictures are kept in memory if all of them fit into this many GiB; otherwise each is decoded in every
    epoch."""
    devices: int = 1
    """GPUs of each machine to train on together, one process for each; without a GPU, processes on the CPU."""
    nodes: int = 1
    """Machines to train on together."""
    sync_batch_norm: bool = False
    """Batch norm over the images of all processes, not of each alone; needs GPUs."""
    compile: bool = False
    """Compile the network by torch.compile: the first steps take minutes, the later ones less time."""
    workers: int = -1
    """Loading processes; -1 chooses: none where a batch is one indexing of memory, else one per processor, 8 at
    most."""
    progress: bool = True
    """Show a progress bar (on a terminal; elsewhere there is one line per epoch)."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision is {self.precision!r}; choose one of {', '.join(PRECISIONS)}")
        _require(self.seed >= 0, "seed", self.seed, "0 or more")
        _require(self.workers >= -1, "workers", self.workers, "-1 (choose), 0 or more")
        _require(self.cache_gib >= 0, "cache_gib", self.cache_gib, "0 or more")
        for name in ("devices", "nodes"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        parts = self.processes * self.optim.accumulate
        _require(
            self.optim.batch_size % parts == 0,
            "optim.batch_size",
            self.optim.batch_size,
            f"a multiple of devices x nodes x optim.accumulate = {parts}",
        )

    @property
    def processes(self) -> int:
        """How many train together."""
        return self.devices * self.nodes

    @property
    def part_size(self) -> int:
        """Images that a process takes at once."""
        return self.optim.batch_size // (self.processes * self.optim.accumulate)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested values, for YAML and JSON."""
        return asdict(self)


def since_then(stored: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A stored configuration with the defaults of options that did not exist when it was stored.

    Args:
        stored: of :meth:`TrainConfig.to_dict`, or what YAML has made of it.
        defaults: of the same options; a run's own if None.
    """
    defaults = TrainConfig().to_dict() if defaults is None else defaults
    known = {
        name: since_then(value, defaults[name])
        if isinstance(value, Mapping) and isinstance(defaults.get(name), Mapping)
        else value
        for name, value in stored.items()
    }
    return {**known, **{name: value for name, value in defaults.items() if name not in stored}}
