"""Open a DICOM file and read the elements that the rest needs as plain values: text, numbers, 16-bit words, items.

Elements are taken as the bytes that stand in the file, so the outcome depends on no setting of pydicom, and only the
elements of :data:`ELEMENTS` are ever loaded. Names, birth dates and the numbers of patients and studies are not among
them: they cannot come into a message or a result.
"""

import math
import re
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from mxa.data.readable import Readable, name_of, opened
from mxa.errors import ConfigError, DataError

INSTALL = "pip install 'mxa[dicom]'"

ELEMENTS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "PresentationIntentType",
    "AnatomicRegionSequence",
    "BodyPartExamined",
    "ViewPosition",
    "ViewCodeSequence",
    "PatientOrientation",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "PixelSpacing",
    "PixelAspectRatio",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "RescaleIntercept",
    "RescaleSlope",
    "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "PresentationLUTSequence",
    "PresentationLUTShape",
    "PixelData",
)

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_SAFE_TEXT = re.compile(r"[A-Z0-9_ /\\-]{1,32}")
_UID = re.compile(r"[0-9.]{1,64}")


def pydicom_errors() -> tuple[type[Exception], ...]:
    """What pydicom and its decoders raise on damaged files: they check little, so it may be almost anything.

    To be caught only around calls into pydicom, so that no mistake of ours is taken for a damaged file.
    """
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (
        ArithmeticError,
        AssertionError,
        AttributeError,
        BytesLengthException,
        EOFError,
        InvalidDicomError,
        LookupError,
        MemoryError,
        OSError,
        RuntimeError,  # NotImplementedError and RecursionError among them
        TypeError,
        ValueError,
        Warning,  # where the user has made warnings errors
        struct.error,
    )


class Header:
    """Typed access to one data set or to one item of a sequence in it."""

    def __init__(self, name: str, dataset: Any) -> None:
        self.name = name
        self._dataset = dataset

    def error(self, message: str) -> DataError:
        """A DataError about this file."""
        return DataError(f"{self.name}: {message}")

    def damaged(self, keyword: str) -> DataError:
        """A DataError about an element whose value makes no sense. It does not quote the value."""
        return self.error(f"the element {keyword} is damaged; export the file again")

    def element(self, keyword: str) -> Any:
        """The element as pydicom read it, its value not converted, or None where it is absent or empty."""
        if keyword not in self._dataset:
            return None
        element = self._dataset.get_item(keyword, keep_deferred=True)
        return element if element.value else None

    def raw(self, keyword: str) -> bytes:
        """The bytes of the value, empty where the element is absent."""
        element = self.element(keyword)
        if element is None:
            return b""
        if not isinstance(element.value, bytes):
            raise self.damaged(keyword)
        return element.value

    def texts(self, keyword: str) -> tuple[str, ...]:
        """The values of a text element in upper case, without padding; () where it is absent or blank."""
        values = tuple(part.strip(" \0").upper() for part in self.raw(keyword).decode("ascii", "replace").split("\\"))
        return values if any(values) else ()

    def text(self, keyword: str) -> str:
        """The first value of a text element in upper case, or ""."""
        return next(iter(self.texts(keyword)), "")

    def uid(self, keyword: str) -> str:
        """A unique identifier, or "" where there is none or it is malformed."""
        value = self.text(keyword)
        return value if _UID.fullmatch(value) else ""

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """The values of a decimal or integer string (VR DS or IS); () where it is absent.

        Raises:
            DataError: one of them is no finite number.
        """
        try:
            values = tuple(float(text) for text in self.texts(keyword))
        except ValueError:
            raise self.damaged(keyword) from None
        if not all(math.isfinite(value) for value in values):
            raise self.damaged(keyword)
        return values

    def number(self, keyword: str) -> float | None:
        """The first value of a decimal or integer string, or None."""
        return next(iter(self.numbers(keyword)), None)

    def words(self, keyword: str) -> npt.NDArray[np.uint16]:
        """The value of a binary element (VR US, SS or OW) as unsigned 16-bit words; empty where it is absent.

        The sign is left to the caller: the standard ties it to other elements, whatever VR the file says.
        """
        value = self.raw(keyword)
        if len(value) % 2:
            raise self.damaged(keyword)
        little = not value or self.element(keyword).is_little_endian
        return np.frombuffer(value, dtype="<u2" if little else ">u2").astype(np.uint16)

    def word(self, keyword: str) -> int | None:
        """The value of a binary element (VR US or SS) as one unsigned number, or None."""
        words = self.words(keyword)
        if words.size > 1:
            raise self.damaged(keyword)
        return int(words[0]) if words.size else None

    def items(self, keyword: str) -> list["Header"]:
        """The items of a sequence; [] where it is absent."""
        import pydicom

        if self.element(keyword) is None:
            return []
        try:
            value = self._dataset[keyword].value
        except pydicom_errors() as error:
            raise self.damaged(keyword) from error
        if not isinstance(value, pydicom.Sequence):
            raise self.damaged(keyword)
        return [Header(self.name, item) for item in value]

    def transfer_syntax(self) -> str:
        """The UID that says how the pixels are encoded, or "" where the file does not say it."""
        try:
            value = str(self._dataset.file_meta.get("TransferSyntaxUID", "") or "")
        except pydicom_errors() as error:
            raise self.damaged("TransferSyntaxUID") from error
        if value and not _UID.fullmatch(value):
            raise self.damaged("TransferSyntaxUID")
        return value

    def encoding(self) -> tuple[bool, bool]:
        """Whether the elements are in implicit VR, and whether they are little-endian."""
        implicit, little = self._dataset.original_encoding
        return bool(implicit), bool(little)


def quote(text: str) -> str:
    """A value for a message, if it looks like the code that it should be: a damaged element may hold anything."""
    if not text:
        return "missing"
    return f"'{text}'" if _SAFE_TEXT.fullmatch(text) else "an unreadable value"


def open_header(file: Readable) -> Header:
    """Read the elements of a DICOM file, with or without preamble.

    Raises:
        ConfigError: pydicom is not installed.
        DataError: the file is missing, no DICOM file, deflated or damaged.
    """
    name = name_of(file)
    try:
        import pydicom
    except ImportError:
        raise ConfigError(f"{name}: DICOM files need pydicom; {INSTALL}") from None
    _refuse_deflated(file)
    try:
        with opened(file) as stream:
            header = Header(name, pydicom.dcmread(stream, force=True, specific_tags=list(ELEMENTS)))
        recognised = any(header.element(keyword) is not None for keyword in ("SOPClassUID", "Modality", "Rows"))
    except pydicom_errors() as error:
        raise DataError(
            f"{name}: cannot be read as DICOM ({type(error).__name__}); fetch or export the file again"
        ) from error
    if not recognised:
        raise DataError(f"{name}: not a DICOM file, or damaged; fetch or export the file again")
    return header


def _refuse_deflated(file: Readable) -> None:
    """Refuse before pydicom inflates it: a small file may grow to any size, and hardly a radiograph is deflated."""
    try:
        with opened(file) as stream:
            deflated = _DEFLATED in stream.read(4096)
    except FileNotFoundError:
        raise DataError(f"{name_of(file)}: no such file; check the root folder and the path in the table") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{name_of(file)}: cannot be opened ({reason}); check the path and its permissions") from error
    if deflated:
        raise DataError(f"{name_of(file)}: the deflated transfer syntax is not supported; export it uncompressed")
