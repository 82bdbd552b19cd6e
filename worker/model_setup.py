"""From a model's name to an active model: shipped with the project or pulled by the store, registered, activated."""

import os
from pathlib import Path

from db import registry
from db.session import Database
from worker import shipped
from worker.model_store import RECIPES, ModelStore, Pulled

# What a new system wants: the tagger lies in the project, the moderation model is fetched.
DEFAULTS = ("clothing", "nsfwjs-mobilenet_v2")


def store(model_root: Path, source: str | None = None) -> ModelStore:
    """The store of an installation; ``source`` (else TAGMILL_MODEL_SOURCE) is asked before the public ones."""
    return ModelStore(model_root, source or os.environ.get("TAGMILL_MODEL_SOURCE") or None)


def offered() -> dict[str, tuple[str, str]]:
    """The models that can be had by name: the task of each, and "shipped" or "can be pulled"."""
    have = {name: (task, "shipped") for name, task in shipped.tasks().items()}
    return have | {name: (recipe.task, "can be pulled") for name, recipe in RECIPES.items()}


def install(database: Database, models: ModelStore, name: str, *, activate: bool = True, again: bool = False) -> Pulled:
    """Get and register ``name``, and make it the one that new jobs use. ModelStoreError, Conflict.

    A shipped model needs no source and asks none.
    """
    own = shipped.has(name)
    pulled = shipped.install(models.root, name, again=again) if own else models.pull(name, again=again)
    with database.transaction() as session:
        registry.install_model(session, pulled.card, pulled.sha256)
        if activate:
            registry.activate(session, pulled.name, pulled.version)
    return pulled
