"""Exported files on disk: what may be written, and how it gets its name only when it is good."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mxa.deploy.locate import installed
from mxa.errors import ArtifactError, ConfigError


def check_out(out: Path, suffix: str) -> None:
    """Refuse a file that cannot be written.

    Raises:
        ConfigError: another suffix, no folder, or a file of that name or of the report's; for OpenVINO also one of its
            weights' name.
    """
    if out.suffix != suffix:
        raise ConfigError(f"{out}: the file's name must end in {suffix}")
    if not out.parent.is_dir():
        raise ConfigError(f"{out} cannot be written: its folder does not exist; make it first")
    for file in (out, Path(f"{out}.json"), *([out.with_suffix(".bin")] if suffix == ".xml" else ())):
        if file.exists():
            raise ConfigError(f"{file} is there already; choose another name or remove it")


def check_packages(name: str, packages: Sequence[str]) -> None:
    """Refuse what cannot be done here.

    Args:
        name: of what needs them.
        packages: by their import names.

    Raises:
        ArtifactError: a package is missing.
    """
    if missing := [package for package in packages if not installed(package)]:
        raise ArtifactError(f"{name} needs {', '.join(missing)}; `pip install 'mxa[export]'` brings what export needs")


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file in a folder, by name."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def publish(scratch: Path, out: Path, report: Mapping[str, Any]) -> None:
    """Write the report, and move all files of a folder beside ``out``, the one of that name last."""
    Path(f"{out}.json").write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    for file in sorted(scratch.iterdir(), key=lambda file: file.name == out.name):
        file.replace(out.parent / file.name)
