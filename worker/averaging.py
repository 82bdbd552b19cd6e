"""Makes one model of several trained ones: the mean of their weights, registered as a candidate. Trains nothing."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from db import datasets, registry, training
from db.blob_store import Blobs
from db.session import Database
from worker import manifests, model_bundle
from worker.model_store import Pulled


def average(
    database: Database, blobs: Blobs, model_root: Path, refs: Sequence[str], dataset_ref: str, version: str
) -> Pulled:
    """Install and register `version` of the first model's name; its card is the first's, and says what it is a mean of.

    `dataset_ref`: what they were trained on, for the statistics of the mean; the settings are those of the first's
    run. Raises NotFound, ArtifactError('weights_mismatch') for models that are not of one kind, DatasetError, Conflict.
    """
    from ml import artifact, soup
    from ml.train_config import from_dict

    with database.transaction() as session:
        models = [registry.by_ref(session, ref) for ref in refs]
        run = training.by_name(session, models[0].name, models[0].version)
        dataset = datasets.by_ref(session, dataset_ref)
    config = from_dict({**run.config, "name": run.name, "version": run.version})
    manifest = manifests.load(blobs, dataset)
    loaded = [artifact.load(model_root / model.name / model.version, model.sha256) for model in models]
    card = replace(
        loaded[0].card,
        version=version,
        parent=models[0].ref,
        metrics={"average_of": [{"model": model.ref, "sha256": model.sha256} for model in models]},
    )
    with (
        manifests.pictures(blobs, dataset, manifest) as root,
        tempfile.TemporaryDirectory(prefix="tagmill-averaged-") as folder,
    ):
        artifact.save(Path(folder), card, soup.mean(loaded, manifest, root, config))
        made = model_bundle.bring(model_root, Path(folder))
    with database.transaction() as session:
        registry.install_model(session, made.card, made.sha256)
    return made
