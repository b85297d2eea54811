"""Find the file that is meant by a path or a hub id, and the runtime that it runs in."""

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from mxa.deploy.hub import download
from mxa.errors import ArtifactError, ConfigError

SAVED = "saved"
RUNTIMES = ("torch", "onnxruntime", "openvino")
RUNS_IN = {
    SAVED: ("torch",),
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
    ".pt2": ("torch",),
}
"""By kind (a saved model's folder, or an exported file's suffix) the runtimes that run it, the preferred one first."""

INSTALL = {"torch": "mxa[train]", "onnxruntime": "mxa[onnx]", "openvino": "mxa[openvino]"}
_HUB_ID = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class Found:
    """A model on disk.

    Attributes:
        path: a saved model's folder, or an exported file.
        kind: a key of :data:`RUNS_IN`.
        runtime: what will run it.
    """

    path: Path
    kind: str
    runtime: str


def locate(path: str | Path, runtime: str = "auto") -> Found:
    """Find a model; see :func:`mxa.predictor.open_predictor`.

    Raises:
        ConfigError: the runtime is unknown or does not run this model; or several files are meant.
        ArtifactError: there is no model, or the runtime is not installed.
    """
    if runtime not in {"auto", *RUNTIMES}:
        raise ConfigError(f"runtime is {runtime!r}; choose one of auto, {', '.join(RUNTIMES)}")
    local = _local(path)
    candidates = _candidates(local)
    fitting = [
        (one, kind, name)
        for one, kind in candidates
        for name in RUNS_IN[kind]
        if runtime in {name, "auto"} and (runtime != "auto" or installed(name))
    ]
    if not fitting:
        raise _misfit(local, candidates, runtime)
    _, kind, name = fitting[0]
    same = [one for one, other, its in fitting if (other, its) == (kind, name)]
    if len(same) > 1:
        raise ConfigError(f"{local} holds several models ({', '.join(one.name for one in same)}); name one of them")
    if not installed(name):
        raise ArtifactError(f"{same[0]} needs {name}, which is missing; `pip install '{INSTALL[name]}'` brings it")
    return Found(same[0], kind, name)


def installed(package: str) -> bool:
    """Whether a package could be imported; nothing is."""
    return importlib.util.find_spec(package) is not None


def _local(path: str | Path) -> Path:
    """The path itself, or the copy of a model on the hub."""
    local = Path(path)
    if local.exists():
        return local
    named = None if local.suffix in RUNS_IN else _HUB_ID.fullmatch(str(path))
    if named is None:
        raise ArtifactError(f"{path} does not exist; give a saved model's folder, an exported file or a hub id")
    if not installed("huggingface_hub"):
        raise ArtifactError(f"{path} does not exist; if it is meant as a hub id, `pip install 'mxa[hub]'` first")
    return download(named["repo"], named["revision"])


def _candidates(local: Path) -> list[tuple[Path, str]]:
    """The models in a folder, a saved one first; or the one file."""
    if local.is_file():
        if local.suffix not in RUNS_IN:
            raise ConfigError(
                f"{local} is no model that mxa opens; give a saved model's folder, or an exported file "
                f"({', '.join(kind for kind in RUNS_IN if kind != SAVED)})"
            )
        return [(local, local.suffix)]
    found = [(local, SAVED)] if (local / "config.json").is_file() else []
    found += [(file, kind) for kind in RUNS_IN if kind != SAVED for file in sorted(local.glob(f"*{kind}"))]
    if not found:
        raise ArtifactError(
            f"{local} holds no model: neither config.json nor an exported file; give the folder that `mxa train` wrote "
            "(RUN/model), or the file that `mxa export` wrote"
        )
    return found


def _misfit(local: Path, candidates: list[tuple[Path, str]], runtime: str) -> ConfigError | ArtifactError:
    able = list(dict.fromkeys(name for _, kind in candidates for name in RUNS_IN[kind]))
    if runtime == "auto":
        ways = " or ".join(f"`pip install '{INSTALL[name]}'`" for name in able)
        return ArtifactError(f"{local} needs {' or '.join(able)}, of which none is installed; {ways} brings it")
    kind = {"torch": "torch-export", "onnxruntime": "onnx", "openvino": "openvino"}[runtime]
    return ConfigError(
        f"{local} runs in {' or '.join(able)}, not in {runtime}; `mxa export MODEL --format {kind}` makes a file that "
        "does"
    )
