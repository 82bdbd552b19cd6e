"""The pool of sandboxed processes that turn hostile bytes into working copies and facts. It decodes nothing itself.

place free → process there, else started → bytes in → answer out within the wall clock → place free └
late, dead or lying: killed, a typed failure, a fresh one next time
dead on a picture that need not be its fault: once more, in a fresh one
"""

import asyncio
import json
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from worker import sandbox_answers
from worker.places import Places
from worker.sandbox_answers import OUT_OF_CPU, Normalised, NormaliseFailure, Ranges
from worker.sandbox_frames import DONE, FACTS, HOOK, PICTURE, fact_bits
from worker.sandbox_process import Header, ProtocolError, SandboxError, SandboxProcess

__all__ = ["NormaliseFailure", "Normalised", "Normaliser", "SandboxError", "SandboxLimits"]

T = TypeVar("T")
# After these the process is not trusted with another picture.
_RETIRING: Final = ("decode_memory", "decoder_crashed")


@dataclass(frozen=True)
class SandboxLimits:
    """For one picture and its process: bytes, pixels, seconds. `user`: uid and gid to become where we are root."""

    max_bytes: int = 25 * 2**20
    max_pixels: int = 40_000_000
    max_side: int = 16_384
    heif: bool = False
    memory_bytes: int = 2**30
    cpu_s: float = 10.0
    wall_s: float = 15.0
    open_files: int = 32
    recycle_after: int = 2000
    user: int = 65_534


class Normaliser:
    """`async with Normaliser(limits, workers=2) as n: result = await n.normalise(data)`, from many tasks at once.

    `facts`: which of pdq, colours, sharpness to compute where a call names none. `capabilities`: which walls stand (see
    worker.confinement). `hooks`: a file of functions to call inside the sandbox, for tests of its walls;
    refused unless TAGMILL_TEST_BUILD is 1.
    """

    def __init__(
        self,
        limits: SandboxLimits = SandboxLimits(),
        *,
        workers: int | None = None,
        facts: Collection[str] = FACTS,
        short_side: int = 384,
        quality: int = 90,
        hooks: Path | None = None,
    ) -> None:
        if hooks is not None and os.environ.get("TAGMILL_TEST_BUILD") != "1":
            raise ValueError("hooks are for test builds")
        self.capabilities: dict[str, bool] = {}
        self._limits = limits
        self._ranges = Ranges(limits.max_side, limits.max_pixels, limits.heif, limits.wall_s)
        self._workers = workers or os.cpu_count() or 1
        self._facts = fact_bits(facts)
        self._config = _configuration(limits, short_side, quality, hooks)
        self._places = Places(self._workers)
        self._idle: list[SandboxProcess | None] = []  # one entry a free place; the last one used is the warmest
        self._processes: set[SandboxProcess] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        """Start one process, so that a machine that cannot says so at once; the others follow when they are needed."""
        first = await self._start()
        self.capabilities = first.walls
        self._idle = [*([None] * (self._workers - 1)), first]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        await asyncio.gather(*(process.end() for process in self._processes))

    @property
    def pids(self) -> list[int]:
        """The processes now alive."""
        return [process.pid for process in self._processes if process.alive]

    async def normalise(
        self,
        data: bytes | bytearray,
        *,
        facts: Collection[str] | None = None,
        account: int = 0,
        urgent: bool = False,
    ) -> Normalised | NormaliseFailure:
        """Decode `data` in a sandboxed process, in the account's turn. Raises SandboxError if none can be had.

        `facts`: other ones than this pool computes by default."""
        if len(data) > self._limits.max_bytes:
            return NormaliseFailure("too_large", f"{len(data)} bytes, at most {self._limits.max_bytes}")
        await self._places.take(account, urgent=urgent)
        try:
            return await self._ask(PICTURE, data, self._picture, self._facts if facts is None else fact_bits(facts))
        finally:
            self._places.give()

    def _picture(self, header: Header, work: bytes) -> Normalised:
        return sandbox_answers.normalised(header, work, self._ranges)

    async def call_hook(self, name: str) -> Any:
        """What the hook answers inside the sandbox, or the NormaliseFailure that its process came to."""
        await self._places.take()
        try:
            return await self._ask(HOOK, name.encode(), lambda header, _: header["result"])
        finally:
            self._places.give()

    async def _ask(
        self, kind: bytes, payload: bytes | bytearray, read: Callable[[Header, bytes], T], facts: int = 0
    ) -> T | NormaliseFailure:
        """What `read` makes of the answer, for the holder of a place; `read` raises ProtocolError for one that cannot
        be believed."""
        process = self._idle.pop()
        keep = False
        try:
            while True:
                if process is None or not process.alive:
                    process = await self._start()
                try:
                    async with asyncio.timeout(self._limits.wall_s):
                        outcome, header, body = await process.ask(kind, payload, facts)
                    break
                except (EOFError, ConnectionError) as error:
                    if self._closed:
                        raise SandboxError("the normaliser was closed") from error
                    exit_code = await process.death()
                    if process.asked == 1 or exit_code in OUT_OF_CPU:
                        return sandbox_answers.post_mortem(exit_code)
                    # It may have been killed from outside, for want of memory, or by what an earlier picture left.
                    process.kill()
                    process = None
            answer = read(header, body) if outcome == DONE else sandbox_answers.failure(header)
            spent = isinstance(answer, NormaliseFailure) and answer.code in _RETIRING
            keep = process.asked < self._limits.recycle_after and not spent
            return answer
        except TimeoutError:
            return NormaliseFailure("decode_timeout", f"no answer within {self._limits.wall_s:g} s")
        except ProtocolError as error:
            return NormaliseFailure("decoder_crashed", str(error))
        finally:
            if process is not None and not keep:
                process.kill()
            self._idle.append(process if keep else None)

    async def _start(self) -> SandboxProcess:
        if self._closed:
            raise SandboxError("the normaliser was closed")
        for doomed in [process for process in self._processes if process.doomed]:
            self._processes.discard(doomed)
            await doomed.end()
        process = await SandboxProcess.start(self._config)
        self._processes.add(process)
        if self._closed:  # meanwhile
            await process.end()
            raise SandboxError("the normaliser was closed")
        return process


def _configuration(limits: SandboxLimits, short_side: int, quality: int, hooks: Path | None) -> str:
    """The process's only argument. It can be read by others in the process table: no secret belongs here."""
    return json.dumps(
        {
            "limits": {
                "max_bytes": limits.max_bytes,
                "max_pixels": limits.max_pixels,
                "max_side": limits.max_side,
                "heif": limits.heif,
                "draft_short_side": short_side,
            },
            "walls": {
                "parent": os.getpid(),
                "memory_bytes": limits.memory_bytes,
                # Of its whole life; each picture's own share is a timer in the process.
                "cpu_s": int(limits.cpu_s * (limits.recycle_after + 1)) + 1,
                "open_files": limits.open_files,
                "user": limits.user,
                "threads": limits.heif,  # libde265 decodes in a thread of its own, and no other way
            },
            "short_side": short_side,
            "quality": quality,
            "cpu_s": limits.cpu_s,
            "hooks": str(hooks) if hooks else None,
        }
    )
