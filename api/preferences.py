"""The request header Prefer (RFC 7240): how long a client would like to wait for an answer that is not there yet."""

import re
import time
from collections.abc import Callable
from typing import Final

from flask import Request

from api.routing import Call

_WAIT: Final = re.compile(r"\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?:;.*)?", re.IGNORECASE)
LOOK_EVERY_S: Final = 0.1


def wait_s(sent: Request) -> int | None:
    """The seconds of `wait`; None without one, or with one that is malformed: a preference is never an error. Of
    several the first counts (RFC 7240, section 2)."""
    for preference in ",".join(sent.headers.getlist("Prefer")).split(","):
        if preference.partition("=")[0].strip().lower() == "wait":
            found = _WAIT.fullmatch(preference)
            return None if found is None else int(found.group(1))
    return None


def held(call: Call, sent: Request, is_open: Callable[[], bool]) -> dict[str, str]:
    """Hold the request while `is_open` and the client would wait, if this process has a seat for one more that waits.

    The headers that say what was granted. `is_open` is asked again and again, with no transaction open in between.
    """
    asked = wait_s(sent)
    if not asked:
        return {}
    granted = min(asked, int(call.settings.max_wait_s))
    seat = call.house.waits.offer(call.account_id)
    if seat is None:
        return {}
    try:
        until = time.monotonic() + granted
        while is_open() and (left := until - time.monotonic()) > 0:
            time.sleep(min(LOOK_EVERY_S, left))
    finally:
        seat.leave()
    return {"Preference-Applied": f"wait={granted}"}
