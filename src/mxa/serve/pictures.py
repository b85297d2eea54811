"""From an upload to pixels, and from pixels to what a browser shows."""

import base64
import io
from collections.abc import Collection

import numpy as np
import numpy.typing as npt
from PIL import Image

from mxa.data.dicom import pixel_aspect, read_dicom
from mxa.data.dicom_header import open_header
from mxa.data.images import DECODING_ERRORS, read_grey
from mxa.deploy.sources import Source
from mxa.errors import DataError
from mxa.preprocess import Preprocess
from mxa.serve.refusal import Refusal
from mxa.serve.upload import Upload

VIEW_SIDE = 1024
"""Pixels of a picture's longer side in a browser."""


def decode(upload: Upload, contract: Preprocess, max_pixels: int, *, views: Collection[str], force: bool) -> Source:
    """Decode an upload as a file of the same bytes.

    Args:
        upload: the file.
        contract: says what 16-bit pixels mean, and whether the picture is padded to a square.
        max_pixels: of the picture as it is stored, once its pixels are square, and padded; what has more is refused
            before its pixels are decoded.
        views: of DICOM files, those that are accepted.
        force: accept DICOM files that are no chest radiograph of these views; the notes say why they would be refused.

    Raises:
        Refusal: 413, it has too many pixels.
        DataError: it cannot be decoded or is refused; the message says why.
        ConfigError: a decoder is not installed.
    """
    stream = io.BytesIO(upload.data)
    stored, size = _dicom_pixels(stream) if upload.kind == "dicom" else _image_pixels(stream)
    _check_pixels(stored, size, contract, max_pixels)
    if upload.kind != "dicom":
        return Source(read_grey(stream, wide_range=contract.wide_range))
    return Source.of(read_dicom(stream, views=views, force=force))


def _check_pixels(stored: int, size: tuple[int, int], contract: Preprocess, max_pixels: int) -> None:
    """Refuse whatever would be held on the way to the network's input."""
    width, height = size
    held = {"": stored, " once its pixels are square": width * height}
    if contract.fit == "pad":
        held[" once it is padded to a square"] = max(size) ** 2
    for how, pixels in held.items():
        if pixels > max_pixels:
            raise Refusal(413, f"the picture has {pixels} pixels{how}; this server takes {max_pixels} at most")


def _image_pixels(stream: io.BytesIO) -> tuple[int, tuple[int, int]]:
    """Pixels, width and height as the header says.

    Pillow may try no other readers: some of them start programs or write files.
    """
    try:
        with Image.open(stream, formats=("PNG", "JPEG")) as image:
            return image.width * image.height, image.size
    except Image.DecompressionBombError:
        raise Refusal(413, "the picture has far more pixels than a radiograph") from None
    except DECODING_ERRORS as error:
        raise DataError("the picture cannot be decoded; its header is damaged, export the file again") from error


def _dicom_pixels(stream: io.BytesIO) -> tuple[int, tuple[int, int]]:
    """Pixels of all frames, width and height of one with square pixels; 0 where the header does not say it.

    The reader refuses such files.
    """
    header = open_header(stream)
    rows, columns, aspect = header.word("Rows") or 0, header.word("Columns") or 0, pixel_aspect(header)
    aspect = aspect if 0.1 <= aspect <= 10 else 1.0
    stored = rows * columns * int(header.number("NumberOfFrames") or 1)
    return stored, (round(columns * max(1 / aspect, 1.0)), round(rows * max(aspect, 1.0)))


def to_data_url(grey: npt.NDArray[np.uint8]) -> str:
    """A picture for a browser: a PNG file, at most :data:`VIEW_SIDE` pixels a side, as a data URL.

    Args:
        grey: (H, W) uint8.
    """
    image = Image.fromarray(grey)
    factor = min(1.0, VIEW_SIDE / max(image.size))
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    file = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(file, format="png", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
