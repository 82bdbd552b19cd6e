"""Makes a calibrated version of a model: temperatures and thresholds from labelled pictures, the same weights."""

import tempfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from db import datasets, registry
from db.blob_store import Blobs
from db.errors import Conflict, NotFound
from db.session import Database, Session
from worker import manifests, model_bundle
from worker.model_store import Pulled


def calibrate(
    database: Database,
    blobs: Blobs,
    model_root: Path,
    model_ref: str,
    dataset_ref: str,
    split: str,
    version: str,
    *,
    wanted_precision: float | None = None,
    thresholds_for: Collection[str] | None = None,
    clusters: str | None = None,
    rounds: int = 1000,
    half: bool = False,
    threads: int = 1,
) -> Pulled:
    """Install and register `version` of the model as a candidate; its parent is the model that it was made of.

    Thresholds are those of the best F1, or of the most recall at `wanted_precision`, of the groups `thresholds_for`
    (None: of all). The card gets the figures of these pictures, with intervals over `clusters`. `half` stores fp16
    weights, and calibrates those. Raises Conflict for a version that exists, NotFound, DatasetError, ArtifactError.
    """
    from ml import artifact, card_figures, scoring
    from ml.calibrate import fitted
    from ml.evaluate import Options
    from ml.evaluation import About
    from ml.predictor import Predictor

    with database.transaction() as session:
        model = registry.by_ref(session, model_ref)
        dataset = datasets.by_ref(session, dataset_ref)
        _must_be_new(session, f"{model.name}@{version}")
    manifest = manifests.load(blobs, dataset)
    loaded = artifact.load(model_root / model.name / model.version, model.sha256)
    if half:
        loaded = replace(loaded, state=artifact.halved(loaded.state))
    groups = scoring.model_groups(loaded.card, manifest)
    predictor = Predictor([loaded], threads=threads)
    with manifests.pictures(blobs, dataset, manifest) as root:
        found = scoring.predictions(predictor, loaded.card, manifest.split(split), root, decode_threads=threads)
        gathered = scoring.gather(found, groups)
    card = fitted(loaded.card, gathered.groups, wanted_precision=wanted_precision, thresholds_for=thresholds_for)
    card = replace(card, version=version, parent=model.ref)
    about = About(
        model=card.ref, model_sha256=model.sha256, dataset=dataset.ref, data_sha256=manifest.sha256, split=split,
        backend=predictor.backends[loaded.card.ref].backend.name, rounds=rounds, clusters=clusters,
    )  # fmt: skip
    figures = card_figures.calibrated(loaded.card, card, gathered, about, Options(rounds=rounds, clusters=clusters))
    card = replace(card, metrics={**card.metrics, **figures})
    with tempfile.TemporaryDirectory(prefix="tagmill-calibrated-") as folder:
        artifact.save(Path(folder), card, loaded.state)
        made = model_bundle.bring(model_root, Path(folder))
    with database.transaction() as session:
        registry.install_model(session, made.card, made.sha256)
    return made


def _must_be_new(session: Session, ref: str) -> None:
    try:
        registry.by_ref(session, ref)
    except NotFound:
        return
    raise Conflict(f"{ref} exists already: choose another version.")
