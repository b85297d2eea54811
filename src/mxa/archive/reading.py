"""Read one file of an archive to the network's input, or say why it has none. Runs in a process of its own."""

import logging
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG

import numpy as np
import numpy.typing as npt

from mxa.archive.tree import Found, mode_of
from mxa.data.dicom import MODALITIES, is_dicom
from mxa.data.dicom_header import Header, open_header
from mxa.deploy.sources import read_source
from mxa.errors import MxaError, NotTakenError
from mxa.preprocess import Preprocess

OK, REFUSED, FAILED = "ok", "refused", "failed"
"""Scored; readable, but no such radiograph as the model was made for; missing or broken."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Picture:
    """One file, read or not.

    Attributes:
        path: as it was found.
        status: :data:`OK`, :data:`REFUSED` or :data:`FAILED`.
        reason: why it is not :data:`OK`; else "".
        pixels: (S, S) uint8, the network's input; None where the status is not :data:`OK`.
        size: width and height of the picture in pixels, None likewise; of DICOM after pixels were made square.
        sop_instance_uid: of a DICOM file that has one; else "".
        notes: what a reader of the prediction must know of the picture.
    """

    path: str
    status: str
    reason: str = ""
    pixels: npt.NDArray[np.uint8] | None = None
    size: tuple[int, int] | None = None
    sop_instance_uid: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reader:
    """Reads files; what goes wrong with one is said of it and of no other.

    Attributes:
        contract: the preprocessing contract.
        views: of DICOM files, those that are accepted, see :func:`mxa.data.dicom.read_dicom`.
        force: take DICOM files that are no chest radiograph of these views; the notes say why they were refused.
    """

    contract: Preprocess
    views: tuple[str, ...]
    force: bool = False

    def __call__(self, found: Found) -> Picture:
        """Read and resize one file."""
        try:
            if problem := found.problem or _no_file(found.path):
                return Picture(found.path, FAILED, problem)
            return self._read(found.path)
        except Exception as error:  # a file that nobody foresaw must not end a run over millions
            log.exception("%s: an error that mxa does not know; please report it", found.path)
            return Picture(found.path, FAILED, f"unknown error, please report it ({type(error).__name__}: {error})")

    def _read(self, path: str) -> Picture:
        try:
            source = read_source(path, self.contract, views=self.views, force=self.force)
            pixels = self.contract.resize(source.grey, name=str(Path(path)))
        except MxaError as error:
            reason = str(error).removeprefix(f"{Path(path)}: ")
            return _unread(path, reason, forcible=isinstance(error, NotTakenError))
        return Picture(path, OK, "", pixels, source.size, source.sop_instance_uid, source.notes)


def _no_file(path: str) -> str:
    """Why something is not opened; "" for a file, and for what is not there: reading it will say what is wrong."""
    mode = mode_of(path)
    if S_ISDIR(mode):
        return "is a folder, not a file; give it as a source of its own"
    if mode and not S_ISREG(mode):  # who opens a pipe waits for whoever writes into it
        return "is no regular file (a pipe or a device); copy its content into one"
    return ""


def _unread(path: str, reason: str, *, forcible: bool) -> Picture:
    """Tell DICOM files of another kind from broken ones."""
    header = _header(path)
    if header is None:
        return Picture(path, FAILED, reason)
    pictureless = header.element("PixelData") is None and header.text("Modality") not in {"", *MODALITIES}
    status = REFUSED if forcible or pictureless else FAILED
    return Picture(path, status, reason, sop_instance_uid=header.uid("SOPInstanceUID"))


def _header(path: str) -> Header | None:
    """Of a DICOM file that can be read so far."""
    if not is_dicom(path):
        return None
    try:
        header = open_header(path)
        header.uid("SOPInstanceUID")
    except MxaError:
        return None
    return header
