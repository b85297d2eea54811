"""Pictures in, named results out, the same from every kind of picture; without torch where the runtime needs none."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dicom_files
from deploy.small import classifier, exported, images, pictures, saved, tuning
from mxa.errors import ArtifactError, ConfigError, DataError
from mxa.evaluation.tuning import Tuning
from mxa.labels import CHEXPERT14
from mxa.models.artifact import fingerprint, load, save
from mxa.predictor import Predictor, open_predictor
from mxa.preprocess import Preprocess

BLOCKS = ("stages.0.blocks.0", "stages.1.blocks.0", "stages.2.blocks.0")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return open_predictor(exported("onnx"), threads=1)


def test_one_picture(predictor: Predictor) -> None:
    import torch

    file = images()[3]
    found = predictor.predict(file)
    one = load(saved())
    pixels = torch.from_numpy(one.preprocess.resize(np.array(Image.open(file)))[None, None])
    np.testing.assert_allclose(found.logits, one.logits(pixels)[0].numpy(), atol=1e-4, rtol=0)
    np.testing.assert_allclose(found.probabilities, 1 / (1 + np.exp(-found.logits.astype(float))), rtol=1e-12)
    assert (found.source, found.findings, found.size) == (str(file), CHEXPERT14.findings, (100, 73))
    assert (found.calibration, found.decisions, found.operating_point, found.notes) == ("", None, "", ())
    assert (found.model_hash, found.contract_version) == (fingerprint(saved()), 1)
    # "pad" puts 73 rows into the middle of a square of 100.
    for block, boxes in one.regions(pixels).items():
        x1, y1, x2, y2 = 100 * boxes[0].double().numpy()
        expected = [x1, np.clip(y1 - 13.5, 0, 73), x2, np.clip(y2 - 13.5, 0, 73)]
        np.testing.assert_allclose(found.regions[block], expected, atol=0.02)
    assert tuple(found.regions) == BLOCKS


def test_file_pixels_and_pillow_are_the_same_picture(predictor: Predictor) -> None:
    file = images()[0]
    image = Image.open(file)
    by_file, by_pixels, by_image, by_name = predictor.predict([file, np.array(image), image, str(file)])
    assert (by_file.source, by_pixels.source, by_image.source, by_name.source) == (str(file), "", "", str(file))
    for other in (by_pixels, by_image, by_name):
        np.testing.assert_array_equal(other.logits, by_file.logits)
        assert other.regions == by_file.regions
        assert other.size == by_file.size == (100, 70)


def test_a_list_keeps_its_order_for_any_batch_size(predictor: Predictor) -> None:
    alone = [predictor.predict(file).logits for file in images()]
    for batch_size in (1, 3, 32):
        found = predictor.predict(list(images()), batch_size=batch_size)
        assert [one.source for one in found] == [str(file) for file in images()]
        np.testing.assert_allclose([one.logits for one in found], alone, atol=1e-5, rtol=0)
    assert np.ptp(alone, axis=0).min() > 1e-3  # the pictures differ
    assert predictor.predict(images())[2].source == str(images()[2])  # a tuple
    assert predictor.predict([]) == []
    assert len(predictor.predict([images()[0]])) == 1


@pytest.mark.parametrize("kind", ["temperature", "platt", "isotonic"])
def test_a_calibration_changes_probabilities_alone(predictor: Predictor, kind: str) -> None:
    plain = predictor.predict(images()[0], operating_point="youden")
    found = predictor.predict(images()[0], operating_point="youden", calibration=kind)
    np.testing.assert_array_equal(found.probabilities, tuning().calibrations[kind].apply(found.logits[None])[0])
    assert np.abs(found.probabilities - plain.probabilities).max() > 1e-3
    np.testing.assert_array_equal(found.logits, plain.logits)
    assert found.decisions == plain.decisions
    assert found.calibration == kind
    assert f"No Finding is not calibrated by {kind}: no positives" in found.notes


def test_decisions_are_those_of_the_thresholds(predictor: Predictor) -> None:
    point = tuning().point("cost=3")
    decided = set()
    for found in predictor.predict(list(images()), operating_point="cost=3"):
        assert found.decisions is not None
        for p, limit, decision in zip(found.probabilities, point.thresholds, found.decisions, strict=True):
            assert decision is (None if limit is None else bool(p > limit))
            decided.add(decision)
        assert found.operating_point == "cost=3"
        assert found.notes == ("No Finding has no threshold at cost=3: no positives",)
    assert decided == {True, False, None}


def test_plain_json(predictor: Predictor) -> None:
    found = predictor.predict(images()[0], operating_point="youden", calibration="platt")
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["logits"]["Edema"] == pytest.approx(float(found.logits[5]))
    assert data["probabilities"]["Edema"] == found.probabilities[5]
    assert data["decisions"]["No Finding"] is None
    assert data["decisions"]["Edema"] is found.decisions[5]
    assert list(data["logits"]) == list(data["decisions"]) == list(CHEXPERT14)
    assert data["regions"]["stages.0.blocks.0"] == list(found.regions["stages.0.blocks.0"])
    assert (data["operating_point"], data["calibration"], data["size"]) == ("youden", "platt", [100, 70])
    assert data["model_hash"] == fingerprint(saved())


def test_what_the_model_does_not_have(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no operating point 'f1' .*there are: youden, cost=3"):
        predictor.predict(images()[0], operating_point="f1")
    with pytest.raises(ConfigError, match=r"no calibration 'beta' .*there are: temperature, platt, isotonic"):
        predictor.predict(images()[0], calibration="beta")
    untuned = open_predictor(save(classifier(), tmp_path / "model"))
    assert untuned.tuning == Tuning()
    with pytest.raises(ConfigError, match="there are: none"):
        untuned.predict(images()[0], operating_point="youden")


def test_a_bad_picture_is_named(predictor: Predictor, tmp_path: Path) -> None:
    good = np.array(Image.open(images()[0]))
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        predictor.predict([images()[0], tmp_path / "none.png"])
    with pytest.raises(DataError, match="picture 1 of the list, counting from 0, has pixels of type float64"):
        predictor.predict([good, good / 255], batch_size=1)
    with pytest.raises(DataError, match="the picture has pixels of type float64"):
        predictor.predict(good / 255)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        predictor.predict(good, batch_size=0)


@pytest.mark.parametrize("views", [["foo"], ["frontal", "top"], []])
def test_unknown_views_are_refused_of_any_picture(predictor: Predictor, views: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"views is .*; give some of frontal, lateral"):
        predictor.predict(images()[0], views=views)


def test_a_picture_that_cannot_be_padded_is_named(predictor: Predictor, tmp_path: Path) -> None:
    long = Image.new("L", (16, 9500))
    long.save(tmp_path / "long.png")
    with pytest.raises(DataError, match=r"long\.png: 16 x 9500 pixels would be padded to 9500 x 9500"):
        predictor.predict([images()[0], tmp_path / "long.png"])
    with pytest.raises(DataError, match=r"^the picture: 16 x 9500 pixels"):
        predictor.predict(long)


@pytest.mark.parametrize(
    "pixels",
    [pictures(1)[0], pictures(1).astype(np.float32), pictures(1)[:0], pictures(1)[..., :63], pictures(1)[:, 0]],
)
def test_scoring_takes_the_contracts_pixels_alone(predictor: Predictor, pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"pixels must be \(B, 1, 64, 64\) uint8 with B at least 1"):
        predictor.score(pixels)


def test_logits_that_are_not_finite_are_no_result(predictor: Predictor) -> None:
    def broken(pixels: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        return np.full((len(pixels), 14), np.nan, dtype=np.float32), {}

    broken.name = "broken"  # type: ignore[attr-defined]
    one = Predictor(broken, CHEXPERT14, Preprocess(size=64), Tuning(), "ab", {})  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match="not finite"):
        one.predict(images()[0])


def test_a_network_without_mxa_has_no_regions(tmp_path: Path) -> None:
    one = open_predictor(save(classifier("efficientvit_m0"), tmp_path / "model"))
    assert one.predict(images()[0]).regions == {}


PREDICT_WITHOUT = """
import sys
for name in ("torch", "timm", "torchvision", "pandas", "scipy", "matplotlib"):
    sys.modules[name] = None  # importing it fails, as if it were not installed
