"""Thousands of damaged pictures through the real sandbox: each is a picture or a typed failure, nothing hangs, nothing
of ours dies, memory stays bounded. A part of them always; all 20,000 with `-m nemesis` (TAGMILL_FUZZ_SEED chooses)."""

import asyncio
import os
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from db.codes import CODES
from ml import images
from tests.abuse.mutants import good, mutant
from worker.sandbox import Normalised, NormaliseFailure, Normaliser, SandboxLimits

SEED = int(os.environ.get("TAGMILL_FUZZ_SEED", "2026"))
LIMITS = SandboxLimits(max_pixels=4_000_000, memory_bytes=2**29, wall_s=30.0, cpu_s=5.0)
DIED = ("decoder_crashed", "decode_timeout", "decode_memory")


async def run(count: int) -> tuple[Counter[str], float, int]:
    """Outcomes by code, the longest time of one, and the most bytes that a sandbox process had held at the end."""
    outcomes: Counter[str] = Counter()
    longest = 0.0
    numbers = iter(range(count))
    async with Normaliser(LIMITS, workers=2) as normaliser:

        async def some() -> None:
            nonlocal longest
            for number in numbers:
                began = time.monotonic()
                result = await normaliser.normalise(mutant(SEED, number))
                longest = max(longest, time.monotonic() - began)
                outcomes[judged(number, result)] += 1

        await asyncio.gather(*(some() for _ in range(2)))
        held = max(peak(pid) for pid in normaliser.pids)
        after = await normaliser.normalise(good()[0][1])
    assert isinstance(after, Normalised), "the pool is as good as before"
    return outcomes, longest, held


def judged(number: int, result: Normalised | NormaliseFailure) -> str:
    about = f"mutant({SEED}, {number})"
    if isinstance(result, NormaliseFailure):
        assert result.code in CODES, about
        return result.code
    work = images.decode(result.work)
    assert work.mode == "RGB", about
    assert min(work.size) <= 384, about
    assert result.width * result.height <= LIMITS.max_pixels, about
    return "decoded"


def peak(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return 0 if found is None else int(found[1]) * 1024


def check(count: int) -> None:
    before = peak(os.getpid())
    outcomes, longest, held = asyncio.run(run(count))
    print(f"seed {SEED}: {dict(outcomes.most_common())}, longest {longest:.2f} s, most memory {held >> 20} MiB")
    assert outcomes.total() == count
    assert {"decoded", "corrupt_image"} <= outcomes.keys()
    assert longest < 2 * LIMITS.wall_s, "a hang beyond the limit"
    assert held < LIMITS.memory_bytes
    assert peak(os.getpid()) - before < 2**28
    # A decoder that dies costs its own process only; but one that dies often is a bug to look at.
    assert sum(outcomes[code] for code in DIED) <= count // 200, outcomes


def test_some_mutants() -> None:
    check(3_000)


@pytest.mark.nemesis
@pytest.mark.timeout(1800)
def test_twenty_thousand_mutants() -> None:
    check(20_000)


def test_a_mutant_is_its_number() -> None:
    assert [mutant(7, n) for n in range(40)] == [mutant(7, n) for n in range(40)]
    assert len({mutant(7, n) for n in range(200)}) > 150
    assert mutant(7, 3) != mutant(8, 3)
