"""Checks of an installation, each with what was found and the remedy; it repairs nothing.

The checks of models and of roles, which ask the database, are in `doctor_models` and `doctor_roles`.
"""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from worker import (
    doctor_banks,
    doctor_drift,
    doctor_erasures,
    doctor_models,
    doctor_policies,
    doctor_roles,
    doctor_webhooks,
)
from worker.findings import Finding, State, first_line
from worker.home import Home
from worker.local import Place

_GIB = 1024**3
_PAIR = "the two do not fit: pip install -c constraints.txt --force-reinstall torch torchvision"
_OBJECTS = (
    "start the store, or correct TAGMILL_BLOB_STORE, TAGMILL_S3_ENDPOINT and the AWS_ variables; the key pair must be"
    " let read, write, list and delete below the prefix"
)
_SANDBOX = "the crawler cannot decode pictures: mend what is said here; its log says more"
_TORCH = """
import torch, torchvision
devices = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, " + (", ".join(devices) or "CPU only"))
"""


@dataclass(frozen=True)
class Check:
    """``remedy`` is for an error that the check itself does not know."""

    name: str
    run: Callable[[Place], Iterator[Finding]]
    remedy: str
    needs_database: bool = False


def examine(where: Place) -> Iterator[Finding]:
    """Run every check, one after the other; a check that fails, in whatever way, does not stop the next."""
    schema: Finding | None = None
    for check in CHECKS:
        if check.needs_database and schema is not None and schema.state != "good":
            yield Finding(check.name, "warning", f"not known: {schema.name} {schema.found}", schema.remedy)
            continue
        try:
            for finding in check.run(where):
                schema = finding if check.run is database else schema
                yield finding
        except Exception as error:  # noqa: BLE001 — top of a check: what it cannot stand is a finding too
            finding = Finding(check.name, "broken", first_line(error), check.remedy)
            schema = finding if check.run is database else schema
            yield finding


def database(where: Place) -> Iterator[Finding]:
    from db import migrate
    from db.errors import DbError

    name = "database"
    try:
        head = migrate.head()
        with where.database() as at, at.transaction() as session:
            current = migrate.current(session)
    except DbError as error:
        yield Finding(name, "broken", first_line(error), "start Postgres, or correct TAGMILL_DATABASE_URL")
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
        yield Finding(name, "broken", first_line(error), "start Valkey or Redis, or correct TAGMILL_BROKER_URL")
    else:
        if found.get("appendonly") != "yes":
            remedy = "CONFIG SET appendonly yes (a restart forgets hints; they are sent again, later)"
            yield Finding(name, "warning", "noeviction, but no append-only file", remedy)
        else:
            yield Finding(name, "good", f"noeviction, append-only file, fsync {found.get('appendfsync')}")


def blob_store(where: Place) -> Iterator[Finding]:
    from db.errors import BlobMissing, BlobsAway, DbError, ExtraMissing

    name, key = "blob store", f"raw/0/00/{'0' * 64}"
    at = where.store.get("TAGMILL_BLOB_STORE") or str(where.blob_root)
    try:
        blobs = where.blobs()
        blobs.put(key, b"doctor")
        same = blobs.get(key) == b"doctor"
        blobs.delete(key)
        blobs.present([key])
    except ExtraMissing as error:
        yield Finding(name, "broken", f"{at}: {first_line(error)}", "pip install 'tagmill[s3]'")
        return
    except (BlobsAway, BlobMissing) as error:
        yield Finding(name, "broken", f"{at}: {first_line(error)}", _OBJECTS)
        return
    except (OSError, DbError) as error:
        remedy = f"make it writable for uid {os.geteuid()}"
        yield Finding(name, "broken", f"{where.blob_root}: {first_line(error)}", remedy)
        return
    if same:
        yield Finding(name, "good", f"{at}, written and read")
    else:
        remedy = "look at the disk, or set TAGMILL_BLOB_ROOT to another one"
        yield Finding(name, "broken", f"{at} does not give back what was written", remedy)


def disk(where: Place) -> Iterator[Finding]:
    free = shutil.disk_usage(_existing(where.blob_root)).free / _GIB
    state: State = "good" if free >= 5 else "warning" if free >= 1 else "broken"
    remedy = "" if state == "good" else "free some space, or set TAGMILL_BLOB_ROOT to a larger disk"
    yield Finding("free disk", state, f"{free:.1f} GiB", remedy)


def networks(where: Place) -> Iterator[Finding]:
    """torch and torchvision are imported in another process: a broken pair may crash, and it is slow to load."""
    ran = subprocess.run([sys.executable, "-c", _TORCH], capture_output=True, text=True, check=False, timeout=300)
    if ran.returncode == 0:
        yield Finding("torch", "good", ran.stdout.strip())
        return
    last = (ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"])[-1]
    yield Finding("torch", "broken", last, _PAIR)


def sandbox(where: Place) -> Iterator[Finding]:
    from worker.sandbox import Normaliser, SandboxError

    async def walls() -> dict[str, bool]:
        async with Normaliser(workers=1) as normaliser:
            return normaliser.capabilities

    try:
        stand = asyncio.run(walls())
    except SandboxError as error:
        yield Finding("sandbox", "broken", first_line(error), _SANDBOX)
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


CHECKS = (
    Check("database", database, "correct TAGMILL_DATABASE_URL: postgresql://user:password@host:port/name"),
    Check("broker", broker, "correct TAGMILL_BROKER_URL: redis://:password@host:port/0"),
    Check("blob store", blob_store, "correct TAGMILL_BLOB_ROOT"),
    Check("free disk", disk, "correct TAGMILL_BLOB_ROOT"),
    Check("torch", networks, _PAIR),
    Check("models", doctor_models.models, "correct TAGMILL_MODEL_ROOT", needs_database=True),
    Check("sandbox", sandbox, _SANDBOX),
    Check("roles", doctor_roles.roles, "tagmill migrate", needs_database=True),
    Check("drift", doctor_drift.drifted, "tagmill migrate", needs_database=True),
    Check("policies", doctor_policies.policies, "tagmill migrate", needs_database=True),
    Check("banks", doctor_banks.banks, "tagmill migrate", needs_database=True),
    Check("webhooks", doctor_webhooks.webhooks, "tagmill migrate", needs_database=True),
    Check("erasures", doctor_erasures.erasures, "tagmill migrate", needs_database=True),
)


def home_folder(home: Home) -> Finding:
    """Where this machine's own data is, for the head of the report."""
    running = home.running()
    return Finding("system", "good", f"{home.root}: " + (f"running at {running.url}" if running else "not running"))


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
