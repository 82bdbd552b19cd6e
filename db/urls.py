"""The cheap syntactic check of a picture's URL, made when it is submitted.

It never resolves a name: whether the address may be contacted is the crawler's guard's business, at connect time.
"""

import re
from typing import Final
from urllib.parse import urlsplit

MAX_URL_LENGTH: Final = 2048
MAX_HOST_LENGTH: Final = 253
_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f\\]")
# Most URLs are like this, and a pattern costs a tenth of urlsplit: that is half of a big submit.
_USUAL: Final = re.compile(r"https?://[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?/[!-\[\]-~]*")


def check(url: str) -> str | None:
    """The code of what is wrong with this URL, or None: http(s) only, no userinfo, no control character or space,
    a host, a port in 1..65535, at most 2,048 characters."""
    if len(url) <= MAX_URL_LENGTH and _USUAL.fullmatch(url):
        return None
    return examine(url)


def examine(url: str) -> str | None:
    """What `check` says of a URL, whatever it looks like."""
    if not url or len(url) > MAX_URL_LENGTH or _FORBIDDEN.search(url):
        return "invalid_url"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "invalid_url"
    if parts.scheme not in ("http", "https"):
        return "blocked_scheme" if parts.scheme else "invalid_url"
    if "@" in parts.netloc:
        return "blocked_userinfo"
    if not parts.hostname or len(parts.hostname) > MAX_HOST_LENGTH or port == 0:
        return "invalid_url"
    return None


def without_fragment(url: str) -> str:
    """The URL as it is fetched: what stands after `#` never reaches the server."""
    return url.partition("#")[0]
