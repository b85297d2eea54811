"""The page's files, which come with the package."""

import hashlib
from dataclasses import dataclass
from importlib import resources

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
INDEX = "index.html"


@dataclass(frozen=True)
class PageFile:
    """One file.

    Attributes:
        content: all of it.
        media_type: of HTTP.
        etag: changes with the content.
    """

    content: bytes
    media_type: str
    etag: str


def load_page() -> dict[str, PageFile]:
    """All files by name."""
    files = {}
    for file in (resources.files("mxa.serve") / "page").iterdir():
        suffix = "." + file.name.rpartition(".")[2]
        if suffix in _TYPES:
            content = file.read_bytes()
            files[file.name] = PageFile(content, _TYPES[suffix], f'"{hashlib.sha256(content).hexdigest()[:16]}"')
    return files
