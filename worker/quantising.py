"""Quantises a registered model with a registered dataset; keeps the int8 network where the evaluation lets it run."""

from pathlib import Path
from typing import TYPE_CHECKING

from db import datasets, registry
from db.blob_store import Blobs
from db.session import Database
from ml.card import ModelCard
from ml.exported import Exported
from worker import manifests
from worker.exporting import Networks
from worker.predictors import folder

if TYPE_CHECKING:
    from ml.artifact import Artifact
    from ml.quantise import How, Quantised


def quantise(
    database: Database, blobs: Blobs, model_root: Path, model_ref: str, dataset_ref: str, how: "How"
) -> "tuple[Artifact, Quantised]":
    """The model and its int8 network, kept if it is offered; a refusal also takes back what was offered before.

    No transaction is open while pictures are read and scored. Raises NotFound, DatasetError, ArtifactError,
    QuantiseError, BackendError, OSError.
    """
    from ml import artifact
    from ml import quantise as quantising

    with database.transaction() as session:
        model = registry.by_ref(session, model_ref)
        dataset = datasets.by_ref(session, dataset_ref)
    manifest = manifests.load(blobs, dataset)
    for split in (how.learn_from, how.split):
        manifests.entries_of(manifest, split)
    place = folder(model_root, model.name, model.version)
    loaded = artifact.load(place, model.sha256)
    networks = Networks(model_root)
    exported = networks.get(loaded.card, model.sha256, place)
    with manifests.pictures(blobs, dataset, manifest) as root:
        made = quantising.quantise(loaded.card, exported, manifest, root, how)
    if made.refused is None:
        networks.put_int8(model.sha256, made.network)
    else:
        networks.remove_int8(model.sha256)
    return loaded, made


def found(networks: Networks, card: ModelCard, sha256: str) -> Exported | None:
    """The int8 network that an evaluation offers, if there is one. Raises BackendError where it is damaged."""
    return networks.int8(card, sha256) if networks.has_int8(sha256) else None


def remove(database: Database, model_root: Path, model_ref: str) -> bool:
    """Take the int8 network of a model away; whether there was one."""
    with database.transaction() as session:
        model = registry.by_ref(session, model_ref)
    return Networks(model_root).remove_int8(model.sha256)
