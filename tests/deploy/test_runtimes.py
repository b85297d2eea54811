"""All runtimes agree, and files that are damaged or foreign are refused."""

import os
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from deploy.small import SIDE, exported, pictures, saved
from mxa.errors import ArtifactError, ConfigError
from mxa.predictor import open_predictor

EVERY = [
    ("saved", "torch"),
    ("onnx", "onnxruntime"),
    ("onnx", "openvino"),
    ("openvino", "openvino"),
    ("torch-export", "torch"),
]


def path_of(what: str) -> Path:
    return saved() if what == "saved" else exported(what)


@pytest.mark.parametrize(("what", "runtime"), EVERY)
def test_all_give_the_same(what: str, runtime: str) -> None:
    pixels = pictures(3)
    expected, expected_boxes = open_predictor(saved(), "torch").score(pixels)
    predictor = open_predictor(path_of(what), runtime, threads=1)
    assert predictor.runtime.name == runtime
    logits, boxes = predictor.score(pixels)
    assert (logits.dtype, logits.shape) == (np.float32, (3, 14))
    np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=0)
    for block, corners in boxes.items():
        np.testing.assert_allclose(corners, expected_boxes[block], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("what", "runtime"), EVERY)
def test_results_do_not_change_under_the_callers_hands(what: str, runtime: str) -> None:
    predictor = open_predictor(path_of(what), runtime)
    first, _ = predictor.score(pictures(2))
    kept = first.copy()
    predictor.score(255 - pictures(2))
    np.testing.assert_array_equal(first, kept)


def test_calls_from_several_threads() -> None:
    predictor = open_predictor(exported("onnx"), "openvino")
    pixels = pictures(8)
    expected = [predictor.score(pixels[i : i + 1])[0] for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: predictor.score(pixels[i : i + 1])[0], [*range(8)] * 5))
    for i, logits in enumerate(found):
        np.testing.assert_array_equal(logits, expected[i % 8])


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_changed_weight_is_found(tmp_path: Path, runtime: str) -> None:
    data = bytearray(exported("onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(ArtifactError, match=r"m\.onnx is damaged"):
        open_predictor(tmp_path / "m.onnx", runtime)


@pytest.mark.parametrize(("what", "runtime"), EVERY[1:])
def test_a_truncated_file_is_refused(tmp_path: Path, what: str, runtime: str) -> None:
    whole = exported(what)
    file = tmp_path / whole.name
    if what == "openvino":
        shutil.copy(whole.with_suffix(".bin"), tmp_path)
    file.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(ArtifactError, match="is damaged or no"):
        open_predictor(file, runtime)


def test_openvinos_weights_are_checked(tmp_path: Path) -> None:
    shutil.copy(exported("openvino"), tmp_path)
    weights = tmp_path / "small.bin"
    with pytest.raises(ArtifactError, match=r"small\.(xml|bin)"):
        open_predictor(tmp_path / "small.xml")
    data = bytearray(exported("openvino").with_suffix(".bin").read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"small\.bin is damaged"):
        open_predictor(tmp_path / "small.xml")


def test_a_changed_byte_in_torch_export(tmp_path: Path) -> None:
    with zipfile.ZipFile(exported("torch-export")) as archive:
        weight = archive.read("small/data/weights/weight_0")
    data = exported("torch-export").read_bytes()
    at = data.index(weight)
    (tmp_path / "m.pt2").write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(ArtifactError, match=r"m\.pt2 is damaged: .*weight_0"):
        open_predictor(tmp_path / "m.pt2")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_somebody_elses_network_is_refused(tmp_path: Path, runtime: str) -> None:
    from onnx import TensorProto, helper, save

    put = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [put("x", TensorProto.FLOAT, ["n", 3])],
        [put("y", TensorProto.FLOAT, ["n", 3])],
    )
    file = tmp_path / "other.onnx"
    save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), file)
    with pytest.raises(ArtifactError, match=r"other\.onnx was not exported by mxa"):
        open_predictor(file, runtime)
    file.write_text("<html>please log in</html>")
    with pytest.raises(ArtifactError, match=r"other\.onnx is damaged or no"):
        open_predictor(file, runtime)


@pytest.mark.parametrize(("what", "runtime"), EVERY)
def test_unknown_devices(what: str, runtime: str) -> None:
    with pytest.raises(ConfigError, match="device is 'abacus'"):
        open_predictor(path_of(what), runtime, "abacus")


def test_threads_are_at_least_one() -> None:
    with pytest.raises(ValueError, match="threads must be at least 1"):
        open_predictor(exported("onnx"), threads=0)


DROPPED = """
import os, signal, sys, threading
import numpy as np
from mxa.predictor import open_predictor

held = [open_predictor(sys.argv[1], "openvino")]
held[0].score(np.zeros((1, 1, *map(int, sys.argv[2:])), np.uint8))
dropping = threading.Thread(target=held.clear)
dropping.start()
dropping.join()
heard = []
signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
os.kill(os.getpid(), signal.SIGTERM)
assert heard == [signal.SIGTERM]
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_signal_is_survived_after_another_thread_has_dropped_openvino() -> None:
    """OpenVINO's own signal stack would be gone by then, and the process with it."""
    command = [sys.executable, "-c", DROPPED, str(exported("onnx")), str(SIDE), str(SIDE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
