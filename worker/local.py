"""Which Postgres and broker the administrative commands use: the configured ones, the running system's, or our own.

It decides by TAGMILL_* variables and the home folder; it migrates nothing.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from worker.client import Client, ClientError
from worker.embedded import EmbeddedPostgres, EmbeddedValkey
from worker.home import Home

if TYPE_CHECKING:
    from db.blob_store import Blobs
    from db.session import Database

STORE = ("TAGMILL_BLOB_STORE", "TAGMILL_S3_ENDPOINT", "TAGMILL_S3_REGION", "TAGMILL_S3_HTTP", "TAGMILL_S3_TIMEOUT_S")
"""The variables that choose an object store for the blobs."""


@dataclass(frozen=True)
class Place:
    """Where things are. ``origin`` says in words which system this is.

    ``runs``: whether the system does now; None where that cannot be known, because the servers are somebody else's.
    """

    database_url: str
    broker_url: str
    blob_root: Path
    model_root: Path
    origin: str
    runs: bool | None = None
    store: Mapping[str, str] = field(default_factory=dict)

    def blobs(self) -> "Blobs":
        """Its blob store."""
        from db.blob_store import open_blobs
        from db.settings import BlobSettings

        chosen = {name.removeprefix("TAGMILL_").lower(): value for name, value in self.store.items()}
        return open_blobs(BlobSettings(blob_root=self.blob_root, **chosen))  # type: ignore[arg-type]

    @contextmanager
    def database(self, *, pool_size: int = 1) -> "Iterator[Database]":
        """Its database, inside the block."""
        from db.session import Database

        made = Database(self.database_url, pool_size=pool_size, application_name="tagmill cli")
        try:
            yield made
        finally:
            made.dispose()


@contextmanager
def place(home: Home, *, broker: bool = False) -> Iterator[Place]:
    """The system to administer. If none is configured and none runs, our own servers run for the block's duration.

    Without ``broker``, no Valkey is started and ``broker_url`` may be empty. Raises ServiceError.
    """
    running = home.running()
    blobs = Path(os.environ.get("TAGMILL_BLOB_ROOT") or (running.blob_root if running else home.blobs))
    # A shell that names another folder means that one, and no object store.
    chosen = store() or (running.store if running and not os.environ.get("TAGMILL_BLOB_ROOT") else {})
    models = Path(os.environ.get("TAGMILL_MODEL_ROOT") or (running.model_root if running else home.models))
    database_url = os.environ.get("TAGMILL_DATABASE_URL") or (running.database_url if running else "")
    broker_url = os.environ.get("TAGMILL_BROKER_URL") or (running.broker_url if running else "")
    origin = "configured" if os.environ.get("TAGMILL_DATABASE_URL") else f"running at {running.url}" if running else ""
    runs = True if running else None
    with ExitStack() as stack:
        if not database_url or (broker and not broker_url):
            home.take()
            stack.callback(home.leave)
            home.prepare()
        if not database_url:
            database_url = stack.enter_context(EmbeddedPostgres(home.postgres)).url
            origin, runs = f"embedded, in {home.root}", False
        if broker and not broker_url:
            broker_url = stack.enter_context(EmbeddedValkey(home.valkey)).url
        yield Place(database_url, broker_url, blobs, models, origin, runs, chosen)


def store() -> dict[str, str]:
    """What this process' environment says of an object store; nothing, if it names none."""
    return {name: os.environ[name] for name in STORE if os.environ.get(name)} if os.environ.get(STORE[0]) else {}


def client(home: Home) -> Client:
    """The API that the commands talk to: TAGMILL_URL and TAGMILL_API_KEY, else the system that runs here."""
    running = home.running()
    url = os.environ.get("TAGMILL_URL") or (running.url if running else None)
    key = os.environ.get("TAGMILL_API_KEY") or (home.saved_key() if running else None)
    if url is None:
        raise ClientError(
            "no_system",
            "No Tagmill is running here. Start one with `tagmill up`, or set TAGMILL_URL and TAGMILL_API_KEY.",
        )
    if key is None:
        raise ClientError(
            "no_key", "No API key: set TAGMILL_API_KEY (an operator makes one with `tagmill keys create`)."
        )
    if not (key.isascii() and key.isprintable()) or " " in key.strip():
        # Neither the key nor a part of it is repeated: it may be a good one with something before it.
        raise ClientError("bad_key", "TAGMILL_API_KEY is no API key: it may have ASCII letters, digits and _ only.")
    return Client(url, key.strip())