import json
from mxa.predictor import open_predictor
predictor = open_predictor(sys.argv[1], threads=1)
found = predictor.predict(sys.argv[2], operating_point="youden", calibration="isotonic")
print(json.dumps({"runtime": predictor.runtime.name, **found.to_dict()}))
"""


@pytest.mark.parametrize(("name", "runtime"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_without_torch(name: str, runtime: str) -> None:
    """Nor with pandas, scipy or matplotlib."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-c", PREDICT_WITHOUT, str(exported(name)), str(images()[0])]
    result = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found.pop("runtime") == runtime
    expected = open_predictor(exported(name)).predict(images()[0], operating_point="youden", calibration="isotonic")
    assert found["decisions"] == expected.to_dict()["decisions"]
    np.testing.assert_allclose(list(found["logits"].values()), expected.logits, atol=1e-5, rtol=0)


def test_a_saved_model_says_that_it_needs_torch() -> None:
    script = PREDICT_WITHOUT.replace("predictor = open", "open")
    arguments = [sys.executable, "-c", script, str(saved()), str(images()[0])]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert "ArtifactError" in result.stderr
    assert "needs torch, of which none is installed; `pip install 'mxa[train]'` brings it" in result.stderr


def test_what_the_model_says_is_used_unless_something_else_is_asked_for(predictor: Predictor) -> None:
    plain, said = predictor, replace(predictor, tuning=predictor.tuning.using("youden", "platt"))
    grey = np.random.default_rng(0).integers(0, 256, (90, 70)).astype(np.uint8)
    silent, asked, usual, refused = (
        plain.predict(grey),
        plain.predict(grey, operating_point="youden", calibration="platt"),
        said.predict(grey),
        said.predict(grey, operating_point="", calibration=""),
    )
    assert (silent.operating_point, silent.calibration, silent.decisions) == ("", "", None)
    assert (usual.operating_point, usual.calibration) == ("youden", "platt")
    assert usual.decisions == asked.decisions
    np.testing.assert_array_equal(usual.probabilities, asked.probabilities)
    assert not np.array_equal(usual.probabilities, silent.probabilities)
    assert refused.decisions is None
    np.testing.assert_array_equal(refused.probabilities, silent.probabilities)


