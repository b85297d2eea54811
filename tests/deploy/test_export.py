"""Exported files give what the saved model gives, carry all that belongs to it, or are not there."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.small import OPTIONS, SIDE, classifier, exported, images, pictures, saved
from mxa.deploy import export as module
from mxa.deploy.export import FORMATS, ParityError, export_model
from mxa.deploy.locate import Found
from mxa.deploy.runtimes import open_runtime
from mxa.errors import ArtifactError, ConfigError, DataError
from mxa.models.artifact import fingerprint, load, read_config, save
from mxa.predictor import open_predictor


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("batch", [1, 5, 32])
def test_same_results_for_any_batch(format_name: str, batch: int) -> None:
    pixels = pictures(batch)
    saved_model = load(saved())
    logits, boxes = open_predictor(exported(format_name)).score(pixels)
    np.testing.assert_allclose(logits, saved_model.logits(torch.from_numpy(pixels)).numpy(), atol=1e-4, rtol=0)
    expected = saved_model.regions(torch.from_numpy(pixels))
    assert list(boxes) == list(expected)
    for block, corners in expected.items():
        np.testing.assert_allclose(boxes[block], corners.numpy(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize(
    "changed",
    [{"mxa_region": "moments", "mxa_source": "stem"}, {"mxa_regions": 2}],
    ids=["from the stem", "two regions"],
)
def test_blocks_of_another_form_are_exported_too(format_name: str, changed: dict[str, object], tmp_path: Path) -> None:
    changed = changed | {"mxa_put_back": True, "mxa_stages": [0]}
    one = classifier(options=OPTIONS | changed)
    out = tmp_path / f"model{FORMATS[format_name].suffix}"
    export_model(save(one, tmp_path / "model"), out, format_name, images())
    pixels = pictures(5)
    logits, boxes = open_predictor(out).score(pixels)
    np.testing.assert_allclose(logits, one.logits(torch.from_numpy(pixels)).numpy(), atol=1e-4, rtol=0)
    expected = one.regions(torch.from_numpy(pixels))
    assert list(boxes) == list(expected)
    for name, corners in expected.items():
        np.testing.assert_allclose(boxes[name], corners.numpy(), atol=1e-4, rtol=0, err_msg=name)


@pytest.mark.parametrize("format_name", FORMATS)
def test_the_file_carries_the_model(format_name: str) -> None:
    predictor = open_predictor(exported(format_name))
    assert predictor.runtime.name == FORMATS[format_name].runtime
    assert predictor.model_hash == fingerprint(saved())
    assert predictor.config == read_config(saved())
    assert predictor.preprocess == load(saved()).preprocess
    assert predictor.tuning.to_dict() == load(saved()).tuning
    assert predictor.notes == ()


@pytest.mark.parametrize("format_name", FORMATS)
def test_the_report_lies_beside_the_file(format_name: str) -> None:
    file = exported(format_name)
    report = json.loads(Path(f"{file}.json").read_text())
    assert report["model_hash"] == fingerprint(saved())
    assert report["format"] == format_name
    assert report["runtime"].startswith(FORMATS[format_name].runtime)
    assert set(report["sha256"]) == {file.name} | ({"small.bin"} if file.suffix == ".xml" else set())
    parity = report["parity"]
    assert parity["passed"] is True
    assert (parity["pictures"], parity["decisions_differing"]) == (7, 0)
    assert [batch["batch_size"] for batch in parity["batches"]] == [1, 5, 32]
    assert 0 < parity["max_logit_difference"] < 1e-4
    assert set(parity["batches"][0]["decisions_differing"]) == {"0.5", "youden", "cost=3"}


def test_the_onnx_graph() -> None:
    import onnx

    model = onnx.load(exported("onnx"))
    onnx.checker.check_model(model, full_check=True)
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {"GridSample", "BatchNormalization", "Shape", "Loop", "If"}
    (pixels,) = model.graph.input
    shape = [one.dim_param or one.dim_value for one in pixels.type.tensor_type.shape.dim]
    assert shape == ["batch", 1, SIDE, SIDE]
    assert pixels.type.tensor_type.elem_type == onnx.TensorProto.UINT8


@pytest.mark.parametrize("format_name", FORMATS)
def test_nothing_of_this_machine_is_in_the_file(format_name: str) -> None:
    data = exported(format_name).read_bytes()
    for path in (Path(module.__file__).parents[3], Path(torch.__file__).parents[1], Path.home()):
        assert str(path).encode() not in data


def test_a_difference_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(graph, metadata, file):
        graph.network.head.bias += 0.01
        FORMATS["torch-export"].write(graph, metadata, file)

    monkeypatch.setattr(module, "FORMATS", {"other": replace(FORMATS["torch-export"], write=write)})
    with pytest.raises(ParityError, match=r"m\.pt2 is not written: in torch .* logits differ by up to 0\.01"):
        export_model(saved(), tmp_path / "m.pt2", "other", images())
    assert not list(tmp_path.iterdir())


def test_nan_in_a_later_batch_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_spoilt(found: Found) -> tuple[object, object]:
        runtime, metadata = open_runtime(found)

        def spoilt(pixels: np.ndarray) -> object:
            logits, boxes = runtime(pixels)
            return (logits * np.nan if len(pixels) == 32 else logits), boxes

        return spoilt, metadata

    monkeypatch.setattr(module, "open_runtime", open_spoilt)
    with pytest.raises(ParityError, match=r"m\.onnx is not written: .* logits differ by up to nan"):
        export_model(saved(), tmp_path / "m.onnx", "onnx", images())
    assert not list(tmp_path.iterdir())


def test_wrong_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for out, name, message in (
        ("m.onnx", "tflite", "format is 'tflite'; choose one of onnx"),
        ("m.pt", "onnx", r"m\.pt: the file's name must end in \.onnx"),
        ("none/m.onnx", "onnx", "its folder does not exist"),
    ):
        with pytest.raises(ConfigError, match=message):
            export_model(saved(), tmp_path / out, name, images())
    (tmp_path / "m.onnx").touch()
    with pytest.raises(ConfigError, match="is there already"):
        export_model(saved(), tmp_path / "m.onnx", "onnx", images())
    (tmp_path / "m.bin").touch()
    with pytest.raises(ConfigError, match=r"m\.bin is there already"):
        export_model(saved(), tmp_path / "m.xml", "openvino", images())
    (tmp_path / "m.bin").unlink()
    (tmp_path / "k.onnx.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"k\.onnx\.json is there already"):
        export_model(saved(), tmp_path / "k.onnx", "onnx", images())
    assert (tmp_path / "k.onnx.json").read_text() == "{}"
    (tmp_path / "k.onnx.json").unlink()
    with pytest.raises(DataError, match="no image was given"):
        export_model(saved(), tmp_path / "n.onnx", "onnx", [])
    with pytest.raises(ArtifactError, match="not a saved model"):
        export_model(tmp_path, tmp_path / "n.onnx", "onnx", images())
    monkeypatch.setattr("mxa.deploy.files.installed", lambda package: package != "onnxscript")
    with pytest.raises(ArtifactError, match=r"onnx needs onnxscript; `pip install 'mxa\[export\]'`"):
        export_model(saved(), tmp_path / "n.onnx", "onnx", images())
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]
