"""The Makefile explains itself, and CI runs what a person would."""

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_help_names_every_target() -> None:
    shown = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    targets = set(phony[1].split())
    assert targets >= {"demo", "test", "lint", "bench", "up", "help"}
    assert set(re.findall(r"^  make (\w+) ", shown, re.MULTILINE)) == targets


def test_ci_runs_the_makefiles_checks() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert text.index("make lint") < text.index("make test")
