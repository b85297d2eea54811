"""Decoding of every supported transfer syntax, and refusal before anything is decoded that should not be."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

pydicom = pytest.importorskip("pydicom")

from pydicom.encaps import encapsulate, get_frame  # noqa: E402
from pydicom.uid import (  # noqa: E402
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicom_files import save, write  # noqa: E402
from mxa.data import dicom_stored  # noqa: E402
from mxa.data.dicom import read_dicom  # noqa: E402
from mxa.data.dicom_header import open_header  # noqa: E402
from mxa.data.dicom_stored import read_stored  # noqa: E402
from mxa.errors import ConfigError, DataError  # noqa: E402

Y, X = np.mgrid[:40, :36]
U8 = (Y * 3 + X * 3).astype(np.uint8)
U12 = (Y * 60 + X * 40).astype(np.uint16)
U16 = (Y * 1000 + X * 700).astype(np.uint16)
S16 = (Y * 800 - X * 900).astype(np.int16)
DEPTHS = {"u8": (U8, 8), "u12": (U12, 12), "u16": (U16, 16), "s16": (S16, 16), "s12": (S16 // 16, 12)}
NATIVE = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]


def stored_values(path):
    return read_stored(open_header(path)).decode()


def compressed(path, pixels, syntax, *, stored=None, **options):
    """Compress with pydicom's own encoders."""

    def compress(dataset):
        dataset.compress(syntax, generate_instance_uid=False, **options)

    return write(path, pixels, BitsStored=stored or pixels.dtype.itemsize * 8, change=compress)


def encapsulated(path, pixels, syntax, *streams, **elements):
    """With streams that were compressed elsewhere."""

    def replace(dataset):
        dataset.PixelData = encapsulate(list(streams))
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax

    return write(path, pixels, change=replace, **elements)


