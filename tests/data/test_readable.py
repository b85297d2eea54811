"""A file in memory is read as the same file on the disk."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dicom_files import write
from mxa.data.dicom import is_dicom, read_dicom
from mxa.data.images import read_grey
from mxa.data.readable import name_of, opened
from mxa.errors import DataError

GREY = np.random.default_rng(0).integers(0, 256, (30, 40), dtype=np.uint8)


def encoded(suffix: str, **options: object) -> io.BytesIO:
    stream = io.BytesIO()
    Image.fromarray(GREY).save(stream, format=suffix, **options)
    return stream  # stands at its end


@pytest.mark.parametrize("suffix", ["png", "jpeg", "tiff", "bmp"])
def test_an_image(tmp_path: Path, suffix: str) -> None:
    stream = encoded(suffix)
    (tmp_path / "a").write_bytes(stream.getvalue())
    np.testing.assert_array_equal(read_grey(stream), read_grey(tmp_path / "a"))
    np.testing.assert_array_equal(read_grey(stream), read_grey(str(tmp_path / "a")))
    assert not stream.closed
    assert not is_dicom(stream)


def test_a_dicom_file(tmp_path: Path) -> None:
    stream = io.BytesIO(write(tmp_path / "a.dcm", GREY).read_bytes())
    assert is_dicom(stream)
    np.testing.assert_array_equal(read_dicom(stream).pixels, read_dicom(tmp_path / "a.dcm").pixels)
    assert not stream.closed


def test_a_dicom_file_without_preamble_is_read_but_not_recognised(tmp_path: Path) -> None:
    file = write(tmp_path / "a.dcm", GREY, preamble=False)
    stream = io.BytesIO(file.read_bytes())
    assert is_dicom(file)
    assert not is_dicom(stream)
    np.testing.assert_array_equal(read_dicom(stream).pixels, read_dicom(file).pixels)


@pytest.mark.parametrize("read", [read_grey, read_dicom])
@pytest.mark.parametrize("data", [b"", b"nothing", encoded("png").getvalue()[:200], bytes(200)])
def test_errors_call_it_the_picture(read: object, data: bytes) -> None:
    with pytest.raises(DataError, match=r"^the picture: "):
        read(io.BytesIO(data))  # type: ignore[operator]


def test_empty(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    for file in (io.BytesIO(), tmp_path / "a.png"):
        with pytest.raises(DataError, match="the file is empty"):
            read_grey(file)


def test_a_path_is_closed_and_a_stream_is_not(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with opened(tmp_path / "a") as stream:
        assert stream.read() == b"abc"
    assert stream.closed
    own = io.BytesIO(b"abc")
    own.read()
    with opened(own) as stream:
        assert stream.read() == b"abc"
    assert not own.closed
    assert (name_of(tmp_path / "a"), name_of("a//b")) == (str(tmp_path / "a"), "a/b")
