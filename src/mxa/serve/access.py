"""Who may ask: those with the token, and no foreign web page through its visitor's browser."""

import hmac
import ipaddress
from collections.abc import Mapping

_OWN_PAGE = {"same-origin", "none"}


def is_loopback(host: str) -> bool:
    """Whether an address or host name is this machine's own; of names only "localhost" is known to be."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bearer_fits(authorization: str, token: str) -> bool:
    """Whether an ``Authorization`` header carries the token; takes as long for a wrong one as for the right one."""
    scheme, _, given = authorization.partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())


def called_by_loopback_name(headers: Mapping[str, str]) -> bool:
    """Whether a request was addressed to this machine's own name.

    A web page may give 127.0.0.1 a name of its own (DNS rebinding), and its visitor's browser then takes the server for
    a part of that page. Only the ``Host`` header tells.
    """
    host = headers.get("host", "")
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    return is_loopback(name)


def from_foreign_page(headers: Mapping[str, str]) -> bool:
    """Whether a browser sends a request for a page that is not this server's; other programs never do.

    Every page may send its visitor's browser to any address, though it cannot read the answer.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in _OWN_PAGE
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] != headers.get("host", "")
