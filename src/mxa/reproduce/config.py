"""What a grid of experiments is told: a base configuration, the cells that change it, and the seeds."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from mxa.errors import ConfigError
from mxa.labels import label_set
from mxa.reproduce.published import PUBLISHED
from mxa.training.config import KdConfig, TrainConfig

SPLITS = ("valid", "test")


@dataclass(frozen=True)
class Cell:
    """One column of the grid: the run of every seed with these changes."""

    title: str = ""
    """Its name in tables and figures; empty is its key."""
    versus: str = ""
    """The cell that it is compared with and whose changes it takes over; empty starts from ``base``."""
    also: list[str] = field(default_factory=list)
    """Further cells that it is compared with; it takes nothing over from them. So a cell can stand beside a control of
    the same cost as well."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Options of `mxa train` that differ from ``versus``, nested as in a configuration file, for example {model: {name:
    mxa_efficientvit_m5}}. What model.options has there stays, unless it is named."""
    distilled: bool = False
    """Distil from the grid's teacher (sets kd.teacher and, with ``teacher_cache``, kd.cache); taken over like the
    changes."""
    published: str = ""
    """Which of the paper's configurations stands beside it: baseline, mxa or mxa_kd; empty is none."""

    def __post_init__(self) -> None:
        if self.published and self.published not in PUBLISHED:
            raise ConfigError(
                f"published is {self.published!r}; choose one of {', '.join(PUBLISHED)} or leave it empty"
            )


