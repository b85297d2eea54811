"""What is taken for a chest radiograph, what is refused and why; and that nothing but DataError ever comes out."""

import dataclasses
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("pydicom.data")

from pydicom.pixels import apply_modality_lut, apply_windowing  # noqa: E402

from dicom_files import CHEST, SECRETS, SOP_INSTANCE_UID, lut_item, write  # noqa: E402
from mxa.data.dicom import VIEWS, is_dicom, read_dicom  # noqa: E402
from mxa.errors import ConfigError, DataError  # noqa: E402

RAMP = (np.arange(16 * 20, dtype=np.uint16) * 12).reshape(16, 20)
WINDOW = {"WindowCenter": "2000", "WindowWidth": "4000"}
THEIRS = Path(pydicom.data.__file__).parent


def code(value="", meaning=""):
    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


def refused(path, reason, **options):
    """Refused for this reason alone; forced, it is kept."""
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: not taken as a chest radiograph: ") as error:
        read_dicom(path, **options)
    assert str(error.value).endswith(f": {reason}; leave it out, or score it all the same with --force (force=True)")
    got = read_dicom(path, force=True, **options)
    assert got.reservations == (reason,)
    return got


class TestIsDicom:
    @pytest.mark.parametrize("name", ["a.dcm", "a", "a.png"])
    def test_by_content(self, tmp_path, name):
        assert is_dicom(write(tmp_path / name, RAMP))

    @pytest.mark.parametrize(
        ("name", "expected"), [("a.dcm", True), ("a.DCM", True), ("a.dicom", True), ("a.png", False), ("a", False)]
    )
    def test_else_by_suffix(self, tmp_path, name, expected):
        assert is_dicom(write(tmp_path / name, RAMP, preamble=False)) is expected
        assert is_dicom(str(tmp_path / "none" / name)) is expected


class TestAccepted:
    def test_what_the_file_says(self, tmp_path):
        got = read_dicom(write(tmp_path / "a.dcm", RAMP, **WINDOW, ImagerPixelSpacing=["0.15", "0.15"]))
        assert (got.sop_instance_uid, got.view, got.projection) == (SOP_INSTANCE_UID, "frontal", "PA")
        assert (got.spacing, got.spacing_source, got.stored_shape) == ((0.15, 0.15), "ImagerPixelSpacing", (16, 20))
        assert (got.notes, got.reservations) == ((), ())

    def test_pixels_may_be_written_to(self, tmp_path):
        read_dicom(write(tmp_path / "a.dcm", RAMP)).pixels[0, 0] = 1

    @pytest.mark.parametrize("modality", ["CR", "DX", "DR", "RF"])
    def test_modality(self, tmp_path, modality):
        assert read_dicom(write(tmp_path / "a.dcm", RAMP, **WINDOW, Modality=modality)).notes == ()

    @pytest.mark.parametrize("part", ["CHEST", "THORAX", "THX", "LUNG", "CHEST PA", "CHEST_1_VIEW"])
    def test_body_part(self, tmp_path, part):
        assert read_dicom(write(tmp_path / "a.dcm", RAMP, **WINDOW, BodyPartExamined=part)).notes == ()

    @pytest.mark.parametrize("item", [code("816094009", "Brust"), code("T-D3000", ""), code("X", "Chest")])
    def test_body_part_as_a_code(self, tmp_path, item):
        path = write(tmp_path / "a.dcm", RAMP, **WINDOW, BodyPartExamined=None, AnatomicRegionSequence=[item])
        assert read_dicom(path).notes == ()

    @pytest.mark.parametrize("part", [None, ""])
    def test_unknown_body_part_is_noted(self, tmp_path, part):
        got = read_dicom(write(tmp_path / "a.dcm", RAMP, **WINDOW, BodyPartExamined=part))
        assert got.notes == ("no body part is recorded",)

    @pytest.mark.parametrize("position", [None, "", "TABLE"])
    def test_unknown_view_is_noted(self, tmp_path, position):
        path = write(tmp_path / "a.dcm", RAMP, **WINDOW, ViewPosition=position, PatientOrientation=None)
        got = read_dicom(path)
        assert (got.view, got.projection) == ("", "")
        assert got.notes == ("no view is recorded, taken as frontal",)

    def test_mirrored_picture_is_noted(self, tmp_path):
        got = read_dicom(write(tmp_path / "a.dcm", RAMP, **WINDOW, PatientOrientation=["R", "F"]))
        assert got.notes == ("PatientOrientation 'R/F' says that it is stored mirrored or turned; left as it is",)

    @pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
    def test_malformed_uid_is_dropped(self, tmp_path):
        def spoil(dataset):
            dataset["SOPInstanceUID"]._value = "SECRET^JANE"

        assert read_dicom(write(tmp_path / "a.dcm", RAMP, change=spoil)).sop_instance_uid == ""


