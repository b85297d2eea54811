"""Write the exported graph with its metadata: as ONNX, for OpenVINO, by torch.export."""

import contextlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mxa.deploy.graph import Graph
from mxa.deploy.metadata import KEY, Metadata, describe
from mxa.deploy.runtimes import BOXES, INPUT, LOGITS

OPSET = 20


def write_onnx(graph: Graph, metadata: Metadata, file: Path) -> None:
    """Write an ``.onnx`` file for any batch size."""
    store_onnx(onnx_network(graph), metadata, file)


def store_onnx(network: bytes, metadata: Metadata, file: Path) -> None:
    """Write an ``.onnx`` file of a network and our metadata.

    The metadata come last, as a message of their own that a reader merges with the network's, so that they can hold
    the network's digest.

    Args:
        network: an ``onnx.ModelProto`` in bytes, without metadata.
        metadata: their ``network`` is filled in.
        file: is overwritten.
    """
    import onnx

    text = replace(metadata, network=describe(network)).to_json()
    last = onnx.ModelProto(metadata_props=[onnx.StringStringEntryProto(key=KEY, value=text)])
    file.write_bytes(network + last.SerializeToString())


def onnx_network(graph: Graph) -> bytes:
    """The graph as an ``onnx.ModelProto`` in bytes, for any batch size.

    Without the exporter's notes on the source code and its place.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # the exporter reports on standard output
        program = torch.onnx.export(
            graph,
            (_example(graph),),
            dynamo=True,
            dynamic_shapes=_dynamic_batch(),
            input_names=[INPUT],
            output_names=[LOGITS, BOXES] if graph.blocks else [LOGITS],
            opset_version=OPSET,
            optimize=True,
            verbose=False,
        )
    model = program.model_proto  # type: ignore[union-attr]
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    network: bytes = model.SerializeToString()
    return network


def write_openvino(graph: Graph, metadata: Metadata, file: Path) -> None:
    """Write an ``.xml`` file and its weights, a ``.bin`` file of the same name, in float32."""
    store_openvino(onnx_network(graph), metadata, file)


def store_openvino(network: bytes, metadata: Metadata, file: Path) -> None:
    """Write an ``.xml`` and a ``.bin`` file of a network, as :func:`store_onnx` has it, and our metadata."""
    import openvino

    model = openvino.Core().read_model(network)
    openvino.save_model(model, file, compress_to_fp16=False)
    weights = file.with_suffix(".bin").read_bytes()
    model.set_rt_info(replace(metadata, network=describe(weights)).to_json(), [KEY])
    openvino.save_model(model, file, compress_to_fp16=False)  # the same weights; now the text knows their digest


def write_torch_export(graph: Graph, metadata: Metadata, file: Path) -> None:
    """Write a ``.pt2`` file, which ``torch.export.load`` opens without mxa."""
    program = torch.export.export(graph, (_example(graph),), dynamic_shapes=_dynamic_batch())
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names files of this machine
    torch.export.save(program, file, extra_files={KEY: metadata.to_json()})


def _example(graph: Graph) -> torch.Tensor:
    """Two black pictures; a batch of one would be taken for a constant."""
    return torch.zeros(2, 1, graph.preprocess.size, graph.preprocess.size, dtype=torch.uint8)


def _dynamic_batch() -> dict[str, Any]:
    return {INPUT: {0: torch.export.Dim("batch", min=1)}}
