"""Reads X-Robots-Tag: whether a server asks machines to leave a picture alone. Fetches nothing."""

from collections.abc import Iterable
from typing import Final

OPT_OUT: Final = frozenset({"noai", "noimageai"})

# Directives that carry a value behind a colon; any other name before a colon addresses one crawler.
_VALUED: Final = frozenset({"max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"})


def opts_out(headers: Iterable[str], agent: str, directives: frozenset[str] = OPT_OUT) -> bool:
    """Whether any X-Robots-Tag value forbids the crawler named `agent` (its product token, any case).

    `noai` speaks to everyone; `otherbot: noai, noindex` only to otherbot, up to the next name or the end.
    """
    return any(_forbids(value, agent.lower(), directives) for value in headers)


def _forbids(value: str, agent: str, directives: frozenset[str]) -> bool:
    addressed = True
    for piece in value.lower().split(","):
        name, colon, rest = (part.strip() for part in piece.partition(":"))
        if colon and name not in _VALUED:
            addressed = name in (agent, "*")
            name = rest
        if addressed and name in directives:
            return True
    return False