class TestRefused:
    @pytest.mark.parametrize("modality", ["CT", "MG", None])
    def test_modality(self, tmp_path, modality):
        named = f"'{modality}'" if modality else "missing"
        refused(
            write(tmp_path / "a.dcm", RAMP, Modality=modality),
            f"its modality is {named}, not one of CR, DX, DR, RF",
        )

    @pytest.mark.parametrize("part", ["HAND", "ABDOMEN", "CHESTABDOMEN", "CHEST ABDOMEN", "TSPINE"])
    def test_body_part(self, tmp_path, part):
        refused(write(tmp_path / "a.dcm", RAMP, BodyPartExamined=part), f"its body part is '{part}', not the chest")

    def test_body_part_as_a_code(self, tmp_path):
        path = write(tmp_path / "a.dcm", RAMP, BodyPartExamined=None, AnatomicRegionSequence=[code("85562004", "Hand")])
        refused(path, "its body part is 'HAND', not the chest")

    def test_raw_data(self, tmp_path):
        path = write(tmp_path / "a.dcm", RAMP, PresentationIntentType="FOR PROCESSING")
        refused(path, "it holds raw data FOR PROCESSING, not the picture for viewing")
        read_dicom(write(tmp_path / "b.dcm", RAMP, PresentationIntentType="FOR PRESENTATION"))

    def test_frames(self, tmp_path):
        frames = np.stack([RAMP, RAMP[::-1], RAMP // 2])
        got = refused(
            write(tmp_path / "a.dcm", frames, frames=3, Modality="RF", **WINDOW),
            "it has 3 frames, of which only the first is read",
        )
        np.testing.assert_array_equal(got.pixels, read_dicom(write(tmp_path / "b.dcm", RAMP, **WINDOW)).pixels)

    def test_presentation_lut_sequence(self, tmp_path):
        path = write(tmp_path / "a.dcm", RAMP, PresentationLUTSequence=[lut_item(list(range(4096)), bits=12)])
        refused(path, "it has a PresentationLUTSequence, which is not applied")

    def test_more_data_than_pixels(self, tmp_path):
        path = write(tmp_path / "a.dcm", RAMP, PixelData=RAMP.tobytes() + bytes(700))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            got = refused(path, "it has 700 bytes of pixel data more than its rows and columns account for")
        np.testing.assert_array_equal(got.pixels, read_dicom(write(tmp_path / "b.dcm", RAMP)).pixels)

    def test_all_reasons_at_once(self, tmp_path):
        path = write(tmp_path / "a.dcm", RAMP, Modality="CT", BodyPartExamined="HEAD", ViewPosition="LL")
        with pytest.raises(DataError, match=r"modality is 'CT', .*; its body part is 'HEAD', .*; its view is lateral"):
            read_dicom(path)
        assert len(read_dicom(path, force=True).reservations) == 3


class TestView:
    @pytest.mark.parametrize(
        ("position", "view", "projection"),
        [("AP", "frontal", "AP"), ("PA", "frontal", "PA"), ("AP SUPINE", "frontal", "AP"), ("FRONTAL", "frontal", ""),
         ("LL", "lateral", ""), ("RL", "lateral", ""), ("LATERAL", "lateral", ""), ("LAT", "lateral", ""),
         ("LLD", "decubitus", ""), ("RLD", "decubitus", ""), ("LLO", "oblique", ""), ("RAO", "oblique", "")],
    )  # fmt: skip
    def test_position(self, tmp_path, position, view, projection):
        path = write(tmp_path / "a.dcm", RAMP, ViewPosition=position, PatientOrientation=None)
        got = read_dicom(path, views=(view,))
        assert (got.view, got.projection) == (view, projection)
        if view != "frontal":
            refused(path, f"its view is {view} (ViewPosition), not frontal")

    @pytest.mark.parametrize(
        ("item", "view", "projection"),
        [(code("272479007", "postero-anterior"), "frontal", "PA"), (code("R-10206", "von vorn"), "frontal", "AP"),
         (code("?", "Antero-Posterior"), "frontal", "AP"), (code("?", "Posterior/Anterior"), "frontal", "PA"),
         (code("399173006", "links"), "lateral", ""), (code("?", "right lateral"), "lateral", ""),
         (code("399135007", "left anterior oblique"), "oblique", ""),
         (code("?", "lateral decubitus"), "decubitus", "")],
    )  # fmt: skip
    def test_code(self, tmp_path, item, view, projection):
        path = write(tmp_path / "a.dcm", RAMP, ViewPosition=None, PatientOrientation=None, ViewCodeSequence=[item])
        got = read_dicom(path, views=(view,))
        assert (got.view, got.projection) == (view, projection)
        if view != "frontal":
            refused(path, f"its view is {view} (ViewCodeSequence), not frontal")

    @pytest.mark.parametrize(
        ("orientation", "view"), [(["L", "F"], "frontal"), (["A", "F"], "lateral"), (["P", "F"], "lateral")]
    )
    def test_orientation(self, tmp_path, orientation, view):
        path = write(tmp_path / "a.dcm", RAMP, ViewPosition=None, PatientOrientation=orientation)
        assert read_dicom(path, views=VIEWS).view == view
        if view == "lateral":
            refused(path, "its view is lateral (PatientOrientation), not frontal")

    def test_one_element_that_says_otherwise_is_enough(self, tmp_path):
        path = write(tmp_path / "a.dcm", RAMP, ViewCodeSequence=[code("399067008", "lateral")])
        got = refused(path, "its view is lateral (ViewCodeSequence), not frontal")
        assert (got.view, got.projection) == ("frontal", "PA")

    def test_both_views(self, tmp_path):
        path = write(tmp_path / "a.dcm", RAMP, ViewPosition="LLO", PatientOrientation=None)
        refused(path, "its view is oblique (ViewPosition), not frontal or lateral", views={"lateral", "frontal"})

    @pytest.mark.parametrize("views", [(), ("frontal", "AP"), "frontal"])
    def test_unknown_views(self, tmp_path, views):
        with pytest.raises(ConfigError, match="give some of frontal, lateral, oblique, decubitus"):
            read_dicom(tmp_path / "a.dcm", views=views)


class TestSpacing:
    @pytest.mark.parametrize("keyword", ["PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"])
    def test_square(self, tmp_path, keyword):
        got = read_dicom(write(tmp_path / "a.dcm", RAMP, **{keyword: ["0.2", "0.2"]}))
        assert (got.spacing, got.spacing_source, got.pixels.shape) == ((0.2, 0.2), keyword, (16, 20))

    def test_in_the_patient_before_at_the_detector(self, tmp_path):
        path = write(tmp_path / "a.dcm", RAMP, PixelSpacing=["0.1", "0.1"], ImagerPixelSpacing=["0.2", "0.2"])
        assert read_dicom(path).spacing == (0.1, 0.1)

    @pytest.mark.parametrize(
        ("spacing", "shape", "square"),
        [(["0.4", "0.2"], (32, 20), 0.2), (["0.1", "0.25"], (16, 50), 0.1), (["0.2", "0.2001"], (16, 20), None)],
    )
    def test_longer_axis_is_resampled(self, tmp_path, spacing, shape, square):
        plain = read_dicom(write(tmp_path / "a.dcm", RAMP, **WINDOW))
        got = read_dicom(write(tmp_path / "b.dcm", RAMP, **WINDOW, PixelSpacing=spacing))
        assert (got.pixels.shape, got.stored_shape) == (shape, (16, 20))
        want = Image.fromarray(plain.pixels).resize(shape[::-1], Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(got.pixels, np.asarray(want))
        if square:
            assert got.spacing == pytest.approx((square, square))

    def test_aspect_ratio_alone(self, tmp_path):
        got = read_dicom(write(tmp_path / "a.dcm", RAMP, PixelAspectRatio=[3, 2]))
        assert (got.pixels.shape, got.spacing, got.spacing_source) == ((24, 20), None, "")

    @pytest.mark.parametrize("keyword", ["PixelSpacing", "PixelAspectRatio"])
    @pytest.mark.parametrize("value", [["0", "0"], ["1", "-1"], ["1"]])
    def test_nonsense_is_noted(self, tmp_path, keyword, value):
        got = read_dicom(write(tmp_path / "a.dcm", RAMP, **WINDOW, **{keyword: value}))
        assert (got.pixels.shape, got.spacing) == ((16, 20), None)
        assert got.notes == (f"{keyword} is not two positive numbers and was ignored",)

    def test_absurd_aspect(self, tmp_path):
        with pytest.raises(DataError, match=r"a\.dcm: its pixels are said to be 1e\+06 times as high as wide"):
            read_dicom(write(tmp_path / "a.dcm", RAMP, PixelSpacing=["1000", "0.001"]))

    def test_too_large_once_square(self, tmp_path, monkeypatch):
        path = write(tmp_path / "a.dcm", RAMP, PixelSpacing=["0.8", "0.2"])
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4 * 320)
        assert read_dicom(path).pixels.shape == (64, 20)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4 * 320 - 1)
        with pytest.raises(DataError, match=r"more than 1279 pixels once its pixels are square"):
            read_dicom(path)


class TestPrivacy:
    def secret(self, text):
        return [name for name, value in SECRETS.items() if value in text]

    def test_no_field_names_the_patient_or_the_study(self, tmp_path):
        got = read_dicom(write(tmp_path / "a.dcm", RAMP, Modality="CT"), force=True)
        told = " ".join(str(value) for name, value in dataclasses.asdict(got).items() if name != "pixels")
        assert SOP_INSTANCE_UID in told
        assert self.secret(told) == []
        assert self.secret(repr(got)) == []

    @pytest.mark.parametrize(
        ("keyword", "value"),
        [("Modality", "SECRET^JANE"), ("BodyPartExamined", "SECRET^JANE"), ("PhotometricInterpretation", "SECRET^JANE"),
         ("PresentationLUTShape", "SECRET^JANE"), ("VOILUTFunction", "SECRET^JANE"), ("WindowCenter", "SECRET^JANE")],
    )  # fmt: skip
    def test_a_name_in_a_wrong_element_is_not_quoted(self, tmp_path, keyword, value):
        def spoil(dataset):
            dataset[keyword]._value = value

        elements = {**WINDOW, "VOILUTFunction": "LINEAR", "PresentationLUTShape": "IDENTITY"}
        with pytest.raises(DataError) as error:
            read_dicom(write(tmp_path / "a.dcm", RAMP, **elements, change=spoil))
        assert keyword in str(error.value) or "an unreadable value" in str(error.value)
        assert self.secret(str(error.value)) == []


FILES = sorted(path for path in THEIRS.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"})


@pytest.mark.filterwarnings("ignore:Expected explicit VR, but found implicit VR", "ignore:A value of 'None'")
class TestPydicomsFiles:
    """All that ship with the package; nothing is downloaded."""

    def test_there_are_many(self):
        assert len(FILES) > 150

    @pytest.mark.parametrize("force", [False, True])
    @pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(THEIRS)))
    def test_read_or_refused(self, path, force):
        try:
            got = read_dicom(path, force=force)
        except DataError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
        else:
            assert force  # there is no chest radiograph among them
            assert got.pixels.dtype == np.uint8
            assert got.pixels.min() < got.pixels.max()
            assert got.reservations

    def test_nothing_of_them_is_read_unforced(self):
        accepted = 0
        for path in FILES:
            try:
                read_dicom(path)
            except DataError:
                continue
            accepted += 1
        assert accepted == 0

    @pytest.mark.parametrize(
        "name",
        ["693_J2KI.dcm", "CT_small.dcm", "J2K_pixelrep_mismatch.dcm", "JPEG2000.dcm", "MR_small.dcm",
         "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_expb.dcm", "MR_small_implicit.dcm",
         "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_padded.dcm", "examples_overlay.dcm"],
    )  # fmt: skip
    @pytest.mark.filterwarnings("ignore:The pixel data is")
    def test_pixels(self, name):
        """Against pydicom's own decoding and its own modality and window functions, scaled here."""
        got = read_dicom(THEIRS / "test_files" / name, force=True)
        dataset = pydicom.dcmread(THEIRS / "test_files" / name)
        values = apply_modality_lut(dataset.pixel_array, dataset).astype(float)
        if "WindowCenter" in dataset:
            bits, signed = dataset.BitsStored, dataset.PixelRepresentation
            slope, intercept = dataset.get("RescaleSlope", 1), dataset.get("RescaleIntercept", 0)
            low = float(-(2 ** (bits - 1)) * slope + intercept if signed else intercept)
            y = (apply_windowing(values, dataset) - low) / ((2**bits - 1) * float(slope))
        else:
            padding = dataset.get("PixelPaddingValue")
            kept = values[dataset.pixel_array != padding] if padding is not None else values
            y = np.clip((values - kept.min()) / (kept.max() - kept.min()), 0, 1)
        want = 255 * y
        if "PixelPaddingValue" in dataset:
            want[dataset.pixel_array == dataset.PixelPaddingValue] = 0
        height, width = want.shape
        spacing = dataset.get("PixelSpacing", [1, 1])
        assert got.pixels.shape == (height, width)
        assert spacing[0] == spacing[1]
        np.testing.assert_allclose(got.pixels, want, rtol=0, atol=0.5 + 1e-6)


