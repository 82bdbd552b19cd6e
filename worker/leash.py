"""Launcher that ties a server process to the life of the process that started it; starts nothing by itself.

Run as a script: ``python -I -S leash.py SIGNAL PARENT_PID MAP|PLAIN PROGRAM ARG…``. It asks the kernel to
send SIGNAL when the parent dies, optionally makes root appear as nobody (a user namespace), and becomes it.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000
NOBODY = 65534


def _fail(what: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")


def _appear_as_nobody(libc: ctypes.CDLL) -> None:
    """Map the calling user to nobody inside a new user namespace: files stay ours, there is no root."""
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER) != 0:
        _fail("unshare")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{NOBODY} {uid} 1"),
        ("gid_map", f"{NOBODY} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def main(argv: list[str]) -> None:
    signal_number, parent, mode, *command = argv
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if mode == "MAP":
            _appear_as_nobody(libc)
        # After the namespace: a change of credentials clears the parent-death signal.
        if libc.prctl(_PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0) != 0:
            _fail("prctl")
        # The parent may have died before prctl: then nobody would ever signal us.
        if os.getppid() != int(parent):
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
