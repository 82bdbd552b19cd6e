"""When a delivery that failed is tried again: pure decisions, no clock (chance is passed in)."""

from typing import Final

# Seconds before each try, counted from the one before: about three days in all (the schedule of Standard Webhooks).
SCHEDULE: Final = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
JITTER: Final = 0.1
# Somebody waits in front of these: a second try days later would tell him nothing.
ONCE: Final = frozenset({"webhook.ping"})
# What says "not so fast" without saying for how long.
BUSY: Final = frozenset({429, 502, 503, 504})
BUSY_S: Final = 30.0


def again(type_: str, code: str, step: int, *, retry_after_s: float | None = None, chance: float = 0.5) -> float | None:
    """Seconds until the next try after the failed one at `step` (0, 1 …) of the schedule; None: it was the last.

    `chance` in [0, 1): up to a tenth more or less, so that events that failed together do not come back together.
    """
    if code == "http_410" or type_ in ONCE or step + 1 >= len(SCHEDULE):
        return None
    wait = SCHEDULE[step + 1] * (1 + JITTER * (2 * chance - 1))
    return max(wait, retry_after_s or 0.0)


def pause(status: int | None, retry_after_s: float | None) -> float:
    """Seconds for which an endpoint that answered so gets nothing at all."""
    if retry_after_s is not None:
        return retry_after_s
    return BUSY_S if status in BUSY else 0.0
