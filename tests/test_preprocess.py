"""The contract: exact pixels, exact geometry, strict reading."""

import numpy as np
import pytest
import torch
from PIL import Image

from mxa.errors import ConfigError, DataError
from mxa.preprocess import CONTRACT_VERSION, Preprocess


def gradient(width: int, height: int) -> np.ndarray:
    return np.add.outer(np.arange(height), np.arange(width)).astype(np.uint8)


def test_defaults_are_the_papers() -> None:
    contract = Preprocess()
    assert (contract.size, contract.fit, contract.interpolation) == (224, "squash", "bicubic")
    resized = contract.resize(gradient(120, 90))
    expected = np.asarray(Image.fromarray(gradient(120, 90)).resize((224, 224), Image.Resampling.BICUBIC))
    assert (resized == expected).all()


def test_crop_takes_the_central_square() -> None:
    wide = np.zeros((40, 100), np.uint8)
    wide[:, 30:70] = 200
    assert (Preprocess(size=20, fit="crop", interpolation="box").resize(wide) == 200).all()
    assert Preprocess(fit="crop").window(100, 40) == (30, 0, 70, 40)


def test_pad_keeps_everything_and_adds_black() -> None:
    wide = np.full((40, 80), 200, np.uint8)
    padded = Preprocess(size=16, fit="pad", interpolation="box").resize(wide)
    assert (padded[:4] == 0).all()
    assert (padded[4:12] == 200).all()
    assert (padded[12:] == 0).all()


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize(("width", "height"), [(300, 200), (200, 300), (256, 256)])
def test_a_mark_is_found_where_the_geometry_says(fit: str, width: int, height: int) -> None:
    picture = np.zeros((height, width), np.uint8)
    picture[90:110, 130:150] = 255
    contract = Preprocess(size=64, fit=fit, interpolation="box")
    ys, xs = np.nonzero(contract.resize(picture) > 127)
    box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) / 64
    found = contract.to_source(box, width, height)
    pixel = max(width, height) / 64
    assert np.abs(found - [130, 90, 150, 110]).max() <= pixel


@pytest.mark.parametrize("width", range(30, 40))
def test_the_window_of_a_padded_picture_is_where_it_lies(width: int) -> None:
    """Also where the margins cannot be equal: what is left and right of the picture is black."""
    contract = Preprocess(size=40, fit="pad")  # one pixel of the input is one of the picture
    seen = np.flatnonzero(contract.resize(np.full((40, width), 200, np.uint8)).any(axis=0))
    left, top, right, bottom = contract.window(width, 40)
    assert (seen[0], seen[-1] + 1) == (-left, width - left)
    assert (right - left, top, bottom) == (40, 0, 40)


def test_a_square_beyond_all_pictures_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    contract = Preprocess(size=16, fit="pad")
    contract.resize(np.zeros((16, 100), np.uint8))
    with pytest.raises(DataError, match=r"^a\.png: 101 x 16 pixels would be padded to 101 x 101, .* crop it, or"):
        contract.resize(np.zeros((16, 101), np.uint8), name="a.png")
    Preprocess(size=16).resize(np.zeros((16, 101), np.uint8))


@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_a_picture_that_ends_within_a_pixel(fit: str) -> None:
    """Of 21 columns and 31 rows a part of the last ones is none of the picture's 20.5 x 30.25."""
    grey = np.random.default_rng(0).integers(0, 256, (31, 21)).astype(np.uint8)
    contract = Preprocess(size=16, fit=fit)
    box = (0, 0, 20.5, 30.25) if fit == "squash" else (0, 4.875, 20.5, 25.375)
    expected = Image.fromarray(grey).resize((16, 16), Image.Resampling.BICUBIC, box=box)
    np.testing.assert_array_equal(contract.resize(grey, extent=(20.5, 30.25)), np.asarray(expected))


def test_a_padded_picture_is_whole() -> None:
    with pytest.raises(ValueError, match="decode it in full"):
        Preprocess(size=16, fit="pad").resize(np.zeros((31, 21), np.uint8), extent=(20.5, 30.25))


def test_pad_cuts_boxes_at_the_picture() -> None:
    whole = Preprocess(fit="pad").to_source(np.array([0.0, 0.0, 1.0, 1.0]), 100, 40)
    assert whole.tolist() == [0, 0, 100, 40]


def test_scaling_of_arrays_and_tensors() -> None:
    contract = Preprocess(mean=0.4, std=0.2)
    pixels = np.array([0.0, 51.0, 255.0])
    expected = (pixels / 255 - 0.4) / 0.2
    np.testing.assert_allclose(contract.scale(pixels), expected, atol=1e-12)
    np.testing.assert_allclose(contract.scale(torch.from_numpy(pixels)).numpy(), expected, atol=1e-12)


def test_reads_back_what_it_wrote() -> None:
    contract = Preprocess(size=320, fit="pad", interpolation="lanczos", wide_range="minmax", mean=0.1, std=0.9)
    assert Preprocess.from_dict(contract.to_dict()) == contract


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fit": "stretch"}, "preprocess.fit"),
        ({"interpolation": "nearest"}, "preprocess.interpolation"),
        ({"wide_range": "12"}, "preprocess.wide_range"),
        ({"size": 8}, "preprocess.size"),
        ({"std": 0.0}, "preprocess.std"),
        ({"std": "x"}, "preprocess.std is 'x'"),
        ({"std": None}, "preprocess.std"),
        ({"std": float("nan")}, "preprocess.std"),
        ({"std": float("inf")}, "preprocess.std"),
        ({"mean": "x"}, "preprocess.mean is 'x'"),
        ({"mean": float("nan")}, "preprocess.mean"),
        ({"mean": float("-inf")}, "preprocess.mean"),
        ({"mean": True}, "preprocess.mean"),
        ({"fit": ["pad"]}, "preprocess.fit"),
        ({"version": CONTRACT_VERSION + 1}, "version 2"),
        ({"gamma": 2.0}, "unknown .'gamma'"),
    ],
)
def test_what_the_contract_does_not_know_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Preprocess.from_dict({**Preprocess().to_dict(), **change})


def test_a_missing_field_is_refused() -> None:
    values = Preprocess().to_dict()
    del values["mean"]
    with pytest.raises(ConfigError, match=r"missing \['mean'\]"):
        Preprocess.from_dict(values)
