"""The demo's models: the tagger that comes with the project, and the moderation model from ../shared/models where that
exists, else pulled; the demo goes on without one it lacks."""

from collections.abc import Callable
from pathlib import Path

from db.session import Database
from worker import model_setup, shipped
from worker.model_store import ModelStoreError

_WITHOUT = {"tags": "the pictures get no tags", "moderation": "every verdict is review"}


def provide(database_url: str, model_root: Path, folder: Path, say: Callable[[str], None]) -> None:
    """Install and activate the two models, and say where each is from. Needs the owner's URL."""
    local = folder.is_dir()
    models = model_setup.store(model_root, str(folder) if local else None)
    tasks = {name: task for name, (task, _) in model_setup.offered().items()}
    database = Database(database_url, pool_size=1)
    try:
        for name in model_setup.DEFAULTS:
            try:
                # The demo's database is new and knows no scores: what another checkout left here may be replaced.
                pulled = model_setup.install(database, models, name, again=shipped.has(name))
            except ModelStoreError as error:
                say(f"no {name}: {error}")
                say(f"going on without it: {_WITHOUT[tasks[name]]}")
                continue
            where = "installed by an earlier demo" if pulled.source == "installed" else f"from {pulled.source}"
            say(f"model {pulled.ref} ({pulled.task}): {where}")
    finally:
        database.dispose()
