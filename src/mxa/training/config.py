"""What a training run is told: typed dataclasses, one field per option, filled from YAML and the command line.

The defaults are the paper's [6.2, 6.3]. Where the paper's text leaves a choice, the field's description says which was
made.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from mxa.data.augment import Augment
from mxa.data.options import DataOptions
from mxa.errors import ConfigError
from mxa.preprocess import Preprocess

PRECISIONS = ("auto", "32", "bf16")


def _require(condition: bool, name: str, value: object, wanted: str) -> None:
    if not condition:
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
    """Images per optimiser step."""
    lr: float = 1e-3
    """Learning rate at ``lr_batch_size`` images per step; scaled linearly to ``batch_size``."""
    lr_batch_size: int = 512
    """The batch size that ``lr`` is meant for."""
    min_lr: float = 1e-5
    """Where the cosine ends, and the rate of the cool-down; scaled like ``lr``."""
    warmup_lr: float = 1e-6
    """Where the warm-up starts; scaled like ``lr``."""
    warmup_epochs: float = 5
    """Linear rise from ``warmup_lr``, cut off the cosine's beginning as in timm."""
    cooldown_epochs: float = 10
    """Epochs at ``min_lr`` at the end. (The paper's decay rate 0.1 and 30 decay epochs belong to timm's step schedule
    and do nothing in a cosine of one cycle; there is no option for them.)"""
    weight_decay: float = 0.025
    """On weights with two or more dimensions, except attention biases, as in timm."""
    agc: float = 0.02
    """Adaptive gradient clipping: a unit's gradient norm over its weight norm, at most; the head is left out, as in
    timm. 0 is off."""
    ema_decay: float = 0.99996
    """Of the moving average of the weights (with warm-up). 0 is off."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "lr_batch_size"):
            _require(getattr(self, name) >= 1, f"optim.{name}", getattr(self, name), "at least 1")
        for name in ("lr", "min_lr", "warmup_lr", "weight_decay", "agc", "warmup_epochs", "cooldown_epochs"):
            _require(getattr(self, name) >= 0, f"optim.{name}", getattr(self, name), "0 or more")
        _require(0 <= self.ema_decay < 1, "optim.ema_decay", self.ema_decay, "from 0 (off) to below 1")
        room = self.epochs - self.cooldown_epochs
        _require(
            self.warmup_epochs < room,
            "optim.warmup_epochs",
            self.warmup_epochs,
            f"less than epochs - cooldown_epochs = {room}",
        )

    @property
    def lr_scale(self) -> float:
        """What the learning rates are multiplied by: ``batch_size / lr_batch_size``."""
        return self.batch_size / self.lr_batch_size


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run."""

    out: str = "runs/train"
    """The run's folder; it must not exist yet, unless the run is resumed."""
    seed: int = 0
    """Decides initial weights, order, augmentation and random label smoothing."""
    data: DataOptions = field(default_factory=DataOptions)
    preprocess: Preprocess = field(default_factory=Preprocess)
    augment: Augment = field(default_factory=Augment)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    precision: str = "auto"
    """auto (bf16 autocast on a GPU that has it, else 32-bit), 32 or bf16."""
    cache_gib: float = 4.0
    """Decoded pictures are kept in memory if all of them fit into this many GiB; otherwise each is decoded in every
    epoch."""
    workers: int = -1
    """Loading processes; -1 chooses: none where a batch is one indexing of memory, else one per processor, 8 at
    most."""
    progress: bool = True
    """Show a progress bar (on a terminal; elsewhere there is one line per epoch)."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision is {self.precision!r}; choose one of {', '.join(PRECISIONS)}")
        _require(self.workers >= -1, "workers", self.workers, "-1 (choose), 0 or more")
        _require(self.cache_gib >= 0, "cache_gib", self.cache_gib, "0 or more")

    def to_dict(self) -> dict[str, Any]:
        """Plain nested values, for YAML and JSON."""
        return asdict(self)
