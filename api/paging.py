"""Opaque keyset cursors: where a page ended. They carry a position, never a right: rows stay walled by account."""

import base64
import binascii
from datetime import UTC, datetime, timedelta
from uuid import UUID

from api.errors import Problem

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _encode(kind: bytes, position: bytes) -> str:
    return base64.urlsafe_b64encode(kind + position).decode().rstrip("=")


def _decode(kind: bytes, size: int, cursor: str) -> bytes:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    # Written back, it must be the same text: one position has one cursor.
    if len(raw) != 1 + size or raw[:1] != kind or _encode(kind, raw[1:]) != cursor:
        raise Problem("invalid_cursor", "Take the cursor from `next` of the page before, with the same route.")
    return raw[1:]


def after_job(job_id: UUID) -> str:
    """The cursor behind this job in a list of jobs."""
    return _encode(b"j", job_id.bytes)


def job_of(cursor: str) -> UUID:
    """The job that `after_job` was given; Problem `invalid_cursor`."""
    return UUID(bytes=_decode(b"j", 16, cursor))


def after_run(run_id: UUID) -> str:
    """The cursor behind this run in a list of training runs."""
    return _encode(b"t", run_id.bytes)


def run_of(cursor: str) -> UUID:
    """The run that `after_run` was given; Problem `invalid_cursor`."""
    return UUID(bytes=_decode(b"t", 16, cursor))


def after_erasure(erasure_id: UUID) -> str:
    """The cursor behind this erasure in a list of erasures."""
    return _encode(b"x", erasure_id.bytes)


def erasure_of(cursor: str) -> UUID:
    """The erasure that `after_erasure` was given; Problem `invalid_cursor`."""
    return UUID(bytes=_decode(b"x", 16, cursor))


def after_moderation(moderation_id: UUID) -> str:
    """The cursor behind this upload in a list of moderations."""
    return _encode(b"m", moderation_id.bytes)


def moderation_of(cursor: str) -> UUID:
    """The upload that `after_moderation` was given; Problem `invalid_cursor`."""
    return UUID(bytes=_decode(b"m", 16, cursor))


def after_review(review_id: UUID) -> str:
    """The cursor behind this review in a list of reviews."""
    return _encode(b"v", review_id.bytes)


def review_of(cursor: str) -> UUID:
    """The review that `after_review` was given; Problem `invalid_cursor`."""
    return UUID(bytes=_decode(b"v", 16, cursor))


def after_item(job_id: UUID, seq: int) -> str:
    """The cursor behind item `seq` of this job."""
    return _encode(b"i", job_id.bytes + seq.to_bytes(4, "big"))


def seq_of(cursor: str, job_id: UUID) -> int:
    """The item number that `after_item` was given, for the same job; Problem `invalid_cursor`."""
    raw = _decode(b"i", 20, cursor)
    seq = int.from_bytes(raw[16:], "big")
    if raw[:16] != job_id.bytes or seq > 2**31 - 1:
        raise Problem("invalid_cursor", "The cursor belongs to another job.")
    return seq


def after_webhook(webhook_id: UUID) -> str:
    """The cursor behind this endpoint in a list of webhooks."""
    return _encode(b"w", webhook_id.bytes)


def webhook_of(cursor: str) -> UUID:
    """The endpoint that `after_webhook` was given; Problem `invalid_cursor`."""
    return UUID(bytes=_decode(b"w", 16, cursor))


def after_delivery(webhook_id: UUID, event_id: UUID) -> str:
    """The cursor behind the delivery of an event to this endpoint."""
    return _encode(b"d", webhook_id.bytes + event_id.bytes)


def delivery_of(cursor: str, webhook_id: UUID) -> UUID:
    """The event that `after_delivery` was given, for the same endpoint; Problem `invalid_cursor`."""
    raw = _decode(b"d", 32, cursor)
    if raw[:16] != webhook_id.bytes:
        raise Problem("invalid_cursor", "The cursor belongs to another webhook.")
    return UUID(bytes=raw[16:])


def after_name(name: str) -> str:
    """The cursor behind this name in a list by name."""
    return _encode(b"n", name.encode())


def name_of(cursor: str) -> str:
    """The name that `after_name` was given; Problem `invalid_cursor`."""
    size = (len(cursor) * 3) // 4 - 1
    try:
        return _decode(b"n", size, cursor).decode("ascii")
    except UnicodeDecodeError:
        raise Problem(
            "invalid_cursor", "Take the cursor from `next` of the page before, with the same route."
        ) from None


def after_appeal(appeal_id: UUID) -> str:
    """The cursor behind this appeal in a list of appeals."""
    return _encode(b"a", appeal_id.bytes)


def appeal_of(cursor: str) -> UUID:
    """The appeal that `after_appeal` was given; Problem `invalid_cursor`."""
    return UUID(bytes=_decode(b"a", 16, cursor))


def after_entry(entry_id: int) -> str:
    """The cursor behind this entry of the audit log."""
    return _encode(b"e", entry_id.to_bytes(8, "big"))


def entry_of(cursor: str) -> int:
    """The entry that `after_entry` was given; Problem `invalid_cursor`."""
    return int.from_bytes(_decode(b"e", 8, cursor), "big", signed=True)


def after_bank_entry(bank_id: UUID, entry_id: UUID) -> str:
    """The cursor behind this entry of a hash bank."""
    return _encode(b"b", bank_id.bytes + entry_id.bytes)


def bank_entry_of(cursor: str, bank_id: UUID) -> UUID:
    """The entry that `after_bank_entry` was given, for the same bank; Problem `invalid_cursor`."""
    raw = _decode(b"b", 32, cursor)
    if raw[:16] != bank_id.bytes:
        raise Problem("invalid_cursor", "The cursor belongs to another bank.")
    return UUID(bytes=raw[16:])


def after_hit(entry_id: UUID, at: datetime, sha256: bytes) -> str:
    """The cursor behind this hit of an entry."""
    return _encode(b"h", entry_id.bytes + ((at - _EPOCH) // _MICROSECOND).to_bytes(8, "big") + sha256)


def hit_of(cursor: str, entry_id: UUID) -> tuple[datetime, bytes]:
    """The hit that `after_hit` was given, for the same entry; Problem `invalid_cursor`."""
    raw = _decode(b"h", 56, cursor)
    if raw[:16] != entry_id.bytes:
        raise Problem("invalid_cursor", "The cursor belongs to another entry.")
    try:
        return _EPOCH + int.from_bytes(raw[16:24], "big") * _MICROSECOND, raw[24:]
    except OverflowError:
        raise Problem("invalid_cursor", "The cursor is of no time.") from None