@pytest.mark.parametrize(
    ("data", "views"),
    [
        ({"dataset": "chexpert", "views": []}, ("frontal", "lateral")),
        ({"dataset": "chexpert", "views": ["frontal"]}, ("frontal",)),
        ({"dataset": "chexpert", "views": [], "projections": []}, ("frontal", "lateral")),
        ({"dataset": "chexpert", "views": [], "projections": ["AP", "PA"]}, ("frontal",)),
        ({"dataset": "chexpert", "views": ["frontal", "lateral"], "projections": ["PA"]}, ("frontal",)),
        ({"dataset": "chexpert", "views": [], "projections": ["PA", "LL"]}, ("frontal", "lateral")),
        ({"dataset": "nih", "views": []}, ("frontal",)),
        (None, ("frontal",)),
    ],
)
def test_the_views_that_a_model_knows(
    predictor: Predictor, tmp_path: Path, data: dict[str, object] | None, views: tuple[str, ...]
) -> None:
    config = {} if data is None else {"training": {"config": {"data": data}}}
    known = replace(predictor, config=config)
    assert known.views == views
    file = tmp_path / "lateral.dcm"
    pixels = np.random.default_rng(0).integers(0, 4096, (64, 64)).astype(np.uint16)
    dicom_files.write(file, pixels, BitsStored=12, ViewPosition="LL", PatientOrientation=["A", "F"])
    if "lateral" in views:
        assert known.predict(file).findings == known.labels.findings
    else:
        with pytest.raises(DataError, match=r"its view is lateral"):
            known.predict(file)
