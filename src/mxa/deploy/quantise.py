"""Eight-bit networks: static post-training quantisation for ONNX Runtime, never without what it costs and gains.

Convolutions and the linear layers compute in 8-bit integers, weights per channel, activations with the ranges that the
calibration pictures show; attention and ROI pooling stay in float32. What that does to quality depends on the model,
and to speed on the processor, so both are measured on every quantisation and written beside the file and into it; the
change of quality stands on every prediction.

Shapes: N pictures, L findings.
"""

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mxa.data.decode import decode_all
from mxa.data.table import Table
from mxa.deploy.export import prepare, read_pixels
from mxa.deploy.files import check_out, check_packages, digests, publish
from mxa.deploy.metadata import Metadata
from mxa.deploy.parity import decisions
from mxa.deploy.runtimes import INPUT, OnnxRuntime
from mxa.deploy.writers import store_onnx, write_onnx
from mxa.errors import DataError
from mxa.evaluation.metrics import auroc

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
QUANTISED = ("Conv", "Gemm")
"""ONNX operators that become 8-bit."""
SPEED_BATCHES = (1, 32)
SPEED_ROUNDS = 7
CHUNK = 32

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """One figure of the float32 and of the int8 network."""

    float32: float
    int8: float

    @property
    def change(self) -> float:
        """int8 less float32."""
        return self.int8 - self.float32


@dataclass(frozen=True)
class QuantisationReport:
    """What a quantisation costs and gains.

    Attributes:
        file: the 8-bit network.
        model_hash: fingerprint of the saved model.
        calibration_pictures: how many gave the ranges.
        measured_on: data set, splits and number of the labelled pictures.
        auroc: by finding; only those with positives and negatives.
        max_logit_difference: largest absolute one between the two networks.
        decisions_differing: by operating point, the share of decisions that differ, in [0, 1].
        images_per_s: by pictures per call; medians, the two networks in turn on this machine.
    """

    file: Path
    model_hash: str
    calibration_pictures: int
    measured_on: Mapping[str, Any]
    auroc: Mapping[str, Pair]
    max_logit_difference: float
    decisions_differing: Mapping[str, float]
    images_per_s: Mapping[int, Pair]

    @property
    def auroc_macro(self) -> Pair:
        """Mean over the findings."""
        return Pair(*(float(np.mean([getattr(one, side) for one in self.auroc.values()])) for side in _SIDES))

    def measured(self) -> dict[str, Any]:
        """What goes into the file's metadata, plain JSON types."""
        macro = self.auroc_macro
        return {
            "on": dict(self.measured_on),
            "calibration_pictures": self.calibration_pictures,
            "auroc_macro": asdict(macro),
            "auroc_macro_change": macro.change,
            "auroc": {finding: asdict(pair) for finding, pair in self.auroc.items()},
            "max_logit_difference": self.max_logit_difference,
            "decisions_differing": dict(self.decisions_differing),
            "images_per_s": {str(batch): asdict(pair) for batch, pair in self.images_per_s.items()},
        }


_SIDES = ("float32", "int8")


def quantise_model(
    folder: str | Path, out: str | Path, calibration: Sequence[Path], table: Table, *, rounds: int = SPEED_ROUNDS
) -> QuantisationReport:
    """Quantise a saved model to 8 bits and measure the result against float32, both in ONNX Runtime.

    The file is written whatever was lost; it is for the reader of the report to judge.

    Args:
        folder: the saved model.
        out: new ``.onnx`` file; the report goes beside it as ``OUT.json``.
        calibration: unlabelled radiographs that show the range of each activation, some hundred of the training split.
        table: N labelled images to measure on, of a split that trained and calibrated nothing.
        rounds: how often each speed is taken.

    Raises:
        ConfigError: ``out`` has another suffix, no folder, or is there already.
        ArtifactError: the saved model is broken, or a package is missing.
        DataError: there is no calibration image; an image cannot be read, or is in both sets; or the labels are those
            of other findings, or no finding has both positives and negatives.
    """
    out = Path(out)
    check_out(out, ".onnx")
    check_packages("int8", PACKAGES)
    _, metadata, graph = prepare(folder)
    _check_data(calibration, table, metadata)
    ranges = read_pixels(calibration, metadata.preprocess)
    pixels = decode_all(table.files(), metadata.preprocess)[:, None]
    with (
        tempfile.TemporaryDirectory(dir=out.parent, prefix=".mxa-export-") as scratch,
        tempfile.TemporaryDirectory(dir=out.parent, prefix=".mxa-float32-") as float32,
    ):
        exact, small = Path(float32, "float32.onnx"), Path(scratch, out.name)
        write_onnx(graph, metadata, exact)
        _quantise(exact, small, ranges)
        _store(small, replace(metadata, precision="int8"))
        report = _measure(OnnxRuntime(exact), OnnxRuntime(small), pixels, table, metadata, out, len(ranges), rounds)
        _store(small, replace(metadata, precision="int8", measured=report.measured()))
        about = {"file": out.name, "format": "onnx", "precision": "int8", "model_hash": metadata.model_hash}
        publish(Path(scratch), out, {**about, "sha256": digests(Path(scratch)), "measured": report.measured()})
    return report


