"""One file becomes the network's input, or a reason that says of which kind the trouble is."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dicom_files
from mxa.archive.reading import FAILED, OK, REFUSED, Picture, Reader
from mxa.archive.tree import Found
from mxa.data.dicom import read_dicom
from mxa.data.images import read_grey
from mxa.preprocess import Preprocess

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40)).astype(np.uint8)
READER = Reader(Preprocess(size=32, fit="pad"), ("frontal",))


def read(file: Path, reader: Reader = READER) -> Picture:
    return pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(reader))(Found(str(file)))))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_an_image(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a{suffix}"
    Image.fromarray(PIXELS).save(file)
    picture = read(file)
    assert (picture.path, picture.status, picture.reason) == (str(file), OK, "")
    assert (picture.size, picture.sop_instance_uid, picture.notes) == ((40, 24), "", ())
    np.testing.assert_array_equal(picture.pixels, READER.contract.resize(read_grey(file)))


@pytest.mark.parametrize("name", ["a.dcm", "without suffix", "a.png"])
def test_dicom_by_its_content(tmp_path: Path, name: str) -> None:
    file = dicom_files.write(
        tmp_path / name, PIXELS, PixelSpacing=[0.2, 0.1], ViewPosition=None, PatientOrientation=None
    )
    picture = read(file)
    assert (picture.status, picture.sop_instance_uid) == (OK, dicom_files.SOP_INSTANCE_UID)
    assert picture.size == (40, 48), "as its pixels are twice as high as wide"
    assert picture.notes == read_dicom(file).notes
    assert "no view is recorded, taken as frontal" in picture.notes
    np.testing.assert_array_equal(picture.pixels, READER.contract.resize(read_dicom(file).pixels))


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"Modality": "CT"}, "not taken as a chest radiograph: its modality is 'CT'"),
        ({"BodyPartExamined": "HAND"}, "not taken as a chest radiograph: its body part is 'HAND'"),
        ({"ViewPosition": "LL"}, "not taken as a chest radiograph: its view is lateral"),
        ({"Modality": "SR", "PixelData": None}, "has no pixel data (modality 'SR')"),
    ],
)
def test_dicom_of_another_kind_is_refused(tmp_path: Path, elements: dict[str, object], reason: str) -> None:
    picture = read(dicom_files.write(tmp_path / "a.dcm", PIXELS, **elements))
    assert (picture.status, picture.pixels, picture.size) == (REFUSED, None, None)
    assert picture.reason.startswith(reason)
    assert picture.sop_instance_uid == dicom_files.SOP_INSTANCE_UID


def test_other_views_and_force(tmp_path: Path) -> None:
    file = dicom_files.write(tmp_path / "a.dcm", PIXELS, ViewPosition="LL", PatientOrientation=["A", "F"])
    assert read(file, Reader(READER.contract, ("frontal", "lateral"))).status == OK
    forced = read(file, Reader(READER.contract, ("frontal",), force=True))
    assert forced.status == OK
    assert "its view is lateral" in forced.notes[0]


def truncated_png(file: Path) -> None:
    Image.fromarray(PIXELS).save(file)
    file.write_bytes(file.read_bytes()[:200])


def truncated_dicom(file: Path) -> None:
    dicom_files.write(file, PIXELS)
    file.write_bytes(file.read_bytes()[:-400])


@pytest.mark.parametrize(
    ("name", "make", "reason", "uid"),
    [
        ("a.png", truncated_png, "cannot be decoded (", ""),
        ("a.png", lambda file: file.write_text("a text"), "cannot be decoded (not an image)", ""),
        ("a.dcm", lambda file: file.write_text("a text " * 99), "", ""),
        ("a.dcm", truncated_dicom, "the pixel data are truncated: 400 bytes", dicom_files.SOP_INSTANCE_UID),
        ("a.dcm", lambda file: None, "no such file", ""),
        ("a.png", lambda file: None, "no such file", ""),
        ("a.png", lambda file: file.mkdir(), "is a folder", ""),
        ("a.png", lambda file: Image.fromarray(PIXELS[:9]).save(file), "only 40 x 9 pixels", ""),
        ("a.dcm", lambda file: dicom_files.write(file, PIXELS, PixelData=None), "has no pixel data", "1.2."),
    ],
)
def test_broken_files_fail(tmp_path: Path, name: str, make, reason: str, uid: str) -> None:
    make(tmp_path / name)
    picture = read(tmp_path / name)
    assert (picture.status, picture.pixels, picture.size) == (FAILED, None, None)
    assert picture.reason.startswith(reason)
    assert str(tmp_path) not in picture.reason, "the path has a column of its own"
    assert picture.sop_instance_uid.startswith(uid)
    assert picture.reason


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "x" * 300 + ".dcm", "a\0b.png", "a.png/b.png"])
def test_a_path_that_can_be_none_fails(tmp_path: Path, name: str) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    picture = READER(Found(str(tmp_path / name)))
    assert (picture.path, picture.status) == (str(tmp_path / name), FAILED)
    assert picture.reason


@pytest.mark.skipif(os.name != "posix", reason="permissions")
@pytest.mark.parametrize("name", ["a.png", "a.dcm"])
def test_a_file_out_of_reach_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:  # as for anybody but root
        raise PermissionError(13, "Permission denied", str(self))

    (tmp_path / name).touch()
    monkeypatch.setattr(Path, "stat", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    picture = READER(Found(str(tmp_path / name)))
    assert picture.status == FAILED
    assert "Permission denied" in picture.reason


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes")
@pytest.mark.parametrize("name", ["a", "a.png", "a.dcm"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    picture = READER(Found(str(tmp_path / name)))
    assert (picture.status, picture.pixels) == (FAILED, None)
    assert picture.reason == "is no regular file (a pipe or a device); copy its content into one"


def test_a_problem_is_passed_on() -> None:
    picture = READER(Found("a/b", "leads outside"))
    assert (picture.path, picture.status, picture.reason) == ("a/b", FAILED, "leads outside")


def test_an_error_that_nobody_foresaw_is_logged_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr("mxa.deploy.sources.read_grey", fail)
    picture = READER(Found(str(tmp_path / "a.png")))
    assert picture.status == FAILED
    assert picture.reason == "unknown error, please report it (KeyError: 'surprise')"
    assert "Traceback" in caplog.text
    assert "KeyError: 'surprise'" in caplog.text


def test_a_missing_package_fails_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    file = tmp_path / "a.dcm"
    file.write_bytes(bytes(128) + b"DICM")
    picture = READER(Found(str(file)))
    assert picture.status == FAILED
    assert "pip install 'mxa[dicom]'" in picture.reason
