"""What `tagmill tune` found, remembered in the model folder: one file for a kind of machine; it measures nothing.

    <model_root>/.tuned/<digest of CPU and libraries>.json: {"cpu", "versions", "models": {SHA-256 of weights: {…}}}

Another CPU, another version of a library or other weights are another key, so what is out of date is never read. What
is remembered only says what is tried first: a backend goes live only if its scores agree (`ml.backends`).
"""

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ml.choice import Choice

FOLDER = ".tuned"
_LIBRARIES = ("openvino", "torch")
_CPUINFO = Path("/proc/cpuinfo")
_LINES = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features", "CPU part")


class Tuned:
    """The choices for this kind of machine; other kinds have their own files beside it."""

    def __init__(
        self, model_root: Path, *, cpuinfo: Path = _CPUINFO, versions: Mapping[str, str] | None = None
    ) -> None:
        self.folder = model_root / FOLDER
        self.cpu = _cpu(cpuinfo)
        self.versions = dict(versions) if versions is not None else {name: _version(name) for name in _LIBRARIES}
        key = json.dumps([self.cpu, self.versions], sort_keys=True)
        self.file = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"

    def choice(self, weights_sha256: str, threads: int) -> Choice | None:
        """What was fastest here for these weights on so many threads; None where nobody measured."""
        found = self._read().get(weights_sha256)
        if not isinstance(found, dict) or found.get("threads") != threads:
            return None
        return Choice.of(found)

    def remember(self, weights_sha256: str, choice: Choice, threads: int, **about: Any) -> None:
        """Keep the choice; readers see the old file or the new one. Raises OSError."""
        models = self._read()
        models[weights_sha256] = {
            "family": choice.family, "precision": choice.precision, "batch": choice.batch, "threads": threads, **about,
        }  # fmt: skip
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        document = {"cpu": self.cpu, "versions": self.versions, "models": models}
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
