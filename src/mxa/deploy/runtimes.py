"""What executes a network: torch, ONNX Runtime or OpenVINO, one class for each kind of model.

All give the same results to rounding on a CPU, in float32: OpenVINO would compute in bfloat16 where the processor can,
which moves logits by a hundredth; here it does not. Calls may come from several threads at once.

See :class:`mxa.predictor.Runtime` for what a call takes and gives.
"""

import functools
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mxa.deploy.locate import SAVED, Found
from mxa.deploy.metadata import KEY, Metadata
from mxa.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from mxa.predictor import Runtime

Scores = tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.float32]]]
INPUT, LOGITS, BOXES = "pixels", "logits", "boxes"
"""Names of the graph's input and outputs."""


def open_runtime(found: Found, device: str = "cpu", threads: int | None = None) -> "tuple[Runtime, Metadata]":
    """Load a model.

    Args:
        found: what, and in which runtime.
        device: see :func:`mxa.predictor.open_predictor`.
        threads: on the CPU; None is the runtime's own default.

    Raises:
        ConfigError: there is no such device.
        ArtifactError: the file is damaged, or not one of ours.
        ValueError: ``threads`` is below 1.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    if found.runtime == "onnxruntime":
        opened: Any = OnnxRuntime(found.path, device, threads)
    elif found.runtime == "openvino":
        opened = OpenVino(found.path, device, threads)
    elif found.kind == SAVED:
        opened = Torch(found.path, device, threads)
    else:
        opened = TorchExport(found.path, device, threads)
    return opened, opened.metadata


class OnnxRuntime:
    """An ``.onnx`` file in ONNX Runtime, with all its graph optimisations."""

    name = "onnxruntime"

    def __init__(self, file: Path, device: str = "cpu", threads: int | None = None) -> None:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as failures

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3  # errors, which are raised as well
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(file, options, providers=_onnx_providers(device))
        except (failures.InvalidProtobuf, failures.Fail, failures.InvalidGraph, failures.InvalidArgument) as error:
            raise ArtifactError(f"{file} is damaged or no ONNX model ({error}); export it again") from error
        self.metadata = Metadata.from_json(self._session.get_modelmeta().custom_metadata_map.get(KEY), file)
        self.metadata.check_network(file)
        outputs = {output.name: output.shape[1:] for output in self._session.get_outputs()}
        _check_outputs(outputs, self.metadata, file)

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> Scores:
        """Score (B, 1, S, S) uint8 pixels."""
        return _scores(self._session.run(None, {INPUT: pixels}), self.metadata)


def _onnx_providers(device: str) -> list[str]:
    import onnxruntime

    providers = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
    if providers.get(device) not in onnxruntime.get_available_providers():
        there = [name for name, its in providers.items() if its in onnxruntime.get_available_providers()]
        raise ConfigError(f"device is {device!r}; this ONNX Runtime has {', '.join(there)}")
    return list(dict.fromkeys([providers[device], "CPUExecutionProvider"]))


class OpenVino:
    """An ``.onnx`` or OpenVINO ``.xml`` file in OpenVINO."""

    name = "openvino"

    def __init__(self, file: Path, device: str = "cpu", threads: int | None = None) -> None:
        core = _openvino_core()
        if device.upper() not in core.available_devices:
            there = ", ".join(one.lower() for one in core.available_devices)
            raise ConfigError(f"device is {device!r}; this OpenVINO has {there}")
        # OpenVINO's own default would be bfloat16 where the processor has it.
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        try:
            model = core.read_model(file)
        except RuntimeError as error:
            raise ArtifactError(f"{file} is damaged or no model for OpenVINO ({error}); export it again") from error
        self.metadata = Metadata.from_json(_openvino_text(model), file)
        self.metadata.check_network(file if file.suffix == ".onnx" else file.with_suffix(".bin"))
        outputs = {output.any_name: [one.get_length() for one in output.partial_shape[1:]] for output in model.outputs}
        _check_outputs(outputs, self.metadata, file)
        self._request = core.compile_model(model, device.upper(), options).create_infer_request()
        self._lock = threading.Lock()

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> Scores:
        """Score (B, 1, S, S) uint8 pixels."""
        with self._lock:
            results = self._request.infer({0: np.ascontiguousarray(pixels)}, share_inputs=True)
            outputs = [results[i].copy() for i in range(len(results))]
        return _scores(outputs, self.metadata)


@functools.cache
def _openvino_core() -> Any:
    """One for the process, and until its end.

    Opening the CPU gives the opening thread a signal stack, which goes with the core. Where another thread drops the
    core, such as by collecting garbage, the first one keeps a stack that is gone, and the next signal (a worker process
    that ends is one) ends the process.
    """
    import openvino

    return openvino.Core()


def _openvino_text(model: Any) -> str | None:
    """Our text: in an ``.xml`` file under its own key, in an ``.onnx`` file among the framework's."""
    for path in ([KEY], ["framework", KEY]):
        if model.has_rt_info(path):
            return str(model.get_rt_info(path).astype(str))
    return None


