"""From a model's name to an active model: pulled by the store, registered, activated."""

import os
from pathlib import Path

from db import registry
from db.session import Database
from worker.model_store import ModelStore, Pulled

DEFAULTS = ("imagenet-mobilenet_v2", "nsfwjs-mobilenet_v2")


def store(model_root: Path, source: str | None = None) -> ModelStore:
    """The store of an installation; ``source`` (else TAGMILL_MODEL_SOURCE) is asked before the public ones."""
    return ModelStore(model_root, source or os.environ.get("TAGMILL_MODEL_SOURCE") or None)


def install(database: Database, models: ModelStore, name: str, *, activate: bool = True, again: bool = False) -> Pulled:
    """Pull and register ``name``, and make it the one that new jobs use. ModelStoreError, Conflict."""
    pulled = models.pull(name, again=again)
    with database.transaction() as session:
        registry.install_model(session, pulled.card, pulled.sha256)
        if activate:
            registry.activate(session, pulled.name, pulled.version)
    return pulled
