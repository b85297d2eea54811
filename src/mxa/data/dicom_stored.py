"""The stored values of a DICOM image: what its header promises, checked, and the decoding of its first frame."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mxa.data.dicom_header import INSTALL, Header, pydicom_errors, quote
from mxa.data.dicom_streams import StreamError, check_lossless_jpeg, j2k_shape, jpeg_shape
from mxa.data.images import MIN_SIDE
from mxa.errors import ConfigError, DataError

GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_PALETTE = "PALETTE COLOR"

# The first that is installed decodes. GDCM ends the whole process on some damaged files, so it has only what nothing
# else in the extra can decode, and only after check_lossless_jpeg.
_DECODERS = {
    "JPEGBaseline8Bit": ("pillow",),
    "JPEGExtended12Bit": ("pylibjpeg", "pillow"),
    "JPEGLossless": ("pylibjpeg", "gdcm"),
    "JPEGLosslessSV1": ("pylibjpeg", "gdcm"),
    "JPEGLSLossless": ("pyjpegls", "pylibjpeg"),
    "JPEGLSNearLossless": ("pyjpegls", "pylibjpeg"),
    "JPEG2000Lossless": ("pylibjpeg", "pillow"),
    "JPEG2000": ("pylibjpeg", "pillow"),
    "HTJ2KLossless": ("pylibjpeg",),
    "HTJ2KLosslessRPCL": ("pylibjpeg",),
    "HTJ2K": ("pylibjpeg",),
    "RLELossless": ("pylibjpeg", "pydicom"),
}
_LOSSLESS_JPEG = ("JPEGLossless", "JPEGLosslessSV1")
_JPEG_2000 = ("JPEG2000Lossless", "JPEG2000", "HTJ2KLossless", "HTJ2KLosslessRPCL", "HTJ2K")

_IMPLICIT_LITTLE = "1.2.840.10008.1.2"
_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
_EXPLICIT_BIG = "1.2.840.10008.1.2.2"


@dataclass(frozen=True)
class Stored:
    """The Image Pixel module (PS3.3 C.7.6.3) of a file that can be decoded."""

    header: Header
    rows: int
    columns: int
    samples: int
    photometric: str
    planar: int
    frames: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    transfer_syntax: str
    data: bytes
    vr: str

    @property
    def grey(self) -> bool:
        """Whether it is MONOCHROME1 or MONOCHROME2."""
        return self.photometric in GREY

    @cached_property
    def decoder(self) -> Any:
        """pydicom's decoder of the transfer syntax."""
        from pydicom.pixels.decoders.base import get_decoder

        try:
            return get_decoder(self.transfer_syntax)
        except pydicom_errors() as error:
            raise self.header.error(
                f"its transfer syntax {self.transfer_syntax} is not supported; export it uncompressed"
            ) from error

    @property
    def expected_bytes(self) -> int:
        """What all frames take uncompressed, without the byte that pads an odd number."""
        count = self.rows * self.columns * self.samples * self.frames * self.bits_allocated // 8
        return count // 3 * 2 if self.photometric == "YBR_FULL_422" else count  # two of three samples, C.7.6.3.1.2

    @property
    def surplus(self) -> int:
        """Bytes of uncompressed pixel data beyond the expected ones; below 0 where some are missing."""
        if self.decoder.is_encapsulated:
            return 0
        difference = len(self.data) - self.expected_bytes
        return 0 if difference == self.expected_bytes % 2 else difference

    def decode(self) -> npt.NDArray[np.integer[Any]]:
        """The stored values of the first frame, in the machine's byte order.

        Unused high bits (old overlays among them) are cleared, or filled with the sign. Colour comes out as RGB.

        Returns:
            (H, W) of 8-bit or 16-bit integers; (H, W, 3) uint8 for colour other than PALETTE COLOR.

        Raises:
            ConfigError: no installed decoder knows the compression.
            DataError: the pixel data are truncated, damaged or not what the header says.
        """
        if self.surplus < 0:
            raise self.header.error(
                f"the pixel data are truncated: {-self.surplus} bytes are missing; fetch or export the file again"
            )
        options: dict[str, Any] = {
            "rows": self.rows,
            "columns": self.columns,
            "samples_per_pixel": self.samples,
            "photometric_interpretation": self.photometric,
            "planar_configuration": self.planar,
            "number_of_frames": self.frames,
            "bits_allocated": self.bits_allocated,
            "bits_stored": self.bits_stored,
            "pixel_representation": int(self.signed),
            "pixel_keyword": "PixelData",
            "pixel_vr": self.vr,
        }
        data = self.data
        if self.decoder.is_encapsulated:
            self._check_stream()
            options["decoding_plugin"] = self._plugin()
        elif self.surplus > 0:
            data = data[: self.expected_bytes + self.expected_bytes % 2]
        try:
            values, properties = self.decoder.as_array(data, index=0, **options)
        except pydicom_errors() as error:
            raise self._undecodable(type(error).__name__) from error
        if values.shape != (self.rows, self.columns, 3)[: 2 if self.samples == 1 else 3] or values.dtype.itemsize > 2:
            raise self._undecodable("the decoded pixels are not of the size that the header says")
        if self.samples == 3 and (values.dtype != np.uint8 or properties["photometric_interpretation"] != "RGB"):
            raise self.header.error("only colour of 8 bits is supported; export it in grey")
        return np.asarray(values, dtype=values.dtype.newbyteorder("="))

    def _undecodable(self, reason: str) -> DataError:
        return self.header.error(
            f"its pixels ({self.decoder.UID.name}) cannot be decoded: {reason}; fetch or export the file again"
        )

    def _plugin(self) -> str:
        name = self.decoder.UID.keyword
        installed = [plugin for plugin in _DECODERS[name] if plugin in self.decoder.available_plugins]
        if not installed:
            raise ConfigError(
                f"{self.header.name}: its pixels ({self.decoder.UID.name}) need a decoder that is not installed; "
                f"{INSTALL}"
            )
        if name == "JPEGExtended12Bit" and installed[0] == "pillow" and self.bits_allocated > 8:
            raise self.header.error(
                "JPEG of 12 bits is not supported; export it uncompressed, or install pylibjpeg-libjpeg, which reads it"
            )
        return installed[0]

    def _check_stream(self) -> None:
        """Compare the compressed stream's own header to the file's, before a decoder allocates what it says."""
        from pydicom.encaps import get_frame

        try:
            stream = get_frame(self.data, 0, number_of_frames=self.frames)
        except pydicom_errors() as error:
            raise self._undecodable(type(error).__name__) from error
        name = self.decoder.UID.keyword
        if name == "RLELossless":
            return
        try:
            found = j2k_shape(stream) if name in _JPEG_2000 else jpeg_shape(stream)
            if name in _LOSSLESS_JPEG:
                check_lossless_jpeg(stream, self.bits_allocated)
        except StreamError as error:
            raise self._undecodable(str(error)) from None
        if found != (self.rows, self.columns, self.samples):
            raise self._undecodable("the compressed picture is not of the size that the header says")