@dataclass(frozen=True)
class ReproduceConfig:
    """A grid of experiments."""

    out: str = "runs/reproduce"
    """The grid's folder. Called again with the same options it goes on where it was."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    """One run of every cell for each seed; the paper has three [7.1]."""
    base: TrainConfig = field(default_factory=TrainConfig)
    """What all cells share; its out and seed are the grid's business."""
    cells: dict[str, Cell] = field(default_factory=dict)
    """The cells by key (the name of their folder), in the order of the tables; the first is the baseline, the last the
    proposed model."""
    teacher: str = ""
    """Folder of the saved model that teaches the distilled cells."""
    teacher_changes: dict[str, Any] = field(default_factory=dict)
    """Or: train one first, with these changes of ``base`` and the first seed."""
    teacher_cache: bool = False
    """Store the teacher's logits once and distil from them; the teacher then sees the pictures without augmentation."""
    phantom: int = 0
    """Draw a phantom of this many images into the grid's folder and use it as data; 0 takes ``base.data``."""
    split: str = "test"
    """What is scored: test, or valid, which also chose the epoch and so flatters every cell alike. Each has its own
    report, in a folder of its name."""
    groups: dict[str, list[str]] = field(default_factory=dict)
    """Findings whose mean AUROC is compared too, by the group's name, for example {small: [Lung Lesion, Fracture]}."""
    shown: str = "Pneumonia"
    """The finding that Figure 2's radiographs share."""
    replicates: int = 2000
    """Bootstrap replicates of the intervals."""
    jobs: int = 0
    """Runs at once; 0 is one for each GPU, and one without a GPU."""

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ConfigError(f"split is {self.split!r}; choose one of {', '.join(SPLITS)}")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ConfigError(f"seeds must be different numbers, at least one, got {self.seeds}")
        if not self.cells:
            raise ConfigError("cells is empty; name at least one, or start from configs/reproduce.yaml")
        if self.base.processes > 1:
            raise ConfigError(
                "base.devices and base.nodes must be 1: the grid's runs go side by side (jobs), each on one device"
            )
        if self.jobs < 0 or self.phantom < 0 or self.replicates < 1:
            raise ConfigError("jobs and phantom must be 0 or more, replicates at least 1")
        if self.teacher and self.teacher_changes:
            raise ConfigError("teacher and teacher_changes both say who teaches; give one of them")
        labels = label_set(self.base.data.labels)
        for name, findings in self.groups.items():
            if not findings:
                raise ConfigError(f"groups.{name} is empty; name its findings")
            for finding in findings:
                labels.index(finding)
        for key in self.cells:
            if not key.replace("_", "").replace("-", "").isalnum():
                raise ConfigError(f"the cell {key!r} cannot be a folder's name; use letters, digits, _ and -")
            self.lineage(key)
            self._check_comparisons(key)
        if any(self.is_distilled(key) for key in self.cells) and not (self.teacher or self.teacher_changes):
            raise ConfigError("a cell is distilled, but there is neither teacher nor teacher_changes")

    def title(self, key: str) -> str:
        """A cell's name in tables and figures."""
        return self.cells[key].title or key

    def lineage(self, key: str) -> list[str]:
        """The cells whose changes a cell takes over, the first of them first, itself last.

        Raises:
            ConfigError: ``versus`` names no cell, or leads round in a circle.
        """
        found: list[str] = []
        while key:
            if key not in self.cells:
                raise ConfigError(f"versus is {key!r}, which is no cell; there are: {', '.join(self.cells)}")
            if key in found:
                raise ConfigError(f"the cells' versus leads round in a circle: {' -> '.join([*found, key])}")
            found.append(key)
            key = self.cells[key].versus
        return found[::-1]

    def compared_with(self, key: str) -> list[str]:
        """The cells that a cell is compared with, the one that it builds on first."""
        cell = self.cells[key]
        return [*([cell.versus] if cell.versus else []), *cell.also]

    def _check_comparisons(self, key: str) -> None:
        others = self.compared_with(key)
        for other in self.cells[key].also:
            if other not in self.cells or other == key or others.count(other) > 1:
                raise ConfigError(
                    f"cells.{key}.also names {other!r}; it must be another cell that versus does not name, once: "
                    f"{', '.join(self.cells)}"
                )

    def is_distilled(self, key: str) -> bool:
        """Whether a cell, or one that it builds on, is distilled."""
        return any(self.cells[one].distilled for one in self.lineage(key))

    # ------------------------------------------------------------- the runs

    @property
    def folder(self) -> Path:
        """The grid's folder."""
        return Path(self.out)

    @property
    def report_folder(self) -> Path:
        """Where the scored split's report is written."""
        return self.folder / self.split

    @property
    def data_folder(self) -> Path:
        """Where the phantom is drawn."""
        return self.folder / "data"

    @property
    def teacher_folder(self) -> Path:
        """The teacher's saved model."""
        return Path(self.teacher) if self.teacher else self.folder / "teacher" / "model"

    def shared(self) -> TrainConfig:
        """The base with the grid's data."""
        if not self.phantom:
            return self.base
        return replace(self.base, data=replace(self.base.data, root=str(self.data_folder), dataset="chexpert"))

    def run(self, key: str, seed: int) -> TrainConfig:
        """The training run of one cell and seed.

        Raises:
            ConfigError: a change names an unknown option or has an impossible value.
        """
        config = self.shared()
        for one in self.lineage(key):
            if self.cells[one].distilled:
                config = replace(config, kd=self._taught(config.kd))
            config = with_changes(config, self.cells[one].changes, f"cells.{one}.changes")
        if replace(config.data, policy=self.base.data.policy) != self.shared().data:
            raise ConfigError(
                f"cells.{key}.changes.data: all cells are scored on the same images and findings, so only data.policy "
                "may differ; another data set is another grid"
            )
        return replace(config, out=str(self.folder / "cells" / key / f"seed-{seed}"), seed=seed)

    def teacher_run(self) -> TrainConfig:
        """The training run of the grid's own teacher.

        Raises:
            ConfigError: as :meth:`run`.
        """
        config = with_changes(self.shared(), self.teacher_changes, "teacher_changes")
        return replace(config, out=str(self.folder / "teacher"), seed=self.seeds[0])

    def cache_run(self) -> TrainConfig:
        """A run whose kd.cache is to be filled."""
        return replace(self.shared(), kd=self._taught(self.base.kd))

    def _taught(self, kd: KdConfig) -> KdConfig:
        cache = str(self.folder / "teacher_logits") if self.teacher_cache else ""
        return replace(kd, teacher=str(self.teacher_folder), cache=cache)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested values, for YAML and JSON."""
        return asdict(self)


def with_changes(config: TrainConfig, changes: Mapping[str, Any], where: str) -> TrainConfig:
    """A configuration with some options replaced.

    Args:
        config: what to change.
        changes: nested as in a configuration file; a mapping such as model.options is added to.
        where: names the changes in messages.

    Raises:
        ConfigError: an option is unknown, belongs to the grid (out, seed), or has a value of another kind.
    """
    for own in ("out", "seed"):
        if own in changes:
            raise ConfigError(f"{where}.{own}: the grid itself sets {own}; leave it out")
    changed: TrainConfig = _replace(config, changes, where)
    return changed


def _replace(part: Any, changes: Mapping[str, Any], where: str) -> Any:
    known = {one.name for one in fields(part)}
    values = {}
    for name, value in changes.items():
        place = f"{where}.{name}"
        if name not in known:
            raise ConfigError(f"{place} is no option; there are: {', '.join(sorted(known))}")
        old = getattr(part, name)
        if is_dataclass(old):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{place} is {value!r}; give its options, nested")
            values[name] = _replace(old, value, place)
        else:
            _require_kind(old, value, place)
            values[name] = {**old, **value} if isinstance(old, dict) else value
    return replace(part, **values)


def _require_kind(old: Any, new: Any, place: str) -> None:
    """Numbers for numbers, text for text; a list may stand for a name or a tuple, as in a file."""
    kinds: tuple[type, ...] = (type(old),)
    if isinstance(old, float):
        kinds = (int, float)
    elif isinstance(old, (str, tuple, list)):
        kinds = (type(old), list)
    if not isinstance(new, kinds) or (isinstance(new, bool) and not isinstance(old, bool)):
        raise ConfigError(f"{place} is {new!r}, but {old!r} stands there: give a value of that kind")