def lossless_jpeg(pixels):
    """ISO/IEC 10918-1 annex H, predictor 1: the first value against half of the range, the first column against the
    one above, all else against the left. Categories 0 to 16 have codes of 5 bits."""
    bits = pixels.dtype.itemsize * 8
    values = pixels.astype(int)
    left = np.empty_like(values)
    left[:, 1:] = values[:, :-1]
    left[1:, 0] = values[:-1, 0]
    left[0, 0] = 2 ** (bits - 1)
    code = ""
    for difference in ((values - left + 32767) % 65536 - 32767).ravel().tolist():
        size = abs(difference).bit_length()
        extra = difference if difference >= 0 else difference + 2**size - 1
        code += f"{size:05b}" + (f"{extra:0{size}b}" if 0 < size < 16 else "")  # only 32768 is of category 16
    code += "1" * (-len(code) % 8)
    data = int(code, 2).to_bytes(len(code) // 8, "big").replace(b"\xff", b"\xff\x00")
    counts = bytes([0, 0, 0, 0, 17, *[0] * 11])
    frame = bytes([bits]) + b"".join(int(side).to_bytes(2, "big") for side in pixels.shape) + bytes([1, 1, 0x11, 0])
    segments = {0xC3: frame, 0xC4: b"\0" + counts + bytes(range(17)), 0xDA: bytes([1, 1, 0, 1, 0, 0])}
    head = b"".join(bytes([0xFF, kind]) + (len(body) + 2).to_bytes(2, "big") + body for kind, body in segments.items())
    return b"\xff\xd8" + head + data + b"\xff\xd9"


class TestNative:
    @pytest.mark.parametrize("depth", DEPTHS)
    @pytest.mark.parametrize("syntax", NATIVE)
    def test_every_depth(self, tmp_path, syntax, depth):
        pixels, stored = DEPTHS[depth]
        got = stored_values(write(tmp_path / "a.dcm", pixels, syntax=syntax, BitsStored=stored))
        np.testing.assert_array_equal(got, pixels)
        assert got.dtype == pixels.dtype  # in the machine's order

    def test_eight_bits_in_big_endian_words(self, tmp_path):
        def swap(dataset):
            swapped = np.frombuffer(U8.tobytes(), "<u2").astype(">u2").tobytes()
            dataset.add_new("PixelData", "OW", swapped)

        path = write(tmp_path / "a.dcm", U8, syntax=ExplicitVRBigEndian, change=swap)
        np.testing.assert_array_equal(stored_values(path), U8)

    def test_odd_number_of_bytes(self, tmp_path):
        pixels = U8[:17, :17]
        np.testing.assert_array_equal(stored_values(write(tmp_path / "a.dcm", pixels)), pixels)

    @pytest.mark.parametrize("syntax", NATIVE)
    def test_without_preamble(self, tmp_path, syntax):
        """And so without a transfer syntax: the elements tell it."""
        np.testing.assert_array_equal(stored_values(write(tmp_path / "a.dcm", U12, syntax=syntax, preamble=False)), U12)


class TestCompressed:
    @pytest.mark.parametrize("depth", DEPTHS)
    @pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.keyword)
    def test_lossless(self, tmp_path, syntax, depth):
        pixels, stored = DEPTHS[depth]
        if syntax == JPEGLSLossless and pixels.dtype.kind == "i":
            pytest.skip("pydicom does not encode it")
        path = compressed(tmp_path / "a.dcm", pixels, syntax, stored=stored)
        np.testing.assert_array_equal(stored_values(path), pixels)

    @pytest.mark.parametrize("depth", ["u8", "u12", "u16", "s16"])
    def test_lossless_jpeg(self, tmp_path, depth):
        pytest.importorskip("gdcm")
        pixels, stored = DEPTHS[depth]
        stream = lossless_jpeg(pixels.view(f"u{pixels.dtype.itemsize}"))
        path = encapsulated(tmp_path / "a.dcm", pixels, JPEGLosslessSV1, stream, BitsStored=stored)
        np.testing.assert_array_equal(stored_values(path), pixels)

    def test_near_lossless_jpeg_ls(self, tmp_path):
        path = compressed(tmp_path / "a.dcm", U12, JPEGLSNearLossless, stored=12, jls_error=3)
        got = stored_values(path).astype(int)
        assert 0 < np.abs(got - U12).max() <= 3

    @pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGExtended12Bit])
    def test_lossy_jpeg_of_eight_bits(self, tmp_path, syntax):
        buffer = io.BytesIO()
        Image.fromarray(U8).save(buffer, "JPEG", quality=90)
        path = encapsulated(tmp_path / "a.dcm", U8, syntax, buffer.getvalue())
        np.testing.assert_array_equal(stored_values(path), np.asarray(Image.open(buffer)))

    def test_colour_jpeg(self, tmp_path):
        rgb = np.stack([U8, U8[::-1], U8 // 2], axis=-1)
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, "JPEG", quality=95, subsampling=0)
        elements = {"PhotometricInterpretation": "YBR_FULL_422"}
        path = encapsulated(tmp_path / "a.dcm", rgb, JPEGBaseline8Bit, buffer.getvalue(), **elements)
        np.testing.assert_allclose(stored_values(path), np.asarray(Image.open(buffer)), atol=2)

    def test_first_of_several_frames(self, tmp_path):
        frames = np.stack([U12, U12[::-1]])
        path = write(
            tmp_path / "a.dcm",
            frames,
            frames=2,
            change=lambda dataset: dataset.compress(RLELossless, generate_instance_uid=False),
        )
        np.testing.assert_array_equal(stored_values(path), U12)

    def test_a_stream_in_fragments(self, tmp_path):
        whole = get_frame(pydicom.dcmread(compressed(tmp_path / "a.dcm", U8, JPEGLSLossless)).PixelData, 0)

        def split(dataset):
            dataset.PixelData = encapsulate([whole], fragments_per_frame=3)
            dataset["PixelData"].VR = "OB"
            dataset["PixelData"].is_undefined_length = True
            dataset.file_meta.TransferSyntaxUID = JPEGLSLossless

        np.testing.assert_array_equal(stored_values(write(tmp_path / "b.dcm", U8, change=split)), U8)


class TestMissingDecoders:
    def test_pydicom(self, tmp_path, monkeypatch):
        path = write(tmp_path / "a.dcm", U8)
        monkeypatch.setitem(sys.modules, "pydicom", None)
        with pytest.raises(ConfigError, match=r"a\.dcm: DICOM files need pydicom; pip install 'mxa\[dicom\]'"):
            read_dicom(path)

    def test_a_decoder(self, tmp_path, monkeypatch):
        path = compressed(tmp_path / "a.dcm", U8, JPEGLSLossless)
        monkeypatch.setitem(dicom_stored._DECODERS, "JPEGLSLossless", ("something-else",))
        with pytest.raises(ConfigError, match=r"a\.dcm: .*\(JPEG-LS.*need a decoder.*pip install 'mxa\[dicom\]'"):
            read_dicom(path)

    def test_every_supported_syntax_has_one(self):
        from pydicom.pixels import get_decoder
        from pydicom.pixels.decoders.base import _PIXEL_DATA_DECODERS

        names = {uid.keyword for uid in _PIXEL_DATA_DECODERS if uid.is_encapsulated}
        assert set(dicom_stored._DECODERS) == names
        for uid in _PIXEL_DATA_DECODERS:
            if uid.is_encapsulated:
                assert set(dicom_stored._DECODERS[uid.keyword]) & set(get_decoder(uid).available_plugins)

    def test_gdcm_decodes_only_what_is_checked_for_it(self):
        """It ends the process on damaged files."""
        for name, plugins in dicom_stored._DECODERS.items():
            assert "gdcm" not in plugins or name in dicom_stored._LOSSLESS_JPEG

    def test_twelve_bit_jpeg(self, tmp_path):
        decoder = pydicom.pixels.get_decoder(JPEGExtended12Bit)
        if "pylibjpeg" in decoder.available_plugins:
            pytest.skip("pylibjpeg-libjpeg is installed")
        path = encapsulated(tmp_path / "a.dcm", U12, JPEGExtended12Bit, lossless_jpeg(U12), BitsStored=12)
        with pytest.raises(DataError, match=r"a\.dcm: JPEG of 12 bits is not supported; export it uncompressed"):
            read_dicom(path)


class TestRefusedBeforeDecoding:
    def test_missing_file(self, tmp_path):
        with pytest.raises(DataError, match=r"none\.dcm: no such file; check the root folder"):
            read_dicom(tmp_path / "none.dcm")

    def test_folder(self, tmp_path):
        with pytest.raises(DataError, match=r"cannot be opened \(Is a directory\)"):
            read_dicom(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"<html>please log in</html>", b"\x89PNG\r\n\x1a\n" + bytes(300)])
    def test_no_dicom(self, tmp_path, content):
        (tmp_path / "a.dcm").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.dcm: .*(not a DICOM file|cannot be read as DICOM).* the file again"):
            read_dicom(tmp_path / "a.dcm")

    def test_no_pixels(self, tmp_path):
        path = write(tmp_path / "a.dcm", U8, Modality="SR", change=lambda dataset: dataset.pop("PixelData"))
        for force in (False, True):
            with pytest.raises(DataError, match=r"a\.dcm: has no pixel data \(modality 'SR'\); leave it out"):
                read_dicom(path, force=force)

    def test_deflated(self, tmp_path):
        path = write(tmp_path / "a.dcm", U8, syntax="1.2.840.10008.1.2.1.99")
        with pytest.raises(DataError, match=r"a\.dcm: the deflated transfer syntax is not supported"):
            read_dicom(path)

    def test_unknown_transfer_syntax(self, tmp_path):
        path = encapsulated(tmp_path / "a.dcm", U8, pydicom.uid.MPEG2MPML, b"\0" * 20)
        with pytest.raises(
            DataError,
            match=r"its transfer syntax 1\.2\.840\.10008\.1\.2\.4\.100 is not supported; export it uncompressed",
        ):
            read_dicom(path)

    @pytest.mark.parametrize(("shape", "accepted"), [((15, 40), False), ((40, 15), False), ((16, 16), True)])
    def test_too_small(self, tmp_path, shape, accepted):
        path = write(tmp_path / "a.dcm", np.arange(shape[0] * shape[1], dtype=np.uint16).reshape(shape))
        if accepted:
            assert read_dicom(path).pixels.shape == shape
        else:
            with pytest.raises(DataError, match=rf"only {shape[1]} x {shape[0]} pixels, at least 16 a side"):
                read_dicom(path)

    @pytest.mark.parametrize("elements", [{"Rows": 20000, "Columns": 20000}, {"NumberOfFrames": 10**6}])
    def test_too_large(self, tmp_path, elements):
        with pytest.raises(DataError, match=rf"more than {Image.MAX_IMAGE_PIXELS} pixels, far beyond any radiograph"):
            read_dicom(write(tmp_path / "a.dcm", U8, **elements), force=True)

    def test_no_limit(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        assert read_dicom(write(tmp_path / "a.dcm", U8)).pixels.shape == U8.shape

    @pytest.mark.parametrize(
        "keyword", ["Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation"]
    )
    def test_missing_element(self, tmp_path, keyword):
        def drop(dataset):
            del dataset[keyword]

        with pytest.raises(DataError, match=rf"a\.dcm: the element {keyword} is missing"):
            read_dicom(write(tmp_path / "a.dcm", U8, change=drop))

    @pytest.mark.parametrize(
        ("elements", "message"),
        [({"PhotometricInterpretation": "CMYK"}, r"PhotometricInterpretation 'CMYK' with 1 samples"),
         ({"PhotometricInterpretation": "RGB"}, r"PhotometricInterpretation 'RGB' with 1 samples"),
         ({"PhotometricInterpretation": None}, r"PhotometricInterpretation missing with 1 samples"),
         ({"SamplesPerPixel": 3}, r"PhotometricInterpretation 'MONOCHROME2' with 3 samples"),
         ({"BitsAllocated": 32}, r"16 bits in 32 are not supported"),
         ({"BitsAllocated": 12, "BitsStored": 12}, r"12 bits in 12 are not supported"),
         ({"BitsStored": 17}, r"17 bits in 16 are not supported"),
         ({"BitsStored": 12, "HighBit": 15}, r"HighBit is 15 but must be 11 \(PS3.5 section 8.1.1\)"),
         ({"PixelRepresentation": 2}, r"PixelRepresentation is damaged"),
         ({"NumberOfFrames": -2}, r"NumberOfFrames is damaged")],
    )  # fmt: skip
    def test_formats(self, tmp_path, elements, message):
        with pytest.raises(DataError, match=rf"a\.dcm: .*{message}"):
            read_dicom(write(tmp_path / "a.dcm", U12, **elements), force=True)

    def test_encapsulated_without_transfer_syntax(self, tmp_path):
        dataset = pydicom.dcmread(compressed(tmp_path / "a.dcm", U8, RLELossless))
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset["PixelData"].is_undefined_length = True
        path = save(tmp_path / "b.dcm", dataset, preamble=False)
        with pytest.raises(DataError, match=r"the element TransferSyntaxUID is missing"):
            read_dicom(path)


class TestDamagedPixels:
    @pytest.mark.parametrize("part", [0.3, 0.9, 0.999])
    def test_truncated_file(self, tmp_path, part):
        path = write(tmp_path / "a.dcm", U12)
        data = path.read_bytes()
        start = data.index(b"\xe0\x7f\x10\x00")
        path.write_bytes(data[: start + 12 + int((len(data) - start - 12) * part)])
        with pytest.raises(DataError, match=r"a\.dcm: the pixel data are truncated: \d+ bytes are missing"):
            read_dicom(path)

    @pytest.mark.parametrize("part", [0.05, 0.3, 0.9, 0.99])
    @pytest.mark.parametrize(
        "syntax",
        [RLELossless, JPEGLSLossless, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1],
        ids=lambda uid: uid.keyword,
    )
    def test_truncated_stream(self, tmp_path, syntax, part):
        if syntax == JPEGBaseline8Bit:
            buffer = io.BytesIO()
            Image.fromarray(U8).save(buffer, "JPEG")
            stream = buffer.getvalue()
        elif syntax == JPEGLosslessSV1:
            pytest.importorskip("gdcm")
            stream = lossless_jpeg(U8)
        else:
            stream = get_frame(pydicom.dcmread(compressed(tmp_path / "a.dcm", U8, syntax)).PixelData, 0).rstrip(b"\0")
        path = encapsulated(tmp_path / "b.dcm", U8, syntax, stream[: int(len(stream) * part)])
        with pytest.raises(DataError, match=r"b\.dcm: its pixels \(.*\) cannot be decoded: .* the file again"):
            read_dicom(path)

    @pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1], ids=lambda uid: uid.keyword)
    def test_stream_of_another_size(self, tmp_path, syntax):
        """A decoder would allocate what the stream says, or write beyond what the header says."""
        if syntax == JPEGLosslessSV1:
            stream = lossless_jpeg(U8)
        else:
            stream = get_frame(pydicom.dcmread(compressed(tmp_path / "a.dcm", U8, syntax)).PixelData, 0)
        path = encapsulated(tmp_path / "b.dcm", U8[:16], syntax, stream)
        with pytest.raises(DataError, match=r"the compressed picture is not of the size that the header says"):
            read_dicom(path)

    def test_no_stream(self, tmp_path):
        path = encapsulated(tmp_path / "b.dcm", U8, JPEGBaseline8Bit, b"no JPEG at all")
        with pytest.raises(DataError, match=r"cannot be decoded: it is no JPEG;"):
            read_dicom(path)
