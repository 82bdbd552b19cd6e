"""Reads a JavaScript object literal as data, as minifiers write it; executes nothing, knows no variables."""

import json
import re

_TOKEN = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<text>"(?:[^"\\\n]|\\.)*")
  | (?P<number>-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
  | (?P<flag>![01])
  | (?P<word>[A-Za-z_$][\w$]*)
  | (?P<mark>[{}\[\],:])
    """,
    re.VERBOSE,
)
_WORDS = {"true": "true", "false": "false", "null": "null"}


def parse(source: str, start: int) -> object:
    """The value whose literal begins at `source[start]` with a brace or a bracket. Raises ValueError."""
    parts: list[str] = []
    depth = 0
    at = start
    while True:
        token = _TOKEN.match(source, at)
        if token is None:
            raise ValueError(f"not an object literal at character {at}")
        at = token.end()
        parts.append(_as_json(token))
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
        if depth <= 0:
            return json.loads("".join(parts))


def _as_json(token: re.Match[str]) -> str:
    text = token[0]
    match token.lastgroup:
        case "space":
            return ""
        case "flag":  # !0 is true, !1 is false
            return "true" if text == "!0" else "false"
        case "word":  # a key without quotes
            return _WORDS.get(text, json.dumps(text))
        case "number":
            return repr(float(text)) if re.search(r"[.eE]", text) else str(int(text))
        case _:
            return text
