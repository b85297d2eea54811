"""Uploads that mean harm, or are broken: a clean refusal with a reason, and the server goes on."""

import asyncio
import io
import os
import struct
import sys
import zipfile
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGBaseline8Bit

from deploy.small import pictures
from mxa.predictor import Predictor
from mxa.serve.options import ServeOptions
from serve.serving import Site, dicom, encode, png, site

GREY = pictures(1, 90)[0, 0][:70]
PNG, JPEG, DICOM = png(GREY), encode(Image.fromarray(GREY), "jpeg"), dicom(GREY)

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:pydicom"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]


@pytest.fixture(scope="module")
def small(predictor: Predictor) -> Iterator[Site]:
    """Limits that are soon reached."""
    with site(predictor, ServeOptions(max_bytes=200_000, max_pixels=1_000_000)) as made:
        yield made


def png_header(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file of a size that its header says."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(bytes(10_000))), (b"IEND", b"")]
    made = b"\x89PNG\r\n\x1a\n"
    for name, data in parts:
        made += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return made


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", DICOM)
    return file.getvalue()


def nan_tiff() -> bytes:
    return encode(Image.fromarray(np.full((70, 90), np.nan, dtype=np.float32)), "tiff")


def nan_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.full((70, 90), np.nan))
    return file.getvalue()


def float_dicom() -> bytes:
    def to_float(dataset: Any) -> None:
        del dataset.PixelData
        dataset.FloatPixelData = np.full((70, 90), np.nan, dtype=np.float32).tobytes()

    return dicom(GREY, change=to_float)


def deflated_bomb() -> bytes:
    """A DICOM file that says it is deflated."""
    plain, deflated = ExplicitVRLittleEndian.encode() + b"\0", DeflatedExplicitVRLittleEndian.encode()
    at = DICOM.index(plain)
    length = struct.pack("<H", len(deflated))
    return DICOM[: at - 2] + length + deflated + zlib.compress(bytes(50_000_000), 9)


def lying_jpeg() -> bytes:
    """A DICOM file whose JPEG stream is larger than its header says."""

    def compress(dataset: Any) -> None:
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        dataset.PixelData = encapsulate([encode(Image.fromarray(np.tile(GREY, (4, 4))), "jpeg")])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True

    return dicom(GREY, change=compress)


