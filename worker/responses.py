"""Reads what an HTTP answer, its body or its failure means for a fetch, as typed values; waits for nothing."""

import os
import re
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Final

import aiohttp
from yarl import URL

from worker.errors import AddressRefused, FetchCode, FetchFailure, NoAnswerInTime, PortRefused, fetch_failure
from worker.optout import opts_out
from worker.retry import parse_retry_after

_NAMED_4XX: Final[dict[int, FetchCode]] = {
    401: "http_401",
    403: "http_403",
    404: "http_404",
    410: "http_410",
    429: "http_429",
}
# 408 and 425 say "try again"; 501 and 505 will say the same next time.
_PASSING_4XX: Final = frozenset({408, 425})
_LASTING_5XX: Final = frozenset({501, 505})
_DNS_PASSING: Final = frozenset({socket.EAI_AGAIN, getattr(socket, "EAI_SYSTEM", socket.EAI_AGAIN)})
_MARKUP: Final = re.compile(rb"(?:\xef\xbb\xbf)?[\s\x00]*[<{\[]")
_SVG: Final = re.compile(rb"<svg[\s>]", re.IGNORECASE)
_PRINTABLE: Final = re.compile(r"[^\x20-\x7e]")
_MAX_HEADER: Final = 256
_ETAG: Final = re.compile(r'(?:W/)?"[\x21\x23-\x7e]{0,250}"')
_DATE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ,:+-]{0,63}")


def header(response: aiohttp.ClientResponse, name: str) -> str | None:
    """A header's value if it is short enough to keep, in printable ASCII."""
    value = response.headers.get(name)
    if not value or len(value) > _MAX_HEADER:
        return None
    return _PRINTABLE.sub("", value) or None


def etag(response: aiohttp.ClientResponse) -> str | None:
    """The entity tag exactly as it was sent, if it is one, single and short: it goes into a header of ours again."""
    return _exactly(response, "ETag", _ETAG)


def last_modified(response: aiohttp.ClientResponse) -> str | None:
    """Last-Modified exactly as it was sent, if it looks like a date."""
    return _exactly(response, "Last-Modified", _DATE)


def _exactly(response: aiohttp.ClientResponse, name: str, form: re.Pattern[str]) -> str | None:
    values = response.headers.getall(name, ())
    return values[0] if len(values) == 1 and form.fullmatch(values[0]) else None


def is_answer_to(response: aiohttp.ClientResponse, conditions: Mapping[str, str]) -> bool:
    """Whether a 304 is about what the conditions name: where it names a version, it must be ours (tags are compared
    weakly, RFC 9110 8.8.3.2). A date that is only not newer may be another version's."""
    ours, theirs = conditions.get("If-None-Match"), response.headers.get("ETag")
    if ours is not None and theirs is not None:
        return ours.removeprefix("W/") == theirs.removeprefix("W/")
    since, modified = conditions.get("If-Modified-Since"), response.headers.get("Last-Modified")
    return bool(conditions) and (since is None or modified is None or since == modified)


def response_problem(response: aiohttp.ClientResponse, agent: str, opt_out: frozenset[str]) -> FetchFailure | None:
    """What in the status or the headers forbids reading on; redirects, 304 and whole bodies are no problem."""
    status = response.status
    if status >= 400:
        return _refusal(response, status)
    if status == 101 or status == 206 or status in (300, 305, 306) or 308 < status < 400:
        return fetch_failure("bad_response", f"unexpected status {status}", status=status)
    headers = response.headers
    if opt_out and opts_out(headers.getall("X-Robots-Tag", ()), agent, opt_out):
        return fetch_failure("opted_out", "X-Robots-Tag opts out of machine use", status=status)
    encodings = headers.getall("Content-Encoding", ())
    if any(encoding.strip().lower() not in ("", "identity") for encoding in encodings):
        return fetch_failure("unsupported_encoding", "a Content-Encoding although none was accepted", status=status)
    if headers.get("Transfer-Encoding", "chunked").strip().lower() != "chunked":
        return fetch_failure("unsupported_encoding", "a Transfer-Encoding other than chunked", status=status)
    return None


