"""Which content facts of a chunk's pictures are computed: what its job asks for, and what others rely on."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from db.chunks import Chunk
from worker.sandbox_frames import FACTS

# What a policy's rules compare → the fact that it comes with.
_COMES_WITH: Final = {"sharpness": "sharpness", "pdq_quality": "pdq"}


def wanted_facts(chunk: Chunk, *, banks: bool) -> tuple[str, ...]:
    """All, unless the job names some.

    The PDQ hash is not a client's to leave out where the picture is moderated, or where there are `banks` that may
    look for it: it would be a way around them. What a rule of the job's policy compares is measured too.
    """
    asked = chunk.options.get("facts")
    if asked is None:
        return FACTS
    needed = {*asked, *(_COMES_WITH[name] for name in _compared(chunk.policy) if name in _COMES_WITH)}
    if banks or "moderation" in chunk.analyses:
        needed.add("pdq")
    return tuple(name for name in FACTS if name in needed)


def may_leave_out_hashes(chunk: Chunk) -> bool:
    """Whether it is of interest if there are hash banks."""
    return "pdq" not in wanted_facts(chunk, banks=False)


def _compared(part: Any) -> Iterator[str]:
    """The facts that are named anywhere in a policy's document."""
    if isinstance(part, Mapping):
        if isinstance(part.get("fact"), str):
            yield part["fact"]
        for each in part.values():
            yield from _compared(each)
    elif isinstance(part, Sequence) and not isinstance(part, str):
        for each in part:
            yield from _compared(each)
