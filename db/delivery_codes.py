"""The codes that a delivery's try can end with, and what each means. One list for the log, the API and the pages."""

from typing import Final

DELIVERY_CODES: Final[dict[str, str]] = {
    "invalid_url": "The URL is not one that an event can be sent to.",
    "blocked_scheme": "Not https, and this installation allows nothing else.",
    "blocked_userinfo": "The URL holds a user name or password.",
    "blocked_port": "The port is not one that webhooks may go to.",
    "blocked_address": "The name leads to an address that webhooks may not go to.",
    "dns_failed": "The name has no address, or no name server answered.",
    "connect_failed": "The connection was refused, or no route leads there.",
    "connect_timeout": "No connection in time.",
    "connection_reset": "The connection broke.",
    "tls_failed": "The TLS handshake or the certificate check failed.",
    "timeout": "No complete answer in time.",
    "bad_response": "The answer breaks the HTTP protocol.",
    "redirect": "A redirect: webhooks follow none. Enter its target instead.",
    "http_410": "410 Gone: the webhook was disabled.",
    "http_429": "429 Too Many Requests: Retry-After is honoured.",
    "http_4xx": "Another status from 400 to 499.",
    "http_5xx": "A status from 500 to 599.",
    "endpoint_disabled": "The webhook was disabled while the event waited.",
    "no_signing_key": "The key that the secret was made from is not configured any more: rotate the secret.",
    "sender_died": "The process that sent it died, several times in a row.",
}
# Not the endpoint's doing: they count neither for its pause nor for its end.
OURS: Final = frozenset({"no_signing_key", "sender_died"})
