"""One sandboxed process seen from its parent: start, ask, end. It knows no pool and no picture."""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from worker.sandbox_frames import ANSWER, DONE, FAILED, HELLO, MOST_BODY, MOST_HEADER, REQUEST

_ROOT: Final = str(Path(__file__).resolve().parent.parent)
_BOOT: Final = (
    "import sys; root = sys.argv.pop(1); root in sys.path or sys.path.insert(0, root); "
    "from worker.sandbox_child import main; main()"
)
_START_S: Final = 60.0
_DIE_S: Final = 1.0
_PIECE: Final = 2**20

Header = dict[str, Any]


class SandboxError(Exception):
    """No sandboxed process can be had; the picture is not at fault."""

    code = "sandbox_unavailable"


class ProtocolError(Exception):
    """The process answered what it never should: it is no longer ours."""


class SandboxProcess:
    """A running worker.sandbox_child and its pipes. `walls`: what stands around it; `asked`: requests so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._requests, self._answers = process.stdin, process.stdout
        self.walls: dict[str, bool] = {}
        self.asked = 0
        self._killed = False

    @classmethod
    async def start(cls, config: str) -> "SandboxProcess":
        """Start a process and wait until it is locked in. Raises SandboxError with its last words."""
        # A file takes what it says before it locks itself in; then its file size limit of 0 keeps this one small.
        with tempfile.TemporaryFile() as words:
            child = cls(
                await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-c", _BOOT, _ROOT, config),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=words,
                    env=_environment(),
                    cwd="/",
                    start_new_session=True,  # Ctrl-C is for the parent to handle
                    limit=2**20,
                )
            )
            try:
                async with asyncio.timeout(_START_S):
                    _, header, _ = await child._read()
            except (EOFError, ConnectionError, ProtocolError, TimeoutError) as error:
                await child.end()
                words.seek(0)
                said = words.read()[-600:].decode(errors="replace").strip()
                raise SandboxError(said or f"no sandboxed process within {_START_S:g} s") from error
            except asyncio.CancelledError:
                child.drop()
                raise
        child.walls = {name: stands is True for name, stands in header["walls"].items()}
        return child

    async def ask(self, kind: bytes, payload: bytes | bytearray, facts: int = 0) -> tuple[bytes, Header, bytes]:
        """One request; (DONE or FAILED, header, body). `facts`: the bits of those wanted.

        Raises EOFError, ConnectionError or ProtocolError."""
        self.asked += 1
        self._requests.write(REQUEST.pack(kind, facts, len(payload)))
        # In pieces: what the pipe does not take at once is copied, and that shall not be the whole picture.
        view = memoryview(payload)
        for at in range(0, len(payload), _PIECE):
            self._requests.write(view[at : at + _PIECE])
            await self._requests.drain()
        return await self._read()

    async def _read(self) -> tuple[bytes, Header, bytes]:
        kind, header_size, body_size = ANSWER.unpack(await self._answers.readexactly(ANSWER.size))
        if kind not in (DONE, FAILED, HELLO) or header_size > MOST_HEADER or body_size > MOST_BODY:
            raise ProtocolError("a frame of no known kind or size")
        text = await self._answers.readexactly(header_size)
        body = await self._answers.readexactly(body_size)
        try:
            header = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ProtocolError("a header that is no JSON") from error
        if not isinstance(header, dict):
            raise ProtocolError("a header that is no object")
        return kind, header, body

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    @property
    def doomed(self) -> bool:
        """It is dead or about to be, and waits for `end`."""
        return self._killed or not self.alive

    def kill(self) -> None:
        """At once, without waiting for its end."""
        self._killed = True
        if self.alive:
            self._process.kill()

    async def death(self) -> int:
        """The exit code of a process that has closed its pipe; one that lingers is killed."""
        try:
            async with asyncio.timeout(_DIE_S):
                return await self._process.wait()
        except TimeoutError:
            return await self.end()

    async def end(self) -> int:
        """Kill it, wait for its end and close its pipes, which otherwise outlive the event loop."""
        self.kill()
        code = await self._process.wait()
        self.drop()
        return code

    def drop(self) -> None:
        """Kill it and close its pipes, where nobody can wait."""
        self.kill()
        self._process._transport.close()  # type: ignore[attr-defined]


def _environment() -> dict[str, str]:
    """Nothing of ours but where some Pythons find their shared libraries: no secret reaches the sandbox."""
    clean = {"LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    if "LD_LIBRARY_PATH" in os.environ:
        clean["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    return clean
