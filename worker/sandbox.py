"""The pool of sandboxed processes that turn hostile bytes into working copies and facts. It decodes nothing itself.

slot free → process there, else started → bytes in → answer out within the wall clock → slot free └
late, dead or lying: killed, a typed failure, a fresh one next time
"""

import asyncio
import json
import os
import signal
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from db.codes import CODES
from worker.sandbox_frames import DONE, HOOK, PICTURE
from worker.sandbox_process import Header, ProtocolError, SandboxError, SandboxProcess

__all__ = ["NormaliseFailure", "Normalised", "Normaliser", "SandboxError", "SandboxLimits"]

_ALL_FACTS: Final = ("pdq", "colours", "sharpness")
_OUT_OF_CPU: Final = (-signal.SIGPROF, -signal.SIGXCPU)
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
    recycle_after: int = 500
    user: int = 65_534


@dataclass(frozen=True)
class Normalised:
    """`work`: a JPEG of ours. `width`, `height`: of the upright original. Facts not asked for are None."""

    work: bytes
    width: int
    height: int
    format: str
    pdq: bytes | None
    pdq_quality: int | None
    colours: list[dict[str, Any]] | None
    sharpness: float | None
    seconds: float


@dataclass(frozen=True)
class NormaliseFailure:
    """Why these bytes gave no picture; `code` is one of db.codes."""

    code: str
    detail: str = ""


class Normaliser:
    """`async with Normaliser(limits, workers=2) as n: result = await n.normalise(data)`, from many tasks at once.

    `facts`: which of pdq, colours, sharpness to compute. `capabilities`: which walls stand (see
    worker.confinement). `hooks`: a file of functions to call inside the sandbox, for tests of its walls;
    refused unless TAGMILL_TEST_BUILD is 1.
    """

    def __init__(
        self,
        limits: SandboxLimits = SandboxLimits(),
        *,
        workers: int | None = None,
        facts: Collection[str] = _ALL_FACTS,
        short_side: int = 384,
        quality: int = 90,
        hooks: Path | None = None,
    ) -> None:
        if hooks is not None and os.environ.get("TAGMILL_TEST_BUILD") != "1":
            raise ValueError("hooks are for test builds")
        self.capabilities: dict[str, bool] = {}
        self._limits = limits
        self._workers = workers or os.cpu_count() or 1
        self._config = _configuration(limits, facts, short_side, quality, hooks)
        self._slots: asyncio.LifoQueue[SandboxProcess | None] = asyncio.LifoQueue()
        self._processes: set[SandboxProcess] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        """Start one process, so that a machine that cannot says so at once; the others follow when they are needed."""
        first = await self._start()
        self.capabilities = first.walls
        for _ in range(self._workers - 1):
            self._slots.put_nowait(None)
        self._slots.put_nowait(first)
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

    async def normalise(self, data: bytes | bytearray) -> Normalised | NormaliseFailure:
        """Decode `data` in a sandboxed process. Raises SandboxError if none can be had."""
        if len(data) > self._limits.max_bytes:
            return NormaliseFailure("too_large", f"{len(data)} bytes, at most {self._limits.max_bytes}")
        answer = await self._ask(PICTURE, data)
        return answer if isinstance(answer, NormaliseFailure) else _normalised(*answer)

    async def call_hook(self, name: str) -> Any:
        """What the hook answers inside the sandbox, or the NormaliseFailure that its process came to."""
        answer = await self._ask(HOOK, name.encode())
        return answer if isinstance(answer, NormaliseFailure) else answer[0]["result"]

    async def _ask(self, kind: bytes, payload: bytes | bytearray) -> tuple[Header, bytes] | NormaliseFailure:
        process = await self._slots.get()
        keep = False
        try:
            if process is None or not process.alive:
                process = await self._start()
            async with asyncio.timeout(self._limits.wall_s):
                outcome, header, body = await process.ask(kind, payload)
            if outcome == DONE:
                keep = process.asked < self._limits.recycle_after
                return header, body
            failure = _failure(header)
            keep = process.asked < self._limits.recycle_after and failure.code not in _RETIRING
            return failure
        except TimeoutError:
            return NormaliseFailure("decode_timeout", f"no answer within {self._limits.wall_s:g} s")
        except ProtocolError as error:
            return NormaliseFailure("decoder_crashed", str(error))
        except (EOFError, ConnectionError) as error:
            if process is None or self._closed:
                raise SandboxError("the normaliser was closed") from error
            return _post_mortem(await process.death())
        finally:
            if process is not None and not keep:
                process.kill()
            self._slots.put_nowait(process if keep else None)

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


def _configuration(
    limits: SandboxLimits, facts: Collection[str], short_side: int, quality: int, hooks: Path | None
) -> str:
    """The process's only argument. It can be read by others in the process table: no secret belongs here."""
    if unknown := set(facts) - set(_ALL_FACTS):
        raise ValueError(f"no such fact: {', '.join(sorted(unknown))}")
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
            "facts": sorted(facts),
            "short_side": short_side,
            "quality": quality,
            "cpu_s": limits.cpu_s,
            "hooks": str(hooks) if hooks else None,
        }
    )


def _normalised(header: Header, work: bytes) -> Normalised | NormaliseFailure:
    """The answer as a value. Whoever took over the process may have written it: every field is looked at."""
    try:
        pdq = None if header.get("pdq") is None else bytes.fromhex(header["pdq"])
        if not work.startswith(b"\xff\xd8\xff") or (pdq is not None and len(pdq) != 32):
            raise ValueError("no working copy or no hash")
        return Normalised(
            work=work,
            width=int(header["width"]),
            height=int(header["height"]),
            format=str(header["format"])[:8],
            pdq=pdq,
            pdq_quality=None if pdq is None else int(header["pdq_quality"]),
            colours=_colours(header.get("colours")),
            sharpness=None if header.get("sharpness") is None else float(header["sharpness"]),
            seconds=float(header["seconds"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        return NormaliseFailure("decoder_crashed", f"an answer that makes no sense: {error}"[:200])


def _colours(answer: Any) -> list[dict[str, Any]] | None:
    if answer is None:
        return None
    return [{"name": str(one["name"])[:32], "hex": str(one["hex"])[:7], "share": float(one["share"])} for one in answer]


def _failure(header: Header) -> NormaliseFailure:
    code, detail = header.get("code"), str(header.get("detail", ""))[:200]
    if code not in CODES:
        return NormaliseFailure("decoder_crashed", f"an unknown code: {detail}")
    return NormaliseFailure(code, detail)


def _post_mortem(exit_code: int) -> NormaliseFailure:
    if exit_code in _OUT_OF_CPU:
        return NormaliseFailure("decode_timeout", "the CPU time ran out")
    if exit_code < 0:
        return NormaliseFailure("decoder_crashed", f"the process died of {signal.Signals(-exit_code).name}")
    return NormaliseFailure("decoder_crashed", f"the process ended with {exit_code}")
