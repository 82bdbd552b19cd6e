"""Which IP addresses are public, by explicit lists, and an operator's rules over them. Pure: it connects nothing.

`ipaddress.is_global` and `is_private` are not used: on Python 3.11 they call 192.0.0.192 (a metadata
service), NAT64, 6to4 and multicast addresses global, and 100.64.0.0/10 not private.
"""

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


class AddressRules:
    """The operator's rules over the public internet.

    In order: a denied network wins, then an allowed one, then the built-in lists. A denial counts for every
    IPv4 address inside a v6 one; an allowance only for those that are the v4 address (mapped, NAT64).
    """

    def __init__(self, *, allow_cidrs: Iterable[str] = (), deny_cidrs: Iterable[str] = ()) -> None:
        """Raises ValueError for a malformed network."""
        self._allow = tuple(ip_network(cidr) for cidr in allow_cidrs)
        self._deny = tuple(ip_network(cidr) for cidr in deny_cidrs)
        # Per instance, not per class: two sets of rules must never share a verdict.
        self._verdict = lru_cache(maxsize=4096)(self._decide)

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


def is_literal(host: str) -> bool:
    """Whether a URL's host is an address, not a name."""
    try:
        ip_address(host)
    except ValueError:
        return ":" in host
    return True


def _any_in(addresses: Iterable[Address], networks: tuple[Network, ...]) -> bool:
    return any(address in network for address in addresses for network in networks)
