"""How long a command goes on asking an API that is away for a moment: ten minutes, and not sooner than it asks for."""

import time
from collections.abc import Callable
from typing import TypeVar

from worker.client import ClientError

GIVE_UP_S = 600.0
PAUSE_S = 1.0
_SLICE_S = 0.5

Answer = TypeVar("Answer")


def until_answered(
    call: Callable[[], Answer],
    *,
    waiting: Callable[[ClientError], None] = lambda error: None,
    meanwhile: Callable[[], None] = lambda: None,
    give_up_s: float = GIVE_UP_S,
) -> Answer:
    """What `call` returns. A failure that passes by itself is asked about again; after `give_up_s` it is raised.

    `waiting` is told each such failure; `meanwhile` runs twice a second between the calls.
    """
    deadline = time.monotonic() + give_up_s
    while True:
        try:
            return call()
        except ClientError as error:
            left = deadline - time.monotonic()
            if not error.passing or left <= 0:
                raise
            waiting(error)
            due = time.monotonic() + min(max(PAUSE_S, error.retry_after_s or 0.0), left)
        while (rest := due - time.monotonic()) > 0:
            meanwhile()
            time.sleep(min(_SLICE_S, rest))
