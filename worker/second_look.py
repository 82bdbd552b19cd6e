"""Makes a version of a model that looks again at what it is not sure of: the same weights, another card."""

import tempfile
from dataclasses import replace
from pathlib import Path

from db import registry
from db.errors import Conflict
from db.session import Database
from worker import model_bundle
from worker.errors import WorkerError
from worker.model_store import Pulled


class OneLook(WorkerError):
    """This model's preset has no second look."""

    code = "one_look"


def make(
    database: Database, model_root: Path, ref: str, views: int, *, sure: float | None = None, version: str | None = None
) -> Pulled:
    """Install and register the version as a candidate; its parent is the model that it was made of.

    Another version, because scores are stored by name@version: what one look and what several said never mix. `version`
    is VERSION-VIEWSviews if none is given. Raises NotFound, Conflict, OneLook, ArtifactError('card_invalid').
    """
    from ml import artifact, presets

    with database.transaction() as session:
        model = registry.by_ref(session, ref)
    wanted = version or f"{model.version}-{views}views"
    if wanted == model.version:
        raise Conflict(f"{model.ref} exists already: choose another version.")
    loaded = artifact.load(model_root / model.name / model.version, model.sha256)
    preset = presets.from_card(loaded.card.preset)
    if not isinstance(preset, presets.NsfwjsPreset):
        raise OneLook(f"{model.ref} is fed by the preset {preset.name}; only models fed by nsfwjs look twice")
    seeing = replace(preset, views=views, sure=preset.sure if sure is None else sure)
    card = replace(loaded.card, version=wanted, parent=model.ref, preset=presets.to_card(seeing))
    with tempfile.TemporaryDirectory(prefix="tagmill-views-") as folder:
        artifact.save(Path(folder), card, loaded.state)
        made = model_bundle.bring(model_root, Path(folder))
    with database.transaction() as session:
        registry.install_model(session, made.card, made.sha256)
    return made
