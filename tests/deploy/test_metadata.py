"""What an exported file carries comes back whole, and what is garbled is named."""

import json

import pytest

from deploy.small import tuning
from mxa.deploy.metadata import Metadata, describe
from mxa.errors import ArtifactError
from mxa.labels import CHEXPERT14
from mxa.preprocess import Preprocess

CONFIG = {"labels": CHEXPERT14.to_dict(), "preprocess": Preprocess(size=64).to_dict(), "tuning": tuning().to_dict()}


def metadata() -> Metadata:
    return Metadata("ab" * 32, ("stages.0.blocks.0",), CONFIG, network=describe(b"network"))


def test_the_text_comes_back() -> None:
    read = Metadata.from_json(metadata().to_json(), "a.onnx")
    assert read == metadata()
    assert (read.labels, read.preprocess, read.tuning) == (CHEXPERT14, Preprocess(size=64), tuning())
    assert read.notes == ()


def test_a_quantised_network_says_so() -> None:
    one = Metadata("ab", (), CONFIG, "int8", {"auroc_macro_change": -0.0123})
    assert one.notes == ("int8 network: macro AUROC -0.0123 against float32 where it was measured",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format_version=9), "format version 9"),
        (lambda d: d.pop("blocks"), "garbled.*blocks"),
        (lambda d: d.update(precision="int4"), "precision is 'int4'"),
        (lambda d: d["config"].pop("labels"), "lacks or garbles 'labels'"),
        (lambda d: d["config"]["preprocess"].update(version=9), "contract version 9"),
        (lambda d: d["config"]["tuning"].pop("calibrations"), "calibrations"),
        (lambda d: d.update(config=7), "garbles"),
    ],
)
def test_what_is_garbled_is_named(change: object, message: str) -> None:
    data = json.loads(metadata().to_json())
    change(data)  # type: ignore[operator]
    with pytest.raises(ArtifactError, match=rf"(?s)a\.onnx.*{message}"):
        Metadata.from_json(json.dumps(data), "a.onnx")


@pytest.mark.parametrize(("text", "message"), [(None, "not exported by mxa"), ("{", "garbled"), ("[]", "garbled")])
def test_no_text_of_ours(text: str | None, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        Metadata.from_json(text, "a.onnx")


def test_the_network_is_checked(tmp_path) -> None:
    file = tmp_path / "a.onnx"
    file.write_bytes(b"network and what follows")
    metadata().check_network(file)
    file.write_bytes(b"netwerk and what follows")
    with pytest.raises(ArtifactError, match=r"a\.onnx is damaged"):
        metadata().check_network(file)
    file.write_bytes(b"net")
    with pytest.raises(ArtifactError, match=r"a\.onnx is damaged"):
        metadata().check_network(file)
    file.unlink()
    with pytest.raises(ArtifactError, match=r"a\.onnx is missing"):
        metadata().check_network(file)