class Torch:
    """A saved model in torch, with the layers of :mod:`mxa.deploy.layers`."""

    name = "torch"

    def __init__(self, folder: Path, device: str = "cpu", threads: int | None = None) -> None:
        import torch

        from mxa.deploy.graph import Graph
        from mxa.models.artifact import fingerprint, load, read_config

        _set_torch_threads(threads)
        self._device = _torch_device(device)
        self._graph = Graph(load(folder)).to(self._device).to(memory_format=torch.channels_last)
        self.metadata = Metadata(fingerprint(folder), self._graph.blocks, read_config(folder))

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> Scores:
        """Score (B, 1, S, S) uint8 pixels."""
        return _torch_scores(self._graph, pixels, self._device, self.metadata)


class TorchExport:
    """A ``.pt2`` file of torch.export in torch. Opening one can run any code: its origin must be known."""

    name = "torch"

    def __init__(self, file: Path, device: str = "cpu", threads: int | None = None) -> None:
        import torch

        _set_torch_threads(threads)
        self._device = _torch_device(device)
        self.metadata = Metadata.from_json(_torch_export_text(file), file)
        self._graph = torch.export.load(file).module().to(self._device)

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> Scores:
        """Score (B, 1, S, S) uint8 pixels."""
        return _torch_scores(self._graph, pixels, self._device, self.metadata)


def _torch_export_text(file: Path) -> str | None:
    """Our text in a ``.pt2`` file, which is a ZIP archive, after its checksums were checked."""
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
            ours = [name for name in archive.namelist() if name.endswith(f"/extra/{KEY}")]
            text = archive.read(ours[0]).decode() if ours and damaged is None else None
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ArtifactError(f"{file} is damaged or no file of torch.export ({error}); export it again") from error
    if damaged is not None:
        raise ArtifactError(f"{file} is damaged: {damaged} in it has another checksum; copy or export it again")
    return text


def _torch_device(device: str) -> Any:
    import torch

    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device is {device!r}, which this torch does not have ({error})") from error


def _set_torch_threads(threads: int | None) -> None:
    """Torch counts threads for the whole process."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def _torch_scores(graph: Any, pixels: npt.NDArray[np.uint8], device: Any, metadata: Metadata) -> Scores:
    import torch

    with torch.inference_mode():
        outputs = graph(torch.from_numpy(np.ascontiguousarray(pixels)).to(device))
        return _scores([output.cpu().numpy() for output in outputs], metadata)


def _scores(outputs: Sequence[npt.NDArray[np.float32]], metadata: Metadata) -> Scores:
    """The graph's outputs, its boxes by block."""
    boxes = {block: outputs[1][:, i] for i, block in enumerate(metadata.blocks)}
    return outputs[0], boxes


def _check_outputs(outputs: dict[str, list[Any]], metadata: Metadata, file: Path) -> None:
    """Whether the graph is the one that its metadata describe."""
    expected = {LOGITS: [len(metadata.labels)]}
    if metadata.blocks:
        expected[BOXES] = [len(metadata.blocks), 4]
    if outputs != expected:
        raise ArtifactError(f"{file} gives {outputs} instead of {expected}; export the model again")
