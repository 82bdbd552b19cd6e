"""Runs inside the sandbox, for the tests of its walls only: each hook tries something a decoder never needs.

Everything is imported before the walls go up, as an attacker would have it. A hook answers "denied: …" or what it got.
"""

import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from typing import Any

from worker import sandbox_child
from worker.sandbox_child import Answer, Normalising


def _tried(action: Callable[[], Any]) -> str:
    try:
        return f"got: {action()!r}"
    except OSError as error:
        return f"denied: {type(error).__name__} {error.errno}"


def connect() -> str:
    def action() -> None:
        with socket.socket() as out:
            out.settimeout(2)
            out.connect(("127.0.0.1", PORT))

    return _tried(action)


def datagram() -> str:
    return _tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 53)))


def unix_socket() -> str:
    return _tried(lambda: socket.socket(socket.AF_UNIX).connect("/run/nothing"))


def write_file() -> str:
    return _tried(lambda: open("/tmp/tagmill-sandbox-escape", "w").write("x"))


def read_file() -> str:
    return _tried(lambda: open("/etc/passwd").read()[:10])


def list_folder() -> str:
    return _tried(lambda: os.listdir("/"))


def remove_file() -> str:
    return _tried(lambda: os.unlink(CANARY))


def fork() -> str:
    def action() -> int:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        return pid

    return _tried(action)


def execute() -> str:
    return _tried(lambda: os.execv("/bin/true", ["true"]))


def spawn() -> str:
    return _tried(lambda: subprocess.run(["/bin/true"]))


def kill_parent() -> str:
    return _tried(lambda: os.kill(os.getppid(), signal.SIGTERM))


def trace_parent() -> str:
    result = ctypes.CDLL(None, use_errno=True).ptrace(16, PARENT, 0, 0)  # PTRACE_ATTACH
    return "denied: ptrace" if result == -1 else "got: ptrace"


def raise_memory_limit() -> str:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    try:
        resource.setrlimit(resource.RLIMIT_AS, unlimited)
    except ValueError as error:
        return f"denied: {error}"
    except OSError as error:
        return f"denied: {error}"
    return "got: more"


def environment() -> list[str]:
    """What the process was started with, as its own memory has it."""
    libc = ctypes.CDLL(None)
    values = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ")
    found, at = [], 0
    while values and values[at] is not None:
        found.append(values[at].decode())
        at += 1
    return [*STARTED_WITH, *found, *(f"{name}={value}" for name, value in os.environ.items())]


def uid() -> int:
    return os.getuid()


def pid() -> int:
    return os.getpid()


def arguments() -> list[str]:
    return sys.argv


def hang() -> None:
    while True:
        time.sleep(1)


def spin() -> None:
    from worker.confinement import cpu_limit

    with cpu_limit(0.3):
        while True:
            pass


def segfault() -> None:
    ctypes.string_at(1)


def abort() -> None:
    os.abort()


def leave() -> None:
    os._exit(3)


def eat_memory() -> int:
    kept = []
    while True:
        kept.append(bytearray(64 * 2**20))


def babble() -> None:
    os.write(3, b"\xff" * 64)
    time.sleep(60)


def lie() -> None:
    """Claim a working copy of 4 GB."""
    os.write(3, b"D" + (2).to_bytes(4, "big") + (2**32 - 1).to_bytes(4, "big") + b"{}")
    time.sleep(60)


def usurp() -> str:
    """From now on every picture is answered with a lie in its facts."""
    work = b"\xff\xd8\xff"
    header = {"width": 1, "height": 1, "format": "PNG", "sharpness": 1e300, "seconds": 0.1}

    def lies(self: Normalising, data: bytes, wanted: Collection[str] = ()) -> Answer:
        return b"D", header, work

    Normalising.__call__ = lies  # type: ignore[method-assign]
    return "ours"


def nest() -> None:
    """An answer whose header is nested deeper than a parser can follow."""
    header = b"[" * 60_000
    os.write(3, b"D" + len(header).to_bytes(4, "big") + bytes(4) + header)
    time.sleep(60)


def answer_twice() -> str:
    """An answer to nobody, some time after the one that is asked for."""
    read = sandbox_child.receive

    def late(size: int) -> bytes | None:
        time.sleep(0.1)
        sandbox_child.send(b"D", {"width": 1, "height": 1, "format": "PNG", "seconds": 0.1}, b"\xff\xd8\xff")
        return read(size)

    sandbox_child.receive = late
    return "ours"


def print_something() -> str:
    libc = ctypes.CDLL(None)
    libc.puts(b"a library prints this")
    libc.fflush(None)
    return "printed"


PORT = 9  # replaced by the test with a port that listens
PARENT = os.getppid()
CANARY = __file__
STARTED_WITH = [f"{name}={value}" for name, value in os.environ.items()]
HOOKS = {
    name: value
    for name, value in globals().items()
    if callable(value) and not name.startswith("_") and getattr(value, "__module__", None) == __name__
}