def _check_data(calibration: Sequence[Path], table: Table, metadata: Metadata) -> None:
    if table.labels.findings != metadata.labels.findings:
        raise DataError(
            f"the labels are of {', '.join(table.labels)}, the model's findings are {', '.join(metadata.labels)}; give "
            "the same label set"
        )
    both = {path.resolve() for path in calibration} & {path.resolve() for path in table.files()}
    if both:
        raise DataError(
            f"{min(both)} and {len(both) - 1} other images calibrate and measure; take the calibration images from "
            "another split"
        )
    if not _scorable(table):
        raise DataError(
            "no finding has both positives and negatives among the labelled images, so that the loss of quality "
            "cannot be measured; give more images"
        )


def _scorable(table: Table) -> list[int]:
    """Columns of the findings whose counted labels have both classes."""
    counted = [table.target[table.mask[:, j], j] for j in range(len(table.labels))]
    return [j for j, target in enumerate(counted) if (target == 0).any() and (target == 1).any()]


class _Ranges:
    """Feeds the calibration pictures, a batch at a time, as ONNX Runtime wants them."""

    def __init__(self, pixels: Pixels) -> None:
        self._batches = iter(np.split(pixels, range(CHUNK, len(pixels), CHUNK)))

    def get_next(self) -> dict[str, Pixels] | None:
        """The next batch, None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def _quantise(exact: Path, small: Path, ranges: Pixels) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    ready = exact.with_suffix(".ready")
    quant_pre_process(exact, ready, skip_symbolic_shape=True)
    # Unsigned activations and signed weights: what x86 processors multiply fastest.
    quantize_static(
        ready,
        small,
        _Ranges(ranges),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(QUANTISED),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )


def _store(file: Path, metadata: Metadata) -> None:
    """Put the metadata into an ``.onnx`` file, in place of what other metadata it has."""
    import onnx

    model = onnx.load(file)
    del model.metadata_props[:]
    store_onnx(model.SerializeToString(), metadata, file)


def _measure(
    exact: OnnxRuntime,
    small: OnnxRuntime,
    pixels: Pixels,
    table: Table,
    metadata: Metadata,
    out: Path,
    calibration_pictures: int,
    rounds: int,
) -> QuantisationReport:
    one, other = (_logits(runtime, pixels) for runtime in (exact, small))
    before, after = (decisions(logits, metadata.tuning) for logits in (one, other))
    return QuantisationReport(
        file=out,
        model_hash=metadata.model_hash,
        calibration_pictures=calibration_pictures,
        measured_on={"dataset": table.dataset, "splits": list(table.splits), "images": len(table)},
        auroc={
            table.labels.findings[j]: Pair(*(_auroc(logits, table, j) for logits in (one, other)))
            for j in _scorable(table)
        },
        max_logit_difference=float(np.abs(other - one).max()),
        decisions_differing={name: float((after[name] != decided).mean()) for name, decided in before.items()},
        images_per_s={batch: _speeds(exact, small, pixels, batch, rounds) for batch in SPEED_BATCHES},
    )


def _logits(runtime: OnnxRuntime, pixels: Pixels) -> Logits:
    return np.concatenate([runtime(pixels[start : start + CHUNK])[0] for start in range(0, len(pixels), CHUNK)])


def _auroc(logits: Logits, table: Table, column: int) -> float:
    counted = table.mask[:, column]
    return auroc(logits[counted, column], table.target[counted, column])


def _speeds(exact: OnnxRuntime, small: OnnxRuntime, pixels: Pixels, batch: int, rounds: int) -> Pair:
    """Images per second of both networks, in turn, so that other work on the machine disturbs both alike."""
    part = pixels[np.arange(batch) % len(pixels)]
    seconds: list[list[float]] = [[], []]
    for turn in range(rounds + 1):
        for taken, runtime in zip(seconds, (exact, small), strict=True):
            start = time.perf_counter()
            runtime(part)
            if turn:  # the first call warms up
                taken.append(time.perf_counter() - start)
    return Pair(*(batch / statistics.median(taken) for taken in seconds))
