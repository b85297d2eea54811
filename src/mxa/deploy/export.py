"""Export a saved model to a file for another runtime, and show that it gives the same results there."""

import importlib.metadata
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mxa.data.decode import decode_all
from mxa.deploy.files import check_out, check_packages, digests, publish
from mxa.deploy.graph import Graph
from mxa.deploy.locate import Found
from mxa.deploy.metadata import Metadata
from mxa.deploy.parity import BATCH_SIZES, Parity, compare
from mxa.deploy.runtimes import open_runtime
from mxa.deploy.writers import write_onnx, write_openvino, write_torch_export
from mxa.errors import ConfigError, DataError, MxaError
from mxa.models.artifact import Classifier, fingerprint, load, read_config
from mxa.preprocess import Preprocess
from mxa.version import __version__

Writer = Callable[[Graph, Metadata, Path], None]
CHUNK = 32
"""Pictures per call of the saved model in torch."""


@dataclass(frozen=True)
class Format:
    """One kind of exported file.

    Attributes:
        suffix: of its name.
        runtime: in which it is compared with the saved model.
        packages: needed to write it and to run it.
        write: writes it.
    """

    suffix: str
    runtime: str
    packages: tuple[str, ...]
    write: Writer


FORMATS = {
    "onnx": Format(".onnx", "onnxruntime", ("onnx", "onnxscript", "onnxruntime"), write_onnx),
    "openvino": Format(".xml", "openvino", ("onnx", "onnxscript", "openvino"), write_openvino),
    "torch-export": Format(".pt2", "torch", (), write_torch_export),
}


class ParityError(MxaError):
    """An exported network differs from the saved model by more than the tolerance."""


@dataclass(frozen=True)
class ExportReport:
    """What was exported, and how it compares.

    Attributes:
        file: the exported file; OpenVINO's weights lie beside it as ``.bin``.
        format: a key of :data:`FORMATS`.
        runtime: name and version of what ran it, such as "onnxruntime 1.20.0".
        model_hash: fingerprint of the saved model.
        sha256: of each file, by name.
        parity: the comparison with the saved model in torch.
    """

    file: Path
    format: str
    runtime: str
    model_hash: str
    sha256: Mapping[str, str]
    parity: Parity

    @property
    def max_logit_difference(self) -> float:
        """Over all pictures, findings and batch sizes."""
        return self.parity.max_logit_difference

    @property
    def decisions_differing(self) -> int:
        """Over all pictures, findings, operating points and batch sizes."""
        return self.parity.decisions_differing

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "file": self.file.name,
            "format": self.format,
            "runtime": self.runtime,
            "mxa_version": __version__,
            "torch_version": torch.__version__,
            "model_hash": self.model_hash,
            "sha256": dict(self.sha256),
            "parity": self.parity.to_dict(),
        }


def export_model(
    folder: str | Path,
    out: str | Path,
    format: str,  # noqa: A002 - as the command's option is called
    images: Sequence[Path],
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> ExportReport:
    """Export a saved model, compare it with the original on real radiographs, and write both file and report.

    Args:
        folder: the saved model.
        out: new file; its suffix is the format's. The report goes beside it as ``OUT.json``.
        format: onnx, openvino or torch-export.
        images: radiographs to compare on, at least one; those of the validation split are the obvious ones.
        batch_sizes: pictures per call in the comparison.

    Raises:
        ConfigError: the format is unknown, or ``out`` has another suffix, no folder, or is there already.
        ArtifactError: the saved model is broken, or a package is missing.
        DataError: there is no image, or one cannot be read.
        ParityError: the results differ by more than 1e-4; then no file is left.
    """
    out = Path(out)
    chosen = _check_options(out, format)
    classifier, metadata, graph = prepare(folder)
    pixels = read_pixels(images, classifier.preprocess)
    # Written beside and moved when all is good: what has the name has passed.
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".mxa-export-") as scratch:
        written = Path(scratch) / out.name
        chosen.write(graph, metadata, written)
        runtime, _ = open_runtime(Found(written, chosen.suffix, chosen.runtime))
        parity = compare(runtime, pixels, *score_saved(classifier, pixels), metadata.tuning, batch_sizes)
        report = ExportReport(
            file=out,
            format=format,
            runtime=f"{chosen.runtime} {importlib.metadata.version(chosen.runtime)}",
            model_hash=metadata.model_hash,
            sha256=digests(written.parent),
            parity=parity,
        )
        if not parity.passed:
            raise ParityError(
                f"{out} is not written: in {report.runtime} logits differ by up to {parity.max_logit_difference:.3g} "
                f"and boxes by up to {parity.max_box_difference:.3g} from the saved model, more than "
                f"{parity.tolerance:g}; please report this with the model's config.json"
            )
        publish(written.parent, out, report.to_dict())
    return report


def _check_options(out: Path, name: str) -> Format:
    if name not in FORMATS:
        raise ConfigError(f"format is {name!r}; choose one of {', '.join(FORMATS)}")
    chosen = FORMATS[name]
    check_out(out, chosen.suffix)
    check_packages(name, chosen.packages)
    return chosen


def prepare(folder: str | Path) -> tuple[Classifier, Metadata, Graph]:
    """A saved model, what its exported files carry, and the graph that they hold.

    Raises:
        ArtifactError: the saved model is broken.
    """
    classifier = load(folder)
    graph = Graph(classifier)
    return classifier, Metadata(fingerprint(folder), graph.blocks, read_config(folder)), graph.eval()


def read_pixels(images: Sequence[Path], contract: Preprocess) -> npt.NDArray[np.uint8]:
    """All images by the contract, (N, 1, S, S).

    Raises:
        DataError: there is none, or one cannot be read.
    """
    if not images:
        raise DataError("no image was given; the comparison needs real radiographs, at least one")
    return decode_all(images, contract)[:, None]


def score_saved(
    classifier: Classifier, pixels: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.float32]]]:
    """What the saved model gives in torch, its layers as they were trained: logits (N, L), boxes (N, 4) by block."""
    logits, boxes = [], []
    for start in range(0, len(pixels), CHUNK):
        part = torch.from_numpy(pixels[start : start + CHUNK])
        logits.append(classifier.logits(part).numpy())
        boxes.append(classifier.regions(part))
    return np.concatenate(logits), {
        block: np.concatenate([part[block].float().numpy() for part in boxes]) for block in boxes[0]
    }
