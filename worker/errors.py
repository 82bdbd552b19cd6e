"""What can go wrong in the worker: its errors, and failures as values; decides nothing about retries."""

import socket
from dataclasses import dataclass
from typing import ClassVar, Literal

# Every code a fetch can end with; db/codes.py says what each means (a test holds the two together).
FetchCode = Literal[
    "invalid_url",
    "blocked_scheme",
    "blocked_userinfo",
    "blocked_port",
    "blocked_address",
    "dns_failed",
    "connect_failed",
    "connect_timeout",
    "tls_failed",
    "timeout",
    "too_slow",
    "too_large",
    "connection_reset",
    "incomplete_body",
    "bad_response",
    "unsupported_encoding",
    "too_many_redirects",
    "bad_redirect",
    "http_401",
    "http_403",
    "http_404",
    "http_410",
    "http_429",
    "http_4xx",
    "http_5xx",
    "host_unavailable",
    "opted_out",
    "empty_body",
    "not_an_image",
]


class WorkerError(Exception):
    """Root of the worker's errors; each class has a stable snake_case `code` for rows and logs."""

    code: str = "worker_error"
    retryable: ClassVar[bool] = False


class UrlRefused(WorkerError):
    """A URL that the guard will not fetch, refused by its text alone, before anything is resolved.

    `code` is one of invalid_url, blocked_scheme, blocked_userinfo, blocked_port, blocked_address.
    """

    code: FetchCode

    def __init__(self, code: FetchCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class AddressRefused(WorkerError, OSError):
    """The socket address about to be connected to is not allowed.

    An OSError, because the connector then goes on to the next address of the same name, as it must
    for a name with one private and one public address. It carries no address: a customer must not
    learn from a failure what an internal name resolves to.
    """

    code = "blocked_address"

    def __init__(self) -> None:
        super().__init__("the address is not allowed")


class PortRefused(AddressRefused):
    """The port about to be connected to is not allowed."""

    code = "blocked_port"


class NoAnswerInTime(WorkerError, socket.gaierror):
    """The resolver's patience ended before the name servers answered, or before it was the name's turn."""

    code = "dns_failed"

    def __init__(self) -> None:
        super().__init__(socket.EAI_AGAIN, "no answer from the name servers in time")


# Why an item is put off. host_busy is only a queue, never an outcome: it should not count against the item.
DeferralCode = Literal["http_429", "http_5xx", "host_unavailable", "host_busy"]

# Codes after which the same request may well succeed within seconds. (db/codes.py's `retryable` asks whether
# it may some day: a host that drips is worth that, but not an immediate second try.)
TRANSIENT: frozenset[FetchCode] = frozenset(
    {
        "dns_failed",
        "connect_failed",
        "connect_timeout",
        "timeout",
        "connection_reset",
        "incomplete_body",
        "http_429",
        "http_5xx",
        "host_unavailable",
    }
)


@dataclass(frozen=True, slots=True)
class FetchFailure:
    """Why one fetch gave no bytes: a value in the stream, not an exception.

    `detail` is for people and may be stored and shown: it holds no query string, no resolved address and no
    text a server sent. `retry_after_s` is what the server asked for, in seconds; `status` its HTTP status.
    Where `about_host` is false, only our own patience ended, and nothing is known about the host.
    """

    code: FetchCode
    detail: str
    retryable: bool
    retry_after_s: float | None = None
    status: int | None = None
    about_host: bool = True


def fetch_failure(
    code: FetchCode,
    detail: str,
    *,
    retryable: bool | None = None,
    retry_after_s: float | None = None,
    status: int | None = None,
    about_host: bool = True,
) -> FetchFailure:
    """A failure, `retryable` if its code is TRANSIENT unless said otherwise (a name that does not exist)."""
    transient = code in TRANSIENT if retryable is None else retryable
    return FetchFailure(code, detail, transient, retry_after_s, status, about_host)


@dataclass(frozen=True, slots=True)
class Deferral:
    """Not now: the host asked for a pause, or is down. The item belongs into a chunk due in `wait_s`."""

    host: str
    wait_s: float
    code: DeferralCode
