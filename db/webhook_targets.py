"""Where webhooks may go, by the text of a URL alone: scheme, port, name or address. Resolves nothing.

The wall is the sender's guard (worker/netguard.py), which sees the address of every connection; this tells early.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from db import urls
from db.addresses import AddressRules, is_literal
from db.settings import StorageSettings

_NAME: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")
# What resolvers read as an IPv4 address in decimal, octal, hex or short form.
_NUMERIC: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")
TEXTS: Final = {
    "invalid_url": "Not a URL that an event can be sent to.",
    "blocked_scheme": "Webhooks go to https:// only.",
    "blocked_userinfo": "A URL may not hold a user name or password.",
    "blocked_port": "Webhooks do not go to this port.",
    "blocked_address": "Webhooks do not go to this address.",
}


@dataclass(frozen=True)
class Targets:
    """The operator's rules for webhooks; none of them is the crawler's."""

    http: bool
    ports: frozenset[int]
    addresses: AddressRules

    @classmethod
    def of(cls, settings: StorageSettings) -> "Targets":
        """As the settings say. Port 80 belongs to http."""
        ports = {443, *settings.webhook_ports, *([80] if settings.webhook_http else [])}
        return cls(settings.webhook_http, frozenset(ports), AddressRules(allow_cidrs=settings.webhook_cidrs))

    def problem(self, url: str) -> str | None:
        """The code of what is wrong with the URL (a key of TEXTS), or None."""
        found = urls.examine(url)
        if found is not None:
            return found
        parts = urlsplit(url)
        if not url.isascii() or "#" in url:
            return "invalid_url"
        if parts.scheme == "http" and not self.http:
            return "blocked_scheme"
        if (parts.port or (443 if parts.scheme == "https" else 80)) not in self.ports:
            return "blocked_port"
        return self._of_host(parts.hostname or "")

    def _of_host(self, host: str) -> str | None:
        if is_literal(host):
            return None if self.addresses.allows(host) else "blocked_address"
        if host.rstrip(".").rpartition(".")[2] == "localhost":  # RFC 6761: always this machine
            return None if self.addresses.allows("127.0.0.1") else "blocked_address"
        if _NUMERIC.fullmatch(host) or not _NAME.fullmatch(host):
            return "invalid_url"
        return None
