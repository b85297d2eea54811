"""The grey of every pixel against a plain loop over the formulas of the standard."""

import math

import numpy as np
import pytest
from PIL import Image

pydicom = pytest.importorskip("pydicom")

from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing  # noqa: E402
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian  # noqa: E402

from dicom_files import lut_item, write  # noqa: E402
from mxa.data.dicom import read_dicom  # noqa: E402
from mxa.errors import DataError  # noqa: E402

H, W = 16, 20
RAMP = np.arange(H * W).reshape(H, W)
U8 = (RAMP % 256).astype(np.uint8)
U12 = (RAMP * 12 + 7).astype(np.uint16)  # up to 3835
U16 = (RAMP * 204 + 5).astype(np.uint16)  # up to 65081
S16 = (RAMP * 150 - 20000).astype(np.int16)


def window(x, center, width, function="LINEAR"):
    """PS3.3 C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2 with y from 0 to 1."""
    if function == "SIGMOID":
        return 1 / (1 + math.exp(min(-4 * (x - center) / width, 700)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if x <= center - width / 2:
        return 0.0
    return 1.0 if x > center + width / 2 else (x - center) / width + 0.5


def stretch(pixels, padding=()):
    kept = [int(x) for x in pixels.ravel() if int(x) not in padding]
    return lambda x: (x - min(kept)) / (max(kept) - min(kept))


def look_up(x, entries, first):
    return entries[min(max(x - first, 0), len(entries) - 1)]


def expected(pixels, brightness, *, inverse=False, padding=()):
    """Pixel for pixel; ``brightness`` maps a stored value to 0..1."""
    grey = np.zeros(pixels.shape, np.uint8)
    for row, column in np.ndindex(*pixels.shape):
        x = int(pixels[row, column])
        if x not in padding:
            y = brightness(x)
            grey[row, column] = round(255 * (1 - y if inverse else y))
    return grey


def check(path, want):
    got = read_dicom(path)
    assert got.pixels.dtype == np.uint8
    np.testing.assert_array_equal(got.pixels, want)
    assert got.reservations == ()
    return got


class TestWithoutWindow:
    @pytest.mark.parametrize(("pixels", "stored"), [(U8, 8), (U12, 12), (U16, 16), (S16, 16), (S16 // 16, 12)])
    def test_lowest_to_highest(self, tmp_path, pixels, stored):
        path = write(tmp_path / "a.dcm", pixels, BitsStored=stored)
        got = check(path, expected(pixels, stretch(pixels)))
        assert (got.pixels.min(), got.pixels.max()) == (0, 255)
        assert got.notes == ("no window and no VOI LUT: stretched from its lowest to its highest value",)

    def test_ten_bits(self, tmp_path):
        pixels = (RAMP * 3 + 11).astype(np.uint16)
        check(write(tmp_path / "a.dcm", pixels, BitsStored=10), expected(pixels, stretch(pixels)))

    def test_negative_slope_turns_the_scale(self, tmp_path):
        path = write(tmp_path / "a.dcm", U12, BitsStored=12, RescaleSlope="-2", RescaleIntercept="100")
        check(path, expected(U12, lambda x: 1 - stretch(U12)(x)))

    def test_constant(self, tmp_path):
        with pytest.raises(DataError, match=r"a\.dcm: all pixels come out as the same grey \(0\).*leave it out"):
            read_dicom(write(tmp_path / "a.dcm", np.full((H, W), 700, np.uint16)))


class TestWindow:
    @pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # pydicom's
    @pytest.mark.parametrize("inverse", [False, True])
    @pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
    @pytest.mark.parametrize(("center", "width"), [(2000, 3000), (2000.5, 1), (1203, 2), (40.25, 700.5), (-100, 9000)])
    def test_function(self, tmp_path, function, center, width, inverse):
        path = write(
            tmp_path / "a.dcm",
            U12,
            BitsStored=12,
            WindowCenter=str(center),
            WindowWidth=str(width),
            VOILUTFunction=function,
            PhotometricInterpretation="MONOCHROME1" if inverse else "MONOCHROME2",
        )
        got = check(path, expected(U12, lambda x: window(x, center, width, function), inverse=inverse))
        theirs = apply_windowing(U12, pydicom.dcmread(path)) / 4095  # pydicom's range is that of 12 bits
        np.testing.assert_allclose(got.pixels, 255 * (1 - theirs if inverse else theirs), rtol=0, atol=0.5 + 1e-9)

    def test_linear_is_the_default(self, tmp_path):
        path = write(tmp_path / "a.dcm", U12, WindowCenter="2000", WindowWidth="300")
        check(path, expected(U12, lambda x: window(x, 2000, 300)))

    def test_signed(self, tmp_path):
        path = write(tmp_path / "a.dcm", S16, WindowCenter="-5000", WindowWidth="20000")
        check(path, expected(S16, lambda x: window(x, -5000, 20000)))

    def test_first_of_several(self, tmp_path):
        path = write(tmp_path / "a.dcm", U12, WindowCenter=["900", "2000"], WindowWidth=["800", "10"])
        got = check(path, expected(U12, lambda x: window(x, 900, 800)))
        assert got.notes == ("the first of 2 windows",)

    def test_speaks_of_rescaled_values(self, tmp_path):
        path = write(
            tmp_path / "a.dcm", U12, RescaleSlope="0.5", RescaleIntercept="-1000", WindowCenter="0", WindowWidth="900"
        )
        check(path, expected(U12, lambda x: window(x * 0.5 - 1000, 0, 900)))

    def test_rounds_once(self, tmp_path):
        path = write(tmp_path / "a.dcm", U16, WindowCenter="32000", WindowWidth="60000", VOILUTFunction="LINEAR_EXACT")
        want = expected(U16, lambda x: window(x, 32000, 60000, "LINEAR_EXACT"))
        twice = expected(U16, lambda x: round(4095 * window(x, 32000, 60000, "LINEAR_EXACT")) / 4095)
        assert (want != twice).any()
        check(path, want)

    @pytest.mark.parametrize(
        ("function", "width", "accepted"),
        [("LINEAR", "0.5", False), ("LINEAR", "0", False), ("LINEAR", "1", True), ("LINEAR_EXACT", "0.5", True),
         ("LINEAR_EXACT", "0", False), ("SIGMOID", "0.5", True), ("SIGMOID", "-3", False)],
    )  # fmt: skip
    def test_smallest_width(self, tmp_path, function, width, accepted):
        path = write(tmp_path / "a.dcm", U12, WindowCenter="2000", WindowWidth=width, VOILUTFunction=function)
        if accepted:
            assert set(np.unique(read_dicom(path).pixels)) == {0, 255}
        else:
            with pytest.raises(DataError, match=r"a\.dcm: WindowWidth .* is too small for a " + function):
                read_dicom(path)

    def test_unknown_function(self, tmp_path):
        path = write(tmp_path / "a.dcm", U12, WindowCenter="2000", WindowWidth="9", VOILUTFunction="CUBIC")
        with pytest.raises(DataError, match=r"VOILUTFunction 'CUBIC' is unknown \(known: LINEAR"):
            read_dicom(path)

    @pytest.mark.parametrize("missing", ["WindowCenter", "WindowWidth"])
    def test_half_a_window(self, tmp_path, missing):
        elements = {"WindowCenter": "2000", "WindowWidth": "9", missing: None}
        with pytest.raises(DataError, match=r"only one of WindowCenter and WindowWidth"):
            read_dicom(write(tmp_path / "a.dcm", U12, **elements))

    def test_half_a_rescale(self, tmp_path):
        with pytest.raises(DataError, match=r"only one of RescaleSlope and RescaleIntercept"):
            read_dicom(write(tmp_path / "a.dcm", U12, RescaleSlope="2"))

    def test_beside_the_pixels(self, tmp_path):
        with pytest.raises(DataError, match=r"same grey \(255\)"):
            read_dicom(write(tmp_path / "a.dcm", U12, WindowCenter="-9000", WindowWidth="100"))

    def test_dark_outcome_is_noted(self, tmp_path):
        got = read_dicom(write(tmp_path / "a.dcm", U12, WindowCenter="20000", WindowWidth="40000"))
        assert got.notes == ("its window or VOI LUT reaches only the lower half of the range",)

    def test_not_a_number(self, tmp_path):
        def spoil(dataset):
            dataset["WindowCenter"]._value = "a lot"

        path = write(tmp_path / "a.dcm", U12, WindowCenter="20", WindowWidth="4", change=spoil)
        with pytest.raises(DataError, match=r"a\.dcm: the element WindowCenter is damaged"):
            read_dicom(path)

    def test_endless_rescale(self, tmp_path):
        path = write(tmp_path / "a.dcm", U12, RescaleSlope="1e307", RescaleIntercept="0")
        with pytest.raises(DataError, match=r"RescaleSlope is damaged"):
            read_dicom(path)


CURVE = [round(65535 * (i / 255) ** 2) for i in range(256)]


class TestLut:
    @pytest.mark.parametrize("inverse", [False, True])
    @pytest.mark.parametrize("vr", ["US", "OW"])
    def test_voi_lut(self, tmp_path, vr, inverse):
        path = write(
            tmp_path / "a.dcm",
            U12,
            VOILUTSequence=[lut_item(CURVE, first=500, vr=vr)],
            PhotometricInterpretation="MONOCHROME1" if inverse else "MONOCHROME2",
        )
        got = check(path, expected(U12, lambda x: look_up(x, CURVE, 500) / 65535, inverse=inverse))
        if vr == "OW":
            theirs = apply_voi_lut(U12, pydicom.dcmread(path)) / 65535
            np.testing.assert_allclose(got.pixels, 255 * (1 - theirs if inverse else theirs), rtol=0, atol=0.5 + 1e-9)

    def test_the_first_lut_is_taken_and_before_a_window(self, tmp_path):
        path = write(
            tmp_path / "a.dcm",
            U12,
            VOILUTSequence=[lut_item(CURVE, first=500), lut_item(CURVE[::-1])],
            WindowCenter="9",
            WindowWidth="2",
        )
        got = check(path, expected(U12, lambda x: look_up(x, CURVE, 500) / 65535))
        assert got.notes == ("the first of 2 VOI LUTs",)

    @pytest.mark.parametrize("bits", [8, 10, 12])
    def test_fewer_bits_in_words(self, tmp_path, bits):
        entries = [round((2**bits - 1) * i / 255) for i in range(256)]
        path = write(tmp_path / "a.dcm", U8, VOILUTSequence=[lut_item(entries, bits=bits)])
        check(path, expected(U8, lambda x: entries[x] / (2**bits - 1)))

    @pytest.mark.parametrize("count", [256, 201])
    @pytest.mark.parametrize("syntax", [None, ExplicitVRBigEndian, ImplicitVRLittleEndian])
    def test_eight_bits_in_bytes(self, tmp_path, count, syntax):
        entries = [255 - i // 2 for i in range(count)]
        item = lut_item(entries, bits=8, packed=True)
        if syntax == ExplicitVRBigEndian:  # words are swapped, PS3.5 section 7.3
            item["LUTData"].value = np.frombuffer(item.LUTData, "<u2").astype(">u2").tobytes()
        path = write(tmp_path / "a.dcm", U8, VOILUTSequence=[item], **({"syntax": syntax} if syntax else {}))
        check(path, expected(U8, lambda x: look_up(x, entries, 0) / 255))

    @pytest.mark.parametrize(("syntax", "little"), [(ExplicitVRBigEndian, False), (ImplicitVRLittleEndian, True)])
    def test_byte_order(self, tmp_path, syntax, little):
        path = write(tmp_path / "a.dcm", U12, syntax=syntax, VOILUTSequence=[lut_item(CURVE, little=little)])
        check(path, expected(U12, lambda x: look_up(x, CURVE, 0) / 65535))

    @pytest.mark.parametrize("descriptor_vr", ["SS", "US"])
    def test_signed_first_value(self, tmp_path, descriptor_vr):
        """The sign follows the pixels: a US descriptor of signed pixels says 65336 and means -200."""
        first = -200 if descriptor_vr == "SS" else 65336
        pixels = (RAMP - 250).astype(np.int16)
        path = write(
            tmp_path / "a.dcm",
            pixels,
            VOILUTSequence=[lut_item(CURVE, first=first, descriptor_vr=descriptor_vr)],
        )
        check(path, expected(pixels, lambda x: look_up(x, CURVE, -200) / 65535))

    def test_high_first_value_of_unsigned_pixels(self, tmp_path):
        path = write(tmp_path / "a.dcm", U16, VOILUTSequence=[lut_item(CURVE, first=60000)])
        check(path, expected(U16, lambda x: look_up(x, CURVE, 60000) / 65535))

    def test_negative_first_value_after_a_rescale(self, tmp_path):
        path = write(
            tmp_path / "a.dcm",
            U12,
            RescaleSlope="1",
            RescaleIntercept="-1000",
            VOILUTSequence=[lut_item(CURVE, first=-100)],
        )
        check(path, expected(U12, lambda x: look_up(x - 1000, CURVE, -100) / 65535))

    def test_full_table(self, tmp_path):
        entries = [65535 - i for i in range(65536)]
        path = write(tmp_path / "a.dcm", U16, VOILUTSequence=[lut_item(entries)])
        check(path, expected(U16, lambda x: (65535 - x) / 65535))

    def test_modality_lut_before_the_window(self, tmp_path):
        path = write(
            tmp_path / "a.dcm",
            U12,
            ModalityLUTSequence=[lut_item(CURVE, first=300)],
            WindowCenter="30000",
            WindowWidth="40000",
        )
        got = check(path, expected(U12, lambda x: window(look_up(x, CURVE, 300), 30000, 40000)))
        theirs = apply_windowing(apply_modality_lut(U12, dataset := pydicom.dcmread(path)), dataset) / 65535
        np.testing.assert_allclose(got.pixels, 255 * theirs, rtol=0, atol=0.5 + 1e-9)

    def test_modality_lut_of_signed_pixels_then_voi_lut(self, tmp_path):
        pixels = (RAMP - 250).astype(np.int16)
        entries = list(range(0, 512, 2))
        path = write(
            tmp_path / "a.dcm",
            pixels,
            ModalityLUTSequence=[lut_item(entries, first=-200)],
            VOILUTSequence=[lut_item(CURVE, first=100)],
        )
        check(path, expected(pixels, lambda x: look_up(look_up(x, entries, -200), CURVE, 100) / 65535))

    @pytest.mark.parametrize(
        ("item", "element"),
        [
            (lambda: lut_item(CURVE, bits=12), "LUTData"),  # entries of 16 bits
            (lambda: lut_item(CURVE, bits=32), "LUTDescriptor"),
            (lambda: lut_item(CURVE, bits=0), "LUTDescriptor"),
            (pydicom.Dataset, "LUTDescriptor"),
        ],
    )
    @pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
    def test_damaged(self, tmp_path, sequence, item, element):
        with pytest.raises(DataError, match=rf"a\.dcm: the element {element} is damaged"):
            read_dicom(write(tmp_path / "a.dcm", U12, **{sequence: [item()]}))

    def test_too_few_entries(self, tmp_path):
        item = lut_item(CURVE)
        item["LUTData"].value = item.LUTData[:-2]
        with pytest.raises(DataError, match=r"LUTData is damaged"):
            read_dicom(write(tmp_path / "a.dcm", U12, VOILUTSequence=[item]))


class TestInversion:
    @pytest.mark.parametrize(
        ("photometric", "shape", "inverse"),
        [
            ("MONOCHROME2", None, False),
            ("MONOCHROME2", "IDENTITY", False),
            ("MONOCHROME1", None, True),
            ("MONOCHROME1", "INVERSE", True),  # the same fact twice: inverted once
        ],
    )
    def test_once_and_only_once(self, tmp_path, photometric, shape, inverse):
        path = write(
            tmp_path / "a.dcm",
            U12,
            WindowCenter="2000",
            WindowWidth="3000",
            PhotometricInterpretation=photometric,
            PresentationLUTShape=shape,
        )
        check(path, expected(U12, lambda x: window(x, 2000, 3000), inverse=inverse))

    @pytest.mark.parametrize(
        ("photometric", "shape", "inverse"), [("MONOCHROME1", "IDENTITY", True), ("MONOCHROME2", "INVERSE", False)]
    )
    def test_contradiction(self, tmp_path, photometric, shape, inverse):
        path = write(
            tmp_path / "a.dcm",
            U12,
            WindowCenter="2000",
            WindowWidth="3000",
            PhotometricInterpretation=photometric,
            PresentationLUTShape=shape,
        )
        with pytest.raises(DataError, match=rf"PresentationLUTShape '{shape}' contradicts {photometric}.*--force"):
            read_dicom(path)
        got = read_dicom(path, force=True)
        np.testing.assert_array_equal(got.pixels, expected(U12, lambda x: window(x, 2000, 3000), inverse=inverse))
        assert len(got.reservations) == 1


class TestPadding:
    @pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
    def test_one_value_is_black_and_outside_of_the_stretch(self, tmp_path, photometric):
        pixels = U12.copy()
        pixels[:3] = 4095
        path = write(
            tmp_path / "a.dcm", pixels, BitsStored=12, PixelPaddingValue=4095, PhotometricInterpretation=photometric
        )
        want = expected(pixels, stretch(pixels, [4095]), inverse=photometric == "MONOCHROME1", padding=[4095])
        assert want[3:].max() == 255
        check(path, want)

    @pytest.mark.parametrize(("first", "last"), [(100, 163), (163, 100)])
    def test_range(self, tmp_path, first, last):
        path = write(tmp_path / "a.dcm", U12, PixelPaddingValue=first, PixelPaddingRangeLimit=last)
        padding = range(100, 164)
        check(path, expected(U12, stretch(U12, padding), padding=padding))

    @pytest.mark.parametrize("value", [-20000, 45536])  # the same word, as SS and as US
    def test_signed(self, tmp_path, value):
        path = write(tmp_path / "a.dcm", S16, PixelPaddingValue=value)
        check(path, expected(S16, stretch(S16, [-20000]), padding=[-20000]))

    def test_is_compared_before_the_rescale(self, tmp_path):
        """Stored values are 7, 19, 31...; rescaled, 7 would become 19."""
        path = write(tmp_path / "a.dcm", U12, RescaleSlope="1", RescaleIntercept="12", PixelPaddingValue=19)
        check(path, expected(U12, stretch(U12, [19]), padding=[19]))

    def test_outside_of_the_pixels_is_noted(self, tmp_path):
        got = read_dicom(write(tmp_path / "a.dcm", U12, BitsStored=12, PixelPaddingValue=65535))
        assert got.notes[0] == "PixelPaddingValue lies outside of the pixels' 12 bits and masks nothing"

    def test_nothing_else(self, tmp_path):
        with pytest.raises(DataError, match=r"a\.dcm: all pixels are padding"):
            read_dicom(write(tmp_path / "a.dcm", U12, PixelPaddingValue=0, PixelPaddingRangeLimit=65535))

    def test_limit_alone(self, tmp_path):
        with pytest.raises(DataError, match=r"PixelPaddingRangeLimit without PixelPaddingValue"):
            read_dicom(write(tmp_path / "a.dcm", U12, PixelPaddingRangeLimit=9))


class TestHighBits:
    GARBAGE = (np.random.default_rng(0).integers(0, 16, (H, W)) << 12).astype(np.uint16)

    @pytest.mark.parametrize("syntax", [None, ExplicitVRBigEndian])
    def test_are_ignored(self, tmp_path, syntax):
        """An old overlay, say, in the bits above the stored ones."""
        options = {"syntax": syntax} if syntax else {}
        path = write(tmp_path / "a.dcm", U12 | self.GARBAGE, BitsStored=12, PixelPaddingValue=7, **options)
        check(path, expected(U12, stretch(U12, [7]), padding=[7]))

    def test_are_the_sign_of_signed_pixels(self, tmp_path):
        pixels = (RAMP * 12 - 2000).astype(np.int16)
        spoilt = ((pixels.view(np.uint16) & 0x0FFF) | self.GARBAGE).view(np.int16)
        check(write(tmp_path / "a.dcm", spoilt, BitsStored=12), expected(pixels, stretch(pixels)))

    def test_overlay_planes_leave_no_trace(self, tmp_path):
        def overlay(dataset):
            dataset.add_new(0x60000010, "US", H)
            dataset.add_new(0x60000011, "US", W)
            dataset.add_new(0x60000040, "CS", "G")
            dataset.add_new(0x60000100, "US", 1)
            dataset.add_new(0x60000102, "US", 0)
            dataset.add_new(0x60003000, "OW", b"\xff" * (H * W // 8))

        check(write(tmp_path / "a.dcm", U12, change=overlay), expected(U12, stretch(U12)))


class TestColour:
    RGB = np.stack([U8, U8[::-1], U8 // 3], axis=-1)

    def test_luma_as_of_other_images(self, tmp_path):
        path = write(tmp_path / "a.dcm", self.RGB)
        with pytest.raises(DataError, match=r"it is in colour \(RGB\), of which only the luma is read; .*--force"):
            read_dicom(path)
        got = read_dicom(path, force=True)
        np.testing.assert_array_equal(got.pixels, np.asarray(Image.fromarray(self.RGB).convert("L")))
        assert got.reservations == ("it is in colour (RGB), of which only the luma is read",)

    def test_planes(self, tmp_path):
        path = write(
            tmp_path / "a.dcm", self.RGB, PlanarConfiguration=1, PixelData=self.RGB.transpose(2, 0, 1).tobytes()
        )
        got = read_dicom(path, force=True)
        np.testing.assert_array_equal(got.pixels, np.asarray(Image.fromarray(self.RGB).convert("L")))

    def test_palette(self, tmp_path):
        red, green, blue = ([i * 257 for i in range(256)][::step] * abs(step) for step in (1, -1, 2))

        def palette(dataset):
            for name, entries in (("Red", red), ("Green", green), ("Blue", blue)):
                dataset.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [256, 0, 16])
                dataset.add_new(f"{name}PaletteColorLookupTableData", "OW", np.asarray(entries, "<u2").tobytes())

        path = write(tmp_path / "a.dcm", U8, PhotometricInterpretation="PALETTE COLOR", change=palette)
        with pytest.raises(DataError, match=r"in colour \(PALETTE COLOR\)"):
            read_dicom(path)
        want = expected(U8, lambda x: (0.299 * red[x] + 0.587 * green[x] + 0.114 * blue[x]) / 65535)
        np.testing.assert_allclose(read_dicom(path, force=True).pixels, want, atol=1)

    def test_sixteen_bits(self, tmp_path):
        with pytest.raises(DataError, match=r"only colour of 8 bits is supported"):
            read_dicom(write(tmp_path / "a.dcm", self.RGB.astype(np.uint16)), force=True)
