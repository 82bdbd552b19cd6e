"""Takes an installed model out as a folder, and brings such a folder in: the same two files, checked both ways.

Does not touch the database: registering what was brought in is the caller's step.
"""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from worker.model_store import ModelStoreError, Pulled, replace_folder

if TYPE_CHECKING:
    from ml.artifact import Artifact


def export(model_root: Path, name: str, version: str, sha256: str, to: Path) -> Path:
    """Copy the artifact to the folder `to`/NAME-VERSION, which must not exist; returns it.

    The weights must be the registered ones. Raises ModelStoreError: folder_exists, or the artifact's own code.
    """
    target = to / f"{name}-{version}"
    if target.exists():
        raise ModelStoreError("folder_exists", f"{target} is there already")
    to.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".outgoing-", dir=to))
    try:
        _copy(model_root / name / version, staging / "new", sha256)
        (staging / "new").rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def bring(model_root: Path, source: Path, *, replace: bool = False) -> Pulled:
    """Install the artifact in the folder `source` (card.json and model.safetensors) under its own name and version.

    The same version with the same weights is left as it is, a damaged one is mended; `replace` puts the folder's in
    its place whatever is there. Raises ModelStoreError: model_exists for other weights, or the artifact's own code.
    """
    artifact = _load(source)
    card = artifact.card
    place = model_root / card.name / card.version
    pulled = Pulled(card.name, card.version, card.task, place, artifact.sha256, card.to_dict(), str(source))
    try:
        installed = _load(place).sha256 if place.exists() and not replace else None
    except ModelStoreError:
        installed = None
    if installed == artifact.sha256:
        return pulled
    if installed is not None:
        raise ModelStoreError("model_exists", f"{card.ref} is installed with other weights: give it a new version")
    model_root.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".incoming-", dir=model_root))
    try:
        _copy(source, staging / "new", artifact.sha256)
        replace_folder(staging / "new", place, staging / "old")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return pulled


def _copy(source: Path, target: Path, sha256: str) -> None:
    """The artifact's files and nothing else that lies beside them; what was copied is what is checked."""
    from ml.artifact import CARD_FILE, WEIGHTS_FILE

    target.mkdir()
    for name in (CARD_FILE, WEIGHTS_FILE):
        try:
            shutil.copyfile(source / name, target / name)
        except OSError as error:
            raise ModelStoreError("artifact_missing", f"{source / name}: {error.strerror}") from None
    _load(target, sha256)


def _load(folder: Path, sha256: str | None = None) -> "Artifact":
    from ml.artifact import load
    from ml.errors import ArtifactError

    try:
        return load(folder, sha256)
    except ArtifactError as error:
        raise ModelStoreError(error.code, error.detail) from None
