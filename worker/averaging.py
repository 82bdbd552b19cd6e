"""Makes one model of several trained ones: the mean of their weights, registered as a candidate. Trains nothing."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from db import registry
from db.session import Database
from worker import model_bundle
from worker.model_store import Pulled


def average(database: Database, model_root: Path, refs: Sequence[str], version: str) -> Pulled:
    """Install and register `version` of the first model's name; its card is the first's, and says what it is a mean of.

    Raises NotFound, ArtifactError('weights_mismatch') for models that are not of one kind, Conflict.
    """
    from ml import artifact, soup

    with database.transaction() as session:
        models = [registry.by_ref(session, ref) for ref in refs]
    loaded = [artifact.load(model_root / model.name / model.version, model.sha256) for model in models]
    card = replace(
        loaded[0].card,
        version=version,
        parent=models[0].ref,
        metrics={"average_of": [{"model": model.ref, "sha256": model.sha256} for model in models]},
    )
    with tempfile.TemporaryDirectory(prefix="tagmill-averaged-") as folder:
        artifact.save(Path(folder), card, soup.average(loaded))
        made = model_bundle.bring(model_root, Path(folder))
    with database.transaction() as session:
        registry.install_model(session, made.card, made.sha256)
    return made
