"""The one folder of a local installation: which file is where and what runs there; starts nothing.

The folder is TAGMILL_HOME, else tagmill/ in XDG_DATA_HOME (~/.local/share). It is the same from every working
folder, so that `tagmill submit` finds the system that `tagmill up` runs.
"""

import fcntl
import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from worker.service import ServiceError, write_private


@dataclass(frozen=True)
class Running:
    """What a running `tagmill up` says about itself to the other commands (in up.json, mode 0600)."""

    pid: int
    url: str
    database_url: str
    broker_url: str
    blob_root: str
    model_root: str
    store: dict[str, str] = field(default_factory=dict)
    """The variables that choose an object store for the blobs; its credentials are not among them."""


class Home:
    """Paths under the folder. Nothing is created before `prepare`."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.postgres = self.root / "postgres"
        self.valkey = self.root / "valkey"
        self.blobs = self.root / "blobs"
        self.models = self.root / "models"
        self.run = self.root / "run"
        self.log = self.root / "tagmill.log"
        self.key = self.root / "api-key"
        self._webhook_key = self.root / "webhook-key"
        self._running = self.root / "up.json"
        self._lock: IO[str] | None = None

    @classmethod
    def default(cls) -> "Home":
        if configured := os.environ.get("TAGMILL_HOME"):
            return cls(Path(configured).expanduser())
        data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
        return cls(Path(data) / "tagmill")

    def prepare(self) -> None:
        """Make the folder and those inside it that we write to; readable by its owner only."""
        for folder in (self.root, self.run, self.blobs, self.models):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def take(self) -> None:
        """Own the folder until `leave` or our end; ServiceError('already_running') if another process does."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = open(self.root / "lock", "a", encoding="ascii")  # noqa: SIM115 - held until leave()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            now = self.running()
            where = f" at {now.url} (process {now.pid})" if now else ""
            message = f"Tagmill already runs in {self.root}{where}. Stop it, or set TAGMILL_HOME to another folder."
            raise ServiceError("already_running", message) from None
        self._lock = lock

    def leave(self) -> None:
        if self._lock is not None:
            self._running.unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def announce(self, running: Running) -> None:
        """Tell other commands what runs here. The file holds passwords, so only its owner may read it."""
        fresh = self._running.with_suffix(".new")
        write_private(fresh, json.dumps(asdict(running)))
        fresh.replace(self._running)

    def running(self) -> Running | None:
        """What runs here now, or None. A file left by a crash does not count: its lock is free."""
        try:
            found = Running(**json.loads(self._running.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return found if self._lock is not None or self._is_owned() else None

    def _is_owned(self) -> bool:
        with open(self.root / "lock", "a", encoding="ascii") as probe:
            try:
                fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
            return False

    def saved_key(self) -> str | None:
        """The API key that `tagmill up` made for this folder's own commands."""
        try:
            return self.key.read_text(encoding="ascii").strip() or None
        except OSError:
            return None

    def webhook_key(self) -> str:
        """The key that webhook secrets are derived from, made at first and kept: with another one no secret signs."""
        if not self._webhook_key.exists():
            fresh = self._webhook_key.with_suffix(".new")
            write_private(fresh, secrets.token_hex(32))
            fresh.replace(self._webhook_key)
        return self._webhook_key.read_text(encoding="ascii").strip()
