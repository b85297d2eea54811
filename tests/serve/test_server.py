"""The server as a process, over real connections. The kernel lets it write to no file."""

import json
import signal
import socket
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from PIL import Image

from deploy.small import exported, pictures
from mxa.errors import ConfigError
from mxa.predictor import Predictor
from mxa.serve.options import ServeOptions
from mxa.serve.server import serve
from serve.serving import Served, dicom, encode, png, served

GREY = pictures(1, 90)[0, 0][:70]
PNG = png(GREY)
LIMIT = 3_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(str(exported("onnx")), max_bytes=LIMIT, upload_seconds=1.0) as made:
        yield made


def predict(server: Served, data: bytes, name: str = "a.png") -> httpx.Response:
    return httpx.post(f"{server.url}/predict", files={"file": (name, data)}, timeout=60)


def head(length: int) -> bytes:
    """Of an upload of some bytes."""
    lines = ("POST /predict HTTP/1.1", "Host: 127.0.0.1", "Content-Type: image/png", f"Content-Length: {length}")
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def receive(connection: socket.socket) -> bytes:
    """Everything until the server closes the connection."""
    connection.settimeout(30)
    parts = []
    while True:
        try:
            part = connection.recv(2**16)
        except ConnectionResetError:
            part = b""
        if not part:
            return b"".join(parts)
        parts.append(part)


def test_it_predicts_without_a_file(server: Served, predictor: Predictor) -> None:
    large = np.random.default_rng(0).integers(0, 256, (1600, 1600), dtype=np.uint8)
    for data, name in ((PNG, "a.png"), (png(large), "b.png"), (dicom(large[:, :1200]), "c.dcm")):
        answer = predict(server, data, name)
        assert answer.status_code == 200, answer.text
    expected = predictor.predict(GREY).to_dict()["logits"]
    assert predict(server, PNG).json()["logits"] == pytest.approx(expected, abs=1e-4)


def test_a_gigabyte_without_length_is_cut_off(server: Served) -> None:
    sent = 0

    def gigabyte() -> Iterator[bytes]:
        nonlocal sent
        while sent < 2**30:
            sent += 2**16
            yield bytes(2**16)

    answer = httpx.post(f"{server.url}/predict", content=gigabyte(), headers={"content-type": "image/png"}, timeout=60)
    assert answer.status_code == 413
    assert "larger than 3000000 bytes" in answer.json()["detail"]
    assert sent < 20 * LIMIT  # what stands in the kernel's buffers is not the server's
    assert predict(server, PNG).status_code == 200


def test_a_gigabyte_is_refused_by_its_length(server: Served) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head(2**30))
        answer = receive(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-",
    ],
)
def test_a_head_that_does_not_come_is_not_waited_for(server: Served, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(sent)
        assert receive(connection) == b""
    assert predict(server, PNG).status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(server: Served) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head(1000) + PNG[:9])
        answer = receive(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"detail": "the upload took longer than 1 s"}


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\n\r\n", b"\r\n" * 4000])
def test_what_is_no_http(server: Served, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(sent)
        assert receive(connection)[:12] in {b"HTTP/1.1 400", b"", b"HTTP/1.1 403"}
    assert predict(server, PNG).status_code == 200


def test_a_client_that_leaves(server: Served) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head(1000) + b"abc")
    for _ in range(100):
        if any("/predict 499 " in line for line in server.lines):
            break
        time.sleep(0.05)
    assert any("/predict 499 " in line for line in server.lines)
    assert "mxa_predictions_under_way 0.0" in httpx.get(f"{server.url}/metrics").text


def test_several_requests_on_one_connection(server: Served) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        found = [client.post("/predict", files={"file": PNG}).json()["logits"] for _ in range(3)]
    assert found[0] == found[1] == found[2]


def test_a_little_load(server: Served, predictor: Predictor) -> None:
    """The benchmark serve.py loads more."""
    files = [png(one[0]) for one in pictures(8, 90)]
    expected = [predictor.predict(one[0]).to_dict()["logits"] for one in pictures(8, 90)]

    def client(number: int) -> None:
        with httpx.Client(base_url=server.url, timeout=60) as connection:
            for _ in range(12):
                answer = connection.post("/predict", files={"file": files[number]})
                assert answer.status_code == 200, answer.text
                assert answer.json()["logits"] == pytest.approx(expected[number], abs=1e-4)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client, range(8)))


def test_nothing_that_was_sent_is_in_its_log(server: Served) -> None:
    secret = "SECRET-NAME"
    httpx.get(f"{server.url}/{secret}?{secret}={secret}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        damaged = dicom(GREY, BodyPartExamined="SECRET-PART").replace(
            b"1.2.840.10008.1.2.1\0", b"1.2.SECRET-CODE..1.1\0"
        )
    assert predict(server, damaged, f"{secret}.dcm").status_code == 422
    httpx.get(f"{server.url}/health")
    assert "SECRET" not in "".join(server.lines)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_in_order(how: signal.Signals) -> None:
    with served(str(exported("onnx"))) as own:
        assert predict(own, encode(Image.fromarray(GREY), "jpeg")).status_code == 200
        with httpx.Client(base_url=own.url) as client:  # an open connection does not keep it
            client.get("/health")
            code = own.stop(how)
        assert code == (0 if how == signal.SIGINT else -signal.SIGTERM)
        assert "Traceback" not in "".join(own.lines)


def test_an_address_that_is_taken_is_known_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on 127\.0\.0\.1, port {port} .*choose another --port"):
            serve("no model is looked for", ServeOptions(port=port))


def test_an_address_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MXA_TOKEN", "0123456789abcdef")
    with pytest.raises(ConfigError, match=r"cannot listen on|is no address of this machine"):
        serve("no model is looked for", ServeOptions(host="192.0.2.1"))
