"""What may be chosen of a server."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from mxa.errors import ConfigError
from mxa.serve.access import is_loopback

TOKEN_VARIABLE = "MXA_TOKEN"
MIN_TOKEN = 16
_MIB = 2**20
_POSITIVE = (
    "max_bytes",
    "max_pixels",
    "queue",
    "upload_seconds",
    "predict_seconds",
    "decoders",
    "batch_size",
)


@dataclass(frozen=True)
class ServeOptions:
    """Address, access, limits and batches of a server.

    Raises:
        ConfigError: a value makes no sense, the token cannot be read, or others could reach a server without token.
    """

    host: str = "127.0.0.1"
    """Address to listen on. One that other machines may reach (such as 0.0.0.0) needs a token."""
    port: int = 8000
    """Port to listen on; 0 takes any that is free."""
    token_file: str | None = None
    """File with the token that requests must carry ("Authorization: Bearer TOKEN"). Without it the environment variable
    MXA_TOKEN is taken, and without that no token is needed."""
    max_bytes: int = 64 * _MIB
    """Largest upload in bytes."""
    max_pixels: int = 50_000_000
    """Largest picture in pixels, padding to a square included; it is refused before it is decoded."""
    upload_memory: int = 512 * _MIB
    """Bytes of uploads that are held at once; whoever comes on top is asked to come again."""
    queue: int = 64
    """Predictions that are under way at once; whoever comes on top is asked to come again."""
    upload_seconds: float = 30.0
    """Time for an upload to arrive, and for a request's head."""
    predict_seconds: float = 60.0
    """Time from the end of an upload to its prediction."""
    decoders: int = 2
    """Pictures that are decoded at once."""
    batch_size: int = 8
    """Pictures that the network scores at once, at most."""
    batch_seconds: float = 0.004
    """How long the first picture of a batch waits for others."""
    _token: str | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be more than 0")
        if not self.batch_seconds >= 0:
            raise ConfigError(f"batch_seconds is {self.batch_seconds!r}; it must be 0 or more")
        if not 0 <= self.port < 2**16:
            raise ConfigError(f"port is {self.port!r}; give 0 to 65535")
        if Image.MAX_IMAGE_PIXELS is not None and self.max_pixels > Image.MAX_IMAGE_PIXELS:
            raise ConfigError(
                f"max_pixels is {self.max_pixels}; no picture of more than {Image.MAX_IMAGE_PIXELS} is read"
            )
        if self.upload_memory < self.max_bytes:
            raise ConfigError(
                f"upload_memory is {self.upload_memory}, less than one upload may have (max_bytes: {self.max_bytes})"
            )
        object.__setattr__(self, "_token", self._read_token())  # once: a pipe gives it only once
        if self._token is None and not is_loopback(self.host):
            raise ConfigError(
                f"host is {self.host!r}, which other machines may reach: give --token_file FILE or set "
                f"{TOKEN_VARIABLE}, or stay on 127.0.0.1"
            )

    def token(self) -> str | None:
        """The token, or None where requests need none."""
        return self._token

    def _read_token(self) -> str | None:
        if self.token_file is not None:
            where = self.token_file
            try:
                token = Path(self.token_file).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{where}: the token cannot be read ({type(error).__name__})") from None
        elif TOKEN_VARIABLE in os.environ:
            where, token = TOKEN_VARIABLE, os.environ[TOKEN_VARIABLE]
        else:
            return None
        token = token.strip()
        if len(token) < MIN_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
            raise ConfigError(
                f"{where}: a token has {MIN_TOKEN} or more visible ASCII characters; `openssl rand -hex 32` makes one"
            )
        return token
