"""Networks exported once beside the models, so that workers run them without torch.

    <model_root>/.tuned/<SHA-256 of weights>-<version of OpenVINO>/: see `ml.exported`
    <model_root>/.tuned/<the same>-int8/: the same network in int8, where `tagmill models quantise` put it

Missing ones are made by a process of their own (`worker.export_child`), which loads torch and ends. Whoever could write
into the folder could change scores, so one that others may write to is not used.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ml.card import ONNX, ModelCard
from ml.choice import Choice
from ml.errors import BackendError
from ml.exported import Exported, keep, read, read_int8
from worker import model_trial
from worker.log import get
from worker.model_store import replace_folder
from worker.tuned import FOLDER

if TYPE_CHECKING:
    from ml.plain_predictor import PlainPredictor

_LARGEST: Final = 10_000  # bytes of the child's answer


class Networks:
    """The exported networks of one model folder."""

    def __init__(self, model_root: Path) -> None:
        self.root = model_root / FOLDER

    def get(self, card: ModelCard, sha256: str, folder: Path) -> Exported:
        """The network of the artifact in `folder`, exported first if it is not yet. Raises BackendError, OSError."""
        if card.architecture == ONNX:
            raise BackendError("backend_unavailable", f"{card.ref} was imported from ONNX and is not exported")
        place = self._place(sha256)
        try:
            return read(place, sha256)
        except BackendError:
            self.put(sha256, lambda staging: _in_child(folder, sha256, staging))
            return read(place, sha256)

    def put(self, sha256: str, write: Callable[[Path], None]) -> None:
        """Have the files written into a new folder, and put it where `get` looks. Raises OSError, what `write` does."""
        self._replace(self._place(sha256), write)

    def int8(self, card: ModelCard, sha256: str) -> Exported:
        """The network in int8. Raises BackendError where there is none, it is damaged, or no evaluation offers it."""
        if not self.root.exists():
            raise BackendError("backend_unavailable", f"{card.ref} was not quantised here")
        return read_int8(self._int8_place(sha256), card, sha256)

    def has_int8(self, sha256: str) -> bool:
        """Whether one was kept. Raises BackendError."""
        return self.root.exists() and self._int8_place(sha256).exists()

    def put_int8(self, sha256: str, network: Exported) -> None:
        """Keep a network in int8 in the place of what there was. Raises OSError, BackendError."""
        self._replace(self._int8_place(sha256), lambda staging: keep(network, sha256, staging))

    def remove_int8(self, sha256: str) -> bool:
        """Whether there was one. Raises OSError, BackendError."""
        place = self._int8_place(sha256)
        if not place.exists():
            return False
        gone = Path(tempfile.mkdtemp(prefix=".incoming-", dir=self.root))
        place.rename(gone / "old")
        shutil.rmtree(gone)
        return True

    def _replace(self, place: Path, write: Callable[[Path], None]) -> None:
        staging = Path(tempfile.mkdtemp(prefix=".incoming-", dir=self.root))
        try:
            (staging / "new").mkdir(mode=0o700)
            write(staging / "new")
            replace_folder(staging / "new", place, staging / "old")
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _int8_place(self, sha256: str) -> Path:
        place = self._place(sha256)
        return place.with_name(f"{place.name}-int8")

    def _place(self, sha256: str) -> Path:
        """Where a network belongs. Raises BackendError where the folder is not ours alone or OpenVINO is missing."""
        try:
            installed = version("openvino")
        except PackageNotFoundError:
            raise BackendError("backend_unavailable", "the extra `cpu` (OpenVINO) is not installed") from None
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self.root.stat()
        if found.st_uid not in (os.geteuid(), 0) or found.st_mode & 0o022:
            raise BackendError("backend_unavailable", f"others may write into {self.root}")
        return self.root / f"{sha256}-{installed}"


def predictor(
    networks: Networks,
    models: Sequence[tuple[ModelCard, str, Path]],
    *,
    batch_size: int | None,
    threads: int,
    choices: Mapping[str, Choice],
) -> "PlainPredictor":
    """The models (card, SHA-256 of the weights, folder) ready to run without torch.

    Raises BackendError where one cannot or would run faster with torch, and OSError.
    """
    for card, _, _ in models:
        if (choice := choices.get(card.ref)) is not None and choice.family != "openvino":
            raise BackendError("backend_unavailable", f"{card.ref} was measured to be fastest as {choice.name}")
    exported = [(card, _network(networks, card, sha256, folder, choices)) for card, sha256, folder in models]
    from ml.plain_predictor import PlainPredictor

    return PlainPredictor(exported, batch_size=batch_size, threads=threads, choices=choices)


def _network(networks: Networks, card: ModelCard, sha256: str, folder: Path, choices: Mapping[str, Choice]) -> Exported:
    """With its int8 form where that was measured to be the fastest; without it where it does not hold."""
    found, choice = networks.get(card, sha256, folder), choices.get(card.ref)
    if choice is None or choice.precision != "int8":
        return found
    try:
        return replace(found, int8=networks.int8(card, sha256))
    except BackendError as error:
        get("infer").warning("int8 is not taken", model=card.ref, reason=error.detail)
        return found


def _in_child(folder: Path, sha256: str, staging: Path) -> None:
    try:
        answer = model_trial.ask("export_child", [str(folder), sha256, str(staging)], {}, _LARGEST)
    except model_trial.ImportRefused as error:
        raise BackendError("backend_unavailable", error.detail) from None
    if answer:
        raise BackendError("backend_unavailable", answer.decode(errors="replace")[:400])
