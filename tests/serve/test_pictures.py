"""Of a picture what it will take is counted before it is decoded."""

import io
from typing import Any

import pytest

from deploy.small import pictures
from mxa.data.dicom import read_dicom
from mxa.data.images import read_grey
from mxa.preprocess import Preprocess
from mxa.serve.pictures import _dicom_pixels, _image_pixels, decode
from mxa.serve.refusal import Refusal
from mxa.serve.upload import Upload
from serve.serving import dicom, png

GREY = pictures(1, 90)[0, 0][:70]


@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"PixelAspectRatio": ["10", "1"]},
        {"PixelAspectRatio": ["1", "3"]},
        {"PixelSpacing": ["0.2", "0.1"], "PixelAspectRatio": ["10", "1"]},
        {"PixelSpacing": ["0", "0.1"], "ImagerPixelSpacing": ["0.1", "0.15"]},
        {"NominalScannedPixelSpacing": ["0.3", "0.1"]},
        {"PixelAspectRatio": ["7"]},
    ],
)
def test_the_size_of_a_dicom_file_is_the_one_that_it_is_read_to(elements: dict[str, Any]) -> None:
    data = dicom(GREY, **elements)
    height, width = read_dicom(io.BytesIO(data)).pixels.shape
    assert _dicom_pixels(io.BytesIO(data)) == (GREY.size, (width, height))


def test_the_size_of_a_png_is_the_one_that_it_is_read_to() -> None:
    height, width = read_grey(io.BytesIO(png(GREY))).shape
    assert _image_pixels(io.BytesIO(png(GREY))) == (GREY.size, (width, height))


@pytest.mark.parametrize("elements", [{"PixelAspectRatio": ["1", "99"]}, {"PixelSpacing": ["1e-200", "1e200"]}])
def test_pixels_that_are_no_radiographs_are_left_to_the_reader(elements: dict[str, Any]) -> None:
    assert _dicom_pixels(io.BytesIO(dicom(GREY, **elements))) == (GREY.size, (90, 70))


@pytest.mark.parametrize(("fit", "most"), [("squash", 90 * 70), ("crop", 90 * 70), ("pad", 90 * 90)])
def test_the_square_counts_where_a_picture_is_padded(fit: str, most: int) -> None:
    upload, contract = Upload(png(GREY), "png"), Preprocess(size=64, fit=fit)
    assert decode(upload, contract, most, views=("frontal",), force=False).size == (90, 70)
    with pytest.raises(Refusal) as refusal:
        decode(upload, contract, most - 1, views=("frontal",), force=False)
    assert refusal.value.status == 413
    assert refusal.value.reason.startswith(f"the picture has {most} pixels")
    assert refusal.value.reason.endswith(f"; this server takes {most - 1} at most")
