"""How a process locks itself in before it touches hostile bytes: memory, files, network, user. It decodes nothing.

Every wall is tried, and what stands is reported; no single one is relied on. Import everything first:
afterwards no file can be opened any more.
"""

import ctypes
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from worker import landlock, seccomp

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_CLONE_NEWIPC: Final = 0x08000000
_CAPABILITY_VERSION_3: Final = 0x20080522


@dataclass(frozen=True)
class Walls:
    """What stands around the process. `no_files`: tried out; so is `no_network` where there is no namespace."""

    memory_limit: bool
    own_user: bool
    network_namespace: bool
    seccomp: bool
    no_new_privileges: bool
    dies_with_parent: bool
    no_network: bool
    no_files: bool

    def as_dict(self) -> dict[str, bool]:
        return asdict(self)


def lock_in(parent: int, memory_bytes: int, cpu_s: int, open_files: int, user: int, threads: bool) -> Walls:
    """Give up everything a decoder does not need. `user`: the uid and gid to become where we are root.
    `threads`: whether the decoders need any.

    Exits where the parent (a pid) is already gone. Raises nothing: a wall that cannot be built is
    reported as missing.
    """
    os.closerange(3, min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 65_536))
    out = os.dup(1)  # fd 3: the answers; whatever a library prints goes the way of stderr
    os.dup2(2, 1)
    os.environ.clear()
    os.chdir("/")
    network_namespace = _leave_network()
    own_user = _become(user)
    _drop_capabilities()
    limited = _limit(memory_bytes, cpu_s, open_files, threads)
    no_new_privileges = _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    # After the change of user, which clears it.
    dies_with_parent = _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    assert out == ANSWERS
    return Walls(
        memory_limit=limited,
        own_user=own_user,
        network_namespace=network_namespace,
        no_new_privileges=no_new_privileges,
        dies_with_parent=dies_with_parent,
        seccomp=seccomp.confine(threads),
        no_network=network_namespace or _refused(socket.socket),
        no_files=_refused(os.open, os.devnull, os.O_RDONLY),
    )


@dataclass(frozen=True)
class ReadingWalls:
    """What stands around a process that may still read files."""

    memory_limit: bool
    network_namespace: bool
    no_new_privileges: bool
    dies_with_parent: bool
    writes_in_one_folder: bool
    no_programs: bool
    no_network: bool

    def as_dict(self) -> dict[str, bool]:
        return asdict(self)


def lock_in_reading(parent: int, memory_bytes: int, cpu_s: int, file_bytes: int, folder: Path) -> ReadingWalls:
    """The walls for a library that loads its own parts while it works: it may read files, and write under `folder`.

    It keeps its user, whose Python it reads, but no capability. Exits where the parent (a pid) is already gone.
    """
    network_namespace = _leave_network()
    _drop_capabilities()
    limited = _limit(memory_bytes, cpu_s, 256, threads=True, file_bytes=file_bytes)
    no_new_privileges = _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    dies_with_parent = _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    writes_in_one_folder = landlock.write_only_under(folder)
    return ReadingWalls(
        memory_limit=limited,
        network_namespace=network_namespace,
        no_new_privileges=no_new_privileges,
        dies_with_parent=dies_with_parent,
        writes_in_one_folder=writes_in_one_folder,
        no_programs=seccomp.deny(),
        no_network=network_namespace or _refused(socket.socket),
    )


ANSWERS: Final = 3


@contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """The process is killed (SIGPROF) when the block takes more CPU time than this."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _leave_network() -> bool:
    """Enter a network namespace without interfaces: as root at once, else through a user namespace where allowed."""
    if not sys.platform.startswith("linux"):
        return False
    flags = _CLONE_NEWNET | _CLONE_NEWIPC
    return _call("unshare", flags) or _call("unshare", flags | _CLONE_NEWUSER)


def _become(user: int) -> bool:
    if os.geteuid() != 0:
        return False
    try:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    except (OSError, AttributeError):
        return False
    return True


def _drop_capabilities() -> None:
    """Also those that a new user namespace gives."""
    if sys.platform.startswith("linux"):
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        _call("capset", ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))


def _limit(memory_bytes: int, cpu_s: int, open_files: int, threads: bool, file_bytes: int = 0) -> bool:
    """Resource limits; True if the memory limit holds. `cpu_s`: of the process's whole life."""
    wanted = {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": file_bytes,
        "RLIMIT_NOFILE": open_files,
        "RLIMIT_CPU": cpu_s,
        "RLIMIT_AS": memory_bytes,
    }
    if not threads:
        wanted["RLIMIT_NPROC"] = 0
    held = True
    for name, value in wanted.items():
        try:
            resource.setrlimit(getattr(resource, name), (value, value))
        except (ValueError, OSError, AttributeError):
            held = held and name != "RLIMIT_AS"
    return held


def _refused(call: Any, *arguments: Any) -> bool:
    try:
        opened = call(*arguments)
    except OSError:
        return True
    os.close(opened if isinstance(opened, int) else opened.detach())
    return False


def _prctl(option: int, value: int) -> bool:
    return sys.platform.startswith("linux") and _call("prctl", option, value, 0, 0, 0)


def _call(name: str, *arguments: Any) -> bool:
    return bool(getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) == 0)
