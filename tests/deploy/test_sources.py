"""Pictures come in unchanged, or not at all."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dicom_files import write
from mxa.data.dicom import read_dicom
from mxa.data.images import read_grey
from mxa.deploy.sources import read_source
from mxa.errors import DataError
from mxa.preprocess import Preprocess

CONTRACT = Preprocess(size=64)
GREY = np.random.default_rng(0).integers(0, 256, (30, 40), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def test_a_file_is_read_by_the_contract(tmp_path: Path) -> None:
    wide = Image.fromarray(GREY.astype(np.uint16) * 100)
    wide.save(tmp_path / "wide.png")
    source = read_source(tmp_path / "wide.png", Preprocess(wide_range="minmax"))
    np.testing.assert_array_equal(source.grey, read_grey(tmp_path / "wide.png", wide_range="minmax"))
    assert source.name == str(tmp_path / "wide.png")
    assert source.size == (40, 30)
    with pytest.raises(DataError, match="nearly black"):
        read_source(str(tmp_path / "wide.png"), CONTRACT)


@pytest.mark.parametrize("pixels", [GREY, np.stack([GREY] * 3, axis=-1), GREY[::-1, ::2]])
def test_pixels_are_taken_as_they_are(pixels: np.ndarray) -> None:
    np.testing.assert_array_equal(read_source(pixels, CONTRACT).grey, pixels if pixels.ndim == 2 else GREY)


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1", "CMYK", "YCbCr"])
def test_a_pillow_image_is_read_as_its_file(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(COLOUR).convert(mode)
    file = tmp_path / "a.tif"
    image.save(file)
    np.testing.assert_array_equal(read_source(image, CONTRACT).grey, read_grey(file))
    with Image.open(file) as opened:
        np.testing.assert_array_equal(read_source(opened, CONTRACT).grey, read_grey(file))


def test_dicom_is_told_by_its_content(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    pixels = GREY.astype(np.uint16) * 16
    write(tmp_path / "a.png", pixels, ViewPosition="LL", PatientOrientation=None)
    with pytest.raises(DataError, match=r"a\.png: not taken as a chest radiograph"):
        read_source(tmp_path / "a.png", CONTRACT)
    source = read_source(tmp_path / "a.png", CONTRACT, views=("lateral",))
    np.testing.assert_array_equal(source.grey, read_dicom(tmp_path / "a.png", views=("lateral",)).pixels)
    forced = read_source(tmp_path / "a.png", CONTRACT, force=True)
    assert forced.notes[0] == read_dicom(tmp_path / "a.png", force=True).reservations[0]


def test_an_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        source = read_source(image, CONTRACT)
    np.testing.assert_array_equal(source.grey, read_grey(tmp_path / "a.png"))
    assert source.size == (30, 40)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (GREY / 255, r"type float64, whose black and white are not known; scale them to 0\.\.255"),
        (np.full((30, 40), np.nan), "type float64"),
        (GREY.astype(np.uint16), "type uint16"),
        (GREY > 100, "type bool"),
        (COLOUR, r"shape \(30, 40, 3\); give one grey channel"),
        (GREY[None], r"shape \(1, 30, 40\)"),
        (np.empty((0, 0), dtype=np.uint8), "only 0 x 0 pixels"),
        (GREY[:15], "only 40 x 15 pixels"),
        (Image.fromarray(GREY).convert("LA"), "mode 'LA'"),
        (Image.fromarray(GREY.astype(np.uint16)), "mode 'I;16'.*give the file's path"),
        (Image.fromarray(GREY.astype(np.float32)), "mode 'F'"),
        (Image.fromarray(GREY[:15]), "only 40 x 15 pixels"),
        (7, "is a int; give a path, a NumPy array"),
        (None, "is a NoneType"),
    ],
)
def test_what_would_have_to_be_guessed_is_refused(picture: object, message: str) -> None:
    with pytest.raises(DataError, match=f"(?s)^picture 3.*{message}"):
        read_source(picture, CONTRACT, "picture 3")


def test_a_damaged_pillow_image(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    with Image.open(tmp_path / "a.png") as image, pytest.raises(DataError, match="cannot be decoded"):
        read_source(image, CONTRACT)


def test_an_orientation_beside_an_odd_tag_is_applied(tmp_path: Path) -> None:
    entries = struct.pack("<HHI4s", 0x0122, 2, 4, b"abc\0") + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)
    Image.fromarray(GREY).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as image:
        stored = np.array(image)
        np.testing.assert_array_equal(read_source(image, CONTRACT).grey, np.rot90(stored, 3))


@pytest.mark.parametrize("error", [struct.error("odd"), TypeError("odd")])
@pytest.mark.parametrize("where", ["getexif", "n_frames"])
def test_what_pillow_makes_of_damaged_tags(
    where: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(image: Image.Image) -> None:
        raise error

    Image.fromarray(GREY).save(tmp_path / "a.tif")
    with Image.open(tmp_path / "a.tif") as image:
        monkeypatch.setattr(type(image), where, fail if where == "getexif" else property(fail))
        with pytest.raises(DataError, match=r"^picture 3 cannot be decoded \(odd\)"):
            read_source(image, CONTRACT, "picture 3")


def test_a_tiff_where_0_is_white(tmp_path: Path) -> None:
    """Pillow inverts 8 bits; it leaves 16 as they are, which the file's reader mends and nobody else can."""
    for name, pixels in (("a.tif", GREY), ("b.tif", GREY.astype(np.uint16) * 257)):
        Image.fromarray(pixels).save(tmp_path / name)
        data = bytearray((tmp_path / name).read_bytes())
        at = data.index(struct.pack("<HHI", 262, 3, 1)) + 8
        data[at : at + 2] = b"\0\0"
        (tmp_path / name).write_bytes(data)
        np.testing.assert_array_equal(read_source(tmp_path / name, CONTRACT).grey, 255 - GREY)
    with Image.open(tmp_path / "a.tif") as image:
        np.testing.assert_array_equal(read_source(image, CONTRACT).grey, 255 - GREY)
    with Image.open(tmp_path / "b.tif") as image, pytest.raises(DataError, match="give the file's path"):
        read_source(image, CONTRACT)
