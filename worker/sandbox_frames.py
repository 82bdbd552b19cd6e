"""What travels between the normaliser's processes and their parent. No I/O.

A request is a kind byte, a byte that says which facts are wanted, the payload's length (4 bytes, big endian) and the
payload; an answer is a kind byte, two lengths, a JSON header and a body.
"""

import struct
from collections.abc import Collection
from typing import Final

PICTURE: Final = b"P"
HOOK: Final = b"T"
HELLO: Final = b"H"
DONE: Final = b"D"
FAILED: Final = b"F"
REQUEST: Final = struct.Struct("!cBI")
ANSWER: Final = struct.Struct("!cII")
# The parent believes no length beyond these.
MOST_HEADER: Final = 2**16
MOST_BODY: Final = 2**26

FACTS: Final = ("pdq", "colours", "sharpness")
"""Each is one bit of a request's byte, the first the lowest."""


def fact_bits(wanted: Collection[str]) -> int:
    """ValueError for a fact that nobody knows."""
    if unknown := set(wanted) - set(FACTS):
        raise ValueError(f"no such fact: {', '.join(sorted(unknown))}")
    return sum(1 << at for at, name in enumerate(FACTS) if name in wanted)


def facts_of(bits: int) -> list[str]:
    """The facts that a request's byte asks for."""
    return [name for at, name in enumerate(FACTS) if bits >> at & 1]
