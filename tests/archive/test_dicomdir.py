"""A DICOMDIR gives its images, and nothing outside of its folder."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.fileset import FileSet

import dicom_files
from mxa.archive.dicomdir import dicomdir_files, is_dicomdir
from mxa.archive.reading import FAILED, Reader
from mxa.archive.tree import Found, Tally
from mxa.preprocess import Preprocess

PIXELS = np.random.default_rng(0).integers(0, 4096, (20, 30)).astype(np.uint16)


def medium(folder: Path, count: int = 2, change=None) -> Path:
    """A file set as a CD has it, of images and one report."""
    (folder / "in").mkdir(parents=True)
    files = FileSet()
    for i in range(count):
        file = folder / "in" / f"{i}.dcm"
        number = {"SOPInstanceUID": f"1.2.3.{i}", "InstanceNumber": i, "SeriesNumber": 1, "StudyID": "1"}
        dicom_files.write(file, PIXELS, BitsStored=12, StudyDate="20200101", StudyTime="10", **number)
        files.add(file)
    report = pydicom.dcmread(folder / "in" / "0.dcm")
    for keyword in ("PixelData", "Rows", "Columns"):
        del report[keyword]
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = "1.2.3.99"
    report.Modality, report.SeriesInstanceUID = "SR", "9.8.7.3"
    report.ContentDate, report.ContentTime, report.CompletionFlag, report.VerificationFlag = "20200101", "10", "C", "U"
    report.ConceptNameCodeSequence = [pydicom.Dataset()]
    report.ConceptNameCodeSequence[0].CodeValue = "1"
    report.ConceptNameCodeSequence[0].CodingSchemeDesignator = "99"
    report.ConceptNameCodeSequence[0].CodeMeaning = "report"
    files.add(report)
    files.write(folder / "medium")
    directory = folder / "medium" / "DICOMDIR"
    if change is not None:
        dataset = pydicom.dcmread(directory)
        change([record for record in dataset.DirectoryRecordSequence if record.DirectoryRecordType == "IMAGE"])
        dataset.save_as(directory)
    return directory


def test_images_are_found_and_other_records_counted(tmp_path: Path) -> None:
    directory, tally = medium(tmp_path), Tally()
    found = list(dicomdir_files(str(directory), tally))
    uids = [pydicom.dcmread(one.path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID for one in found]
    assert uids == ["1.2.3.0", "1.2.3.1"]
    assert not any(one.problem for one in found)
    assert tally.skipped == {"DICOMDIR records SR DOCUMENT": 1}


def test_a_medium_in_lower_case(tmp_path: Path) -> None:
    directory = medium(tmp_path)
    for path in sorted(directory.parent.rglob("*"), reverse=True):
        path.rename(path.with_name(path.name.lower()))
    directory = directory.with_name("dicomdir")
    assert is_dicomdir(str(directory))
    found = list(dicomdir_files(str(directory), Tally()))
    assert [Path(one.path).is_file() for one in found] == [True, True]


@pytest.mark.parametrize(
    "file_id",
    [["..", "in", "0.dcm"], ["a", "..", "..", "in", "0.dcm"], ["/etc/passwd"], ["C:\\x"], ["", "x"], ["."], None],
)
def test_records_that_lead_elsewhere_are_not_opened(tmp_path: Path, file_id: list[str] | None) -> None:
    def change(images: list[pydicom.Dataset]) -> None:
        with pydicom.config.disable_value_validation():
            images[0].ReferencedFileID = file_id

    directory = medium(tmp_path, change=change)
    bad, good = dicomdir_files(str(directory), Tally())
    assert "names no file on the medium; not opened" in bad.problem
    assert not good.problem


def test_a_link_out_of_the_medium_is_not_opened(tmp_path: Path) -> None:
    directory = medium(tmp_path)
    first = Path(next(dicomdir_files(str(directory), Tally())).path)
    first.unlink()
    first.symlink_to(tmp_path / "in" / "0.dcm")
    bad, good = dicomdir_files(str(directory), Tally())
    assert bad.path == str(first)
    assert "leads outside of its folder" in bad.problem
    assert not good.problem


def long_name(first: Path, image: pydicom.Dataset) -> None:
    with pydicom.config.disable_value_validation():
        image.ReferencedFileID = ["X" * 300]


def circle(first: Path, image: pydicom.Dataset) -> None:
    first.unlink()
    first.symlink_to(first.name)


@pytest.mark.parametrize("damage", [long_name, circle])
def test_a_record_that_cannot_be_followed_ends_nothing(tmp_path: Path, damage) -> None:
    directory = medium(tmp_path)
    first = Path(next(dicomdir_files(str(directory), Tally())).path)
    dataset = pydicom.dcmread(directory)
    damage(first, next(one for one in dataset.DirectoryRecordSequence if one.DirectoryRecordType == "IMAGE"))
    dataset.save_as(directory)
    bad, good = dicomdir_files(str(directory), Tally())
    assert not good.problem
    assert Reader(Preprocess(size=32), ("frontal",))(bad).status == FAILED  # whether or not Python follows circles
    assert damage is circle or "cannot be followed (OSError); not opened" in bad.problem


def test_inactive_records_are_counted(tmp_path: Path) -> None:
    def change(images: list[pydicom.Dataset]) -> None:
        images[0].RecordInUseFlag = 0

    tally = Tally()
    (found,) = dicomdir_files(str(medium(tmp_path, change=change)), tally)
    assert "1.2.3.1" in str(pydicom.dcmread(found.path).SOPInstanceUID)
    assert tally.skipped["inactive DICOMDIR records"] == 1


def test_what_is_no_dicomdir_is_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "DICOMDIR"
    file.write_text("not at all")
    (found,) = dicomdir_files(str(file), Tally())
    assert found == Found(str(file), "cannot be read as DICOMDIR (InvalidDicomError); fetch the medium again")
    dicom_files.write(file, PIXELS)
    (found,) = dicomdir_files(str(file), Tally())
    assert "it is no media storage directory" in found.problem
    directory = medium(tmp_path / "set")
    directory.write_bytes(directory.read_bytes()[:600])
    found = list(dicomdir_files(str(directory), Tally()))
    assert all("fetch the medium again" in one.problem for one in found)
