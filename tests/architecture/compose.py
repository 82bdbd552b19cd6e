"""The compose files as Docker Compose would see them: interpolated, with overrides merged. Judges nothing.

Only what our files use of the format: mappings merge, lists that are no mapping are replaced, `!reset` removes.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from tests.architecture.source import ROOT

_VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?:(:-|:\?)([^}]*))?\}")


class Reset:
    """Stands where an override removes something."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as Compose reads it, with its tag for removing."""


_Loader.add_constructor("!reset", lambda loader, node: Reset())


def load(name: str, variables: dict[str, str]) -> dict[str, Any]:
    """A compose file with its variables replaced; KeyError for one that must be set and is not."""
    document = yaml.load((ROOT / name).read_text(encoding="utf-8"), _Loader)
    loaded: dict[str, Any] = _interpolate(document, variables)
    return {key: value for key, value in loaded.items() if not key.startswith("x-")}


def merge(base: Any, over: Any) -> Any:
    """What Compose makes of a file and its override."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Reset):
            merged.pop(key, None)
        else:
            merged[key] = merge(merged[key], value) if key in merged else value
    return merged


def variables(name: str) -> dict[str, bool]:
    """The variables that a compose file reads, and whether each must be set."""
    text = (ROOT / name).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    found: dict[str, bool] = {}
    for match in _VARIABLE.finditer("\n".join(lines)):
        if match[1]:
            found[match[1]] = found.get(match[1], False) or match[2] == ":?"
    return found


def example() -> dict[str, str]:
    """.env.example."""
    return _dotenv(ROOT / ".env.example")


def _dotenv(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def _interpolate(value: Any, given: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _interpolate(item, given) for key, item in value.items()}
    if isinstance(value, list):
        return [_interpolate(item, given) for item in value]
    return _VARIABLE.sub(lambda found: _replace(found, given), value) if isinstance(value, str) else value


def _replace(found: re.Match[str], given: dict[str, str]) -> str:
    if found[0] == "$$":
        return "$"
    name, operator, text = found.groups()
    if given.get(name):
        return given[name]
    if operator == ":-":
        return str(text)
    raise KeyError(name)
