"""Read the headers of compressed streams, before a decoder believes them."""

from collections.abc import Iterator

_HUFFMAN, _FIRST_SCAN = 0xC4, 0xDA
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {_HUFFMAN, 0xC8, 0xCC}  # SOF0 to SOF15 of JPEG, SOF55 of JPEG-LS
_LOSSLESS = 0xC3
_HARMLESS = {0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}  # quantisation, restarts, comment, applications


class StreamError(Exception):
    """A compressed stream is not what it must be; the message says why, for use within a sentence."""


def jpeg_shape(stream: bytes) -> tuple[int, int, int]:
    """Rows, columns and components that a JPEG or JPEG-LS stream says (ISO/IEC 10918-1 B.2.2).

    Raises:
        StreamError: it says none, or more than once, or the stream is cut off: CharLS then reads on for seconds.
    """
    frames = [body for marker, body in _segments(stream) if marker in _FRAMES]
    if len(frames) != 1 or len(frames[0]) < 6:
        raise StreamError("its JPEG header is damaged")
    if stream.rfind(b"\xff\xd9") < stream.find(b"\xff\xda"):  # scans cannot contain the mark of the end
        raise StreamError("its JPEG stream is cut off")
    body = frames[0]
    return int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big"), body[5]


def j2k_shape(stream: bytes) -> tuple[int, int, int]:
    """Rows, columns and components that a JPEG 2000 stream says (ISO/IEC 15444-1 A.5.1).

    Raises:
        StreamError: it is no JPEG 2000 stream.
    """
    start = stream.find(b"\xff\x4f\xff\x51")
    size = stream[start + 8 : start + 42]
    if start < 0 or len(size) < 34:
        raise StreamError("it is no JPEG 2000")
    right, bottom, left, top = (int.from_bytes(size[at : at + 4], "big") for at in range(0, 16, 4))
    return bottom - top, right - left, int.from_bytes(size[32:34], "big")


def check_lossless_jpeg(stream: bytes, bits_allocated: int) -> None:
    """Refuse whatever libjpeg would warn of in the header of a lossless JPEG: GDCM then ends the whole process.

    Args:
        stream: one that :func:`jpeg_shape` accepts.
        bits_allocated: 8 or 16, the size of the samples that the caller expects.

    Raises:
        StreamError: GDCM must not see it.
    """
    seen = set()
    for marker, body in _segments(stream):
        seen.add(marker)
        if marker == _HUFFMAN:
            _check_huffman(body)
        elif marker == _LOSSLESS:
            well_formed = len(body) == 6 + 3 * body[5] and 2 <= body[0] <= bits_allocated
            if not well_formed or (body[0] <= 8) != (bits_allocated == 8):
                raise StreamError("its JPEG header does not fit to the file's")
        elif marker == _FIRST_SCAN:
            if len(body) != 4 + 2 * sum(body[:1]) or not {_HUFFMAN, _LOSSLESS} <= seen:
                raise StreamError("its JPEG header is damaged")
        elif marker not in _HARMLESS:
            raise StreamError("its JPEG header is damaged")


def _segments(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """The marker segments up to the first scan, as marker and content (ISO/IEC 10918-1 B.1)."""
    if stream[:2] != b"\xff\xd8":
        raise StreamError("it is no JPEG")
    position, marker = 2, 0
    while marker != _FIRST_SCAN:
        while stream[position : position + 2] == b"\xff\xff":  # fill bytes
            position += 1
        length = int.from_bytes(stream[position + 2 : position + 4], "big")
        body = stream[position + 4 : position + 2 + length]
        if stream[position : position + 1] != b"\xff" or length < 2 or len(body) != length - 2:
            raise StreamError("its JPEG header is damaged")
        marker = stream[position + 1]
        yield marker, body
        position += 2 + length


def _check_huffman(body: bytes) -> None:
    """Each table is its number, 16 counts and the values, at most 17 in a lossless JPEG (ISO/IEC 10918-1 B.2.4.2)."""
    while body:
        values = sum(body[1:17])
        if len(body) < 17 + values or values > 17:
            raise StreamError("its Huffman tables are damaged")
        body = body[17 + values :]
