"""The page in a real browser."""

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deploy.small import exported, pictures, saved
from mxa.explain.explanation import explain_grey
from mxa.models.artifact import load
from mxa.predictor import open_predictor
from serve.serving import Served, dicom, png, served

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

# Large cells, so that the browser's way of resizing hardly matters.
GREY = np.kron(pictures(1, 30)[0, 0][:20], np.ones((10, 10), dtype=np.uint8))
PNG = png(GREY)
TOKEN = "0123456789abcdef-token"
FOR, AGAINST = np.array([0xF0, 0x88, 0x2D]), np.array([0x4F, 0xA8, 0xE8])
DROP = """([data, name]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))], name));
    for (const type of ["dragover", "drop"])
        document.getElementById("stage").dispatchEvent(
            new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer: transfer }));
}"""


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """With maps."""
    with served(str(saved())) as made:
        yield made


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Without maps, with a token."""
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text(TOKEN)
    with served(str(exported("onnx")), token_file=str(file), max_bytes=100_000) as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


class Page:
    """A browser's page, and all that it asked for."""

    def __init__(self, browser: Any, url: str, width: int = 1280) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 800})
        self.page.set_default_timeout(60_000)
        self.requests: list[str] = []
        self.mistakes: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.mistakes.append(str(error)))
        self.page.on("console", lambda line: self.mistakes.append(line.text))
        self.page.goto(url)

    def drop(self, data: bytes, name: str = "a.png") -> None:
        self.page.evaluate(DROP, [base64.b64encode(data).decode(), name])

    def drop_and_wait(self, data: bytes, name: str = "a.png") -> None:
        with self.page.expect_response(lambda answer: "/predict" in answer.url):
            self.drop(data, name)
        self.settle()

    def settle(self) -> None:
        """Wait until the answer is on the page."""
        self.page.wait_for_selector("#working", state="hidden")
        self.page.wait_for_function("() => new Promise((done) => requestAnimationFrame(() => done(true)))")

    def choose(self, selector: str, value: str) -> None:
        with self.page.expect_response(lambda answer: "/predict" in answer.url):
            self.page.select_option(selector, value)
        self.settle()

    def pixels(self) -> np.ndarray:
        """(H, W, 3) int of the canvas."""
        url = self.page.evaluate("document.getElementById('canvas').toDataURL()")
        image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
        return np.asarray(image.convert("RGB")).astype(int)

    def red(self) -> int:
        """Pixels in the boxes' colour."""
        found = self.pixels()
        return int(((found[..., 0] > found[..., 1] + 60) & (found[..., 0] > found[..., 2] + 60)).sum())

    def rows(self) -> list[tuple[str, str, str]]:
        """Finding, value and decision, as shown."""
        return [
            (
                row.query_selector(".name").inner_text(),
                row.query_selector(".value b").inner_text(),
                decision.inner_text() if (decision := row.query_selector(".decision")) else "",
            )
            for row in self.page.query_selector_all("#findings li")
        ]

    def fits(self) -> bool:
        """Whether nothing has to be scrolled sideways."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


@pytest.fixture
def page(browser: Any, server: Served) -> Iterator[Page]:
    made = Page(browser, server.url)
    yield made
    assert all(url.startswith((server.url + "/", "data:", "blob:")) for url in made.requests), made.requests
    assert [line for line in made.mistakes if "status of 4" not in line] == []
    made.page.close()


def test_a_dropped_picture_is_shown_with_its_findings(page: Page) -> None:
    page.drop_and_wait(PNG)
    expected = open_predictor(saved(), threads=1).predict(GREY, operating_point="youden").to_dict()
    ranked = sorted(expected["probabilities"].items(), key=lambda item: -item[1])
    words = {True: "present", False: "absent", None: "undecided"}
    rows = page.rows()
    assert [row[0] for row in rows] == [finding for finding, _ in ranked]
    assert [float(row[1]) for row in rows] == pytest.approx([value for _, value in ranked], abs=0.0051)
    assert [row[2] for row in rows] == [words[expected["decisions"][finding]] for finding, _ in ranked]
    widths = page.page.eval_on_selector_all(".fill", "bars => bars.map((bar) => parseFloat(bar.style.width))")
    assert widths == pytest.approx([100 * value for _, value in ranked], abs=0.01)
    present = sum(decision is True for decision in expected["decisions"].values())
    assert f"{present} of 14 findings above their threshold (youden)" in page.page.inner_text("#summary")
    assert page.page.get_attribute("#canvas", "aria-label") == "The radiograph, 300 by 200 pixels"
    page.page.click("#boxes label:nth-of-type(1)")
    page.page.click("#boxes label:nth-of-type(2)")
    page.page.click("#boxes label:nth-of-type(3)")
    assert (
        np.abs(page.pixels().mean(-1) - np.asarray(Image.fromarray(GREY).resize(page.pixels().shape[1::-1]))).mean() < 3
    )


def test_boxes_are_switched(page: Page) -> None:
    page.drop_and_wait(PNG)
    counts = [page.red()]
    for stage in (1, 2, 3):
        page.page.click(f"#boxes label:nth-of-type({stage})")
        counts.append(page.red())
    assert counts[0] > counts[1] > counts[2] > counts[3] == 0
    page.page.click("#boxes label:nth-of-type(3)")
    lines = page.red()
    x1, y1, x2, y2 = open_predictor(saved(), threads=1).predict(GREY).regions["stages.2.blocks.0"]
    found = page.pixels()
    scale = found.shape[1] / 300
    around = 2 * (x2 - x1 + y2 - y1) * scale
    assert 1.5 * around < lines < 6 * around  # a solid line of a few pixels
    inner = found[int(y1 * scale) + 8 : int(y2 * scale) - 8, int(x1 * scale) + 8 : int(x2 * scale) - 8]
    assert (inner.max(-1) == inner.min(-1)).all()  # grey


def test_a_map_is_laid_over_the_picture_as_mxa_explain_does(page: Page) -> None:
    page.drop_and_wait(PNG)
    for stage in (1, 2, 3):
        page.page.click(f"#boxes label:nth-of-type({stage})")
    plain = page.pixels()
    page.page.select_option("#map", "Edema")
    shown = page.pixels()
    one = explain_grey(load(saved()), GREY)
    scale = np.abs(one.maps).max()
    height, width = plain.shape[:2]
    rows, columns = np.arange(0, height, 7), np.arange(0, width, 7)
    own_rows, own_columns = (rows + 0.5) * 200 // height, (columns + 0.5) * 300 // width
    heat = one.heat("Edema")[np.ix_(own_rows.astype(int), own_columns.astype(int))] / scale
    alpha = 0.75 * np.abs(heat)[..., None]
    expected = plain[np.ix_(rows, columns)] * (1 - alpha) + np.where(heat[..., None] > 0, FOR, AGAINST) * alpha
    difference = np.abs(shown[np.ix_(rows, columns)] - expected)
    assert difference.mean() < 2
    assert difference.max() < 16
    assert page.page.inner_text("#scale-high") == f"+{scale:.1f}"
    assert page.page.get_attribute("li[data-finding='Edema'] button", "aria-pressed") == "true"
    page.page.click("li[data-finding='Edema'] button")
    np.testing.assert_array_equal(page.pixels(), plain)
    assert page.page.input_value("#map") == ""


def test_operating_point_and_calibration_are_chosen(page: Page) -> None:
    page.drop_and_wait(PNG)
    predictor = open_predictor(saved(), threads=1)
    page.choose("#calibration", "platt")
    expected = predictor.predict(GREY, operating_point="youden", calibration="platt").to_dict()
    shown = {finding: float(value) for finding, value, _ in page.rows()}
    assert shown == pytest.approx(expected["probabilities"], abs=0.0051)
    assert "uncalibrated" in page.page.inner_text("li[data-finding='Edema'] .why")
    assert page.page.query_selector(".mark") is None  # the threshold is of another scale
    assert "No Finding is not calibrated by platt" in page.page.inner_text("#notes")
    page.choose("#calibration", "")
    page.choose("#point", "cost=3")
    thresholds = predictor.tuning.point("cost=3")
    limit = thresholds.thresholds[thresholds.findings.index("Edema")]
    mark = page.page.eval_on_selector("li[data-finding='Edema'] .mark", "mark => parseFloat(mark.style.left)")
    assert mark == pytest.approx(100 * max(0, limit), abs=0.01)
    page.choose("#point", "")
    assert {row[2] for row in page.rows()} == {""}
    assert "no operating point decides" in page.page.inner_text("#summary")


def test_a_dicom_file_and_its_notes(page: Page) -> None:
    page.drop_and_wait(dicom(GREY, ViewPosition=None, PatientOrientation=None), "MUSTER^JANE.dcm")
    assert len(page.rows()) == 14
    assert "no view is recorded" in page.page.inner_text("#notes")
    page.drop_and_wait(dicom(GREY, ViewPosition="LL", PatientOrientation=None), "b.dcm")
    assert "its view is lateral" in page.page.inner_text("#problem")
    assert page.rows() == []
    with page.page.expect_response(lambda answer: "/predict" in answer.url):
        page.page.check("#force")
    page.settle()
    assert len(page.rows()) == 14
    assert "its view is lateral" in page.page.inner_text("#notes")


def test_a_problem_is_told_and_nothing_old_stays(page: Page) -> None:
    page.drop_and_wait(PNG)
    page.drop_and_wait(b"<html></html>", "a.dcm")
    assert "not a DICOM file, or damaged" in page.page.inner_text("#problem")
    assert page.page.get_attribute("#problem", "role") == "alert"
    assert page.rows() == []
    assert not page.page.is_visible("#canvas")
    page.drop_and_wait(PNG)
    assert not page.page.is_visible("#problem")
    assert len(page.rows()) == 14


def test_names_of_files_stay_in_the_browser(page: Page) -> None:
    with page.page.expect_request(lambda request: "/predict" in request.url) as sent:
        page.drop(PNG, "MUSTER^JANE.png")
    body = sent.value.post_data_buffer or b""
    assert b"JANE" not in body + sent.value.url.encode()
    page.settle()


def test_without_a_mouse(page: Page, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    page.page.on("filechooser", lambda chooser: chooser.set_files(tmp_path / "a.png"))
    page.page.wait_for_selector("#main")
    for _ in range(10):
        page.page.keyboard.press("Tab")
        if page.page.evaluate("document.activeElement.id") == "file":
            break
    with page.page.expect_response(lambda answer: "/predict" in answer.url):
        page.page.keyboard.press("Enter")
    page.settle()
    page.page.focus("#findings li:nth-child(2) button")
    page.page.keyboard.press("Enter")
    assert page.page.input_value("#map") == page.rows()[1][0]
    unnamed = page.page.eval_on_selector_all(
        "input, select", "fields => fields.filter((one) => !one.labels.length).map((one) => one.outerHTML)"
    )
    assert unnamed == []


@pytest.mark.parametrize("width", [360, 768])
def test_narrow_screens(browser: Any, server: Served, width: int) -> None:
    phone = Page(browser, server.url, width)
    phone.page.wait_for_selector("#main")
    assert phone.fits()
    phone.drop_and_wait(PNG)
    phone.page.select_option("#map", "Enlarged Cardiomediastinum")
    phone.page.click(".card summary")
    phone.page.click("#dicom summary")
    assert phone.fits()
    assert phone.page.is_visible(".banner")
    assert phone.page.eval_on_selector("#canvas", "canvas => canvas.clientWidth") > 0.8 * min(width, 340)
    phone.drop_and_wait(b"nothing of a picture")
    assert phone.fits()
    phone.page.close()


def test_the_warning_and_the_card_are_there(page: Page) -> None:
    page.page.wait_for_selector("#main")
    assert page.page.inner_text(".banner") == "Research software, not for clinical use."
    page.page.evaluate("scrollTo(0, 1e6)")
    assert page.page.eval_on_selector(".banner", "banner => banner.getBoundingClientRect().top") == 0
    page.page.click(".card summary")
    card = page.page.inner_text("#card")
    assert "mxa_efficientvit_m0 for 14 findings on chest radiographs" in card
    assert "Operating points: youden, cost=3." in card
    assert not any(mark in card for mark in ("**", "##", "`", "---"))
    assert page.page.inner_text("#hash") == open_predictor(saved(), threads=1).model_hash


def test_an_exported_model_with_a_token(browser: Any, guarded: Served) -> None:
    own = Page(browser, guarded.url)
    own.page.wait_for_selector("#token", state="visible")
    assert not own.page.is_visible("#main")
    own.page.fill("#token", "wrong-wrong-wrong-wrong")
    with own.page.expect_response(lambda answer: "/model" in answer.url):
        own.page.keyboard.press("Enter")
    assert not own.page.is_visible("#main")
    own.page.wait_for_selector("#no-model", state="visible")
    assert own.page.inner_text("#no-model") == "The token is wrong."
    own.page.fill("#token", TOKEN)
    own.page.keyboard.press("Enter")
    own.page.wait_for_selector("#main", state="visible")
    assert not own.page.is_visible("#no-model")
    assert "No class-activation maps: an exported model has" in own.page.inner_text("#maps-missing")
    own.drop_and_wait(PNG)
    assert len(own.rows()) == 14
    assert not own.page.is_visible("#maps")
    assert own.page.query_selector("#findings button") is None
    own.drop(bytes(100_001))  # not even sent
    own.page.wait_for_selector("#problem", state="visible")
    assert "The file has 100001 bytes; this server takes 100000 at most" in own.page.inner_text("#problem")
    assert len([url for url in own.requests if "/predict" in url]) == 1
    own.page.close()
