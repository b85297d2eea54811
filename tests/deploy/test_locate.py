"""Which file and which runtime a path means."""

from pathlib import Path

import pytest

from mxa.deploy import locate as module
from mxa.deploy.locate import Found, locate
from mxa.errors import ArtifactError, ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("config.json", "m.onnx", "m.xml", "m.bin", "m.pt2"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch):
    """Pretend that only these runtimes are installed."""
    return lambda *names: monkeypatch.setattr(module, "installed", lambda package: package in names)


@pytest.mark.parametrize(
    ("file", "runtime", "expected"),
    [
        ("", "auto", ("", "saved", "torch")),
        ("", "torch", ("", "saved", "torch")),
        ("", "onnxruntime", ("m.onnx", ".onnx", "onnxruntime")),
        ("", "openvino", ("m.onnx", ".onnx", "openvino")),
        ("m.onnx", "auto", ("m.onnx", ".onnx", "onnxruntime")),
        ("m.onnx", "openvino", ("m.onnx", ".onnx", "openvino")),
        ("m.xml", "auto", ("m.xml", ".xml", "openvino")),
        ("m.pt2", "auto", ("m.pt2", ".pt2", "torch")),
    ],
)
def test_the_runtime_of_each_file(folder: Path, file: str, runtime: str, expected: tuple[str, str, str], only) -> None:
    only("torch", "onnxruntime", "openvino")
    path, kind, name = expected
    assert locate(folder / file, runtime) == Found(folder / path, kind, name)


def test_auto_takes_what_is_installed(folder: Path, only) -> None:
    only("onnxruntime", "openvino")
    assert locate(folder) == Found(folder / "m.onnx", ".onnx", "onnxruntime")
    only("openvino")
    assert locate(folder / "m.onnx") == Found(folder / "m.onnx", ".onnx", "openvino")
    only()
    with pytest.raises(ArtifactError, match=r"needs onnxruntime or openvino, of which none.*mxa\[onnx\]"):
        locate(folder / "m.onnx")
    with pytest.raises(ArtifactError, match=r"needs onnxruntime, which is missing; `pip install 'mxa\[onnx\]'`"):
        locate(folder / "m.onnx", "onnxruntime")


def test_what_does_not_run_there(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"m\.onnx runs in onnxruntime or openvino, not in torch; `mxa export"):
        locate(folder / "m.onnx", "torch")
    for file in folder.glob("m.*"):
        file.unlink()
    with pytest.raises(ConfigError, match="runs in torch, not in openvino; `mxa export MODEL --format openvino`"):
        locate(folder, "openvino")


def test_two_of_a_kind_are_ambiguous(folder: Path) -> None:
    (folder / "n.onnx").touch()
    with pytest.raises(ConfigError, match=r"several models \(m\.onnx, n\.onnx\)"):
        locate(folder, "onnxruntime")
    assert locate(folder).kind == "saved"


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no model"):
        locate(tmp_path)
    (tmp_path / "weights.pth").touch()
    with pytest.raises(ConfigError, match=r"weights\.pth is no model that mxa opens"):
        locate(tmp_path / "weights.pth")
    with pytest.raises(ArtifactError, match="does not exist"):
        locate(tmp_path / "none.onnx")
    with pytest.raises(ConfigError, match="runtime is 'tensorrt'; choose one of auto, torch"):
        locate(tmp_path, "tensorrt")


@pytest.mark.parametrize("path", ["./model", "../model", "runs/model.onnx", "runs/model.xml", "runs/model.pt2"])
def test_a_mistyped_path_is_no_hub_id(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "download", lambda *names: pytest.fail(f"{names} was asked for"))
    with pytest.raises(ArtifactError, match="does not exist; give a saved model's folder"):
        locate(path)


def test_what_may_be_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only) -> None:
    (tmp_path / "config.json").touch()
    asked = []
    monkeypatch.setattr(module, "download", lambda *names: asked.append(names) or tmp_path)
    only("torch")
    with pytest.raises(ArtifactError, match=r"^runs/modle does not exist; if it is meant as a hub id, .*mxa\[hub\]"):
        locate("runs/modle")
    only("torch", "huggingface_hub")
    for path in ("clinic/model", "clinic/model-1.2@v1"):
        assert locate(path).kind == "saved"
    assert asked == [("clinic/model", None), ("clinic/model-1.2", "v1")]
