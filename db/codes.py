"""Every code that an item's outcome can carry, with its meaning. The one list: documented, counted and tested."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Code:
    """`retryable`: the same item may well succeed later, so `retry` is worth it."""

    meaning: str
    retryable: bool = False


CODES: Final[dict[str, Code]] = {
    # fetching
    "invalid_url": Code("The URL cannot be parsed or breaks a syntactic rule."),
    "blocked_scheme": Code("Only http and https are fetched."),
    "blocked_userinfo": Code("URLs with a user name or password are not fetched."),
    "blocked_port": Code("The port is not among the allowed ones (80, 443 and the operator's)."),
    "blocked_address": Code("The host's address is private, special-purpose or denied by the operator."),
    "dns_failed": Code("The host name has no address, or its name servers do not answer.", retryable=True),
    "connect_failed": Code("The connection was refused or unreachable.", retryable=True),
    "connect_timeout": Code("The host did not accept a connection in time.", retryable=True),
    "tls_failed": Code("The TLS handshake or the certificate check failed."),
    "timeout": Code("The answer was not complete within the total time.", retryable=True),
    "too_slow": Code("The host sent less than the minimum rate.", retryable=True),
    "too_large": Code("The body is larger than the byte limit."),
    "connection_reset": Code("The connection broke.", retryable=True),
    "incomplete_body": Code("Fewer bytes arrived than announced.", retryable=True),
    "bad_response": Code("The answer breaks the HTTP protocol."),
    "unsupported_encoding": Code("The answer has a Content-Encoding although none was accepted."),
    "too_many_redirects": Code("More redirects than allowed."),
    "bad_redirect": Code("A redirect without a usable target, or from https down to http."),
    "http_401": Code("The host asks for authentication."),
    "http_403": Code("The host forbids it."),
    "http_404": Code("Not found."),
    "http_410": Code("Gone."),
    "http_429": Code("The host asked to slow down, and went on asking.", retryable=True),
    "http_4xx": Code("Another client error status."),
    "http_5xx": Code("A server error status.", retryable=True),
    "host_unavailable": Code("The host failed so often that it is left alone for a while.", retryable=True),
    "opted_out": Code("The host opts out of machine use (X-Robots-Tag noai or noimageai)."),
    # the picture
    "empty_body": Code("No bytes."),
    "not_an_image": Code("The bytes are not a picture (HTML, for example)."),
    "unsupported_format": Code("A picture format that is not on the allow-list."),
    "truncated_image": Code("The picture ends too early."),
    "corrupt_image": Code("The picture cannot be decoded."),
    "too_many_pixels": Code("More pixels than the limit."),
    "side_too_long": Code("A side longer than the limit."),
    "decompression_bomb": Code("The picture would unpack to far more than its bytes suggest."),
    "decode_timeout": Code("Decoding did not end in time."),
    "decode_memory": Code("Decoding needed more memory than the sandbox has."),
    "decoder_crashed": Code("The sandboxed decoder died on this picture."),
    # our side
    "blob_missing": Code("The stored bytes are gone.", retryable=True),
    "blob_altered": Code("The stored bytes are not what was stored."),
    "inference_failed": Code("The model could not score this picture.", retryable=True),
    "poison": Code("Processing this item killed its process again and again."),
    "erased": Code("The item was erased on request; of what it was nothing is kept."),
    "cancelled": Code("The job was cancelled before this item was reached.", retryable=True),
}
