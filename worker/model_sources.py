"""Where the published weights of our models can be had, and what they must hash to; installs and converts
nothing.

Every source answers with the bytes of named files, and every file is compared with the SHA-256 below, whoever
sent it.
"""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx2

from worker import js_literal
from worker.errors import WorkerError

MAX_FILE_BYTES = 1 << 30
TIMEOUT_S = 300.0

NSFWJS_FILES = {
    "nsfwjs-mobilenet_v2/model.json": "11846416217e68bf1eb7b0e651bcfd305973566453c63275bbd16766ab089979",
    "nsfwjs-mobilenet_v2/group1-shard1of1": "8e7dddbb16acacc1bf1601b1b8a761e730ff934b7f2d7771312b2f000e5f5f13",
}


class SourceFailed(WorkerError):
    """One source has not what was asked for.

    `code`: source_missing, hash_mismatch, too_large, http_error, npm_missing, npm_failed, package_unexpected,
    conversion_failed.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Source(Protocol):
    """Somebody who may have a model's files. `label` names it for people, `version` what comes from there."""

    @property
    def label(self) -> str: ...

    @property
    def version(self) -> str: ...

    def fetch(self) -> dict[str, bytes]:
        """The checked files by their base name. Raises SourceFailed."""
        ...


@dataclass(frozen=True)
class Folder:
    """A folder laid out as `files` says: path → SHA-256."""

    root: Path
    files: Mapping[str, str]
    version: str

    @property
    def label(self) -> str:
        return f"folder {self.root}"

    def fetch(self) -> dict[str, bytes]:
        return {Path(path).name: checked(self._read(path), path, pin) for path, pin in self.files.items()}

    def _read(self, path: str) -> bytes:
        try:
            with (self.root / path).open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise SourceFailed("source_missing", f"{self.root / path}: {error.strerror}") from None
        if len(data) > MAX_FILE_BYTES:
            raise SourceFailed("too_large", f"{self.root / path} is larger than {MAX_FILE_BYTES} bytes")
        return data


@dataclass(frozen=True)
class Mirror:
    """The same layout behind an http(s) URL; the pins make http as good as https."""

    base: str
    files: Mapping[str, str]
    version: str

    @property
    def label(self) -> str:
        return f"mirror {self.base}"

    def fetch(self) -> dict[str, bytes]:
        base = self.base.rstrip("/")
        return {Path(path).name: checked(get(f"{base}/{path}"), path, pin) for path, pin in self.files.items()}


@dataclass(frozen=True)
class NpmNsfwjs:
    """The npm package that carries NSFWJS's model as JavaScript; it is read as text and never run."""

    version: str
    package: str = "nsfwjs@4.3.0"
    label: str = "npm nsfwjs@4.3.0"

    FOLDER = "package/dist/models/mobilenet_v2"
    PINS = (
        ("model.min.js", "c32f104fd562b08cdff5ed69dfe1209643afa47e792fb12751d2949aa61a397a"),
        ("group1-shard1of1.min.js", "ef2e0a63f7d2c4960b37b024b669313f65d3c45cd59e9042636c55b39de53517"),
    )

    def fetch(self) -> dict[str, bytes]:
        with tempfile.TemporaryDirectory(prefix="tagmill-npm-") as folder:
            self._pack(folder)
            members = self._members(Path(folder))
        described, stored = (checked(members[name], name, pin).decode() for name, pin in self.PINS)
        shard = re.search(r'exports="([A-Za-z0-9+/=]+)"', stored)
        start = described.find("exports={")
        if shard is None or start < 0:
            raise SourceFailed("package_unexpected", f"{self.package} does not hold the model as it used to")
        weights = base64.b64decode(shard[1], validate=True)
        pin = NSFWJS_FILES["nsfwjs-mobilenet_v2/group1-shard1of1"]
        document = js_literal.parse(described, start + len("exports="))
        return {
            "model.json": json.dumps(document).encode(),
            "group1-shard1of1": checked(weights, "group1-shard1of1", pin),
        }

    def _pack(self, folder: str) -> None:
        command = ["npm", "pack", self.package, "--ignore-scripts", "--silent", "--cache", f"{folder}/cache"]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL
            )
        except FileNotFoundError:
            raise SourceFailed("npm_missing", "npm is not installed") from None
        except subprocess.TimeoutExpired:
            raise SourceFailed("npm_failed", f"npm pack took longer than {TIMEOUT_S:.0f} s") from None
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip()).rpartition("\n")[2]
            raise SourceFailed("npm_failed", f"npm pack ended with {done.returncode}: {last[:300]}")

    def _members(self, folder: Path) -> dict[str, bytes]:
        """The files that are wanted, read one by one: nothing of the package is ever unpacked to disk."""
        (packed,) = folder.glob("*.tgz")
        found: dict[str, bytes] = {}
        try:
            with tarfile.open(packed) as archive:
                for name, _ in self.PINS:
                    member = archive.getmember(f"{self.FOLDER}/{name}")
                    file = archive.extractfile(member) if member.size <= MAX_FILE_BYTES else None
                    if file is None:
                        raise SourceFailed("package_unexpected", f"{member.name} is no file of a sane size")
                    found[name] = file.read()
        except (KeyError, tarfile.TarError) as error:
            raise SourceFailed("package_unexpected", f"{self.package}: {error}") from None
        return found


