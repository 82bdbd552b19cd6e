"""Checks of an installation, each with what was found and the remedy; it repairs nothing."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from worker.home import Home
from worker.local import Place

State = Literal["good", "warning", "broken"]
_GIB = 1024**3
_TORCH = """
import torch, torchvision
devices = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, " + (", ".join(devices) or "CPU only"))
"""


@dataclass(frozen=True)
class Finding:
    """One check's result. ``remedy`` is empty when all is well."""

    name: str
    state: State
    found: str
    remedy: str = ""


def examine(where: Place) -> Iterator[Finding]:
    """Run every check, one after the other; a check that fails does not stop the next."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        lambda: database(where),
        lambda: broker(where),
        lambda: blob_store(where),
        lambda: disk(where),
        networks,
        lambda: models(where),
        sandbox,
    ]
    for check in checks:
        yield from check()


def database(where: Place) -> Iterator[Finding]:
    from db import migrate
    from db.errors import DbError
    from db.session import Database

    name = "database"
    try:
        head = migrate.head()
        at = Database(where.database_url, pool_size=1)
        try:
            with at.transaction() as session:
                current = migrate.current(session)
        finally:
            at.dispose()
    except DbError as error:
        yield Finding(name, "broken", _first_line(error), "start Postgres, or correct TAGMILL_DATABASE_URL")
        return
    if current is None:
        # Our own servers are migrated by `tagmill up`; one that an operator runs is the operator's to migrate.
        ours = where.origin.startswith("embedded")
        yield Finding(name, "warning" if ours else "broken", f"{where.origin}, empty", "tagmill migrate")
    elif current != head:
        yield Finding(name, "broken", f"at revision {current}, the code wants {head}", "tagmill migrate")
    else:
        yield Finding(name, "good", f"{where.origin}, revision {current}")


def broker(where: Place) -> Iterator[Finding]:
    import redis

    from worker.app import BrokerRefused, check_broker, connect

    name = "broker"
    try:
        check_broker(where.broker_url)
        with connect(where.broker_url) as client:
            found: dict[str, str] = client.config_get("appendonly", "appendfsync")
            found = {_text(key): _text(value) for key, value in found.items()}
    except BrokerRefused as error:
        yield Finding(name, "broken", str(error), "CONFIG SET maxmemory-policy noeviction")
    except redis.RedisError as error:
        yield Finding(name, "broken", _first_line(error), "start Valkey or Redis, or correct TAGMILL_BROKER_URL")
    else:
        if found.get("appendonly") != "yes":
            remedy = "CONFIG SET appendonly yes (a restart forgets hints; they are sent again, later)"
            yield Finding(name, "warning", "noeviction, but no append-only file", remedy)
        else:
            yield Finding(name, "good", f"noeviction, append-only file, fsync {found.get('appendfsync')}")


def blob_store(where: Place) -> Iterator[Finding]:
    from db.blobs import LocalBlobs
    from db.errors import DbError

    name, key = "blob store", f"raw/0/00/{'0' * 64}"
    try:
        blobs = LocalBlobs(where.blob_root)
        blobs.put(key, b"doctor")
        same = blobs.get(key) == b"doctor"
        blobs.delete(key)
    except (OSError, DbError) as error:
        yield Finding(
            name, "broken", f"{where.blob_root}: {_first_line(error)}", f"make it writable for uid {os.geteuid()}"
        )
        return
    yield Finding(name, "good" if same else "broken", f"{where.blob_root}, written and read")


def disk(where: Place) -> Iterator[Finding]:
    free = shutil.disk_usage(_existing(where.blob_root)).free / _GIB
    state: State = "good" if free >= 5 else "warning" if free >= 1 else "broken"
    remedy = "" if state == "good" else "free some space, or set TAGMILL_BLOB_ROOT to a larger disk"
    yield Finding("free disk", state, f"{free:.1f} GiB", remedy)


def networks() -> Iterator[Finding]:
    """torch and torchvision are imported in another process: a broken pair may crash, and it is slow to load."""
    ran = subprocess.run([sys.executable, "-c", _TORCH], capture_output=True, text=True, check=False, timeout=300)
    if ran.returncode == 0:
        yield Finding("torch", "good", ran.stdout.strip())
        return
    last = (ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"])[-1]
    yield Finding(
        "torch",
        "broken",
        last,
        "the two do not fit: pip install -c constraints.txt --force-reinstall torch torchvision",
    )


def models(where: Place) -> Iterator[Finding]:
    from db import registry
    from db.errors import DbError
    from db.session import Database
    from worker.predictors import folder

    at = Database(where.database_url, pool_size=1)
    try:
        with at.transaction() as session:
            active = {task: registry.active(session, task) for task in ("tags", "moderation")}
    except DbError:
        yield Finding("models", "warning", "not known without the database")
        return
    finally:
        at.dispose()
    for task, model in active.items():
        if model is None:
            yield Finding(f"model: {task}", "warning", "none is active", "tagmill models pull")
        elif not folder(where.model_root, model.name, model.version).is_dir():
            remedy = f"tagmill models pull {model.name}, or set TAGMILL_MODEL_ROOT"
            yield Finding(f"model: {task}", "broken", f"{model.ref} is not in {where.model_root}", remedy)
        else:
            yield Finding(f"model: {task}", "good", model.ref)


def sandbox() -> Iterator[Finding]:
    from worker.sandbox import Normaliser, SandboxError

    async def walls() -> dict[str, bool]:
        async with Normaliser(workers=1) as normaliser:
            return normaliser.capabilities

    try:
        stand = asyncio.run(walls())
    except SandboxError as error:
        yield Finding("sandbox", "broken", _first_line(error), "the crawler cannot decode pictures: see its log")
        return
    missing = [name.replace("_", " ") for name, there in stand.items() if not there]
    needed = [name for name in ("memory_limit", "no_network", "no_files") if not stand.get(name)]
    if needed:
        remedy = "run crawlers on Linux, with user namespaces or seccomp allowed"
        yield Finding("sandbox", "warning", f"without {', '.join(missing)}", remedy)
    else:
        yield Finding(
            "sandbox",
            "good",
            f"{len(stand) - len(missing)} of {len(stand)} walls"
            + (f" (not here: {', '.join(missing)})" if missing else ""),
        )


def home_folder(home: Home) -> Finding:
    """Where this machine's own data is, for the head of the report."""
    running = home.running()
    return Finding("system", "good", f"{home.root}: " + (f"running at {running.url}" if running else "not running"))


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