HTML = b"<!DOCTYPE html><html><script>fetch('http://evil.example')</script></html>"
CASES = {
    "a PNG bomb of 100 megapixels": (png_header(10_000, 10_000), "a.png", 413, "100000000 pixels"),
    "a PNG bomb of 4 gigapixels": (png_header(65_000, 65_000), "a.png", 413, "more pixels than a radiograph"),
    "a PNG of many pixels": (png_header(1_001, 1_000), "a.png", 413, "this server takes 1000000 at most"),
    "a thin PNG that padding makes large": (png_header(30_000, 16), "a.png", 413, "900000000 pixels once it is padded"),
    "a text bomb in a PNG": (
        png_header(100, 100, (b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000), 9))),
        "a.png",
        422,
        "header is damaged",
    ),
    "a DICOM bomb": (dicom(GREY, Rows=60_000, Columns=60_000), "a.dcm", 413, "3600000000 pixels"),
    "a thin DICOM file": (dicom(GREY, Rows=2_000, Columns=16), "a.dcm", 413, "4000000 pixels once it is padded"),
    "a DICOM file of high pixels": (
        dicom(GREY, Rows=900, Columns=1_000, PixelAspectRatio=["10", "1"]),
        "a.dcm",
        413,
        "9000000 pixels once its pixels are square",
    ),
    "a DICOM file of many frames": (dicom(GREY, NumberOfFrames="99999999"), "a.dcm", 413, "pixels"),
    "a DICOM file of no frames": (dicom(GREY, NumberOfFrames="-3"), "a.dcm", 422, "NumberOfFrames is damaged"),
    "a deflated DICOM bomb": (
        deflated_bomb(),
        "a.dcm",
        422,
        "deflated transfer syntax is not supported",
    ),
    "a truncated DICOM file": (DICOM[:-3000], "a.dcm", 422, "truncated: 3000 bytes are missing"),
    "a DICOM file cut in its header": (DICOM[:200], "a.dcm", 422, "the picture: "),
    "a DICOM preamble alone": (DICOM[:132], "a.dcm", 422, "not a DICOM file, or damaged"),
    "a DICOM file that lies of its JPEG": (lying_jpeg(), "a.dcm", 422, "not of the size that the header says"),
    "a zip file named .dcm": (zipped(), "a.dcm", 422, "not a DICOM file, or damaged"),
    "an HTML file named .dcm": (HTML, "a.dcm", 422, "not a DICOM file, or damaged"),
    "an HTML file named .png": (HTML, "a.png", 415, "neither a PNG, a JPEG nor a DICOM file"),
    "a zip file": (zipped(), "a.zip", 415, "neither a PNG, a JPEG nor a DICOM file"),
    "a PostScript file": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 70\n", "a.png", 415, "neither a PNG"),
    "NaN pixels in a TIFF": (nan_tiff(), "a.png", 415, "neither a PNG"),
    "NaN pixels in an array": (nan_array(), "a.npy", 415, "neither a PNG"),
    "NaN pixels in DICOM": (float_dicom(), "a.dcm", 422, "has no pixel data"),
    "NaN as DICOM window": (
        dicom(GREY, WindowCenter="1.5", WindowWidth="2.5").replace(b"1.5 ", b"NaN "),
        "a.dcm",
        422,
        "WindowCenter is damaged",
    ),
    "nothing": (b"", "a.png", 400, "the upload is empty"),
    "a PNG mark alone": (PNG[:8], "a.png", 422, "cannot be decoded"),
    "a truncated PNG": (PNG[: len(PNG) // 2], "a.png", 422, "cannot be decoded"),
    "a truncated JPEG": (JPEG[: len(JPEG) // 2], "a.jpg", 422, "cannot be decoded"),
    "a PNG of one pixel": (png_header(1, 1), "a.png", 422, "at least 16 a side are needed"),
    "too many bytes": (PNG + bytes(200_000), "a.png", 413, "larger than 200000 bytes"),
}


@pytest.mark.parametrize("name", CASES)
def test_is_refused_with_a_reason_and_the_next_one_is_served(small: Site, name: str) -> None:
    data, file, status, reason = CASES[name]
    answer = small.predict(data, name=file)
    assert answer.status_code == status, answer.text
    assert reason in answer.json()["detail"]
    assert small.predict(PNG).status_code == 200
    assert (small.gate.requests, small.gate.held) == (0, 0)


@pytest.mark.parametrize(
    "name",
    [
        "../../../../etc/passwd",
        "/etc/cron.d/job",
        "C:\\Windows\\win.ini",
        "a\0.png",
        "<script>alert(1)</script>.png",
        "; rm -rf ~.png",
        "x" * 5000,
        "\N{SNOWMAN}.png",
        "",
    ],
)
def test_names_are_not_looked_at(small: Site, name: str) -> None:
    body = b'--B\r\nContent-Disposition: form-data; name="file"; filename="' + name.encode() + b'"\r\n\r\n'
    answer = small.ask(
        "POST",
        "/predict",
        content=body + PNG + b"\r\n--B--\r\n",
        headers={"content-type": "multipart/form-data; boundary=B"},
    )
    # Whether a form may hold such a name is the parser's to say; it never becomes a path and never comes back.
    assert answer.status_code in {200, 400}, answer.text
    if answer.status_code == 200:
        assert answer.json()["source"] == ""


PART = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + PNG


@pytest.mark.parametrize(
    ("content_type", "body", "status", "reason"),
    [
        ("multipart/form-data; boundary=B", PART + b"\r\n", 400, "damaged or cut off"),
        ("multipart/form-data; boundary=B", b"--B--\r\n", 400, "the form has no file"),
        ("multipart/form-data; boundary=B", b"", 400, "damaged or cut off"),
        ("multipart/form-data; boundary=C", PART + b"\r\n--B--\r\n", 400, "damaged or cut off"),
        ("multipart/form-data", PART + b"\r\n--B--\r\n", 400, "damaged or cut off"),
        ("multipart/form-data; boundary=" + "B" * 5000, PART, 400, "damaged or cut off"),
        ("multipart/form-data; boundary=B", PART + b"\r\n" + PART + b"\r\n--B--\r\n", 400, "once, and no other"),
        (
            "multipart/form-data; boundary=B",
            PART.replace(b'"file"', b'"image"') + b"\r\n--B--\r\n",
            400,
            "must have the field 'file'",
        ),
        ("multipart/form-data; boundary=B", b"--B\r\n\r\n" + PNG + b"\r\n--B--\r\n", 400, "must have the field 'file'"),
        ("multipart/form-data; boundary=B", b"--B\r\n" + b"a: b\r\n" * 9000, 400, "damaged or cut off"),
        ("application/json", b"{}", 415, "content type is not supported"),
        ("application/x-www-form-urlencoded", b"file=a", 415, "content type is not supported"),
        ("", PNG, 415, "content type is not supported"),
        ("image/png", b"", 400, "the upload is empty"),
    ],
)
def test_forms_that_are_none(small: Site, content_type: str, body: bytes, status: int, reason: str) -> None:
    answer = small.ask("POST", "/predict", content=body, headers={"content-type": content_type})
    assert answer.status_code == status, answer.text
    assert reason in answer.json()["detail"]
    assert small.predict(PNG).status_code == 200


@pytest.mark.parametrize("told", ["length", "nothing"])
@pytest.mark.parametrize("content_type", ["image/png", "multipart/form-data; boundary=B"])
def test_a_gigabyte_is_cut_off_early(small: Site, told: str, content_type: str) -> None:
    read = 0
    gigabyte = 2**30

    async def gigabyte_of_zeros() -> AsyncIterator[bytes]:
        nonlocal read
        yield PART if "multipart" in content_type else PNG
        while read < gigabyte:
            read += 2**16
            yield bytes(2**16)

    async def run() -> httpx.Response:
        headers = {"content-type": content_type}
        if told == "length":
            headers["content-length"] = str(gigabyte)
        async with small.client() as client:
            return await client.post("/predict", content=gigabyte_of_zeros(), headers=headers)

    answer = asyncio.run(run())
    assert answer.status_code == 413
    assert answer.json()["detail"] == "the upload is larger than 200000 bytes, the most that this server takes"
    assert answer.headers["connection"] == "close"
    # What it took, and what it threw away so that the client could see the answer.
    assert read <= 2 * 200_000 + 4 * 2**16
    assert small.predict(PNG).status_code == 200


@pytest.mark.parametrize("kind", ["png", "jpeg", "dcm"])
def test_random_damage_is_never_a_mistake_of_ours(small: Site, kind: str) -> None:
    data = {"png": PNG, "jpeg": JPEG, "dcm": DICOM}[kind]
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(120):
        damaged = bytearray(data)
        head = len(data) if rng.random() < 0.3 else min(len(data), 700)
        for at in rng.integers(0, head, rng.integers(1, 6)):
            damaged[at] = rng.integers(0, 256)
        if rng.random() < 0.2:
            del damaged[rng.integers(1, len(damaged)) :]
        answer = small.predict(bytes(damaged), name=f"a.{kind}")
        assert answer.status_code in {200, 413, 415, 422}, (answer.text, damaged.hex())
        seen.add(answer.status_code)
    assert len(seen) > 1


class Opened:
    """Notes every file that Python opens for writing or makes, while it is switched on."""

    EVENTS = ("os.mkdir", "os.rename", "os.link", "os.symlink", "tempfile.mkstemp", "tempfile.mkdtemp")

    def __init__(self) -> None:
        self.on = False
        self.seen: list[Any] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.seen.append(arguments)
        elif event in self.EVENTS:
            self.seen.append((event, *arguments))


@pytest.fixture(scope="session")
def opened() -> Opened:
    return Opened()


def test_the_watch_sees_files(opened: Opened, tmp_path: Any) -> None:
    import tempfile

    opened.seen.clear()
    opened.on = True
    with tempfile.SpooledTemporaryFile(max_size=10, dir=tmp_path) as file:
        file.write(bytes(11))
    opened.on = False
    assert opened.seen


def test_no_upload_comes_onto_a_disk(predictor: Predictor, opened: Opened) -> None:
    large = encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (1500, 1500), dtype=np.uint8)), "png")
    assert len(large) > 2 * 2**20  # starlette's own parser would put it into a file
    with site(predictor) as here:
        here.predict(PNG, "?view=1")  # whatever is imported or cached is by now
        opened.seen.clear()
        opened.on = True
        for data, name in ((large, "a.png"), (JPEG, "a.jpg"), (DICOM, "a.dcm"), (large[:-1000], "a.png")):
            here.predict(data, "?view=1", name=name)
            here.ask("POST", "/predict", content=data, headers={"content-type": "application/octet-stream"})
        opened.on = False
    assert not opened.seen
