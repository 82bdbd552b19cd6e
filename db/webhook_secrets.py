"""The secrets of webhooks and the signatures made with them (Standard Webhooks 1.0). Pure: no I/O, no clock.

    secret    = HMAC-SHA-256(key of the installation, label and salt)     32 bytes, shown once as whsec_…
    signature = HMAC-SHA-256(secret, id.timestamp.body)                   in the header as v1,<base64>

Only the salt is stored, so who reads the database (a dump, a replica, an injection) can sign nothing: the key is a
setting of the API, which shows a secret, and of maintenance, which signs. Signatures do not tell the secret, nor do
secrets tell the key: HMAC-SHA-256 is a pseudo-random function (RFC 5869 builds on the same).
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from typing import Final

MIN_KEY: Final = 32
"""Characters of a key at least: 32 hexadecimal ones are 128 bits."""
SALT_BYTES: Final = 32
TOLERANCE_S: Final = 300
"""How far a receiver lets the timestamp be from its clock, as the reference libraries do."""
_PREFIX: Final = "whsec_"
_LABEL: Final = b"tagmill webhook secret 1\0"


class NoKey(ValueError):
    """The secret was derived from a key that is not configured any more, or none is."""


class BadSignature(ValueError):
    """What arrived is not what was signed, or too old; the text says which."""


class Keys:
    """The configured keys; the first makes new secrets, all of them find old ones."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = {key_id(key): key.encode() for key in keys}
        self._first = key_id(keys[0]) if keys else None

    def new(self) -> tuple[bytes, str]:
        """A fresh salt, and the id of the key that goes with it; NoKey."""
        if self._first is None:
            raise NoKey("no key is configured")
        return secrets.token_bytes(SALT_BYTES), self._first

    def secret(self, salt: bytes, key: str) -> bytes:
        """The 32 bytes of a secret; NoKey."""
        if key not in self._keys:
            raise NoKey("the key of this secret is not configured")
        return hmac.digest(self._keys[key], _LABEL + salt, hashlib.sha256)


def key_id(key: str) -> str:
    """What tells keys apart without telling them."""
    return hmac.digest(key.encode(), b"tagmill webhook key", hashlib.sha256)[:6].hex()


def shown(secret: bytes) -> str:
    """The secret as a receiver configures it."""
    return _PREFIX + base64.b64encode(secret).decode()


def read(text: str) -> bytes:
    """The bytes of a secret as it was shown; ValueError."""
    try:
        secret = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("not a webhook secret: whsec_ and base64") from error
    if not 24 <= len(secret) <= 64:
        raise ValueError("a webhook secret has 24 to 64 bytes")
    return secret


def sign(secret: bytes, event_id: str, timestamp: int, body: bytes) -> str:
    """One signature, with its version."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


def headers(of: Sequence[bytes], event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of one try, signed with every secret that counts now."""
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(sign(secret, event_id, timestamp, body) for secret in of),
    }


def verify(secret: bytes, given: Mapping[str, str], body: bytes, now: float) -> None:
    """Raises BadSignature. Header names in lower case; `now` is the receiver's Unix time."""
    event_id, sent, signatures = (given.get(f"webhook-{part}", "") for part in ("id", "timestamp", "signature"))
    if not event_id or not (sent.isascii() and sent.isdigit() and len(sent) < 13):
        raise BadSignature("headers are missing or malformed")
    if abs(now - int(sent)) > TOLERANCE_S:
        raise BadSignature("the timestamp is more than five minutes off")
    expected = sign(secret, event_id, int(sent), body).encode()
    if not any(hmac.compare_digest(expected, each.encode()) for each in signatures.split(" ")):
        raise BadSignature("the signature is not made with this secret")
