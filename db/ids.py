"""Identifiers: time-ordered UUIDs for jobs and events, and the public id of an item."""

import os
import re
import time
from typing import Final
from uuid import UUID

_ITEM_ID = re.compile(r"([0-9a-f]{32})-(0|[1-9][0-9]{0,8})")


def uuid7() -> UUID:
    """A version-7 UUID (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then 74 random bits.

    Made here and not in SQL, because `uuidv7()` exists from Postgres 18 on only.
    """
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)


UUID7: Final = """encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) PLACING
    substring(int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
    52, 1), 53, 1), 'hex')::uuid"""
"""SQL of a version-7 UUID, for rows that are made in bulk: a random one of version 4 with the time put in."""


def item_id(job_id: UUID, seq: int) -> str:
    """The public id of item number `seq` (from 0) of a job."""
    return f"{job_id.hex}-{seq}"


def parse_item_id(text: str) -> tuple[UUID, int]:
    """The job and sequence number of a public item id; ValueError when it is not one."""
    match = _ITEM_ID.fullmatch(text)
    if match is None or int(match[2]) > 2**31 - 1:
        raise ValueError("not an item id")
    return UUID(match[1]), int(match[2])
