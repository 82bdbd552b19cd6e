"""The environments that peers live in: pinned versions in a cache folder, on top of the project's own packages.

What the project has installed (torch, OpenVINO, aiohttp) is seen from there, so that all run on the same libraries.
"""

import hashlib
import json
import subprocess
import sys
import sysconfig
from pathlib import Path

PINS: dict[str, tuple[str, ...]] = {
    "hand": ("simplejpeg==1.9.0",),
    "tutorial": ("requests==2.34.2",),
    "mosec": ("mosec==0.9.8", "simplejpeg==1.9.0"),
    "litserve": ("litserve==0.2.19", "simplejpeg==1.9.0"),
    "ray": ("ray[data]==2.60.0", "simplejpeg==1.9.0"),
    "img2dataset": ("img2dataset==1.47.0",),
}


class NotInstalled(Exception):
    """A peer cannot be had on this machine; the text says why."""


def python(cache: Path, name: str) -> Path:
    """The interpreter of a peer's environment, made if need be. Raises NotInstalled."""
    folder = cache / "environments" / name
    own = sysconfig.get_path("purelib")
    wanted = json.dumps([PINS[name], own, sys.version])
    stamp = folder / ".installed"
    interpreter = folder / "bin" / "python"
    if stamp.exists() and stamp.read_text() == hashlib.sha256(wanted.encode()).hexdigest():
        return interpreter
    _run([sys.executable, "-m", "venv", "--clear", str(folder)])
    packages = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (packages / "project.pth").write_text(own + "\n")
    _run([str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PINS[name]])
    stamp.write_text(hashlib.sha256(wanted.encode()).hexdigest())
    return interpreter


def _run(command: list[str]) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        lines = [line for line in ran.stderr.splitlines() if "ERROR" in line] or ran.stderr.splitlines()
        raise NotInstalled((lines or ["no reason given"])[-1][:200])
