"""A real system of processes to break: crawler, worker, maintenance on a database and a broker of their own."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from sqlalchemy import text

from db import jobs, registry
from db.jobs import JobSpec, NewItem
from db.session import Database
from ml.tiny import make_tiny
from tests.hostile import HostileServer
from tests.misbehaviour import png
from tests.oracle import Expected, check

COLOURS = {"red": (250, 10, 70), "green": (10, 250, 10), "blue": (10, 10, 250), "grey": (90, 90, 90)}
# What the tiny moderation model and the default policy make of these colours.
VERDICTS = {"red": "reject", "green": "review", "blue": "approve", "grey": "approve"}
MODULES = {"crawler": "worker.crawler", "worker": "worker.app", "maintenance": "worker.maintenance"}
# What the processes of a stage call themselves in Postgres.
SPEAKERS = {"ingest": "tagmill crawler", "infer": "tagmill worker"}
# For tests that say that no lease was lost: a slow machine must not cost one.
PATIENT = {"TAGMILL_LEASE_S": "60", "TAGMILL_STALE_S": "60"}
SETTLE_S = 150.0  # jobs here take seconds; a machine with other work may take many times as long


class Pictures:
    """Endless different pictures of four colours, behind a loopback server."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self._made = 0

    def more(self, number: int) -> list[tuple[str, Expected]]:
        """`number` new (path, expected outcome), each with bytes of its own."""
        made = []
        for _ in range(number):
            n = self._made
            self._made += 1
            colour = list(COLOURS)[n % len(COLOURS)]
            name = f"{n}-{colour}.png"
            self.files[name] = png(8 + n % 64, 8 + n // 64, COLOURS[colour])
            made.append((name, Expected(tag=colour, verdict=VERDICTS[colour])))
        return made


@dataclass
class Role:
    """One process and everything it starts; its words go to `log`."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    special: bool = False  # started with settings of one test

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: int) -> None:
        """To the process alone; nothing where it has ended."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to the process alone: what it started must end by itself."""
        self.process.kill()
        self.process.wait(60)

    def children(self) -> list[int]:
        """Direct children, by /proc; none when it has ended."""
        with suppress(FileNotFoundError, ProcessLookupError):
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        return []

    def wait_for(self, words: str, timeout: float = 120) -> None:
        """Until the log holds `words`."""
        until(lambda: words in self.log.read_text(errors="replace"), timeout, f"{self.name} to say {words!r}")


def signal_all(pids: Sequence[int], number: int) -> None:
    """A signal to each of these processes that is still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def until(condition: Callable[[], bool], timeout: float, what: str) -> None:
    """Wait for a condition; fails the test after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout:.0f} s for {what}"
        time.sleep(0.05)


