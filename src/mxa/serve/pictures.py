"""From an upload to pixels, and from pixels to what a browser shows."""

import base64
import io
from collections.abc import Collection

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from mxa.data.dicom import read_dicom
from mxa.data.dicom_header import open_header
from mxa.data.images import read_grey
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
        contract: says what 16-bit pixels mean.
        max_pixels: of the picture; what has more is refused before its pixels are decoded.
        views: of DICOM files, those that are accepted.
        force: accept DICOM files that are no chest radiograph of these views; the notes say why they would be refused.

    Raises:
        Refusal: 413, it has too many pixels.
        DataError: it cannot be decoded or is refused; the message says why.
        ConfigError: a decoder is not installed.
    """
    stream = io.BytesIO(upload.data)
    pixels = _dicom_pixels(stream) if upload.kind == "dicom" else _image_pixels(stream)
    if pixels > max_pixels:
        raise Refusal(413, f"the picture has {pixels} pixels; this server takes {max_pixels} at most")
    if upload.kind != "dicom":
        return Source(read_grey(stream, wide_range=contract.wide_range))
    return Source.of(read_dicom(stream, views=views, force=force))


def _image_pixels(stream: io.BytesIO) -> int:
    """As the header says. Pillow may try no other readers: some of them start programs or write files."""
    try:
        with Image.open(stream, formats=("PNG", "JPEG")) as image:
            return image.width * image.height
    except Image.DecompressionBombError:
        raise Refusal(413, "the picture has far more pixels than a radiograph") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise DataError("the picture cannot be decoded; its header is damaged, export the file again") from error


def _dicom_pixels(stream: io.BytesIO) -> int:
    """As the header says; 0 where it does not, which the reader refuses."""
    header = open_header(stream)
    return (header.word("Rows") or 0) * (header.word("Columns") or 0) * int(header.number("NumberOfFrames") or 1)


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
