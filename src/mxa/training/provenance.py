"""What a run must remember to be repeated: versions, machine, source revision, command."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mxa.data.table import Table
from mxa.version import __version__

PACKAGES = ("numpy", "pandas", "pillow", "torch", "torchvision", "timm", "lightning", "safetensors")


def environment() -> dict[str, Any]:
    """Versions, processor, accelerators, source revision and command line of this process, as plain JSON values."""
    return {
        "mxa": __version__,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "accelerators": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "git": git_revision(),
        "command": sys.argv,
    }


def split_otherwise(training: Mapping[str, Any], table: Table) -> bool:
    """Whether a saved model was trained on a table's data set, but with another split or other labels.

    Its training images may then be validation images of the table.

    Args:
        training: the model's provenance (``Classifier.training``).
        table: the whole table.
    """
    trained = training.get("data", {})
    return trained.get("dataset") == table.dataset and trained.get("fingerprint") != table.fingerprint()


def git_revision() -> dict[str, Any] | None:
    """Commit of mxa's own source and whether it was changed since; None where the package is not in a git checkout."""
    here = Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        changed = _git(here, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "modified": bool(changed)}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
