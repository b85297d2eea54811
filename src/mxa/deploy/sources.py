"""Take in one picture: a file, pixels or a Pillow image become 8-bit grey, and nothing about them is guessed."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mxa.data.dicom import Radiograph, is_dicom, read_dicom
from mxa.data.images import DECODING_ERRORS, MIN_SIDE, read_grey, upright
from mxa.errors import DataError
from mxa.preprocess import Preprocess

FRONTAL = ("frontal",)
_EIGHT_BIT = frozenset({"1", "L", "P", "RGB", "CMYK", "YCbCr"})


@dataclass(frozen=True)
class Source:
    """One picture as it came.

    Attributes:
        grey: (H, W) uint8.
        name: the file; "" for pixels and Pillow images.
        notes: what a reader of the prediction must know of the picture.
        sop_instance_uid: of a DICOM file that has one; else "".
    """

    grey: npt.NDArray[np.uint8]
    name: str = ""
    notes: tuple[str, ...] = ()
    sop_instance_uid: str = ""

    @classmethod
    def of(cls, radiograph: Radiograph, name: str = "") -> "Source":
        """What was read of a DICOM file; the reasons against it come first."""
        notes = (*radiograph.reservations, *radiograph.notes)
        return cls(radiograph.pixels, name, notes, radiograph.sop_instance_uid)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = self.grey.shape
        return width, height


def known_views(training: Mapping[str, Any]) -> tuple[str, ...]:
    """The views that a model was trained on, as far as its provenance tells; frontal where it does not.

    Projections that were chosen leave frontal pictures alone: lateral ones have none.

    Args:
        training: of the model's ``config.json``.
    """
    data = training.get("config", {}).get("data", {})
    if data.get("projections") and set(data["projections"]) <= {"AP", "PA"}:
        return FRONTAL
    if data.get("views"):
        return tuple(data["views"])
    return ("frontal", "lateral") if data.get("dataset") == "chexpert" else FRONTAL


def read_source(
    picture: object,
    contract: Preprocess,
    what: str = "the picture",
    *,
    views: Collection[str] = FRONTAL,
    force: bool = False,
) -> Source:
    """Read one picture.

    Args:
        picture: the path of an image or DICOM file; pixels (H, W) uint8, 0 black, 255 white, bone bright; or a Pillow
            image of 8 bits a channel.
        contract: says what 16-bit pixels mean.
        what: how messages call a picture that has no name, such as "picture 3 of the list".
        views: of DICOM files, those that are accepted, see :func:`mxa.data.dicom.read_dicom`.
        force: accept DICOM files that are no chest radiograph of these views; the notes say why they would be refused.

    Raises:
        DataError: it is none of these, or cannot be read; the message says how to convert it.
        ConfigError: a DICOM file needs a package that is not installed.
    """
    if isinstance(picture, str | Path):
        path = Path(picture)
        if is_dicom(path):
            return Source.of(read_dicom(path, views=views, force=force), str(path))
        return Source(read_grey(path, wide_range=contract.wide_range), str(path))
    if isinstance(picture, Image.Image):
        return Source(_from_pillow(picture, what))
    if isinstance(picture, np.ndarray):
        return Source(_from_pixels(picture, what))
    raise DataError(
        f"{what} is a {type(picture).__name__}; give a path, a NumPy array (H, W) of uint8 or a Pillow image"
    )


def _from_pillow(image: Image.Image, what: str) -> npt.NDArray[np.uint8]:
    """As :func:`mxa.data.images.read_grey` does for files of 8 bits a channel."""
    # Pillow keeps only the high byte of 16-bit colour; the file's own type shows until the pixels are loaded.
    wide = any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    try:
        plain = image.mode in _EIGHT_BIT and not wide and "transparency" not in image.info
        if not plain or getattr(image, "n_frames", 1) > 1:
            raise DataError(
                f"{what} is a Pillow image of mode {image.mode!r} that is not plainly 8-bit grey or colour; give the "
                "file's path instead, which mxa then decodes by the model's contract, or convert it to mode 'L'"
            )
        turned = upright(image)
    except DECODING_ERRORS as error:
        raise DataError(f"{what} cannot be decoded ({error}); fetch or export the file again") from error
    grey = turned if turned.mode in {"1", "L"} else turned.convert("RGB")
    return _large_enough(np.array(grey.convert("L"), dtype=np.uint8), what)


def _from_pixels(pixels: npt.NDArray[Any], what: str) -> npt.NDArray[np.uint8]:
    if pixels.dtype != np.uint8:
        raise DataError(
            f"{what} has pixels of type {pixels.dtype}, whose black and white are not known; scale them to 0..255 and "
            "give .astype(numpy.uint8)"
        )
    if pixels.ndim == 3 and pixels.shape[2] == 3 and (pixels == pixels[:, :, :1]).all():
        pixels = pixels[:, :, 0]
    if pixels.ndim != 2:
        raise DataError(
            f"{what} has shape {pixels.shape}; give one grey channel (H, W), or three equal ones (H, W, 3); colour "
            "must be made grey first, and several pictures go in a list"
        )
    return _large_enough(pixels, what)


def _large_enough(grey: npt.NDArray[np.uint8], what: str) -> npt.NDArray[np.uint8]:
    height, width = grey.shape
    if min(width, height) < MIN_SIDE:
        raise DataError(f"{what} has only {width} x {height} pixels, at least {MIN_SIDE} a side are needed")
    return grey
