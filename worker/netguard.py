"""Keeps the crawler (and webhooks) away from internal addresses; sees URLs and addresses, never content.

Two checks. `check_url` refuses by the text of a URL, early and cheap. `socket_factory`, given to aiohttp's
TCPConnector, is the one that counts: it sees the very address a socket is about to be connected to, whatever
name, redirect, rebinding resolver or spelling led there.

`ipaddress.is_global` and `is_private` are not used: on Python 3.11 they call 192.0.0.192 (a metadata
service), NAT64, 6to4 and multicast addresses global, and 100.64.0.0/10 not private.
"""

import re
import socket
from collections.abc import Iterable, Iterator
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

from aiohttp import AddrInfoType
from yarl import URL

from worker.errors import AddressRefused, FetchCode, PortRefused, UrlRefused

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# The IANA IPv4 special-purpose registry, multicast, and Azure's WireServer, which lives in public space.
DENIED_V4: Final[tuple[IPv4Network, ...]] = tuple(
    IPv4Network(cidr)
    for cidr in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)

# IPv6 is an allow list: nothing outside 2000::/3 is public. These are the special parts inside it
# (IETF protocols with Teredo and ORCHID, documentation twice, 6to4, AS112).
PUBLIC_V6: Final = IPv6Network("2000::/3")
DENIED_V6: Final[tuple[IPv6Network, ...]] = tuple(
    IPv6Network(cidr) for cidr in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
# A public v4 address is public in these two spellings too: the kernel's own, and DNS64's on v6-only networks.
MAPPED: Final = IPv6Network("::ffff:0:0/96")
NAT64: Final = IPv6Network("64:ff9b::/96")
COMPATIBLE: Final = IPv6Network("::/96")
TRANSLATED: Final = IPv6Network("::ffff:0:0:0/96")

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


def embedded_v4(address: IPv6Address) -> Iterator[IPv4Address]:
    """Every IPv4 address inside a v6 one: mapped, compatible, translated, NAT64, 6to4, Teredo (both ends)."""
    low = int(address) & 0xFFFFFFFF
    if any(address in form for form in (MAPPED, COMPATIBLE, TRANSLATED, NAT64)):
        yield IPv4Address(low)
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo


def is_public(address: Address) -> bool:
    """Whether the address is ordinary public unicast, by the explicit lists of this module."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in DENIED_V4)
    if address in MAPPED or address in NAT64:
        return all(is_public(inner) for inner in embedded_v4(address))
    return address in PUBLIC_V6 and not any(address in network for network in DENIED_V6)


class NetGuard:
    """The operator's rules over the public internet.

    In order: a denied network wins, then an allowed one, then the built-in lists. A denial counts for every
    IPv4 address inside a v6 one; an allowance only for those that are the v4 address (mapped, NAT64).
    """

    def __init__(
        self,
        *,
        allow_cidrs: Iterable[str] = (),
        deny_cidrs: Iterable[str] = (),
        allow_ports: Iterable[int] = (),
    ) -> None:
        """Raises ValueError for a malformed network. `allow_ports` are added to 80 and 443."""
        self._allow = tuple(ip_network(cidr) for cidr in allow_cidrs)
        self._deny = tuple(ip_network(cidr) for cidr in deny_cidrs)
        self.ports = DEFAULT_PORTS | frozenset(allow_ports)
        # Per instance, not per class: two guards (two sets of rules) must never share a verdict.
        self._verdict = lru_cache(maxsize=4096)(self._decide)
        self._host_verdict = lru_cache(maxsize=4096)(self._judge_host)

    def allows(self, address: str) -> bool:
        """Whether this numeric address may be connected to; what is not a plain address may not."""
        return self._verdict(address)

    def _decide(self, text: str) -> bool:
        try:
            address = ip_address(text)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            return False
        same: list[Address] = [address]
        inside: list[Address] = []
        if isinstance(address, IPv6Address):
            inside.extend(embedded_v4(address))
            if address in MAPPED or address in NAT64:
                same.extend(inside)
        if _any_in([address, *inside], self._deny):
            return False
        return _any_in(same, self._allow) or is_public(address)

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
        if _is_literal(host):
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


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return ":" in host
    return True


def _any_in(addresses: Iterable[Address], networks: tuple[Network, ...]) -> bool:
    return any(address in network for address in addresses for network in networks)
