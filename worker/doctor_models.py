"""The doctor's look at models: which are active, whether their weights are whole, which do not load; loads none.

torch is not imported: an installation where it is broken is one that the doctor is asked about.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from db import registry, workers
from db.errors import NotFound
from db.session import Session
from worker import model_setup, shipped
from worker.findings import Finding, first_line
from worker.local import Place
from worker.model_store import RECIPES, ModelStoreError

CARD_FILE, WEIGHTS_FILE = "card.json", "model.safetensors"  # as ml.artifact says, which needs torch


@dataclass(frozen=True)
class _Known:
    """A model as the registry remembers it."""

    name: str
    version: str
    sha256: str

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.version}"


def models(where: Place) -> Iterator[Finding]:
    """The active model of each task, then what workers could not load."""
    with where.database() as at, at.transaction() as session:
        active = {task: _known(registry.active(session, task)) for task in ("tags", "moderation")}
        # Of open jobs, too: a job keeps the version that was active when it was accepted.
        refused = [
            (worker["host"], entry, [_by_ref(session, ref) for ref in entry["models"]])
            for worker in workers.alive(session)
            for entry in worker["stats"].get("not_loaded", ())
        ]
    # Hashing takes seconds: no transaction is open for it.
    for task, model in active.items():
        if model is None:
            yield Finding(f"model: {task}", "warning", "none is active", "tagmill models pull")
        elif damage := _damage(where, model):
            yield Finding(f"model: {task}", "broken", damage, _repair(where, model))
        else:
            yield Finding(f"model: {task}", "good", f"{model.ref}, SHA-256 as registered")
    for host, entry, pinned in refused:
        yield _not_loaded(where, host, entry, [model for model in pinned if model is not None])


def _not_loaded(where: Place, host: str, entry: dict[str, Any], pinned: list[_Known]) -> Finding:
    reason = entry["reason"] if entry["code"] in entry["reason"] else f"{entry['reason']} ({entry['code']})"
    found = f"the worker on {host} cannot load {', '.join(entry['models'])}: {reason}"
    repairs = [_repair(where, model) for model in pinned if _damage(where, model)]
    remedy = "; ".join(repairs) or "its jobs wait and go on once it loads; the worker's log says more"
    return Finding("model: not loaded", "broken", found, remedy)


def _known(model: Any) -> _Known | None:
    return None if model is None else _Known(model.name, model.version, model.sha256)


def _by_ref(session: Session, ref: str) -> _Known | None:
    try:
        return _known(registry.by_ref(session, ref))
    except NotFound:
        return None


def _damage(where: Place, model: _Known) -> str | None:
    """What is wrong with the artifact on this machine, if anything is."""
    folder = model_setup.store(where.model_root).folder(model.name, model.version)
    if not folder.is_dir():
        return f"{model.ref} is not in {where.model_root}"
    try:
        with open(folder / WEIGHTS_FILE, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        card = json.loads((folder / CARD_FILE).read_bytes())
    except (OSError, ValueError) as error:
        return f"{model.ref} in {folder} cannot be read: {first_line(error)}"
    if digest != model.sha256:
        return f"{model.ref} is damaged: {folder / WEIGHTS_FILE} has SHA-256 {digest[:12]}…, not {model.sha256[:12]}…"
    if not isinstance(card, dict) or card.get("weights", {}).get("sha256") != digest:
        return f"{model.ref} is damaged: {folder / CARD_FILE} is not the card of its weights"
    return None


def _repair(where: Place, model: _Known) -> str:
    """The command that brings this very version back: another one would leave the jobs that pinned it waiting."""
    store = model_setup.store(where.model_root)
    if shipped.is_this(model.name, model.version, model.sha256):
        return f"tagmill models pull {model.name} --again"
    try:
        offered = {source.version for source in store.sources(model.name)}
    except ModelStoreError:
        folder = store.folder(model.name, model.version)
        return f"put {model.ref} back into {folder}, or set TAGMILL_MODEL_ROOT to where it is"
    # Without --again, weights that fit a card of their own would pass for installed.
    pull = f"tagmill models pull {model.name} --again"
    if model.version not in offered and RECIPES[model.name].version == model.version:
        return f"{pull} --from FOLDER, the one with its published files"
    return pull
