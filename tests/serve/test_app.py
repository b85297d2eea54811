"""The interface: what goes in and comes out, who may ask, and how much at once."""

import asyncio
import base64
import io
import logging
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from deploy.small import images, pictures
from mxa.predictor import Predictor
from mxa.serve.batching import Scores
from mxa.serve.options import ServeOptions
from mxa.serve.schemas import ModelBody, PredictionBody
from serve.serving import Site, dicom, encode, png, site

TOKEN = "0123456789abcdef-token"
GREY = pictures(1, 90)[0, 0][:70]
PNG, DICOM = png(GREY), dicom(GREY)


def counters(site: Site) -> dict[str, float]:
    text = site.get("/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {one.name + "".join(f" {value}" for _, value in sorted(one.labels.items())): one.value for one in samples}


class TestPredict:
    def test_a_form_gives_what_the_file_gives(self, here: Site, predictor: Predictor, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(PNG)
        expected = predictor.predict(tmp_path / "a.png", operating_point="youden", calibration="platt").to_dict()
        found = here.predict(PNG, "?operating_point=youden&calibration=platt").json()
        assert (found.pop("view"), found.pop("maps")) == (None, None)
        assert found.pop("logits") == pytest.approx(expected.pop("logits"), abs=1e-5)
        assert found.pop("probabilities") == pytest.approx(expected.pop("probabilities"), abs=1e-5)
        for block, box in expected.pop("regions").items():
            assert found["regions"].pop(block) == pytest.approx(box, abs=1e-3)
        assert not found.pop("regions")
        assert found == expected | {"source": ""}

    @pytest.mark.parametrize(
        ("media_type", "data"),
        [
            ("image/png", PNG),
            ("image/jpeg", encode(Image.fromarray(GREY), "jpeg", quality=95)),
            ("application/octet-stream", PNG),
            ("application/dicom", dicom(GREY)),
            ("application/octet-stream", dicom(GREY)),
            ("application/dicom", dicom(GREY, preamble=False)),
        ],
    )
    def test_the_file_alone(
        self, here: Site, predictor: Predictor, tmp_path: Path, media_type: str, data: bytes
    ) -> None:
        file = tmp_path / ("a.dcm" if "dicom" in media_type else "a")
        file.write_bytes(data)
        found = here.ask("POST", "/predict", content=data, headers={"content-type": media_type})
        assert found.status_code == 200, found.text
        expected = predictor.predict(file).to_dict()
        assert found.json()["logits"] == pytest.approx(expected["logits"], abs=1e-5)
        assert found.json()["notes"] == expected["notes"]
        assert found.json()["decisions"] is None

    def test_dicom_without_preamble_in_a_form_is_known_by_its_suffix_or_type(self, here: Site) -> None:
        data = dicom(GREY, preamble=False)
        assert here.predict(data, name="PATIENT.DCM").status_code == 200
        typed = here.ask("POST", "/predict", files={"file": ("a", data, "application/dicom")})
        assert typed.json()["logits"] == here.predict(data, name="a.dicom").json()["logits"]
        assert here.predict(data, name="a").status_code == 415

    def test_views_and_force(self, here: Site) -> None:
        lateral = dicom(GREY, ViewPosition="LL", PatientOrientation=None)
        refused = here.predict(lateral)
        assert refused.status_code == 422
        assert "view is lateral" in refused.json()["detail"]
        assert here.predict(lateral, "?views=lateral").json()["notes"] == here.predict(dicom(GREY)).json()["notes"]
        assert here.predict(lateral, "?views=frontal&views=lateral").status_code == 200
        assert "its view is lateral" in here.predict(lateral, "?force=true").json()["notes"][0]

    def test_what_is_not_asked_for_is_as_the_model_says(self, predictor: Predictor) -> None:
        tuning = replace(predictor.tuning, operating_point="cost=3", calibration="temperature")
        trained = {"config": {"data": {"views": ["lateral", "oblique"]}}}
        own = replace(predictor, tuning=tuning, config={**predictor.config, "training": trained})
        with site(own) as here:
            about = here.get("/model").json()
            assert (about["operating_point"], about["calibration"]) == ("cost=3", "temperature")
            assert about["views"] == ["lateral", "oblique"]
            plain = here.predict(PNG).json()
            assert (plain["operating_point"], plain["calibration"]) == ("cost=3", "temperature")
            none = here.predict(PNG, "?operating_point=&calibration=").json()
            assert (none["operating_point"], none["calibration"], none["decisions"]) == ("", "", None)
            assert here.predict(dicom(GREY, ViewPosition="LL", PatientOrientation=None)).status_code == 200
            assert here.predict(DICOM).status_code == 422
            assert here.predict(DICOM, "?views=frontal").status_code == 200

    def test_the_view_is_the_picture(self, here: Site) -> None:
        url = here.predict(PNG, "?view=1").json()["view"]
        start = "data:image/png;base64,"
        assert url.startswith(start)
        shown = Image.open(io.BytesIO(base64.b64decode(url.removeprefix(start))))
        np.testing.assert_array_equal(np.array(shown), GREY)

    def test_a_large_picture_is_shown_smaller(self, here: Site) -> None:
        answer = here.predict(png(np.tile(GREY, (30, 10))), "?view=1").json()
        shown = Image.open(io.BytesIO(base64.b64decode(answer["view"].partition(",")[2])))
        assert answer["size"] == [900, 2100]
        assert shown.size == (439, 1024)

    @pytest.mark.parametrize(
        ("query", "reason"),
        [
            ("?operating_point=f1", "operating_point: the model has no 'f1'; it has youden, cost=3"),
            ("?calibration=none", "calibration: the model has no 'none'; it has temperature, platt, isotonic"),
            ("?maps=1", "maps: there are none here"),
            ("?views=apical", "views.0: Input should be 'frontal', 'lateral', 'oblique' or 'decubitus'"),
            ("?view=perhaps", "view: Input should be a valid boolean"),
            ("?threshold=0.5", "threshold: Extra inputs are not permitted"),
        ],
    )
    def test_options_that_make_no_sense(self, here: Site, query: str, reason: str) -> None:
        answer = here.predict(PNG, query)
        assert answer.status_code == 422
        assert reason in answer.json()["detail"]

    def test_a_picture_is_scored_alike_alone_and_with_others(self, predictor: Predictor) -> None:
        files = [file.read_bytes() for file in images()]
        with site(predictor, ServeOptions(batch_seconds=0.5, batch_size=4, decoders=4)) as together:

            async def run() -> list[httpx.Response]:
                async with together.client() as client:
                    return await asyncio.gather(*(client.post("/predict", files={"file": data}) for data in files))

            found = [answer.json()["logits"] for answer in asyncio.run(run())]
            batches = counters(together)
        assert batches["mxa_batch_pictures_sum"] == len(files)
        assert batches["mxa_batch_pictures_count"] < len(files)
        for logits, file in zip(found, images(), strict=True):
            assert logits == pytest.approx(predictor.predict(file).to_dict()["logits"], abs=1e-4)


def test_a_decoder_that_is_not_installed(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    answer = here.predict(DICOM, name="a.dcm")
    assert answer.status_code == 501
    assert "DICOM files need pydicom" in answer.json()["detail"]


class TestAbout:
    def test_health(self, predictor: Predictor) -> None:
        with site(predictor) as here:
            assert here.get("/health").json() == {"live": True, "ready": True}
        closed = here.get("/health")
        assert (closed.status_code, closed.json()) == (503, {"live": True, "ready": False})

    def test_model(self, here: Site, predictor: Predictor) -> None:
        found = here.get("/model").json()
        ModelBody.model_validate(found)
        point = predictor.tuning.point("youden")
        assert found["findings"] == list(predictor.labels)
        assert found["operating_points"]["youden"]["thresholds"] == dict(
            zip(predictor.labels, point.thresholds, strict=True)
        )
        assert found["operating_points"]["youden"]["reasons"] == dict(point.reasons)
        assert found["model_hash"] == predictor.model_hash
        assert found["preprocess"] == predictor.preprocess.to_dict()
        assert found["blocks"] == ["stages.0.blocks.0", "stages.1.blocks.0", "stages.2.blocks.0"]
        assert found["maps_missing"] == "there are none here"
        assert "Research software; not for clinical use." in found["card"]

    def test_counters(self, predictor: Predictor) -> None:
        with site(predictor) as here:
            here.predict(PNG)
            here.predict(dicom(GREY), name="b.dcm")
            here.predict(b"nothing of a picture")
            here.get("/wp-login.php?user=PATIENT")
            found = counters(here)
        assert found["mxa_requests_total /predict 200"] == 2
        assert found["mxa_requests_total /predict 415"] == 1
        assert found["mxa_requests_total other 404"] == 1
        assert found["mxa_request_seconds_count /predict"] == 3
        assert found["mxa_pictures_total png"] == found["mxa_pictures_total dicom"] == 1
        assert found["mxa_batch_pictures_sum"] == 2
        assert found["mxa_predictions_under_way"] == found["mxa_upload_bytes"] == 0
        assert not any("PATIENT" in name or "wp-login" in name for name in found)

    def test_the_page_comes_from_here_alone(self, here: Site) -> None:
        answer = here.get("/")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        script = here.get("/static/page.js")
        assert script.headers["content-type"].startswith("text/javascript")
        again = here.get("/static/page.js", headers={"if-none-match": script.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")

    @pytest.mark.parametrize("path", ["/static/../app.py", "/static/%2e%2e%2fapp.py", "/static//etc/passwd", "/docs"])
    def test_nothing_else_is_served(self, here: Site, path: str) -> None:
        assert here.get(path).status_code == 404


class TestOpenApi:
    def test_the_description_fits_the_interface(self, here: Site) -> None:
        found = here.get("/openapi.json").json()
        assert set(found["paths"]) == {"/predict", "/health", "/model", "/metrics"}
        predict = found["paths"]["/predict"]["post"]
        body = predict["requestBody"]["content"]
        assert set(body) == {
            "multipart/form-data",
            "application/dicom",
            "image/png",
            "image/jpeg",
            "application/octet-stream",
        }
        assert body["multipart/form-data"]["schema"]["properties"]["file"]["format"] == "binary"
        names = {one["name"] for one in predict["parameters"]}
        assert names == {"operating_point", "calibration", "views", "force", "view", "maps"}
        assert {one["in"] for one in predict["parameters"]} == {"query"}
        assert not any(one["required"] for one in predict["parameters"])
        assert set(predict["responses"]) == {"200", "400", "403", "408", "413", "415", "422", "501", "503"}
        assert list(found["paths"]["/metrics"]["get"]["responses"]["200"]["content"]) == ["text/plain"]
        assert "securitySchemes" not in found["components"]

    def test_every_reference_leads_somewhere(self, here: Site) -> None:
        found = here.get("/openapi.json").json()

        def references(value: Any) -> list[str]:
            if isinstance(value, dict):
                own = [value["$ref"]] if "$ref" in value else []
                return own + [one for item in value.values() for one in references(item)]
            return [one for item in value for one in references(item)] if isinstance(value, list) else []

        assert references(found)
        for reference in references(found):
            target: Any = found
            for part in reference.removeprefix("#/").split("/"):
                target = target[part]
        schema = found["components"]["schemas"]["PredictionBody"]
        answer = here.predict(PNG).json()
        assert set(schema["properties"]) == set(answer)
        assert set(schema["required"]) == set(answer) - {"view", "maps"}

    def test_the_fields_are_those_of_a_prediction(self, predictor: Predictor) -> None:
        own = predictor.predict(GREY, operating_point="youden").to_dict()
        assert set(PredictionBody.model_fields) == set(own) | {"view", "maps"}
        assert PredictionBody(**own).model_dump(mode="json", exclude={"view", "maps"}) == own


class TestToken:
    @pytest.fixture
    def guarded(self, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> Site:
        monkeypatch.setenv("MXA_TOKEN", TOKEN)
        with site(predictor, ServeOptions(host="0.0.0.0")) as made:
            yield made

    @pytest.mark.parametrize("given", [None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"])
    def test_without_it_nothing_is_read(self, guarded: Site, given: str | None) -> None:
        headers = {} if given is None else {"authorization": given}
        for method, path in (("POST", "/predict"), ("GET", "/model"), ("GET", "/metrics")):
            answer = guarded.ask(method, path, headers=headers)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == "Bearer"

    def test_with_it(self, guarded: Site) -> None:
        headers = {"authorization": f"Bearer {TOKEN}", "host": "pacs.example"}
        assert guarded.predict(PNG, headers=headers).status_code == 200
        assert guarded.get("/model", headers=headers).status_code == 200

    def test_page_and_health_need_none(self, guarded: Site) -> None:
        assert guarded.get("/").status_code == guarded.get("/health").status_code == 200

    def test_openapi_says_so(self, guarded: Site) -> None:
        found = guarded.get("/openapi.json").json()
        assert found["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
        assert found["paths"]["/predict"]["post"]["security"] == [{"HTTPBearer": []}]
        assert "401" in found["paths"]["/predict"]["post"]["responses"]
        assert "security" not in found["paths"]["/health"]["get"]


class TestForeignPages:
    @pytest.mark.parametrize(
        "headers",
        [
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"origin": "http://127.0.0.1:9"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
            {"host": "evil.example"},
            {"host": "127.0.0.1.evil.example:8000"},
        ],
    )
    def test_are_refused(self, here: Site, headers: dict[str, str]) -> None:
        assert here.predict(PNG, headers=headers).status_code == 403

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"origin": "http://127.0.0.1:8000"},
            {"sec-fetch-site": "same-origin", "origin": "http://127.0.0.1:8000"},
            {"host": "localhost:1"},
            {"host": "[::1]:8000"},
        ],
    )
    def test_others_are_not(self, here: Site, headers: dict[str, str]) -> None:
        assert here.predict(PNG, headers=headers).status_code == 200


class Held:
    """A runtime that waits until it is let go."""

    def __init__(self, runtime: Any) -> None:
        self.name = runtime.name
        self.runtime = runtime
        self.free = threading.Event()
        self.free.set()
        self.called = threading.Event()

    def __call__(self, pixels: np.ndarray) -> Scores:
        self.called.set()
        self.free.wait(60)
        return self.runtime(pixels)


def beside_a_prediction(
    here: Site, held: Held, ask: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]
) -> tuple[httpx.Response, httpx.Response]:
    """The answers to a prediction and to what is asked while it is under way."""
    held.free.clear()
    held.called.clear()

    async def run() -> tuple[httpx.Response, httpx.Response]:
        async with here.client() as client:
            first = asyncio.create_task(client.post("/predict", files={"file": PNG}))
            await asyncio.to_thread(held.called.wait, 60)
            second = await ask(client)
            held.free.set()
            return await first, second

    return asyncio.run(run())


class TestLimits:
    def test_whoever_comes_on_top_is_asked_to_come_again(self, predictor: Predictor) -> None:
        held = Held(predictor.runtime)
        with site(replace(predictor, runtime=held), ServeOptions(queue=1)) as here:
            first, second = beside_a_prediction(here, held, lambda client: client.post("/predict", files={"file": PNG}))
            assert first.status_code == 200
            assert second.status_code == 503
            assert second.headers["retry-after"] == "1"
            assert "1 predictions are under way" in second.json()["detail"]
            assert here.predict(PNG).status_code == 200
            assert (here.gate.requests, here.gate.held) == (0, 0)

    def test_requests_of_every_kind(self, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mxa.serve.app._OTHER_REQUESTS", 0)
        held = Held(predictor.runtime)
        with site(replace(predictor, runtime=held), ServeOptions(queue=1)) as here:
            first, second = beside_a_prediction(here, held, lambda client: client.get("/health"))
            assert (first.status_code, second.status_code) == (200, 503)
            assert second.json() == {"detail": "1 requests are under way; try again in a moment"}
            assert second.headers["retry-after"] == "1"
            assert second.headers["x-content-type-options"] == "nosniff"
            assert here.get("/health").status_code == 200
            assert counters(here)["mxa_requests_total /health 503"] == 1

    def test_memory_of_uploads(self, predictor: Predictor) -> None:
        with site(predictor, ServeOptions(max_bytes=50_000, upload_memory=50_000)) as here:
            here.gate.hold(30_000)  # as another upload would
            answer = here.predict(bytes(40_000))
            assert answer.status_code == 503
            assert "50000 bytes of uploads are under way" in answer.json()["detail"]
            here.gate.hold(-30_000)
            assert here.predict(PNG).status_code == 200
            assert here.gate.held == 0

    def test_a_prediction_that_takes_too_long(self, predictor: Predictor) -> None:
        held = Held(predictor.runtime)
        with site(replace(predictor, runtime=held), ServeOptions(predict_seconds=0.05)) as here:
            held.free.clear()
            answer = here.predict(PNG)
            assert answer.status_code == 503
            assert "longer than 0.05 s" in answer.json()["detail"]
            assert here.gate.requests == 1  # its thread still works on it
            held.free.set()
        assert (here.gate.requests, here.gate.held) == (0, 0)

    def test_an_upload_that_takes_too_long(self, predictor: Predictor) -> None:
        async def slowly() -> Any:
            yield PNG[:10]
            await asyncio.sleep(60)
            yield PNG[10:]

        with site(predictor, ServeOptions(upload_seconds=0.05)) as here:

            async def run() -> httpx.Response:
                async with here.client() as client:
                    return await client.post("/predict", content=slowly(), headers={"content-type": "image/png"})

            answer = asyncio.run(run())
            assert answer.status_code == 408
            assert answer.headers["connection"] == "close"
            assert (here.gate.requests, here.gate.held) == (0, 0)


class TestMistakesOfOurs:
    def test_tell_nothing_and_end_nothing(self, predictor: Predictor, caplog: pytest.LogCaptureFixture) -> None:
        held = Held(predictor.runtime)
        with site(replace(predictor, runtime=held)) as here, caplog.at_level(logging.INFO):
            held.runtime = lambda pixels: [][len("SECRET")]
            answer = here.predict(PNG)
            assert answer.status_code == 500
            assert answer.json() == {"detail": "the server made a mistake; its log says where"}
            assert any(line.startswith("IndexError at ") and "test_app.py" in line for line in caplog.messages)
            held.runtime = predictor.runtime
            assert here.predict(PNG).status_code == 200