@dataclass(frozen=True)
class Torchvision:
    """torchvision's own .pth file. Its name carries the first 8 hex digits of its SHA-256, the only pin
    published.
    """

    url: str
    version: str

    @property
    def label(self) -> str:
        return self.url

    def fetch(self) -> dict[str, bytes]:
        data = get(self.url)
        stem, _, prefix = Path(urlsplit(self.url).path).stem.rpartition("-")
        digest = hashlib.sha256(data).hexdigest()
        if len(prefix) < 8 or not digest.startswith(prefix):
            raise SourceFailed("hash_mismatch", f"{self.url} has SHA-256 {digest}, its name promises {prefix}…")
        return {f"{stem}.safetensors": pth_to_safetensors(data)}


def pth_to_safetensors(data: bytes) -> bytes:
    """Convert in a child process with an empty environment: a pickle is not to be opened in ours."""
    with tempfile.TemporaryDirectory(prefix="tagmill-pth-") as folder:
        source, target = Path(folder, "weights.pth"), Path(folder, "weights.safetensors")
        source.write_bytes(data)
        command = [sys.executable, "-I", "-m", "ml.pth", str(source), str(target)]
        environment = {"PATH": os.defpath, "HOME": folder}
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            raise SourceFailed("conversion_failed", f"took longer than {TIMEOUT_S:.0f} s") from None
        if done.returncode or not target.is_file():
            last = done.stderr.strip().rpartition("\n")[2]
            raise SourceFailed("conversion_failed", f"ended with {done.returncode}: {last[:300]}")
        return target.read_bytes()


def setting(value: str, files: Mapping[str, str], version: str) -> Source:
    """The source that TAGMILL_MODEL_SOURCE names: a folder, a file:// URL or an http(s) URL."""
    parts = urlsplit(value)
    if parts.scheme in ("http", "https"):
        return Mirror(value, files, version)
    root = Path(url2pathname(parts.path)) if parts.scheme == "file" else Path(value).expanduser()
    return Folder(root.resolve(), files, version)


def checked(data: bytes, name: str, pin: str) -> bytes:
    """`data`, if it is what we know under `name`. Raises SourceFailed('hash_mismatch')."""
    digest = hashlib.sha256(data).hexdigest()
    if digest != pin:
        raise SourceFailed("hash_mismatch", f"{name} has SHA-256 {digest}, expected {pin}")
    return data


def get(url: str) -> bytes:
    """Download with a limit on size and on time without a byte. Raises SourceFailed."""
    body = bytearray()
    try:
        with httpx2.stream("GET", url, follow_redirects=True, timeout=30) as response:
            if response.status_code != 200:
                raise SourceFailed("http_error", f"{url} answered {response.status_code}")
            for block in response.iter_bytes():
                body += block
                if len(body) > MAX_FILE_BYTES:
                    raise SourceFailed("too_large", f"{url} is larger than {MAX_FILE_BYTES} bytes")
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise SourceFailed("http_error", f"{url}: {error or type(error).__name__}") from None
    return bytes(body)
