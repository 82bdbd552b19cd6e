"""What `tagmill tune` and workers on GPUs found, remembered in the model folder: a file for a kind of machine.

    <model_root>/.tuned/<digest of CPU, libraries, GPU>.json: {"cpu", "versions", …, "models": {SHA-256 of weights: …}}

Another CPU, another version of a library or other weights are another key, so what is out of date is never read. What
is remembered only says what is tried first: a backend goes live only if its scores agree (`ml.backends`).
"""

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ml.choice import Choice

FOLDER = ".tuned"
MOST_BATCH = 4096
_LIBRARIES = ("openvino", "torch")
_CPUINFO = Path("/proc/cpuinfo")
_LINES = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features", "CPU part")


class Tuned:
    """The choices for this kind of machine; other kinds have their own files beside it. `device`: the GPU's name, if it
    is about one."""

    def __init__(
        self,
        model_root: Path,
        *,
        device: str | None = None,
        cpuinfo: Path = _CPUINFO,
        versions: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = model_root / FOLDER
        self.cpu = _cpu(cpuinfo)
        self.versions = dict(versions) if versions is not None else {name: _version(name) for name in _LIBRARIES}
        self.device = device
        key = json.dumps([self.cpu, self.versions, *([device] if device else [])], sort_keys=True)
        self.file = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"

    def choice(self, weights_sha256: str, threads: int) -> Choice | None:
        """What was fastest here for these weights on so many threads; None where nobody measured."""
        found = self._read().get(weights_sha256)
        if not isinstance(found, dict) or found.get("threads") != threads:
            return None
        return Choice.of(found)

    def batch(self, weights_sha256: Collection[str]) -> int | None:
        """The batch size that was best here for these weights together; None where nobody measured."""
        found = self._read().get(_together(weights_sha256))
        size = found.get("batch") if isinstance(found, dict) else None
        return size if isinstance(size, int) and not isinstance(size, bool) and 1 <= size <= MOST_BATCH else None

    def remember_batch(self, weights_sha256: Collection[str], batch: int, **about: Any) -> None:
        """Keep the batch size of a GPU. Raises OSError."""
        self._keep(_together(weights_sha256), {"batch": batch, **about})

    def remember(self, weights_sha256: str, choice: Choice, threads: int, **about: Any) -> None:
        """Keep the choice; readers see the old file or the new one. Raises OSError."""
        found = {"family": choice.family, "precision": choice.precision, "batch": choice.batch, "threads": threads}
        self._keep(weights_sha256, found | about)

    def _keep(self, key: str, found: Mapping[str, Any]) -> None:
        models = self._read() | {key: found}
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        document = {"cpu": self.cpu, "versions": self.versions, "device": self.device, "models": models}
        with tempfile.NamedTemporaryFile("w", dir=self.folder, suffix=".new", delete=False, encoding="utf-8") as file:
            json.dump(document, file, indent=1)
        os.replace(file.name, self.file)

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        models = found.get("models") if isinstance(found, dict) else None
        return models if isinstance(models, dict) else {}


def _together(weights_sha256: Collection[str]) -> str:
    """The key of several weights that run in one pass."""
    return "+".join(sorted(weights_sha256))


def _cpu(cpuinfo: Path) -> dict[str, str]:
    """What tells one kind of processor from another; where there is no /proc, what Python knows."""
    found = {"machine": platform.machine()}
    try:
        first = cpuinfo.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        return found | {"processor": platform.processor(), "system": platform.system()}
    for line in first.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in _LINES:
            found[name.strip()] = " ".join(sorted(value.split())) if name.strip() == "flags" else value.strip()
    return found


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"