def _refusal(response: aiohttp.ClientResponse, status: int) -> FetchFailure:
    wait = parse_retry_after(response.headers.get("Retry-After"), time.time())
    if status >= 500:
        code: FetchCode = "http_5xx"
        retryable = status not in _LASTING_5XX
    else:
        code = _NAMED_4XX.get(status, "http_4xx")
        retryable = status == 429 or status in _PASSING_4XX
    return fetch_failure(code, f"status {status}", retryable=retryable, retry_after_s=wait, status=status)


def redirect_target(url: URL, response: aiohttp.ClientResponse) -> str | FetchFailure:
    """Where a redirect leads, absolute and not yet checked; a failure where there is no usable target."""
    status = response.status
    location = response.headers.get("Location", "").strip()
    if not location:
        return fetch_failure("bad_redirect", "a redirect without a target", status=status)
    try:
        target = url.join(URL(location)).with_fragment(None)
    except ValueError:
        return fetch_failure("bad_redirect", "a redirect to what is no URL", status=status)
    if url.scheme == "https" and target.scheme == "http":
        return fetch_failure("bad_redirect", "a redirect from https down to http", status=status)
    return str(target)


def body_problem(data: bytes | bytearray) -> FetchFailure | None:
    """An empty body, or one that is a page or JSON; whether other bytes are a picture only the decoder can tell."""
    if not data:
        return fetch_failure("empty_body", "no bytes")
    start = data[:1024]
    # SVG is a picture, if one that the decoder does not take: it shall say so.
    if _MARKUP.match(start) and not _SVG.search(start):
        return fetch_failure("not_an_image", "markup or JSON instead of a picture")
    return None


def explain(error: Exception) -> FetchFailure:
    """The failure that a client's exception means. Its text is dropped: it may hold the URL or a server's words."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return fetch_failure("connect_timeout", "no connection in time")
    if isinstance(error, aiohttp.ServerTimeoutError):
        return fetch_failure("timeout", "the server went silent")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        if isinstance(error.os_error, NoAnswerInTime):
            return fetch_failure("dns_failed", "no answer from the name servers in time", about_host=False)
        passing = getattr(error.os_error, "errno", None) in _DNS_PASSING
        reason = "no answer from the name servers" if passing else "the name has no address"
        return fetch_failure("dns_failed", reason, retryable=passing)
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return fetch_failure("tls_failed", "the TLS handshake or the certificate check failed")
    if isinstance(error, aiohttp.ClientConnectorError):
        return _not_connected(error.os_error)
    if isinstance(error, aiohttp.InvalidURL):
        return fetch_failure("invalid_url", "the host is not a valid name or address")
    if isinstance(error, aiohttp.ClientPayloadError):
        return _broken_body(error)
    if isinstance(error, aiohttp.ClientResponseError):
        return fetch_failure("bad_response", "the answer breaks the HTTP protocol")
    if isinstance(error, OSError | aiohttp.ClientConnectionError):
        return fetch_failure("connection_reset", "the connection broke")
    return fetch_failure("bad_response", "the answer cannot be read")


def _not_connected(cause: OSError) -> FetchFailure:
    if isinstance(cause, PortRefused):
        return fetch_failure("blocked_port", "the port is not allowed")
    if isinstance(cause, AddressRefused):
        return fetch_failure("blocked_address", "the address is not allowed")
    if isinstance(cause, ConnectionResetError):
        return fetch_failure("connection_reset", "the connection broke")
    reason = os.strerror(cause.errno).lower() if cause.errno else "no address could be reached"
    return fetch_failure("connect_failed", reason)


def _broken_body(error: aiohttp.ClientPayloadError) -> FetchFailure:
    cause = error.__cause__
    if isinstance(cause, ConnectionError) or "ConnectionResetError" in str(error):
        return fetch_failure("connection_reset", "the connection broke in the body")
    if isinstance(cause, aiohttp.http_exceptions.ContentLengthError) or "Not enough data" in str(error):
        return fetch_failure("incomplete_body", "fewer bytes than announced")
    return fetch_failure("bad_response", "the body breaks the HTTP protocol")
