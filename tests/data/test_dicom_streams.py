import numpy as np
import pytest

from mxa.data.dicom_streams import StreamError, check_lossless_jpeg, j2k_shape, jpeg_shape


def segment(marker, body):
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def frame(precision=8, rows=300, columns=200, components=1):
    sides = rows.to_bytes(2, "big") + columns.to_bytes(2, "big")
    return bytes([precision]) + sides + bytes([components]) + b"\1\x11\0" * components


HUFFMAN = b"\0" + bytes([0, 2, 3, *[0] * 13]) + bytes(range(5))
SCAN = bytes([1, 1, 0, 1, 0, 0])


def stream(*segments):
    return b"\xff\xd8" + b"".join(segments) + b"\x12\x34\xff\xd9"


GOOD = (segment(0xC4, HUFFMAN), segment(0xC3, frame()), segment(0xDA, SCAN))


class TestShape:
    @pytest.mark.parametrize("marker", [0xC0, 0xC1, 0xC2, 0xC3, 0xF7])
    def test_jpeg(self, marker):
        data = stream(segment(0xE0, b"JFIF"), b"\xff", segment(marker, frame(components=3)), segment(0xDA, SCAN))
        assert jpeg_shape(data) == (300, 200, 3)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"GIF89a",
            stream(segment(0xDA, SCAN)),
            stream(segment(0xC0, frame()), segment(0xC0, frame()), segment(0xDA, SCAN)),
            stream(segment(0xC0, frame()[:5]), segment(0xDA, SCAN)),
            stream(segment(0xC0, frame()), b"\0\0\0\0"),
            stream(segment(0xC0, frame())),
            stream(segment(0xC0, frame()), b"\xff\xe0\0\1"),
        ],
    )
    def test_no_jpeg(self, data):
        with pytest.raises(StreamError, match=r"it is no JPEG|its JPEG header is damaged"):
            jpeg_shape(data)

    def test_cut_off(self):
        with pytest.raises(StreamError, match="its JPEG stream is cut off"):
            jpeg_shape(stream(segment(0xE0, b"\xff\xd9"), *GOOD)[:-2])

    def test_j2k(self):
        sides = [700, 900, 100, 50, 64, 64, 0, 0]  # the picture's right, bottom, left and top; the tiles'
        size = b"\0\x29\0\0" + b"".join(side.to_bytes(4, "big") for side in sides) + b"\0\1\x0b\1\1"
        assert j2k_shape(b"\0\0\0\x0cjP  header" + b"\xff\x4f\xff\x51" + size) == (850, 600, 1)

    @pytest.mark.parametrize("data", [b"", b"\xff\x4f", b"\xff\x4f\xff\x51" + bytes(20)])
    def test_no_j2k(self, data):
        with pytest.raises(StreamError, match="it is no JPEG 2000"):
            j2k_shape(data)


class TestLosslessJpeg:
    @pytest.mark.parametrize(("precision", "allocated"), [(2, 8), (8, 8), (9, 16), (12, 16), (16, 16)])
    def test_good(self, precision, allocated):
        check_lossless_jpeg(
            stream(segment(0xFE, b"comment"), segment(0xC3, frame(precision)), segment(0xC4, HUFFMAN * 2), GOOD[2]),
            allocated,
        )

    @pytest.mark.parametrize(
        "segments",
        [
            (segment(0xAC, HUFFMAN), *GOOD[1:]),  # a marker of no meaning, where the Huffman table was
            GOOD[1:],
            (GOOD[0], GOOD[2]),
            (segment(0xC4, HUFFMAN[:-1]), *GOOD[1:]),
            (segment(0xC4, b"\0" + bytes([18, *[0] * 15]) + bytes(18)), *GOOD[1:]),
            (GOOD[0], segment(0xC3, frame() + b"\0"), GOOD[2]),
            (GOOD[0], segment(0xC3, frame(precision=12)), GOOD[2]),
            (GOOD[0], segment(0xC3, frame(precision=1)), GOOD[2]),
            (GOOD[0], segment(0xC0, frame()), GOOD[2]),
            (*GOOD[:2], segment(0xDA, SCAN[:-1])),
            (*GOOD[:2], segment(0xDA, b"")),
        ],
    )
    def test_bad(self, segments):
        check_lossless_jpeg(stream(*GOOD), 8)
        with pytest.raises(StreamError):
            check_lossless_jpeg(stream(*segments), 8)

    def test_any_change_of_the_header_gives_an_answer(self):
        good, rng = stream(*GOOD), np.random.default_rng(0)
        for _ in range(2000):
            data = bytearray(good)
            for place in rng.integers(len(data), size=int(rng.integers(1, 4))):
                data[place] = int(rng.integers(256))
            try:
                jpeg_shape(bytes(data))
                check_lossless_jpeg(bytes(data), 8)
            except StreamError:
                continue
