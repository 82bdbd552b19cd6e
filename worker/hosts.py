"""How much one host may be asked for: concurrency, spacing, pauses, when to leave it alone. Pure, no clock.

Additive increase, multiplicative decrease: an answer widens the window by 1/window, a 429 or 503 halves it
and doubles the spacing. Hosts that fail again and again are left alone by a circuit breaker: closed → open for
a pause → half open (one probe) → closed, or open for twice as long.
"""

import math
from dataclasses import dataclass
from enum import Enum, auto

from worker.errors import DeferralCode, FetchFailure


class Answer(Enum):
    """What a request says about its host."""

    FINE = auto()
    THROTTLED = auto()
    BROKEN = auto()
    NOTHING = auto()


_BROKEN = frozenset(
    {"connect_failed", "connect_timeout", "tls_failed", "timeout", "too_slow", "connection_reset", "http_5xx"}
)
_NOT_ASKED = frozenset(
    {
        "invalid_url",
        "blocked_scheme",
        "blocked_userinfo",
        "blocked_port",
        "blocked_address",
        "host_unavailable",
    }
)


def judge(failure: FetchFailure | None) -> Answer:
    """What a fetch (None: it succeeded) says about the host: a 404 is a fine answer, an unknown name no answer."""
    if failure is None:
        return Answer.FINE
    if not failure.about_host:
        return Answer.NOTHING
    if failure.code == "http_429" or failure.status == 503:
        return Answer.THROTTLED
    if failure.code == "dns_failed":
        return Answer.BROKEN if failure.retryable else Answer.NOTHING
    if failure.code in _NOT_ASKED:
        return Answer.NOTHING
    return Answer.BROKEN if failure.code in _BROKEN else Answer.FINE


@dataclass(frozen=True, slots=True)
class HostRules:
    """The limits of every host.

    `broken_after` failures in a row open the breaker for `pause_s`, doubling up to `pause_cap_s`; after
    `give_up_after` openings without one answer the host counts as dead until a probe succeeds.
    """

    concurrency: int = 4
    interval_s: float = 0.0
    spacing_s: float = 0.25
    spacing_cap_s: float = 30.0
    broken_after: int = 8
    pause_s: float = 30.0
    pause_cap_s: float = 600.0
    give_up_after: int = 3


class HostLine:
    """The account of one host. Every `now` and `began` is in seconds of one monotonic clock of the caller."""

    __slots__ = (
        "active",
        "blocked_code",
        "blocked_until",
        "cut_at",
        "failures",
        "next_at",
        "open_until",
        "opened_at",
        "openings",
        "rules",
        "spacing",
        "window",
    )

    def __init__(self, rules: HostRules) -> None:
        self.rules = rules
        self.active = 0
        self.window = float(rules.concurrency)
        self.spacing = 0.0
        self.next_at = -math.inf
        self.cut_at = -math.inf
        self.blocked_until = -math.inf
        self.blocked_code: DeferralCode = "http_429"
        self.failures = 0
        self.openings = 0
        self.opened_at = -math.inf
        self.open_until = -math.inf

    def wait(self, now: float) -> float:
        """Seconds until a request may start: 0 = now, infinity = not before one in flight ends."""
        allowed = 1 if self.openings else int(self.window)
        if self.active >= allowed:
            return math.inf
        return max(0.0, self.next_at - now, self.blocked_until - now, self.open_until - now)

    def pause(self, now: float) -> tuple[float, DeferralCode] | None:
        """How long the host is not to be asked at all, and why: Retry-After or the open breaker."""
        blocked, broken = self.blocked_until - now, self.open_until - now
        if max(blocked, broken) <= 0:
            return None
        return (blocked, self.blocked_code) if blocked >= broken else (broken, "host_unavailable")

    def dead(self, now: float) -> bool:
        """Whether the breaker is open and has been too often to hope for this item."""
        return self.openings >= self.rules.give_up_after and now < self.open_until

    def block(self, until: float, code: DeferralCode) -> None:
        """The host asked not to be asked before `until`."""
        if until > self.blocked_until:
            self.blocked_until, self.blocked_code = until, code

    def begin(self, now: float) -> None:
        """A request starts; only where `wait(now)` is 0."""
        self.active += 1
        self.next_at = now + max(self.rules.interval_s, self.spacing)

    def end(self, now: float, began: float, answer: Answer, retry_after_s: float | None = None) -> None:
        """The request that began at `began` is over."""
        self.active -= 1
        if answer is Answer.NOTHING:
            return
        if answer is Answer.BROKEN:
            self._broken(now, began)
            return
        self.failures = self.openings = 0
        self.open_until = -math.inf
        if answer is Answer.THROTTLED:
            self._throttled(now, began, retry_after_s)
        else:
            self.window = min(float(self.rules.concurrency), self.window + 1 / self.window)
            self.spacing = self.spacing * 0.9 if self.spacing > 0.01 else 0.0

    def _throttled(self, now: float, began: float, retry_after_s: float | None) -> None:
        if began > self.cut_at:
            # Only what was sent after the last cut can say that the cut was not enough.
            self.cut_at = now
            self.window = max(1.0, self.window / 2)
            self.spacing = min(self.rules.spacing_cap_s, max(self.rules.spacing_s, self.spacing * 2))
        self.next_at = max(self.next_at, now + self.spacing)
        if retry_after_s:
            self.block(now + retry_after_s, "http_429")

    def _broken(self, now: float, began: float) -> None:
        if began <= self.opened_at:
            return
        self.failures += 1
        if self.openings or self.failures >= self.rules.broken_after:
            length = min(self.rules.pause_cap_s, self.rules.pause_s * 2.0**self.openings)
            self.openings += 1
            self.opened_at, self.open_until = now, now + length

    def blank(self, now: float) -> bool:
        """Whether forgetting this account would change nothing."""
        return (
            self.active == 0
            and self.failures == 0
            and self.openings == 0
            and self.spacing == 0.0
            and self.window >= self.rules.concurrency
            and max(self.next_at, self.blocked_until, self.open_until) <= now
        )