@dataclass
class System:
    """Where the processes work, the processes themselves, and what was submitted."""

    folder: Path
    database_url: str
    broker_url: str
    account_id: int
    server: HostileServer
    pictures: Pictures
    owner: Database
    roles: list[Role] = field(default_factory=list)
    accepted: dict[UUID, list[Expected]] = field(default_factory=dict)
    _started: int = 0
    _supplied: list[UUID] = field(default_factory=list)

    def environment(self, **more: str) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("TAGMILL_")}
        return {
            **inherited,
            "TAGMILL_DATABASE_URL": self.database_url,
            "TAGMILL_BROKER_URL": self.broker_url,
            "TAGMILL_BLOB_ROOT": str(self.folder / "blobs"),
            "TAGMILL_MODEL_ROOT": str(self.folder / "models"),
            "TAGMILL_DATABASE_POOL": "5",
            "TAGMILL_LEASE_S": "3",
            "TAGMILL_HEARTBEAT_S": "0.5",
            "TAGMILL_STALE_S": "2.5",
            "TAGMILL_REAP_EVERY_S": "0.5",
            "TAGMILL_DISPATCH_EVERY_S": "0.2",
            "TAGMILL_FINALISE_EVERY_S": "0.2",
            "TAGMILL_RESEND_S": "2",
            "TAGMILL_CANARY_EVERY_S": "2",
            "TAGMILL_INGEST_POLL_S": "0.1",
            "TAGMILL_HOST_WAIT_S": "1",
            "TAGMILL_STOP_GRACE_S": "5",
            "TAGMILL_SANDBOX_PROCESSES": "1",
            "TAGMILL_DECODE_THREADS": "1",
            "TAGMILL_BACKEND": "reference",
            "TAGMILL_ALLOW_CIDRS": "127.0.0.0/8",
            "TAGMILL_ALLOW_PORTS": str(self.server.port),
            "TAGMILL_TEST_BUILD": "1",
            "PYTHONUNBUFFERED": "1",
            **more,
        }

    def start(self, name: str, command: Sequence[str] | None = None, **more: str) -> Role:
        """Start a role with the shared environment and `more` of it; another program than its own with `command`."""
        self._started += 1
        log = self.folder / f"{self._started:02d}-{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command or [sys.executable, "-m", MODULES[name]],
                env=self.environment(**more),
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        role = Role(name, process, log, bool(more) or command is not None)
        self.roles.append(role)
        return role

    def end(self, role: Role) -> None:
        """End one role for good, whatever state it is in."""
        if role.process.poll() is None:
            role.kill()
        self.roles.remove(role)

    def restart(self, *names: str, **more: str) -> list[Role]:
        """These roles anew with `more`: behind a proxy, say, by another URL."""
        for name in names:
            self.end(self.role(name))
        return [self.start(name, **more) for name in names]

    def role(self, name: str) -> Role:
        """The running process of a role, where there is one."""
        return next(role for role in self.roles if role.name == name and role.process.poll() is None)

    def pids(self) -> dict[str, int]:
        """The first process of each running role: the same after a fault as before it, if nobody had to start again."""
        return {role.name: role.pid for role in self.roles if role.process.poll() is None}

    def mend(self) -> None:
        """One plain process of each role, whatever an earlier test left."""
        seen: set[str] = set()
        for role in list(self.roles):
            if role.process.poll() is not None or role.special or role.name in seen:
                self.end(role)
            else:
                signal_all([role.pid, *role.children()], signal.SIGCONT)  # a test that failed may have left it stopped
                seen.add(role.name)
        for name in MODULES:
            if name not in seen:
                self.start(name)

    def catch(self, pids: Sequence[int], stage: str, timeout: float = 60) -> None:
        """Stop these processes (SIGSTOP), all of the stage, at a moment when they have a chunk in hand, and nothing
        that they told the database is still under way: what they hold then, they hold until they go on.

        When all work is done before that, there is more; `settle` waits for it too."""
        deadline = time.monotonic() + timeout
        while True:
            signal_all(pids, signal.SIGSTOP)
            if self._stands(stage):
                return
            signal_all(pids, signal.SIGCONT)
            assert time.monotonic() < deadline, f"no {stage} chunk was leased for {timeout:.0f} s"
            if not self.count("SELECT count(*) FROM chunks WHERE state <> 'done'"):
                self._supplied.append(self.submit(60))
            # Not always as long: else they might be met at the same place each time.
            time.sleep(random.uniform(0.005, 0.05))

    def _stands(self, stage: str) -> bool:
        """Looks several times: on a busy machine, a server takes up late what it was told before."""
        speaking = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = :speaker"
            " AND state <> 'idle'"
        )
        for pause in (0, 0.02, 0.05, 0.1):
            time.sleep(pause)
            if self.count(speaking, speaker=SPEAKERS[stage]) or not self.leased(stage):
                return False
        return True

    @contextmanager
    def still(self, role: Role) -> Iterator[None]:
        """Within, this process stands still, whatever it does."""
        role.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            role.signal(signal.SIGCONT)

    @contextmanager
    def caught(self, pids: Sequence[int], stage: str) -> Iterator[None]:
        """Within, these processes stand still with a chunk in hand; they go on at the end."""
        self.catch(pids, stage)
        try:
            yield
        finally:
            signal_all(pids, signal.SIGCONT)

    def leased(self, stage: str) -> int:
        """Chunks of the stage that are leased now."""
        return self.count("SELECT count(*) FROM chunks WHERE stage = :stage AND state = 'leased'", stage=stage)

    def close(self) -> None:
        """End everything that was started."""
        for role in list(self.roles):
            self.end(role)

    def install_models(self) -> None:
        """The tiny model of both tasks, registered and active."""
        for task in ("tags", "moderation"):
            artifact = make_tiny(self.folder / "models" / f"tiny-{task}" / "1", task)
            with self.owner.transaction() as session:
                registry.install_model(session, artifact.card.to_dict(), artifact.sha256)
                registry.activate(session, artifact.card.name, artifact.card.version)

    def submit(self, number: int, *, extra: Sequence[tuple[str, Expected]] = (), chunk_size: int = 8) -> UUID:
        """A job of `number` new pictures and `extra` paths."""
        pictures = [*self.pictures.more(number), *extra]
        items = [NewItem(url=self.server.url(path)) for path, _ in pictures]
        with self.owner.transaction() as session:
            job = jobs.submit(session, self.account_id, JobSpec(), items, max_items=10_000, chunk_size=chunk_size)
        self.accepted[job.id] = [expected for _, expected in pictures]
        return job.id

    def count(self, sql: str, **parameters: object) -> int:
        """The one number that a query answers."""
        with self.owner.transaction() as session:
            return int(session.execute(text(sql), parameters).scalar_one())

    def outcomes(self, job: UUID) -> int:
        """Items of the job that have their outcome."""
        return self.count("SELECT count(*) FROM results WHERE job_id = :job", job=job)

    def undelivered(self) -> int:
        """Events and deliveries that wait."""
        return self.count(
            "SELECT (SELECT count(*) FROM outbox WHERE fanned_at IS NULL)"
            " + (SELECT count(*) FROM deliveries WHERE state = 'pending')"
        )

    def ended(self, *submitted: UUID) -> bool:
        """Whether these jobs have all ended."""
        sql = "SELECT count(*) FROM jobs WHERE id = ANY(:jobs) AND settled_at IS NOT NULL"
        return self.count(sql, jobs=list(submitted)) == len(submitted)

    def settle(self, *submitted: UUID, timeout: float = SETTLE_S) -> None:
        """Until these jobs have ended; then the oracle looks at everything that was ever submitted."""
        until(lambda: self.ended(*submitted, *self._supplied), timeout, "the jobs to end")
        check(self.owner, dict(self.accepted))
