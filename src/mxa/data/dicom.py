"""Read one chest radiograph from a DICOM file: the pixels as a viewer shows them, or the reason why not.

What is refused in any case: no pixels, damaged or contradictory files, transfer syntaxes that cannot be decoded,
pictures too small or too large, and pictures of one even grey. What is refused but may be forced: whatever decodes to
a picture that the models were not made for (see :func:`read_dicom`).
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from mxa.data.dicom_header import Header, open_header, quote
from mxa.data.dicom_pixels import to_grey
from mxa.data.dicom_stored import Stored, read_stored
from mxa.data.readable import Readable, name_of, opened
from mxa.errors import ConfigError, NotTakenError

VIEWS = ("frontal", "lateral", "oblique", "decubitus")
SUFFIXES = (".dcm", ".dicom")
MODALITIES = ("CR", "DX", "DR", "RF")

_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_CHEST = {"CHEST", "THORAX", "TORAX", "THX", "LUNG", "LUNGS", "CXR"}
_BEYOND = {"ABDOMEN", "ABD", "PELVIS", "NECK", "SPINE"}
_CHEST_CODES = {"816094009", "51185008", "T-D3000", "39607008", "T-28000", "43799004", "T-D3200"}
_VIEW_CODES = {  # PS3.16 CID 4010 in SNOMED CT and, in older files, SNOMED RT; other codes are read by their meaning
    **dict.fromkeys(("399348003", "R-10206"), "AP"),
    **dict.fromkeys(("272479007", "R-10214"), "PA"),
    **dict.fromkeys(("399033003", "R-10202"), "FRONTAL"),
    **dict.fromkeys(("399067008", "R-102CD", "399198007", "R-10232", "399173006", "R-10236"), "LATERAL"),
}
_VIEW_WORDS = (  # the first view of which a word is there: LATERAL DECUBITUS is no lateral view
    ("decubitus", {"LLD", "RLD", "DECUBITUS", "DECUB"}),
    ("oblique", {"LLO", "RLO", "LAO", "RAO", "LPO", "RPO", "OBLIQUE", "OBL"}),
    ("lateral", {"LL", "RL", "LAT", "LATERAL"}),
    ("frontal", {"AP", "PA", "FRONTAL"}),
)
_FORCE = "leave it out, or score it all the same with --force (force=True)"


@dataclass(frozen=True, eq=False)
class Radiograph:
    """One radiograph and what its file says about it. It holds no name or number of a patient or a study."""

    pixels: npt.NDArray[np.uint8]
    """(H, W), 0 = black, bones bright, pixels square."""
    sop_instance_uid: str
    """The number of this one image, or "" where it is missing or malformed."""
    view: str
    """One of :data:`VIEWS`, or "" where the file does not tell it."""
    projection: str
    """"AP", "PA" or ""."""
    spacing: tuple[float, float] | None
    """mm from row to row and from column to column of ``pixels``."""
    spacing_source: str
    """The element that says so: PixelSpacing (in the patient, where calibrated), ImagerPixelSpacing (at the detector),
    NominalScannedPixelSpacing (of a digitised film) or ""."""
    stored_shape: tuple[int, int]
    """Rows and columns in the file, before pixels were made square."""
    notes: tuple[str, ...] = ()
    """What was missing or chosen on the way; nothing of it speaks against the result."""
    reservations: tuple[str, ...] = ()
    """The reasons for which the file would have been refused without ``force``."""


def is_dicom(file: Readable) -> bool:
    """Whether a file is to be read as DICOM: by its content (PS3.10 section 7.1), else by its suffix.

    Files without the preamble exist, and only their suffix tells them.
    """
    try:
        with opened(file) as stream:
            if stream.read(132)[128:] == b"DICM":
                return True
    except (OSError, ValueError):  # ValueError: a NUL in the path
        pass  # reading it will say what is wrong
    return isinstance(file, str | Path) and Path(file).suffix.lower() in SUFFIXES


def check_views(views: Collection[str]) -> None:
    """Refuse unknown views, for callers who want to know before the first file.

    Raises:
        ConfigError: ``views`` is empty or has a name that is none of :data:`VIEWS`.
    """
    if not views or not set(views) <= set(VIEWS):
        raise ConfigError(f"views is {', '.join(views) or 'empty'}; give some of {', '.join(VIEWS)}")


def read_dicom(file: Readable, *, views: Collection[str] = ("frontal",), force: bool = False) -> Radiograph:
    """Read one chest radiograph.

    Refused without ``force`` are: a modality other than CR, DX, DR and RF; a body part other than the chest; a view
    that is not among ``views``; raw data FOR PROCESSING, which are neither inverted nor on a logarithmic scale as for
    viewing; more than one frame (forced: the first); colour (forced: its luma); a PresentationLUTShape that
    contradicts MONOCHROME1 or MONOCHROME2 (forced: the latter is believed); a PresentationLUTSequence, which no image
    may have (forced: ignored); more pixel data than rows and columns account for. An unknown body part or view is
    accepted with a note.

    Args:
        file: its path, or a binary stream; with or without preamble.
        views: which of :data:`VIEWS` the model knows.
        force: read it nevertheless and keep the reasons in ``reservations``.

    Raises:
        ConfigError: ``views`` is empty or has an unknown name, or pydicom or a decoder is not installed.
        NotTakenError: it is no such radiograph, which ``force`` would override.
        DataError: the file is refused in any case; the message names it, the reasons and what to do.
    """
    check_views(views)
    header = open_header(file)
    stored = read_stored(header)
    seen = _Findings()
    _examine_kind(header, seen)
    _examine_view(header, tuple(view for view in VIEWS if view in views), seen)
    _examine_pixels(stored, seen)
    if seen.reasons and not force:
        raise NotTakenError(f"{name_of(file)}: not taken as a chest radiograph: {'; '.join(seen.reasons)}; {_FORCE}")
    grey, notes = to_grey(stored)
    spacing, source, aspect = _spacing(header, seen)
    pixels = _square(header, grey, aspect)
    if spacing is not None:
        spacing = (spacing[0] * grey.shape[0] / pixels.shape[0], spacing[1] * grey.shape[1] / pixels.shape[1])
    return Radiograph(
        pixels=pixels,
        sop_instance_uid=header.uid("SOPInstanceUID"),
        view=seen.view,
        projection=seen.projection,
        spacing=spacing,
        spacing_source=source,
        stored_shape=(stored.rows, stored.columns),
        notes=(*seen.notes, *notes),
        reservations=tuple(seen.reasons),
    )


@dataclass
class _Findings:
    view: str = ""
    projection: str = ""
    notes: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


def _words(text: str) -> set[str]:
    return set(re.findall(r"[A-Z]+", text))


def _examine_kind(header: Header, seen: _Findings) -> None:
    """Modality, intent and body part."""
    modality = header.text("Modality")
    if modality not in MODALITIES:
        seen.reasons.append(f"its modality is {quote(modality)}, not one of {', '.join(MODALITIES)}")
    if header.text("PresentationIntentType") == "FOR PROCESSING":
        seen.reasons.append("it holds raw data FOR PROCESSING, not the picture for viewing")
    part = header.text("BodyPartExamined")
    codes: set[str] = set()
    for item in header.items("AnatomicRegionSequence")[:1]:
        codes = {item.text("CodeValue")}
        part = part or item.text("CodeMeaning") or item.text("CodeValue")
    chest = bool(_words(part) & _CHEST) or (not header.text("BodyPartExamined") and bool(codes & _CHEST_CODES))
    if not part:
        seen.notes.append("no body part is recorded")
    elif not chest or _words(part) & _BEYOND:
        seen.reasons.append(f"its body part is {quote(part)}, not the chest")


def _examine_view(header: Header, views: tuple[str, ...], seen: _Findings) -> None:
    """Every element that tells the view must tell one of ``views``; the first that tells it names it."""
    told = {keyword: _view(text) for keyword, text in _view_texts(header).items()}
    for keyword, (view, _) in told.items():
        if view and view not in views:
            seen.reasons.append(f"its view is {view} ({keyword}), not {' or '.join(views)}")
    seen.view = next((view for view, _ in told.values() if view), "")
    seen.projection = next((projection for _, projection in told.values() if projection), "")
    if not seen.view:
        seen.notes.append(f"no view is recorded, taken as {' or '.join(views)}")
    orientation = header.texts("PatientOrientation")
    if seen.view == "frontal" and len(orientation) == 2 and [text[:1] for text in orientation] != ["L", "F"]:
        directions = quote("/".join(orientation))
        seen.notes.append(f"PatientOrientation {directions} says that it is stored mirrored or turned; left as it is")


def _view_texts(header: Header) -> dict[str, str]:
    """What each element says of the view, in words of :data:`_VIEW_WORDS`; the most explicit element first."""
    texts = {"ViewPosition": header.text("ViewPosition")}
    for item in header.items("ViewCodeSequence")[:1]:
        meaning = re.sub(r"ANTERO?(IOR)?\W*POSTERIOR", "AP", item.text("CodeMeaning"))
        meaning = re.sub(r"POSTERO?(IOR)?\W*ANTERIOR", "PA", meaning)
        texts["ViewCodeSequence"] = _VIEW_CODES.get(item.text("CodeValue"), meaning)
    # Where the rows run to: the left or right of a patient seen from the front or back, the front or back of one seen
    # from the side (PS3.3 C.7.6.1.1.1).
    row = header.text("PatientOrientation")[:1]
    texts["PatientOrientation"] = {"L": "FRONTAL", "R": "FRONTAL", "A": "LATERAL", "P": "LATERAL"}.get(row, "")
    return texts


def _view(text: str) -> tuple[str, str]:
    """The view and the projection that a text names, "" where it names none."""
    words = _words(text)
    view = next((view for view, names in _VIEW_WORDS if words & names), "")
    projections = words & {"AP", "PA"}
    return view, projections.pop() if view == "frontal" and len(projections) == 1 else ""


def _examine_pixels(stored: Stored, seen: _Findings) -> None:
    """Frames, colour, the presentation LUT and the amount of data."""
    if stored.frames > 1:
        seen.reasons.append(f"it has {stored.frames} frames, of which only the first is read")
    if not stored.grey:
        seen.reasons.append(f"it is in colour ({stored.photometric}), of which only the luma is read")
    shape = stored.header.text("PresentationLUTShape")
    expected = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}.get(stored.photometric)
    if shape and expected and shape != expected:
        seen.reasons.append(
            f"PresentationLUTShape {quote(shape)} contradicts {stored.photometric}, so it may be inverted; "
            f"{stored.photometric} is believed"
        )
    if stored.header.items("PresentationLUTSequence"):
        seen.reasons.append("it has a PresentationLUTSequence, which is not applied")
    if stored.surplus > 0:
        seen.reasons.append(f"it has {stored.surplus} bytes of pixel data more than its rows and columns account for")


def pixel_aspect(header: Header) -> float:
    """The height of a file's pixels over their width; 1 where it does not say it.

    :func:`read_dicom` makes them square, and refuses what is not from 0.1 to 10.
    """
    return _spacing(header, _Findings())[2]


def _spacing(header: Header, seen: _Findings) -> tuple[tuple[float, float] | None, str, float]:
    """Row and column spacing in mm, the element that has them, and the height of a pixel over its width."""
    for keyword in _SPACINGS:
        values = header.numbers(keyword)
        if len(values) == 2 and min(values) > 0:
            return (values[0], values[1]), keyword, values[0] / values[1]
        if values:
            seen.notes.append(f"{keyword} is not two positive numbers and was ignored")
    aspect = header.numbers("PixelAspectRatio")
    if len(aspect) == 2 and min(aspect) > 0:
        return None, "", aspect[0] / aspect[1]
    if aspect:
        seen.notes.append("PixelAspectRatio is not two positive numbers and was ignored")
    return None, "", 1.0


def _square(header: Header, grey: npt.NDArray[np.uint8], aspect: float) -> npt.NDArray[np.uint8]:
    """Resample the axis along which pixels are longer, bicubic, so that they become square; nothing is lost."""
    height, width = grey.shape
    if not 0.1 <= aspect <= 10:
        raise header.error(f"its pixels are said to be {aspect:g} times as high as wide; correct its pixel spacing")
    size = round(width * max(1 / aspect, 1.0)), round(height * max(aspect, 1.0))
    if Image.MAX_IMAGE_PIXELS is not None and size[0] * size[1] > Image.MAX_IMAGE_PIXELS:
        raise header.error(f"more than {Image.MAX_IMAGE_PIXELS} pixels once its pixels are square; save it smaller")
    if size == (width, height):
        return grey
    return np.array(Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC))
