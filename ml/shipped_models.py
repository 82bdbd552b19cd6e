"""The models that come with the project: where they lie. Loads nothing."""

from pathlib import Path

FOLDER = Path(__file__).parent / "shipped"


def names() -> list[str]:
    """What is shipped."""
    return sorted(path.parent.name for path in FOLDER.glob("*/card.json"))


def folder(name: str) -> Path:
    """The folder that `ml.artifact.load` takes. Raises KeyError."""
    if name not in names():
        raise KeyError(name)
    return FOLDER / name
