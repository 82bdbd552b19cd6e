"""Keeps the crawler (and webhooks) away from internal addresses; sees URLs and addresses, never content.

Two checks. `check_url` refuses by the text of a URL, early and cheap. `socket_factory`, given to aiohttp's
TCPConnector, is the one that counts: it sees the very address a socket is about to be connected to, whatever
name, redirect, rebinding resolver or spelling led there.

Which addresses are public, and the operator's rules over them: db/addresses.py.
"""

import re
import socket
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from aiohttp import AddrInfoType
from yarl import URL

from db.addresses import AddressRules, is_literal
from worker.errors import AddressRefused, FetchCode, PortRefused, UrlRefused

DEFAULT_PORTS: Final = frozenset({80, 443})
MAX_URL: Final = 2048
MAX_HOST: Final = 253

# As db/urls.py at submit (controls, space, backslash); also C1 controls, line separators, lone surrogates.
_FORBIDDEN = re.compile("[\x00-\x20\\\\\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
_AUTHORITY = re.compile(r"[^:/?#]+://([^/?#\\]*)")
_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
# Resolvers read a name that ends in a number as an IPv4 address in decimal, octal, hex or short form.
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?")


class NetGuard:
    """The operator's rules over the public internet: addresses (`AddressRules`) and ports."""

    def __init__(
        self,
        *,
        allow_cidrs: Iterable[str] = (),
        deny_cidrs: Iterable[str] = (),
        allow_ports: Iterable[int] = (),
    ) -> None:
        """Raises ValueError for a malformed network. `allow_ports` are added to 80 and 443."""
        self.allows = AddressRules(allow_cidrs=allow_cidrs, deny_cidrs=deny_cidrs).allows
        self.ports = DEFAULT_PORTS | frozenset(allow_ports)
        # Per instance, not per class: two guards must never share a verdict.
        self._host_verdict = lru_cache(maxsize=4096)(self._judge_host)

    def socket_factory(self, info: AddrInfoType) -> socket.socket:
        """For TCPConnector: the socket of one attempt, or AddressRefused / PortRefused before it exists."""
        family, kind, protocol, _, sockaddr = info
        if not self.allows(str(sockaddr[0])):
            raise AddressRefused
        if sockaddr[1] not in self.ports:
            raise PortRefused
        return socket.socket(family=family, type=kind, proto=protocol)

    def check_url(self, text: str) -> URL:
        """The URL as it is sent; raises UrlRefused. Says nothing yet about what its name resolves to."""
        url = _parse(text)
        if url.port not in self.ports:
            raise UrlRefused("blocked_port", f"port {url.port} is not allowed")
        refusal = self._host_verdict(url.raw_host or "")
        if refusal is not None:
            raise UrlRefused(*refusal)
        return url

    def _judge_host(self, host: str) -> tuple[FetchCode, str] | None:
        if is_literal(host):
            return None if self.allows(host) else ("blocked_address", "the address is not allowed")
        if len(host) > MAX_HOST or _NAME.fullmatch(host) is None or _NUMERIC.fullmatch(host):
            return "invalid_url", "the host is not a valid name or address"
        return None

    def url_problem(self, text: str) -> FetchCode | None:
        """The code of what is wrong with the URL, or None."""
        try:
            self.check_url(text)
        except UrlRefused as refused:
            return refused.code
        return None


def _parse(text: str) -> URL:
    if not text or len(text) > MAX_URL:
        raise UrlRefused("invalid_url", f"a URL has 1 to {MAX_URL} characters")
    if _FORBIDDEN.search(text):
        raise UrlRefused("invalid_url", "the URL holds a control character, a space or a backslash")
    scheme = _SCHEME.match(text)
    if scheme is None:
        raise UrlRefused("invalid_url", "the URL has no scheme")
    if scheme[1].lower() not in ("http", "https"):
        raise UrlRefused("blocked_scheme", "only http and https are fetched")
    authority = _AUTHORITY.match(text)
    if authority is None or not authority[1]:
        raise UrlRefused("invalid_url", "the URL has no host")
    if "@" in authority[1]:
        # Tested on the text, because the parser drops an empty user.
        raise UrlRefused("blocked_userinfo", "a URL may not hold a user name or password")
    try:
        url = URL(text).with_fragment(None)
        if url.raw_user is not None or url.raw_password is not None:
            raise UrlRefused("blocked_userinfo", "a URL may not hold a user name or password")
    except ValueError as error:
        raise UrlRefused("invalid_url", "the URL cannot be parsed") from error
    future = "[" in authority[1] and ":" not in (url.raw_host or "")
    if url.scheme not in ("http", "https") or not url.raw_host or future:
        raise UrlRefused("invalid_url", "the URL cannot be parsed")
    return url
