"""Who may pass into the console: the cookie, where a request comes from, the token of a form. Knows no page."""

import base64
import hmac
import ipaddress
import secrets
from typing import Final
from urllib.parse import urlsplit

from flask import Request, Response, g

from api.errors import Problem
from api.settings import ApiSettings

SAFE: Final = frozenset({"GET", "HEAD"})
COOKIE_LENGTH: Final = 43
VISITOR_S: Final = 12 * 3600


def is_secure(request: Request, settings: ApiSettings) -> bool:
    """Whether the browser speaks HTTPS, to us or to the proxy that `public_url` names."""
    return request.is_secure or settings.public_url.startswith("https://")


def check_transport(request: Request, settings: ApiSettings) -> None:
    """Problem `insecure_transport`: over plain HTTP, cookies are for this machine only."""
    host = urlsplit(f"//{request.host}").hostname or ""
    if is_secure(request, settings) or settings.console_plain_http or _is_loopback(host):
        return
    raise Problem(
        "insecure_transport",
        "Open the console over HTTPS (and set TAGMILL_PUBLIC_URL), or on the machine that it runs on.",
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_origin(request: Request, settings: ApiSettings) -> None:
    """Problem `foreign_origin` when the browser says that another site sends this. Browsers always say so."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None and site not in ("same-origin", "none"):
        raise Problem("foreign_origin", "The request comes from another site.")
    origin = request.headers.get("Origin")
    if origin is None:
        return
    own = {_origin(request.host_url), _origin(settings.public_url)} - {""}
    if origin not in own:
        raise Problem("foreign_origin", "The request comes from another site.")


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""


def address(request: Request, settings: ApiSettings) -> str:
    """Where the client is, to count attempts by: of an IPv6 address the network, which is one customer's."""
    forwarded = [each.strip() for each in request.headers.get("X-Forwarded-For", "").split(",") if each.strip()]
    given = request.remote_addr or ""
    if 0 < settings.trusted_proxies <= len(forwarded):
        given = forwarded[-settings.trusted_proxies]
    try:
        parsed = ipaddress.ip_address(given)
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)
    return str(parsed)


# --- cookies -------------------------------------------------------------------------------------------------


def _name(request: Request, settings: ApiSettings, kind: str) -> str:
    """`__Host-` binds a cookie to HTTPS and this host; without HTTPS, to the port, which cookies do not know."""
    if is_secure(request, settings):
        return f"__Host-tagmill-{kind}"
    return f"tagmill-{kind}-{urlsplit(request.host_url).port or 80}"


def cookie(request: Request, settings: ApiSettings, kind: str) -> str | None:
    """The cookie's value, or None when it is not one of ours."""
    value = request.cookies.get(_name(request, settings, kind), "")
    return value if len(value) == COOKIE_LENGTH and value.isascii() else None


def set_cookie(
    response: Response, request: Request, settings: ApiSettings, kind: str, value: str, seconds: float
) -> None:
    """Give the browser a cookie that scripts do not see."""
    response.set_cookie(
        _name(request, settings, kind),
        value,
        max_age=int(seconds),
        path="/",
        secure=is_secure(request, settings),
        httponly=True,
        samesite="Lax",
    )


def drop_cookie(response: Response, request: Request, settings: ApiSettings, kind: str) -> None:
    """Take it back."""
    set_cookie(response, request, settings, kind, "", 0)


def visitor(request: Request, settings: ApiSettings) -> str:
    """The token of a browser that nobody signed in with yet; `keep_visitor` sends it."""
    found = cookie(request, settings, "visitor")
    if found is None:
        found = g.new_visitor = secrets.token_urlsafe(32)
    return found


def keep_visitor(response: Response, request: Request, settings: ApiSettings) -> None:
    """Send the token that `visitor` had to make."""
    made = g.pop("new_visitor", None)
    if made is not None:
        set_cookie(response, request, settings, "visitor", made, VISITOR_S)


# --- tokens that follow from the cookie's ----------------------------------------------------------------------


def sign(token: str, *words: str) -> str:
    """A MAC that only this browser's pages and we can know: the key is the cookie's token, which is not stored."""
    digest = hmac.digest(token.encode(), "\x1f".join(words).encode(), "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def is_signed(given: str, token: str, *words: str) -> bool:
    """Whether `given` is `sign(token, *words)`."""
    return hmac.compare_digest(given.encode(), sign(token, *words).encode())


def csrf(token: str, purpose: str = "form") -> str:
    """The token that a form of this session carries."""
    return sign(token, "csrf", purpose)
