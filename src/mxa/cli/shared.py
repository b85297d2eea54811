"""What the commands share: options of a data set, progress, figures in a line."""

import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import ArgumentParser, Namespace
from tqdm import tqdm

from mxa.data.options import DataOptions


class Command(NamedTuple):
    """One command.

    Attributes:
        help: a line of the overview.
        parser: makes the parser of its options.
        run: does it; gives the exit code.
    """

    help: str
    parser: Callable[[], ArgumentParser]
    run: Callable[[Namespace], int]


def is_first_process() -> bool:
    """Of those that train together; the others say nothing but errors. Launchers tell each its number like this."""
    told = [os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")]
    return all(number in {None, "0"} for number in told)


def add_data_options(parser: ArgumentParser, skip: set[str]) -> None:
    """Offer the options of a data set; its folder is an argument of its own."""
    parser.add_class_arguments(DataOptions, skip=skip | {"root"})


def from_namespace(kind: type[Any], parser: ArgumentParser, options: Namespace, **given: Any) -> Any:
    """The dataclass whose fields the parser offers as options."""
    ready = parser.instantiate(options)
    return kind(
        **{field.name: ready[field.name] for field in fields(kind) if field.name in ready and field.name not in given},
        **given,
    )


def data_options(parser: ArgumentParser, options: Namespace, root: str) -> DataOptions:
    """The data set that is meant."""
    data: DataOptions = from_namespace(DataOptions, parser, options, root=root)
    return data


def optional_path(name: str | None) -> Path | None:
    """A path, where one was given."""
    return None if name is None else Path(name)


def advance(bar: "tqdm[Any]") -> Callable[[int, int], None]:
    """What tells a bar how many are done of how many."""

    def told(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return told


def figures(metrics: dict[str, Any]) -> str:
    """The five figures of an evaluation in a line."""
    shown = {
        "macro AUROC": "auroc_macro",
        "micro AUROC": "auroc_micro",
        "loss": "loss",
        "accuracy": "accuracy",
        "micro F1": "f1_micro",
    }
    return ", ".join(
        f"{name} {'undefined' if metrics[key] is None else format(metrics[key], '.4f')}" for name, key in shown.items()
    )
