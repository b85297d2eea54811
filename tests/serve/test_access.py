"""Who may ask."""

import pytest

from mxa.serve.access import bearer_fits, called_by_loopback_name, from_foreign_page, is_loopback

TOKEN = "a-token-of-some-length"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "LOCALHOST", "localhost."])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org", "127.0.0.1.nip.io", "", "2130706433"]
)
def test_other_machines(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("header", "fits"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer  {TOKEN} ", True),
        (f"Bearer {TOKEN[:-1]}", False),
        (f"Bearer {TOKEN.upper()}", False),
        (f"Basic {TOKEN}", False),
        (TOKEN, False),
        ("Bearer \xff", False),
        ("Bearer", False),
        ("", False),
    ],
)
def test_the_token(header: str, fits: bool) -> None:
    assert bearer_fits(header, TOKEN) is fits


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1:8000", True),
        ("localhost", True),
        ("[::1]:8000", True),
        ("[::1]", True),
        ("[::2]:8000", False),
        ("evil.example:8000", False),
        ("127.0.0.1.evil.example", False),
        ("localhost@evil.example", False),
        ("", False),
    ],
)
def test_the_name_that_a_request_calls(host: str, own: bool) -> None:
    assert called_by_loopback_name({"host": host}) is own


def test_a_request_without_host() -> None:
    assert not called_by_loopback_name({})


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({}, False),
        ({"origin": "http://a:1"}, False),
        ({"origin": "https://a:1"}, False),
        ({"origin": "http://a:2"}, True),
        ({"origin": "http://b:1"}, True),
        ({"origin": "null"}, True),
        ({"origin": ""}, True),
        ({"sec-fetch-site": "same-origin", "origin": "https://proxy.example"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": "same-site"}, True),
        ({"sec-fetch-site": "cross-site", "origin": "http://a:1"}, True),
    ],
)
def test_a_foreign_page(headers: dict[str, str], foreign: bool) -> None:
    assert from_foreign_page({"host": "a:1", **headers}) is foreign
