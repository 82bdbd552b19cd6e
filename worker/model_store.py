"""Gets published models from where they can be had, checks and converts them, and installs them as artifacts.

Does not touch the database: registering an installed model is the caller's step. torch is loaded only when a
model is.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ml import shipped_models
from worker import model_sources
from worker.errors import WorkerError
from worker.model_sources import NSFWJS_FILES, NpmNsfwjs, Source, SourceFailed, Torchvision

if TYPE_CHECKING:
    from ml.artifact import Artifact
    from ml.card import ModelCard

    Converted = tuple[ModelCard, dict[str, object]]

Task = Literal["tags", "moderation"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is made: the files of a folder or mirror (path → SHA-256), other sources, the conversion.

    Other weights under the same name are another version: stored scores are kept by name@version.
    """

    task: Task
    files: dict[str, str]
    version: str
    others: tuple[Source, ...]
    convert: Callable[[str, str, dict[str, bytes]], "tuple[ModelCard, dict[str, object]]"]


@dataclass(frozen=True, slots=True)
class Tried:
    """A source that did not work, and why."""

    source: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Pulled:
    """An installed model. `source` says where it came from: a label of a source, or "installed" if it was
    there.
    """

    name: str
    version: str
    task: str
    folder: Path
    sha256: str
    card: dict[str, object]
    source: str
    tried: tuple[Tried, ...] = ()

    @property
    def ref(self) -> str:
        """name@version."""
        return f"{self.name}@{self.version}"


class ModelStoreError(WorkerError):
    """A model cannot be installed. `code`: unknown_model, no_source (see `tried`)."""

    def __init__(self, code: str, detail: str, tried: Sequence[Tried] = ()) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.tried = tuple(tried)


class ModelStore:
    """The folder `model_root`/<name>/<version>/ and what may be installed there.

    `source`: a folder, file:// or http(s) URL with published files, asked before the public sources.
    """

    def __init__(self, model_root: Path, source: str | None = None) -> None:
        self.root = model_root
        self.source = source

    def sources(self, name: str) -> list[Source]:
        """Where `name` is looked for, in order. Raises ModelStoreError('unknown_model')."""
        recipe = _recipe(name)
        own = [model_sources.setting(self.source, recipe.files, recipe.version)] if self.source else []
        return [*own, *recipe.others]

    def pull(self, name: str, *, sources: Sequence[Source] | None = None, again: bool = False) -> Pulled:
        """Install `name` from the first source that has it, or return what is installed already.

        `again` fetches and replaces even so. Raises ModelStoreError.
        """
        recipe = _recipe(name)
        candidates = self.sources(name) if sources is None else list(sources)
        if not again:
            for version in dict.fromkeys([*(source.version for source in candidates), recipe.version]):
                if (found := self._installed(name, version)) is not None:
                    return found
        tried: list[Tried] = []
        for source in candidates:
            try:
                return self._install(name, recipe, source, tried)
            except SourceFailed as error:
                tried.append(Tried(source.label, error.code, error.detail))
        said = "; ".join(f"{failed.source}: {failed.detail} ({failed.code})" for failed in tried)
        raise ModelStoreError("no_source", f"no source has {name}: {said or 'none was given'}", tried)

    def folder(self, name: str, version: str) -> Path:
        """Where a version of a model is installed."""
        return self.root / name / version

    def _installed(self, name: str, version: str) -> Pulled | None:
        from ml.artifact import load
        from ml.errors import ArtifactError

        try:
            artifact = load(self.folder(name, version))
        except ArtifactError:
            return None  # missing or damaged: both are mended by installing it
        return self._pulled(artifact, "installed", ())

    def _install(self, name: str, recipe: Recipe, source: Source, tried: Sequence[Tried]) -> Pulled:
        from ml.artifact import save
        from ml.errors import ArtifactError

        files = source.fetch()
        try:
            card, state = recipe.convert(name, source.version, files)
        except ArtifactError as error:
            raise SourceFailed("conversion_failed", str(error)) from None
        self.root.mkdir(parents=True, exist_ok=True)
        # Inside the root, so that the last step is a rename on one file system.
        staging = Path(tempfile.mkdtemp(prefix=".incoming-", dir=self.root))
        try:
            artifact = save(staging / "new", card, state)  # type: ignore[arg-type]
            replace_folder(staging / "new", self.folder(name, source.version), staging / "old")
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return self._pulled(artifact, source.label, tried)

    def _pulled(self, artifact: "Artifact", source: str, tried: Sequence[Tried]) -> Pulled:
        card = artifact.card
        folder = self.folder(card.name, card.version)
        document: dict[str, object] = card.to_dict()
        return Pulled(card.name, card.version, card.task, folder, artifact.sha256, document, source, tuple(tried))


