"""What changed between two cells, read from what the runs themselves have stored: proof that one thing differs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mxa.reproduce.config import ReproduceConfig
from mxa.training.config import since_then

GRIDS_OWN = ("out", "seed")
"""Options that the grid sets for each run; the seeds of two compared runs are the same."""
SOFTWARE = ("mxa", "python", "packages", "git")
MACHINE = ("platform", "processors", "accelerators")


@dataclass(frozen=True)
class Change:
    """One cell against the one that it is compared with.

    Attributes:
        cell: key of the cell.
        versus: key of the other; empty for a cell that stands on the base alone.
        differs: option -> (value there, value here), of the stored configurations of every seed.
        unexpected: what else differs, in words; empty is what it should be.
    """

    cell: str
    versus: str
    differs: Mapping[str, tuple[Any, Any]]
    unexpected: tuple[str, ...]


def changes(config: ReproduceConfig) -> list[Change]:
    """Compare every cell's finished runs with those of the cells that it is compared with.

    Raises:
        OSError: a run is not finished.
    """
    found = []
    for key in config.cells:
        others = config.compared_with(key)
        found += [_change(config, key, other) for other in others] or [Change(key, "", {}, ())]
    return found


def _change(config: ReproduceConfig, key: str, versus: str) -> Change:
    declared = _differences(config.run(versus, config.seeds[0]).to_dict(), config.run(key, config.seeds[0]).to_dict())
    unexpected: list[str] = []
    for seed in config.seeds:
        there, here = (Path(config.run(one, seed).out) for one in (versus, key))
        stored = _differences(*(since_then(_yaml(folder / "config.yaml")) for folder in (there, here)))
        strange = [name for name in stored if name not in declared]
        unexpected += [f"seed {seed}: option {name}" for name in strange]
        unexpected += [f"seed {seed}: {what}" for what in _surroundings(there, here)]
    return Change(key, versus, declared, tuple(unexpected))


def _surroundings(there: Path, here: Path) -> list[str]:
    """Data, software and machine, where they are not the same."""
    found = []
    one, two = ({**_json(folder / "data.json"), "policy": None} for folder in (there, here))  # the policy is an option
    if one != two:
        found.append("data")
    one, two = (_json(folder / "environment.json") for folder in (there, here))
    for what, names in (("software", SOFTWARE), ("machine", MACHINE)):
        other = [name for name in names if one[name] != two[name]]
        if other:
            found.append(f"{what} ({', '.join(other)})")
    return found


def _differences(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted option -> its two values, where they differ; the grid's own options are left out."""
    a, b = (json.loads(json.dumps(dict(_flat(config)))) for config in (one, two))
    missing = "(absent)"
    return {
        name: (a.get(name, missing), b.get(name, missing))
        for name in dict.fromkeys([*a, *b])
        if a.get(name, missing) != b.get(name, missing) and name not in GRIDS_OWN
    }


def _flat(config: Mapping[str, Any], before: Sequence[str] = ()) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in config.items():  # what is in a mapping counts: an empty one has nothing to tell
        place = (*before, name)
        found += _flat(value, place) if isinstance(value, Mapping) else [(".".join(place), value)]
    return found


def _yaml(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
