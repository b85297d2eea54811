"""What a run must remember to be repeated: versions, machine, source revision, command."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

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