def replace_folder(new: Path, place: Path, old: Path) -> None:
    """Put `new` at `place`; readers see the old folder or the new one, never half of one."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        place.rename(old)
    new.rename(place)
    descriptor = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _recipe(name: str) -> Recipe:
    if name not in RECIPES:
        known = ", ".join([*shipped_models.names(), *RECIPES])
        raise ModelStoreError("unknown_model", f"{name!r} is none of {known}")
    return RECIPES[name]


def _convert_nsfwjs(name: str, version: str, files: dict[str, bytes]) -> "Converted":
    from ml import nsfwjs

    card, state = nsfwjs.convert(files["model.json"], files["group1-shard1of1"], name=name, version=version)
    return card, dict(state)


def _imagenet(
    architecture: str, precision: Literal["fp32", "bf16"], licence: str, origin: str
) -> Callable[..., "Converted"]:
    def convert(name: str, version: str, files: dict[str, bytes]) -> "Converted":
        from ml import imagenet

        (data,) = files.values()
        state = imagenet.weights(architecture, data)
        if version == RECIPES[name].version:
            card = imagenet.card(architecture, version, source=origin, licence=licence, precision=precision)
        else:
            # torchvision's own: nobody here has measured them below fp32.
            card = imagenet.card(architecture, version, source="torchvision", licence="BSD-3-Clause")
        return card, dict(state)

    return convert


_PYTORCH = "https://download.pytorch.org/models"

RECIPES: dict[str, Recipe] = {
    "imagenet-mobilenet_v2": Recipe(
        task="tags",
        files={
            "mobilenet_v2-imagenet1k.safetensors": "0f4e05f0c75c00d4a8c22c45a568ad95fdccccf656c74f0315ccfe8d1edd1086"
        },
        version="1-coral",
        others=(Torchvision(f"{_PYTORCH}/mobilenet_v2-b0353104.pth", "1-torchvision"),),
        # These came out of an 8-bit model: bf16 moves their logits by 11 % and one first place in nine.
        convert=_imagenet("mobilenet_v2", "fp32", "Apache-2.0", "google-coral/test_data 104342d, dequantised"),
    ),
    "imagenet-squeezenet1_1": Recipe(
        task="tags",
        files={
            "squeezenet1_1-imagenet1k.safetensors": "bb6c84fd9aee5e2bb6d7ff0d2a5aa2a715be9434115fa50842557177c1a6a04f"
        },
        version="1-ncnn",
        others=(Torchvision(f"{_PYTORCH}/squeezenet1_1-b8a52dc0.pth", "1-torchvision"),),
        convert=_imagenet("squeezenet1_1", "bf16", "BSD-2-Clause", "SqueezeNet v1.1, nihui/ncnn-assets 9489f87"),
    ),
    "nsfwjs-mobilenet_v2": Recipe(
        task="moderation",
        files=NSFWJS_FILES,
        version="4.3.0",
        others=(NpmNsfwjs("4.3.0"),),
        convert=_convert_nsfwjs,
    ),
}
