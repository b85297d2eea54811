"""Nothing of an upload is logged or written out, whatever the decoders would say by themselves."""

import io
import logging
import struct
import warnings
from contextlib import suppress

import pytest
from pydicom.uid import ExplicitVRLittleEndian

from deploy.small import pictures
from mxa.data.dicom import read_dicom
from mxa.errors import DataError
from mxa.predictor import Predictor
from serve.serving import dicom, png, site

GREY = pictures(1, 90)[0, 0][:70]
PNG, DICOM = png(GREY), dicom(GREY)
SECRET = "SECRET-NAME"


def secret_uid() -> bytes:
    """A damaged DICOM file, of which pydicom by itself would tell all in a warning and in its log."""
    at = DICOM.index(ExplicitVRLittleEndian.encode())
    return DICOM[: at - 2] + struct.pack("<H", len(DICOM) - at) + DICOM[at:]


@pytest.mark.filterwarnings("always")
def test_nothing_of_an_upload_is_logged(
    predictor: Predictor, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    named = dicom(GREY, PatientName=SECRET, BodyPartExamined="HAND")
    with caplog.at_level(logging.DEBUG), site(predictor) as here:  # pytest puts its own display of warnings before
        here.predict(named, name=f"{SECRET}.dcm")
        here.predict(secret_uid(), name=f"{SECRET}.dcm")
        here.predict(PNG, f"?operating_point={SECRET}", name=f"{SECRET}.png")
        here.get(f"/{SECRET}", headers={"x-name": SECRET, "user-agent": SECRET})
        here.ask(SECRET, "/predict")
    written = capfd.readouterr()
    told = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore", "asyncio"))]
    assert all("SECRET" not in record.getMessage() for record in told)
    assert "SECRET" not in written.out + written.err
    lines = [record.getMessage() for record in told if record.levelno == logging.INFO]
    assert [line.rpartition(" ")[0].rpartition(" ")[0] for line in lines] == [
        "POST /predict 422",
        "POST /predict 422",
        "POST /predict 422",
        "GET other 404",
        "other /predict 405",
    ]
    assert any(record.getMessage().startswith("UserWarning at pydicom/") for record in told)


def test_pydicom_by_itself_would_tell(caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings(record=True) as told, suppress(DataError):
        read_dicom(io.BytesIO(secret_uid()))
    assert any("SECRET" in str(warning.message) for warning in told)
    assert "SECRET" in caplog.text
