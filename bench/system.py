"""A running Tagmill for benchmarks: a throw-away home, embedded servers, real roles; and what its processes cost."""

import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from db import registry
from db.session import Database
from worker import model_bundle, roles
from worker.client import Client
from worker.demo_models import provide
from worker.home import Home
from worker.supervise import Supervisor

SHARED = Path(__file__).resolve().parents[2] / "shared"
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class System:
    """A started system and an API client with its key."""

    supervisor: Supervisor
    client: Client
    models: dict[str, str]

    @property
    def pids(self) -> dict[str, int]:
        """The roles, and the servers that run for them."""
        return {**self.supervisor.pids, **self.supervisor.server_pids}


@contextmanager
def running(settings: Mapping[str, str], *, with_models: bool = True, artifact: Path | None = None) -> Iterator[System]:
    """Everything up and ready in a temporary folder; stopped and removed at the end.

    With the demo's models; or with the one in the folder `artifact`, and no other.
    """
    with tempfile.TemporaryDirectory(prefix="tagmill-bench-") as folder:
        supervisor = Supervisor(Home(Path(folder)), listen=roles.Listen(port=0), settings=settings)
        try:
            supervisor.start()
            if artifact is not None:
                _activate(supervisor, artifact)
            elif with_models:
                provide(supervisor.database_url, supervisor.home.models, SHARED / "models", lambda text: None)
            supervisor.await_ready()
            models = supervisor.active_models()
            with Client(supervisor.url, supervisor.home.saved_key()) as client:
                yield System(supervisor, client, models)
        finally:
            supervisor.stop()


def _activate(supervisor: Supervisor, folder: Path) -> None:
    brought = model_bundle.bring(supervisor.home.models, folder)
    database = Database(supervisor.database_url, pool_size=1)
    with database.transaction() as session:
        registry.install_model(session, brought.card, brought.sha256)
        registry.activate(session, brought.name, brought.version)
    database.dispose()


def reaching(*ports: int) -> dict[str, str]:
    """Settings: crawlers may ask picture servers on these ports of this machine, each for 64 pictures at once."""
    return {
        "TAGMILL_ALLOW_CIDRS": "127.0.0.0/8",
        "TAGMILL_ALLOW_PORTS": ",".join(map(str, ports)),
        "TAGMILL_FETCH_PER_HOST": "64",
    }


def submit(client: Client, rows: Iterable[Mapping[str, str]], **params: str) -> str:
    """A job of these items; its id."""
    return send(client, blocks(json.dumps(row).encode() + b"\n" for row in rows), "application/x-ndjson", params)


def send(client: Client, body: Sequence[bytes], form: str, params: Mapping[str, str] | None = None) -> str:
    """A job of this body; its id."""
    key = f"bench-{time.time_ns()}"
    return str(client.submit(lambda: iter(body), form, params=params or {}, idempotency_key=key)["id"])


def blocks(parts: Iterable[bytes]) -> list[bytes]:
    """As a client would send it: in blocks, not in thousands of tiny writes."""
    made, block = [], bytearray()
    for part in parts:
        block += part
        if len(block) > 65536:
            made.append(bytes(block))
            block.clear()
    return [*made, bytes(block)]


def cpu_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """User and system seconds that each role's process and all its descendants have used so far."""
    fields = _fields()
    parents = {pid: int(of[1]) for pid, of in fields.items()}
    # utime, stime, and those of children that have ended (recycled sandboxes)
    used = {pid: sum(map(int, of[11:15])) / _TICK for pid, of in fields.items()}
    return {role: sum(used[pid] for pid in _tree(root, parents)) for role, root in pids.items() if root in used}


def descendants(root: int) -> set[int]:
    """A process and all that come from it."""
    return _tree(root, {pid: int(of[1]) for pid, of in _fields().items()})


def _fields() -> dict[int, list[str]]:
    """What the kernel says of every process, after its name."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            found[int(entry.parent.name)] = entry.read_text().rpartition(")")[2].split()
    return found


def _tree(root: int, parents: Mapping[int, int]) -> set[int]:
    tree = {root}
    while more := {pid for pid, parent in parents.items() if parent in tree and pid not in tree}:
        tree |= more
    return tree


def peak_rss_mb(root: int) -> float:
    """The largest resident size (MB) that any one process of this tree has had."""
    peaks = []
    for pid in descendants(root):
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        peaks += [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")]
    return max(peaks, default=0.0)


def watched(system: System, job_id: str, *, every_s: float = 0.5, timeout_s: float = 900.0) -> dict[str, object]:
    """Wait for the job's end; the job as the API shows it then."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        job = system.client.job(job_id)
        if job["state"] in ("finished", "cancelled") and job["settled_at"] is not None:
            return job
        system.supervisor.watch()
        time.sleep(every_s)
    raise TimeoutError(f"job {job_id} did not end in {timeout_s} s")
