"""Take an upload into memory: nothing of it comes onto a disk, and what is too large is cut off while it arrives.

Starlette's own form parser puts files above 1 MiB into temporary files, so it is not used here.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Protocol

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from mxa.data.dicom import SUFFIXES
from mxa.serve.refusal import Refusal

FIELD = "file"
"""Name of the form's field."""
FORM, DICOM = "multipart/form-data", "application/dicom"
RAW = (DICOM, "image/png", "image/jpeg", "application/octet-stream")
"""Content types of a body that is the file itself."""

_LONGEST_BOUNDARY = 70  # RFC 2046 section 5.1.1
_FORM_OVERHEAD = 2**16  # bytes of a form besides its file
_MARKS = {"png": (0, b"\x89PNG\r\n\x1a\n"), "jpeg": (0, b"\xff\xd8\xff"), "dicom": (128, b"DICM")}


@dataclass(frozen=True)
class Upload:
    """One file.

    Attributes:
        data: all of it.
        kind: "png", "jpeg" or "dicom".
    """

    data: bytes = field(repr=False)
    kind: str


async def read_upload(
    headers: Mapping[str, str], chunks: AsyncIterator[bytes], max_bytes: int, hold: Callable[[int], None]
) -> Upload:
    """Read a request's body.

    Args:
        headers: of the request, by name in lower case.
        chunks: of the body.
        max_bytes: of the file.
        hold: called with the size of each chunk before it is kept; may raise a refusal.

    Raises:
        Refusal: 400 the form is damaged or lacks the file, 413 it is too large, 415 it is of no kind that is read.
    """
    media_type, parameters = parse_options_header(headers.get("content-type"))
    sink: _Sink
    if media_type == FORM.encode():
        sink, limit = _Form(parameters.get(b"boundary", b"")), max_bytes + _FORM_OVERHEAD
    elif media_type.decode("latin-1") in RAW:
        sink, limit = _Raw(told_dicom=media_type == DICOM.encode()), max_bytes
    else:
        raise Refusal(
            415,
            f"the content type is not supported; send {FORM} with the field {FIELD!r}, or the file alone as "
            f"{', '.join(RAW)}",
        )
    told = headers.get("content-length", "")
    received = int(told) if told.isdecimal() else 0
    if received <= limit:
        received = 0
        async for chunk in chunks:
            received += len(chunk)
            if received > limit:
                break
            hold(len(chunk))
            sink.write(chunk)
    if received > limit or len(sink.data) > max_bytes:
        raise Refusal(413, f"the upload is larger than {max_bytes} bytes, the most that this server takes")
    sink.finish()
    return Upload(bytes(sink.data), _kind(sink.data, told_dicom=sink.told_dicom))


class _Sink(Protocol):
    """Collects a file."""

    data: bytearray
    told_dicom: bool

    def write(self, chunk: bytes) -> None: ...

    def finish(self) -> None: ...


class _Raw:
    """The body is the file."""

    def __init__(self, *, told_dicom: bool) -> None:
        self.data = bytearray()
        self.told_dicom = told_dicom

    def write(self, chunk: bytes) -> None:
        self.data += chunk

    def finish(self) -> None:
        pass


class _Form:
    """A form with one field, the file (RFC 7578). Of the name that the sender gives it only the suffix is looked at."""

    def __init__(self, boundary: bytes) -> None:
        self.data = bytearray()
        self.told_dicom = False
        self._files = 0
        self._ended = False
        self._header, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        if not 0 < len(boundary) <= _LONGEST_BOUNDARY:
            raise _damaged()
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._on_header,
                "on_header_value": self._on_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._on_data,
                "on_end": self._end,
            },
        )

    def write(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise _damaged() from None

    def finish(self) -> None:
        if not self._ended:
            raise _damaged()
        if self._files != 1:
            raise Refusal(400, f"the form has no file; put one into the field {FIELD!r}")

    def _begin(self) -> None:
        self._headers = {}

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header, self._value = bytearray(), bytearray()

    def _end_headers(self) -> None:
        _, named = parse_options_header(self._headers.get(b"content-disposition"))
        media_type, _ = parse_options_header(self._headers.get(b"content-type"))
        self._files += 1
        if named.get(b"name") != FIELD.encode() or self._files > 1:
            raise Refusal(
                400, f"the form must have the field {FIELD!r}, once, and no other; options belong into the address"
            )
        suffix = PurePath(named.get(b"filename", b"").decode("latin-1")).suffix.lower()
        self.told_dicom = media_type == DICOM.encode() or suffix in SUFFIXES

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self.data += data[start:end]

    def _end(self) -> None:
        self._ended = True


def _damaged() -> Refusal:
    return Refusal(400, f"the form is damaged or cut off; send {FORM} with the field {FIELD!r}")


def _kind(data: bytearray, *, told_dicom: bool) -> str:
    """What a file is, by its first bytes; without any of the marks, DICOM without preamble if the sender says so."""
    if not data:
        raise Refusal(400, "the upload is empty")
    for kind, (start, mark) in _MARKS.items():
        if data[start : start + len(mark)] == mark:
            return kind
    if told_dicom:
        return "dicom"
    raise Refusal(415, "the upload is neither a PNG, a JPEG nor a DICOM file; export the radiograph as one of these")
