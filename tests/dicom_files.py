"""Write tiny DICOM files, right ones and wrong ones."""

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRBigEndian, ExplicitVRLittleEndian

SECRETS = {
    "PatientName": "SECRET^JANE",
    "PatientID": "SECRET-1",
    "PatientBirthDate": "19010203",
    "AccessionNumber": "SECRET-2",
    "StudyInstanceUID": "9.8.7.1",
    "SeriesInstanceUID": "9.8.7.2",
}
SOP_INSTANCE_UID = "1.2.826.0.1.3680043.8.498.1"
CHEST = {"Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "PA", "PatientOrientation": ["L", "F"]}
WORDS = {  # elements whose VR the standard leaves open; the tests say which
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
}


def write(path, pixels, *, syntax=ExplicitVRLittleEndian, frames=None, preamble=True, change=None, **elements):
    """Write a chest radiograph.

    Args:
        path: the file.
        pixels: (H, W) or (H, W, 3) integers, stored as they are; with frames, (frames, H, W).
        syntax: an uncompressed transfer syntax.
        frames: NumberOfFrames.
        preamble: begin with the preamble and the file meta information.
        change: called with the data set before it is written.
        elements: values by keyword; None leaves the element out.
    """
    colour = pixels.ndim == 3 and frames is None
    rows, columns = pixels.shape[1:] if frames is not None else pixels.shape[:2]
    bits = pixels.dtype.itemsize * 8
    stored = elements.get("BitsStored", bits)
    values = {
        "SOPClassUID": DigitalXRayImageStorageForPresentation,
        "SOPInstanceUID": SOP_INSTANCE_UID,
        **SECRETS,
        **CHEST,
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "PlanarConfiguration": 0 if colour else None,
        "NumberOfFrames": frames,
        "Rows": rows,
        "Columns": columns,
        "BitsAllocated": bits,
        "BitsStored": stored,
        "HighBit": stored - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        **elements,
    }
    dataset = pydicom.Dataset()
    for keyword, value in values.items():
        if value is not None and keyword in WORDS:
            dataset.add_new(keyword, "SS" if value < 0 else "US", value)
        elif value is not None:
            setattr(dataset, keyword, value)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    if "PixelData" not in elements:
        data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
        dataset.add_new("PixelData", "OW" if bits > 8 else "OB", data + bytes(len(data) % 2))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    if change is not None:
        change(dataset)
    return save(path, dataset, preamble=preamble)


def save(path, dataset, *, preamble=True):
    """Write a data set, with or without the preamble and the file meta information."""
    if preamble:
        dataset.save_as(path, enforce_file_format=True)
        return path
    syntax = dataset.file_meta.TransferSyntaxUID
    del dataset.file_meta
    dataset.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    return path


def lut_item(entries, *, first=0, bits=16, vr="OW", little=True, packed=False, descriptor_vr=None):
    """An item of a ModalityLUTSequence or VOILUTSequence; ``packed`` stores entries of 8 bits in bytes."""
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", descriptor_vr or ("SS" if first < 0 else "US"), [len(entries) % 2**16, first, bits])
    if vr == "US":
        item.add_new("LUTData", "US", [int(entry) for entry in entries])
    elif packed:
        item.add_new("LUTData", "OW", np.asarray(entries, "u1").tobytes() + bytes(len(entries) % 2))
    else:
        item.add_new("LUTData", "OW", np.asarray(entries, "<u2" if little else ">u2").tobytes())
    return item
