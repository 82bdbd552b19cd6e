"""A server that lives in one folder and belongs to one process: lock, password, port, log, start, stop.

Which server it is, is said in ``embedded``. The file lock on the folder says that a live process owns it:
a server found running without that lock is an orphan.
"""

import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar, Self

from worker import leashed

LOOPBACK = "127.0.0.1"
PORT_PATIENCE_S = 5.0


class ServiceError(Exception):
    """An embedded server could not be started. ``code`` is stable, the text says what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read (0600 from its first byte on)."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def free_port() -> int:
    """A free port that the kernel does not also lend to outgoing connections, if there is one: it can be had again."""
    lent = _lent_ports()
    for _ in range(200):
        drawn = 10_000 + secrets.randbelow(50_000)
        if drawn not in lent and is_free(drawn):
            return drawn
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _lent_ports() -> range:
    """The ports that the kernel gives to outgoing connections."""
    try:
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
        return range(int(low), int(high) + 1)
    except (OSError, ValueError):
        return range(49_152, 65_536)  # IANA's, and that of macOS


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """True if a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


class Service:
    """What both servers share: a folder, its lock, its password, its port, its log, and one child process."""

    name: ClassVar[str]

    def __init__(self, data_dir: Path, *, port: int | None = None, start_timeout_s: float = 120.0) -> None:
        self.data_dir = Path(data_dir).absolute()
        self.log_path = self.data_dir / f"{self.name}.log"
        self._wanted_port = port
        self._port: int | None = port
        self._promised = False
        self._start_timeout_s = start_timeout_s
        self._child: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None

    @property
    def port(self) -> int:
        if self._port is None:
            raise ServiceError("not_started", f"{self.name} has not been started")
        return self._port

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs, else None."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def process(self) -> "subprocess.Popen[bytes] | None":
        return self._child

    @property
    def password_path(self) -> Path:
        """The file with the server's password, mode 0600; written at first use."""
        path = self.data_dir / "password"
        if not path.exists():
            write_private(path, secrets.token_urlsafe(24))
        return path

    @property
    def password(self) -> str:
        return self.password_path.read_text(encoding="ascii").strip()

    def start(self) -> Self:
        """Start the server and return when it answers; stops an orphan of an earlier run first."""
        if self.running:
            return self
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._take_lock()
        try:
            self._stop_orphan()
            self._prepare()
            self._launch_until_it_answers()
        except BaseException:
            self.stop()
            raise
        (self.data_dir / "port").write_text(str(self.port), encoding="ascii")
        self._promised = True
        return self

    def stop(self) -> None:
        """Stop the server cleanly (then less and less so) and give the folder free. Safe to call twice."""
        if self._child is not None:
            leashed.end_child(self._child, self._stop_steps())
            self._child = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def kill(self) -> None:
        """End the server with SIGKILL, as a crash would; ``start`` brings it back, on the same port or not at all."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def discard(self) -> None:
        """Remove the folder with all its data, after ending an orphan; ServiceError if a live process owns it."""
        if not self.data_dir.exists():
            return
        self._take_lock()
        self._stop_orphan()
        shutil.rmtree(self.data_dir, ignore_errors=True)
        self.stop()

    def abandon(self) -> None:
        """Give the folder free and leave the server running, as if this process had died (for tests)."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        self._child = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = open(self.data_dir / "lock", "w", encoding="ascii")  # noqa: SIM115 - held until stop()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            message = f"another process runs {self.name} in {self.data_dir}"
            raise ServiceError("already_running", message) from None
        self._lock = lock

    def _choose_port(self) -> int:
        """The asked-for port, else the one of last time (so that tunnels stay valid), else a free one.

        Once it was started, others hold its URL: the same port or none. ServiceError if it stays taken.
        """
        if self._promised:
            self._await_port()
            return self.port
        if self._wanted_port is not None:
            return self._wanted_port
        last = self._port or self.recorded_port()
        return last if last and is_free(last) else free_port()

    def _await_port(self) -> None:
        deadline = time.monotonic() + PORT_PATIENCE_S
        while not is_free(self.port):
            if time.monotonic() > deadline:
                raise ServiceError(
                    "port_taken", f"{self.name} was on port {self.port}, and another program is there now"
                )
            time.sleep(0.1)

    def recorded_port(self) -> int | None:
        try:
            return int((self.data_dir / "port").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def _launch_until_it_answers(self) -> None:
        """Three tries: the port may be taken meanwhile, a crashed server's child may hold its memory."""
        for pause in (0.2, 1.0, 0.0):
            self._port = self._choose_port()
            if self._launch_and_wait():
                return
            time.sleep(pause)
        raise self.failure("start_failed", f"{self.name} did not start")

    def failure(self, code: str, what: str) -> ServiceError:
        """An error that shows the end of the server's log."""
        return ServiceError(code, f"{what}; the end of {self.log_path}:\n{self._log_tail()}")

    def _launch_and_wait(self) -> bool:
        """True once the server answers; False if it ended by itself (a port taken meanwhile, say)."""
        with open(self.log_path, "ab") as log:
            self._child = self._launch(log)
        deadline = time.monotonic() + self._start_timeout_s
        while time.monotonic() < deadline:
            if self._child.poll() is not None:
                return False
            if self._answers():
                return True
            time.sleep(0.02)
        raise self.failure("start_timeout", f"{self.name} gave no answer for {self._start_timeout_s:.0f} s")

    def _log_tail(self) -> str:
        try:
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-8:])
        except OSError:
            return "(no log)"

    def _stop_steps(self) -> tuple[tuple[signal.Signals, float], ...]:
        raise NotImplementedError

    def _stop_orphan(self) -> None:
        raise NotImplementedError

    def _prepare(self) -> None:
        raise NotImplementedError

    def _launch(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError
