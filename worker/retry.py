"""When to try a failed fetch again: pure decisions, no clock, no sleeping (times and chance are passed in)."""

from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from worker.errors import FetchFailure

MAX_RETRY_AFTER_S: Final = 3600.0


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait by a Retry-After header (seconds or an HTTP date), 0 to 3600; None if unreadable.

    `now` is the Unix time against which a date counts.
    """
    text = (value or "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        # int() refuses more than 4,300 digits; no wait that long differs from the cap.
        return min(float(int(text[:12])), MAX_RETRY_AFTER_S) if len(text) < 12 else MAX_RETRY_AFTER_S
    try:
        moment = parsedate_to_datetime(text[:64])
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        wait = moment.timestamp() - now
    except (ValueError, OverflowError, TypeError):
        return None
    return min(max(wait, 0.0), MAX_RETRY_AFTER_S)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patient a crawler is.

    `patience_s`: the longest Retry-After that is waited for in process; a longer one puts the item off.
    `unasked_s`: how long a 429 without Retry-After puts an item off.
    """

    max_attempts: int = 3
    base_s: float = 0.25
    cap_s: float = 4.0
    patience_s: float = 3.0
    unasked_s: float = 30.0
    max_deferrals: int = 20


@dataclass(frozen=True, slots=True)
class Again:
    """Try once more after this many seconds."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Later:
    """Put the item off: not before this many seconds from now."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The failure is the item's outcome."""


def next_step(
    failure: FetchFailure,
    attempt: int,
    *,
    policy: RetryPolicy,
    deferrals: int = 0,
    chance: float = 0.5,
) -> Again | Later | GiveUp:
    """What follows the failed `attempt` (1, 2 …) of an item put off `deferrals` times; `chance` in [0, 1): jitter.

    A 429, and any Retry-After beyond the policy's patience, puts the item off at once: waiting would hold a
    place that another host could use. Everything else transient is tried again up to `max_attempts`.
    """
    if not failure.retryable:
        return GiveUp()
    asked = failure.retry_after_s
    if failure.code == "http_429" or (asked is not None and asked > policy.patience_s):
        if deferrals >= policy.max_deferrals:
            return GiveUp()
        return Later(policy.unasked_s * (1 + chance) if asked is None else asked + chance)
    if attempt >= policy.max_attempts:
        return GiveUp()
    backoff = min(policy.cap_s, policy.base_s * 2.0 ** (attempt - 1)) * (0.5 + chance)
    return Again(max(backoff, (asked or 0.0) + chance * policy.base_s))
