"""One sandboxed process seen from its parent: start, ask, end. It knows no pool and no picture."""

import asyncio
import fcntl
import json
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

from worker.sandbox_frames import ANSWER, DONE, FAILED, HELLO, MOST_BODY, MOST_HEADER, REQUEST

_ROOT: Final = str(Path(__file__).resolve().parent.parent)
_BOOT: Final = (
    "import sys; root = sys.argv.pop(1); root in sys.path or sys.path.insert(0, root); "
    "from worker.sandbox_child import main; main()"
)
_START_S: Final = 60.0
_DIE_S: Final = 1.0
_PIPE: Final = 2**18  # most pictures and working copies at once; what the kernel allows anybody to ask for is more

Header = dict[str, Any]
Answer = tuple[bytes, Header, bytes]


class SandboxError(Exception):
    """No sandboxed process can be had; the picture is not at fault."""

    code = "sandbox_unavailable"


class ProtocolError(Exception):
    """The process answered what it never should: it is no longer ours."""


class SandboxProcess:
    """A running worker.sandbox_child and its pipes. `walls`: what stands around it; `asked`: requests so far.

    One request at a time. The event loop is asked as little as can be: a picture and its answer mostly fit into the
    pipes, and so are one write, one wake-up and one read.
    """

    def __init__(self, process: asyncio.subprocess.Process, requests: int, answers: int) -> None:
        """`requests`, `answers`: the ends of the pipes that are ours."""
        self._process = process
        self._requests, self._answers = requests, answers
        self._loop = asyncio.get_running_loop()
        self._rest = memoryview(b"")  # of the request
        self._room, self._came = bytearray(_PIPE), bytearray()
        self._waiting: asyncio.Future[Answer] | None = None
        self._open = self._piped = True  # not closed by it; not closed by us
        self._killed = False
        self.walls: dict[str, bool] = {}
        self.asked = 0
        self._loop.add_reader(answers, self._readable)

    @classmethod
    async def start(cls, config: str) -> "SandboxProcess":
        """Start a process and wait until it is locked in. Raises SandboxError with its last words."""
        # A file takes what it says before it locks itself in; then its file size limit of 0 keeps this one small.
        with tempfile.TemporaryFile() as words:
            child = await cls._launch(config, words)
            try:
                async with asyncio.timeout(_START_S):
                    _, header, _ = await child._answer()
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

    @classmethod
    async def _launch(cls, config: str, words: IO[bytes]) -> "SandboxProcess":
        theirs_in, requests = _pipe()
        answers, theirs_out = _pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-c", _BOOT, _ROOT, config),
                stdin=theirs_in,
                stdout=theirs_out,
                stderr=words,
                env=_environment(),
                cwd="/",
                start_new_session=True,  # Ctrl-C is for the parent to handle
            )
        except BaseException:
            os.close(requests)
            os.close(answers)
            raise
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        os.set_blocking(requests, False)
        os.set_blocking(answers, False)
        return cls(process, requests, answers)

    async def ask(self, kind: bytes, payload: bytes | bytearray, facts: int = 0) -> Answer:
        """One request; (DONE or FAILED, header, body). `facts`: the bits of those wanted.

        Raises EOFError, ConnectionError or ProtocolError."""
        if self._killed or not self._open:
            raise EOFError("it has ended before it was asked")
        self.asked += 1
        head = REQUEST.pack(kind, facts, len(payload))
        try:
            sent = os.writev(self._requests, (head, payload))
        except BlockingIOError:
            sent = 0
        if sent < len(head) + len(payload):
            # The payload is not copied for it: what is left of the head alone is.
            self._rest = memoryview(payload)[sent - len(head) :] if sent >= len(head) else memoryview(head + payload)
            self._loop.add_writer(self._requests, self._writable)
        return await self._answer()

    async def _answer(self) -> Answer:
        assert self._waiting is None, "one request at a time"
        self._waiting = self._loop.create_future()
        try:
            if self._came or not self._open:
                self._settle()
            return await self._waiting
        finally:
            self._waiting = None

    def _writable(self) -> None:
        try:
            self._rest = self._rest[os.write(self._requests, self._rest) :]
        except BlockingIOError:
            return
        except OSError:
            self._rest = memoryview(b"")  # it died; the other pipe says so too
        if not self._rest:
            self._loop.remove_writer(self._requests)

    def _readable(self) -> None:
        try:
            count = os.readv(self._answers, (self._room,))
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if not count:
            self._loop.remove_reader(self._answers)
            self._open = False
        self._came += memoryview(self._room)[:count]
        self._settle()

    def _settle(self) -> None:
        """Give what came to the one who asked, once it is an answer or never will be one."""
        if self._waiting is None or self._waiting.done():
            if self._came:
                self.kill()  # nobody asked it anything
            return
        try:
            answer = _parsed(self._came)
        except ProtocolError as error:
            self._waiting.set_exception(error)
            return
        if answer is not None:
            self._came = bytearray()
            self._waiting.set_result(answer)
        elif not self._open:
            self._waiting.set_exception(EOFError("it has closed its pipe"))

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
        if self._piped:
            self._piped = self._open = False
            self._loop.remove_reader(self._answers)
            self._loop.remove_writer(self._requests)
            os.close(self._requests)
            os.close(self._answers)
            self._rest = memoryview(b"")
            self._settle()
        self._process._transport.close()  # type: ignore[attr-defined]


def _parsed(came: bytearray) -> Answer | None:
    """The answer that came; None as long as it is not whole. Raises ProtocolError."""
    if len(came) < ANSWER.size:
        return None
    kind, header_size, body_size = ANSWER.unpack_from(came)
    if kind not in (DONE, FAILED, HELLO) or header_size > MOST_HEADER or body_size > MOST_BODY:
        raise ProtocolError("a frame of no known kind or size")
    body_at = ANSWER.size + header_size
    if len(came) < body_at + body_size:
        return None
    if len(came) > body_at + body_size:
        raise ProtocolError("more than an answer")
    try:
        header = json.loads(came[ANSWER.size : body_at])
    except (ValueError, RecursionError) as error:
        raise ProtocolError("a header that is no JSON") from error
    if not isinstance(header, dict):
        raise ProtocolError("a header that is no object")
    return kind, header, bytes(memoryview(came)[body_at:])


def _pipe() -> tuple[int, int]:
    """(end to read from, end to write to), which holds most pictures whole."""
    ends = os.pipe()
    with suppress(AttributeError, OSError):  # not on Linux; or this user has too many already
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, _PIPE)
    return ends


def _environment() -> dict[str, str]:
    """Nothing of ours but where some Pythons find their shared libraries: no secret reaches the sandbox."""
    clean = {"LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    if "LD_LIBRARY_PATH" in os.environ:
        clean["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    return clean
