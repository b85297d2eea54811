"""The images that a DICOMDIR lists (PS3.3 annex F, PS3.10 section 8), and nothing outside of its medium."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mxa.archive.tree import Found, Tally
from mxa.data.dicom_header import pydicom_errors

NAME = "DICOMDIR"
_DIRECTORY = "1.2.840.10008.1.3.10"  # Media Storage Directory Storage
_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"  # the only encoding that PS3.10 section 8.6 allows
_INACTIVE = 0


def is_dicomdir(path: str) -> bool:
    """By its name, which PS3.10 section 8.6 prescribes, in capitals or not."""
    return Path(path).name.upper() == NAME


def dicomdir_files(path: str, tally: Tally) -> Iterator[Found]:
    """The files of the image records, in the order of the directory.

    Records of other kinds and inactive ones are counted in ``tally``. A record that leads outside of the DICOMDIR's
    folder, or does not say where, gives a problem instead of a file. The directory itself is held in memory.

    Args:
        path: the DICOMDIR.
        tally: counts what is left out.
    """
    folder = Path(path).parent
    try:
        records = _records(path)
    except pydicom_errors() as error:
        reason = str(error) if isinstance(error, _NotADirectoryFile) else type(error).__name__
        yield Found(path, f"cannot be read as DICOMDIR ({reason}); fetch the medium again")
        return
    for number, record in enumerate(records, start=1):
        try:
            kind, active, parts = _entry(record)
        except pydicom_errors():
            yield Found(path, f"record {number} of the directory is damaged; fetch the medium again")
            continue
        if kind != "IMAGE" or not active:
            if parts:  # patients, studies and series have no files
                tally.skipped[_label(kind, active)] += 1
            continue
        yield _place(folder, parts, number)


class _NotADirectoryFile(ValueError):
    pass


def _records(path: str) -> Sequence[Any]:
    import pydicom
    from pydicom.filereader import read_file_meta_info

    meta = read_file_meta_info(path)
    if meta.get("MediaStorageSOPClassUID") != _DIRECTORY:
        raise _NotADirectoryFile("it is no media storage directory")
    if meta.get("TransferSyntaxUID") != _EXPLICIT_LITTLE:
        raise _NotADirectoryFile("it is not in explicit VR little endian")
    return pydicom.dcmread(path, specific_tags=["DirectoryRecordSequence"]).get("DirectoryRecordSequence") or ()


def _entry(record: Any) -> tuple[str, bool, tuple[str, ...]]:
    """Kind, whether it is in use, and the components of the path."""
    file_id = record.get("ReferencedFileID") or ()
    parts = (file_id,) if isinstance(file_id, str) else tuple(map(str, file_id))
    return str(record.get("DirectoryRecordType", "")), record.get("RecordInUseFlag") != _INACTIVE, parts


def _label(kind: str, active: bool) -> str:
    plain = kind if kind.replace(" ", "").isalpha() and len(kind) <= 16 else "unknown"
    return f"{NAME} records {plain}" if active else f"inactive {NAME} records"


def _place(folder: Path, parts: tuple[str, ...], number: int) -> Found:
    """The file of a record, in lower case where a CD is mounted so, if it lies on the medium."""
    named = "/".join((folder.as_posix(), *parts))
    if not parts or any(part in {"", ".", ".."} or set(part) & set("/\\:\0") for part in parts):
        return Found(named, f"record {number} of the {NAME} names no file on the medium; not opened")
    file, lower = folder.joinpath(*parts), folder.joinpath(*(part.lower() for part in parts))
    try:
        file = lower if not file.exists() and lower.exists() else file
        inside = file.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # such as a name that is too long, or links in a circle
        return Found(named, f"record {number} of the {NAME} cannot be followed ({type(error).__name__}); not opened")
    if not inside:
        return Found(named, f"record {number} of the {NAME} leads outside of its folder; not opened")
    return Found(str(file))
