"""A seccomp filter that lets a running process compute, read and write its open files, and nothing else. Linux only."""

import ctypes
import errno
import platform
import struct
import sys
from typing import Final

_PR_SET_SECCOMP: Final = 22
_MODE_FILTER: Final = 2
_RET_ALLOW: Final = 0x7FFF0000
_RET_ERRNO: Final = 0x00050000
_RET_KILL: Final = 0x80000000
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JSET|K, BPF_RET|K
_NUMBER_AT, _ARCH_AT, _FIRST_ARGUMENT_AT = 0, 4, 16  # offsets in struct seccomp_data (little endian)
_CLONE_THREAD: Final = 0x00010000

# What a decoder needs once everything is imported: its open pipes, memory, clocks, signals' returns, its end. No open,
# socket, clone, exec, kill, ptrace: what is not listed fails with EPERM, which every library here survives.
_X86_64: Final = {
    "read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12,
    "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "sched_yield": 24, "mremap": 25, "madvise": 28,
    "nanosleep": 35, "setitimer": 38, "getpid": 39, "exit": 60, "gettimeofday": 96, "getrusage": 98, "getuid": 102,
    "sigaltstack": 131, "gettid": 186, "time": 201, "futex": 202, "sched_getaffinity": 204, "restart_syscall": 219,
    "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231, "getrandom": 318, "rseq": 334,
}  # fmt: skip
_AARCH64: Final = {
    "close": 57, "lseek": 62, "read": 63, "write": 64, "fstat": 80, "exit": 93, "exit_group": 94, "futex": 98,
    "nanosleep": 101, "setitimer": 103, "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115,
    "sched_getaffinity": 123, "sched_yield": 124, "restart_syscall": 128, "sigaltstack": 132, "rt_sigaction": 134,
    "rt_sigprocmask": 135, "rt_sigreturn": 139, "getrusage": 165, "gettimeofday": 169, "getpid": 172, "getuid": 174,
    "gettid": 178, "brk": 214, "munmap": 215, "mremap": 216, "mmap": 222, "mprotect": 226, "madvise": 233,
    "getrandom": 278, "rseq": 293,
}  # fmt: skip
_MACHINES: Final = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _AARCH64)}
_CLONE: Final = {0xC000003E: 56, 0xC00000B7: 220}
_SET_ROBUST_LIST: Final = {0xC000003E: 273, 0xC00000B7: 99}
_CLONE3: Final = 435
# What a converter of models never needs: programs, sockets, other processes, the kernel.
_DENIED_X86_64: Final = {
    "socket": 41, "connect": 42, "bind": 49, "socketpair": 53, "fork": 57, "vfork": 58, "execve": 59, "kill": 62,
    "ptrace": 101, "pivot_root": 155, "chroot": 161, "mount": 165, "init_module": 175, "kexec_load": 246, "keyctl": 250,
    "perf_event_open": 298, "open_by_handle_at": 304, "process_vm_readv": 310, "process_vm_writev": 311,
    "finit_module": 313, "bpf": 321, "execveat": 322, "userfaultfd": 323,
}  # fmt: skip
_DENIED_AARCH64: Final = {
    "mount": 40, "pivot_root": 41, "chroot": 51, "kexec_load": 104, "init_module": 105, "ptrace": 117, "kill": 129,
    "socket": 198, "socketpair": 199, "bind": 200, "connect": 203, "keyctl": 219, "execve": 221, "perf_event_open": 241,
    "open_by_handle_at": 265, "process_vm_readv": 270, "process_vm_writev": 271, "finit_module": 273, "bpf": 280,
    "execveat": 281, "userfaultfd": 282,
}  # fmt: skip
_DENIED: Final = {0xC000003E: _DENIED_X86_64, 0xC00000B7: _DENIED_AARCH64}
_IO_URING_SETUP: Final = 425  # opens sockets and files past this filter


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def confine(threads: bool = False) -> bool:
    """Allow this process only the listed system calls, for good. False where the machine or the kernel cannot.

    `threads`: also new threads of this process. Needs PR_SET_NO_NEW_PRIVS (or root) first.
    """
    machine = _MACHINES.get(platform.machine())
    if not sys.platform.startswith("linux") or machine is None or sys.maxsize < 2**32:
        return False
    code = program(*machine, threads)
    filters = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(filters), 0, 0) == 0)


def deny() -> bool:
    """Forbid this process, for good, to start programs, open sockets, signal or trace others. False where it cannot.

    For processes that must still open files; whoever can do without takes `confine`. Needs PR_SET_NO_NEW_PRIVS first.
    """
    machine = _MACHINES.get(platform.machine())
    if not sys.platform.startswith("linux") or machine is None or sys.maxsize < 2**32:
        return False
    arch = machine[0]
    numbers = sorted([*_DENIED[arch].values(), _IO_URING_SETUP])
    lines = [
        _line(_LOAD, _ARCH_AT),
        _line(_EQUAL, arch, on_true=1),
        _line(_RETURN, _RET_KILL),
        _line(_LOAD, _NUMBER_AT),
        # The x32 calls of x86-64 carry bit 30 in their number: none of them is wanted.
        _line(_ANY_BIT, 1 << 30, on_true=len(numbers) + 1),
        *(_line(_EQUAL, number, on_true=len(numbers) - at) for at, number in enumerate(numbers)),
        _line(_RETURN, _RET_ALLOW),
        _line(_RETURN, _RET_ERRNO | errno.EPERM),
    ]
    code = b"".join(lines)
    libc = ctypes.CDLL(None, use_errno=True)
    filters = _Program(len(code) // 8, code)
    return bool(libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(filters), 0, 0) == 0)


def program(arch: int, allowed: dict[str, int], threads: bool) -> bytes:
    """The filter as classic BPF, 8 bytes an instruction (struct sock_filter)."""
    numbers = sorted([*allowed.values(), *([_SET_ROBUST_LIST[arch]] if threads else [])])
    lines = [
        _line(_LOAD, _ARCH_AT),
        _line(_EQUAL, arch, on_true=1),
        _line(_RETURN, _RET_KILL),  # 32-bit entry into a 64-bit kernel has other numbers
        _line(_LOAD, _NUMBER_AT),
    ]
    if threads:
        lines += [
            _line(_EQUAL, _CLONE3, on_false=1),
            _line(_RETURN, _RET_ERRNO | errno.ENOSYS),  # its flags lie in memory; libc then tries clone
            _line(_EQUAL, _CLONE[arch], on_false=4),
            _line(_LOAD, _FIRST_ARGUMENT_AT),
            _line(_ANY_BIT, _CLONE_THREAD, on_false=1),
            _line(_RETURN, _RET_ALLOW),
            _line(_RETURN, _RET_ERRNO | errno.EPERM),
        ]
    # The x32 calls of x86-64 carry bit 30 in their number, and so equal none of these.
    lines += [_line(_EQUAL, number, on_true=len(numbers) - at) for at, number in enumerate(numbers)]
    lines += [_line(_RETURN, _RET_ERRNO | errno.EPERM), _line(_RETURN, _RET_ALLOW)]
    return b"".join(lines)


def _line(operation: int, operand: int, on_true: int = 0, on_false: int = 0) -> bytes:
    return struct.pack("=HBBI", operation, on_true, on_false, operand)