def spoilt_copies(good, header, count, seed):
    """Bytes changed, cut off, left out and put in, most of them in the header."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        data = bytearray(good)
        end = len(data) if number % 3 == 0 else header
        at = int(rng.integers(132, end))
        kind = number % 4
        if kind == 0:
            del data[at:]
        elif kind == 1:
            data[at : at + int(rng.integers(9))] = rng.bytes(int(rng.integers(9)))
        else:
            for place in rng.integers(132, end, size=int(rng.integers(1, 5))):
                data[place] = int(rng.choice([0, 255, data[place] ^ (1 << int(rng.integers(8)))]))
        yield bytes(data)


@pytest.mark.filterwarnings("ignore")
class TestDamage:
    @pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"])
    def test_only_data_errors_come_out(self, tmp_path, syntax):
        good = write(
            tmp_path / "good.dcm",
            RAMP,
            syntax=syntax,
            **WINDOW,
            RescaleSlope="1",
            RescaleIntercept="-3",
            PixelSpacing=["0.1", "0.1"],
            PixelPaddingValue=0,
            ViewCodeSequence=[code("272479007", "postero-anterior")],
            VOILUTSequence=[lut_item([i * 16 for i in range(256)], bits=12, vr="US")],
        ).read_bytes()
        path, read = tmp_path / "spoilt.dcm", 0
        for number, data in enumerate(spoilt_copies(good, len(good) - RAMP.nbytes, 400, seed=0)):
            path.write_bytes(data)
            try:
                got = read_dicom(path, force=number % 2 == 0)
            except DataError as error:
                assert str(error).startswith(f"{path}: ")  # noqa: PT017
                assert not any(value in str(error) for value in SECRETS.values())  # noqa: PT017
            else:
                read += 1
                assert got.pixels.dtype == np.uint8
        assert 40 < read < 360

    def test_threads(self, tmp_path):
        paths = [write(tmp_path / f"{i}.dcm", RAMP + i, **WINDOW, **{**CHEST, "Modality": "CR"}) for i in range(16)]
        with ThreadPoolExecutor(4) as pool:
            got = list(pool.map(read_dicom, paths))
        for path, one in zip(paths, got, strict=True):
            np.testing.assert_array_equal(one.pixels, read_dicom(path).pixels)

    def test_the_filters_of_warnings_are_left_alone(self, tmp_path):
        before = list(warnings.filters)
        read_dicom(write(tmp_path / "a.dcm", RAMP, **WINDOW))
        assert warnings.filters == before
