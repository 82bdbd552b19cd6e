"""Networks exported once beside the models, so that workers run them without torch.

    <model_root>/.tuned/<SHA-256 of weights>-<version of OpenVINO>/: see `ml.exported`

Missing ones are made by a process of their own (`worker.export_child`), which loads torch and ends. Whoever could write
into the folder could change scores, so one that others may write to is not used.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ml.card import ONNX, ModelCard
from ml.choice import Choice
from ml.errors import BackendError
from ml.exported import Exported, read
from worker import model_trial
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
        place = self._place(sha256)
        staging = Path(tempfile.mkdtemp(prefix=".incoming-", dir=self.root))
        try:
            (staging / "new").mkdir(mode=0o700)
            write(staging / "new")
            replace_folder(staging / "new", place, staging / "old")
        finally:
            shutil.rmtree(staging, ignore_errors=True)

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
    exported = [(card, networks.get(card, sha256, folder)) for card, sha256, folder in models]
    from ml.plain_predictor import PlainPredictor

    return PlainPredictor(exported, batch_size=batch_size, threads=threads, choices=choices)


def _in_child(folder: Path, sha256: str, staging: Path) -> None:
    try:
        answer = model_trial.ask("export_child", [str(folder), sha256, str(staging)], {}, _LARGEST)
    except model_trial.ImportRefused as error:
        raise BackendError("backend_unavailable", error.detail) from None
    if answer:
        raise BackendError("backend_unavailable", answer.decode(errors="replace")[:400])
