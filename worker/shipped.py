"""Installs the models that come with the project from its own folder: no source is asked, nothing is downloaded.

Does not touch the database, as `worker.model_store` does not: registering is the caller's step.
"""

from dataclasses import replace
from pathlib import Path

from ml import shipped_models
from worker import model_bundle
from worker.model_store import Pulled

SOURCE = "the project itself"


def tasks() -> dict[str, str]:
    """The task of each shipped model by its name."""
    return {name: str(shipped_models.card(name)["task"]) for name in shipped_models.names()}


def has(name: str) -> bool:
    """Whether a model of that name is shipped."""
    return name in shipped_models.names()


def is_this(name: str, version: str, sha256: str) -> bool:
    """Whether the very version with these weights is the shipped one: earlier ones are not kept."""
    if not has(name):
        return False
    card = shipped_models.card(name)
    return bool(card["version"] == version and card["weights"]["sha256"] == sha256)


def install(model_root: Path, name: str, *, again: bool = False) -> Pulled:
    """Copy the shipped model to where models are installed; what is there in the same version and whole stays.

    `again` replaces it even so. Raises KeyError, and ModelStoreError: model_exists for other weights under the same
    version, or the artifact's own code.
    """
    brought = model_bundle.bring(model_root, shipped_models.folder(name), replace=again)
    return replace(brought, source=SOURCE)
