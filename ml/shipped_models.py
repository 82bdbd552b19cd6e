"""The models that come with the project: where they lie and what their cards say. Loads no weights."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "shipped"


def names() -> list[str]:
    """What is shipped."""
    return sorted(path.parent.name for path in FOLDER.glob("*/card.json"))


def folder(name: str) -> Path:
    """The folder that `ml.artifact.load` takes. Raises KeyError."""
    if name not in names():
        raise KeyError(name)
    return FOLDER / name


def card(name: str) -> dict[str, Any]:
    """The readable card, not compared with its weights: that is `ml.artifact.load`'s. Raises KeyError."""
    document: dict[str, Any] = json.loads((folder(name) / "card.json").read_bytes())
    return document