def read_stored(header: Header) -> Stored:
    """Check the elements that describe the pixels, without decoding them.

    Raises:
        DataError: there are no pixels, they are too small or too many, or not described well enough to be decoded.
    """
    element = header.element("PixelData")
    if element is None:
        raise header.error(
            f"has no pixel data (modality {quote(header.text('Modality'))}); leave it out of the list of images"
        )
    frames = header.number("NumberOfFrames") or 1.0
    stored = Stored(
        header=header,
        rows=_required(header, "Rows"),
        columns=_required(header, "Columns"),
        samples=_required(header, "SamplesPerPixel"),
        photometric=header.text("PhotometricInterpretation"),
        planar=header.word("PlanarConfiguration") or 0,
        frames=int(frames),
        bits_allocated=_required(header, "BitsAllocated"),
        bits_stored=_required(header, "BitsStored"),
        signed=_required(header, "PixelRepresentation") == 1,
        transfer_syntax=header.transfer_syntax() or _uncompressed(header, element),
        data=header.raw("PixelData"),
        vr=str(element.VR or "OW"),
    )
    if frames != stored.frames or frames < 1:
        raise header.damaged("NumberOfFrames")
    _check_size(stored)
    _check_format(stored)
    return stored


def _required(header: Header, keyword: str) -> int:
    value = header.word(keyword)
    if value is None:
        raise header.error(f"the element {keyword} is missing; export the file again")
    return value


def _uncompressed(header: Header, element: Any) -> str:
    """The transfer syntax of a file that names none; only uncompressed pixels can be told from its elements."""
    if element.length == 0xFFFFFFFF:
        raise header.error("the element TransferSyntaxUID is missing; export the file again")
    implicit, little = header.encoding()
    if implicit:
        return _IMPLICIT_LITTLE
    return _EXPLICIT_LITTLE if little else _EXPLICIT_BIG


def _check_size(stored: Stored) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and stored.rows * stored.columns * stored.frames > limit:
        raise stored.header.error(f"more than {limit} pixels, far beyond any radiograph; remove it or save it smaller")
    if min(stored.rows, stored.columns) < MIN_SIDE:
        raise stored.header.error(
            f"only {stored.columns} x {stored.rows} pixels, at least {MIN_SIDE} a side are needed; "
            "replace this placeholder by the real image"
        )


def _check_format(stored: Stored) -> None:
    header = stored.header
    samples = 3 if stored.photometric in _COLOURS else 1
    if stored.photometric not in (*GREY, *_COLOURS, _PALETTE) or stored.samples != samples:
        raise header.error(
            f"PhotometricInterpretation {quote(stored.photometric)} with {stored.samples} samples per pixel is not "
            "supported; export it as MONOCHROME2"
        )
    if stored.bits_allocated not in {8, 16} or not 1 <= stored.bits_stored <= stored.bits_allocated:
        raise header.error(
            f"{stored.bits_stored} bits in {stored.bits_allocated} are not supported; export it with 8 to 16 bits"
        )
    high_bit = header.word("HighBit")
    if high_bit is not None and high_bit != stored.bits_stored - 1:
        raise header.error(
            f"HighBit is {high_bit} but must be {stored.bits_stored - 1} (PS3.5 section 8.1.1), so it is uncertain "
            "which bits hold the pixels; export the file again"
        )
    if header.word("PixelRepresentation") not in {0, 1}:
        raise header.damaged("PixelRepresentation")
