"""Options that make no sense are refused, and no server is open to others by accident."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from mxa.errors import ConfigError
from mxa.serve.options import ServeOptions

TOKEN = "0123456789abcdef"


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MXA_TOKEN", raising=False)


def test_by_default_it_serves_this_machine_without_token() -> None:
    assert ServeOptions().host == "127.0.0.1"
    assert ServeOptions().token() is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "pacs.example"])
def test_others_need_a_token(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"other machines may reach.*--token_file FILE or set MXA_TOKEN"):
        ServeOptions(host=host)
    (tmp_path / "token").write_text(TOKEN + "\n")
    assert ServeOptions(host=host, token_file=str(tmp_path / "token")).token() == TOKEN
    monkeypatch.setenv("MXA_TOKEN", TOKEN * 2)
    assert ServeOptions(host=host).token() == TOKEN * 2
    assert ServeOptions(host=host, token_file=str(tmp_path / "token")).token() == TOKEN


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes")
def test_a_token_from_a_pipe_is_read_once_and_shown_nowhere(tmp_path: Path) -> None:
    pipe = tmp_path / "token"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(TOKEN,), daemon=True)
    writer.start()
    options = ServeOptions(host="0.0.0.0", token_file=str(pipe))
    assert options.token() == options.token() == TOKEN
    assert TOKEN not in repr(options)


@pytest.mark.parametrize(
    "token", ["", "short", "with a space in it", "umlaut-öööööööööööö", "a\x07aaaaaaaaaaaaaaaaaaa"]
)
def test_tokens_that_are_none(token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text(token, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"token: a token has 16 or more visible ASCII characters") as error:
        ServeOptions(token_file=str(tmp_path / "token"))
    assert not token or token not in str(error.value)
    monkeypatch.setenv("MXA_TOKEN", token)
    with pytest.raises(ConfigError, match=r"^MXA_TOKEN: a token has"):
        ServeOptions()


def test_a_token_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none: the token cannot be read \(FileNotFoundError\)"):
        ServeOptions(token_file=str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": -1}, "port is -1"),
        ({"port": 65536}, "port is 65536"),
        ({"max_bytes": 0}, "max_bytes is 0; it must be more than 0"),
        ({"max_pixels": -1}, "max_pixels is -1"),
        ({"max_pixels": 10**9}, "no picture of more than 89478485 is read"),
        ({"queue": 0}, "queue is 0"),
        ({"decoders": 0}, "decoders is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_seconds": -0.1}, "batch_seconds is -0.1; it must be 0 or more"),
        ({"upload_seconds": 0.0}, "upload_seconds is 0.0"),
        ({"predict_seconds": float("nan")}, "predict_seconds is nan"),
        ({"upload_memory": 100}, "upload_memory is 100, less than one upload may have"),
    ],
)
def test_numbers_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ServeOptions(**options)
