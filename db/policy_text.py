"""Policies as people write them: YAML or JSON text to a document, so that whatever is wrong is named by line. Pure.

The text is read as events, under limits of size, depth and number, and never builds an object: aliases, tags, merge
keys, several documents and keys given twice are refused. Plain scalars are those of YAML 1.2's core schema, so that
`no` and `on` are words.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import yaml

from db import policy_document
from db.policy_rules import Policy, PolicyError, PolicyFault
from db.policy_when import Path, shown

MAX_CHARACTERS: Final = 64 * 1024
MAX_VALUES: Final = 10_000
MAX_DEPTH: Final = 24

_ORDER: Final = {
    name: place
    for place, name in enumerate(
        ("name", "description", "mode", "thresholds", "id", "when", "then", "code", "text", "rules", "otherwise")
    )
}
"""Fields as people write them; the others come after, by their name."""

Place = tuple[int, int]
"""Line and column, from 1."""

_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,15}")
_NUMBER: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")
_WORDS: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(frozen=True)
class Written:
    """A policy and the text that says it; `document` has no version, which is given when it is stored."""

    policy: Policy
    document: dict[str, Any]
    text: str


def read(text: str) -> Written:
    """The policy that a text says; PolicyError with every fault, each with its line and column."""
    document, places = _parsed(text)
    if not isinstance(document, dict):
        raise PolicyError([PolicyFault("", "a policy is a mapping with name and rules", 1, 1)])
    try:
        return Written(_policy(document), document, text)
    except PolicyError as error:
        placed = [_placed(fault, places) for fault in error.faults]
        raise PolicyError(sorted(placed, key=lambda fault: (fault.line or 0, fault.column or 0))) from None


def written(document: Mapping[str, Any]) -> Written:
    """A policy that came as an object, with a text for it; PolicyError with every fault."""
    policy = _policy(document)
    text = yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    if len(text) > MAX_CHARACTERS:
        raise PolicyError([PolicyFault("", f"a policy has at most {MAX_CHARACTERS} characters")])
    return Written(policy, dict(document), text)


def source_of(document: Mapping[str, Any]) -> str:
    """A text for a stored document: what `written` would say of it without its version."""
    return written({name: value for name, value in document.items() if name != "version"}).text


def canonical(document: Mapping[str, Any]) -> str:
    """A text that is the same for documents that say the same: fields in one order, numbers in one spelling, without
    comments and version. To compare two of them line by line."""
    bare = {name: value for name, value in document.items() if name != "version"}
    return yaml.dump(_ordered(bare), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _ordered(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _ordered(value[name]) for name in sorted(value, key=lambda name: (_ORDER.get(name, 99), name))}
    if isinstance(value, list):
        return [_ordered(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _policy(document: Mapping[str, Any]) -> Policy:
    if "version" in document:
        raise PolicyError([PolicyFault("version", "versions are given by Tagmill: leave it out")])
    return policy_document.policy(document)


def _placed(fault: PolicyFault, places: Mapping[str, Place]) -> PolicyFault:
    """With the place of the field, or of the nearest one around it that is in the text."""
    field = fault.field
    while field and field not in places:
        field = field[: max(field.rfind("."), field.rfind("["), 0)]
    line, column = places.get(field, (1, 1))
    return replace(fault, line=line, column=column)


def _parsed(text: str) -> tuple[Any, dict[str, Place]]:
    """The value and the place of each field in it."""
    if len(text) > MAX_CHARACTERS:
        raise PolicyError([PolicyFault("", f"a policy has at most {MAX_CHARACTERS} characters", 1, 1)])
    if text.lstrip().startswith("{"):
        text = text.replace("\t", " ")  # JSON may be indented with tabs, YAML may not; JSON's strings hold none
    try:
        return _Reader(yaml.parse(text, Loader=yaml.SafeLoader)).read()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        detail = ", ".join(part for part in (error.context, error.problem) if part)
        line, column = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
        raise PolicyError([PolicyFault("", f"not YAML: {detail}", line, column)]) from None
    except yaml.reader.ReaderError as error:
        lines = text[: error.position].split("\n")
        number = error.character if isinstance(error.character, int) else ord(error.character)
        detail = f"U+{number:04X} is no character of a text"
        raise PolicyError([PolicyFault("", detail, len(lines), len(lines[-1]) + 1)]) from None


class _Dumper(yaml.SafeDumper):
    """Writes plain data out in full: what `read` takes."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _Reader:
    """Builds plain values out of the events of one document."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._values = 0
        self.places: dict[str, Place] = {}

    def read(self) -> tuple[Any, dict[str, Place]]:
        event = self._next()
        while isinstance(event, yaml.StreamStartEvent | yaml.DocumentStartEvent):
            event = self._next()
        value = None if isinstance(event, yaml.StreamEndEvent) else self._value(event, ())
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                raise self._refuse(event, (), "one document is a policy, not several")
        return value, self.places

    def _next(self) -> Any:
        return next(self._events)

    def _value(self, event: Any, path: Path) -> Any:
        self._values += 1
        self.places.setdefault(shown(path), _place(event))
        if self._values > MAX_VALUES:
            raise self._refuse(event, path, f"a policy has at most {MAX_VALUES} values")
        if len(path) > MAX_DEPTH:
            raise self._refuse(event, (), f"nested more than {MAX_DEPTH} deep")
        if isinstance(event, yaml.AliasEvent):
            raise self._refuse(event, path, "aliases are not read: write the value out")
        if event.anchor is not None:
            raise self._refuse(event, path, "anchors are not read: write the value out where it is needed")
        if event.tag is not None and event.tag != "!":
            raise self._refuse(event, path, "tags are not read")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        return self._mapping(path) if isinstance(event, yaml.MappingStartEvent) else self._sequence(path)

    def _mapping(self, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent) or event.anchor or event.tag not in (None, "!"):
                raise self._refuse(event, path, "the name of a field is a plain word")
            name = self._text(event, path)
            if name == "<<":
                raise self._refuse(event, path, "merge keys are not read")
            if name in found:
                raise self._refuse(event, (*path, name), "given twice")
            self.places.setdefault(shown((*path, name)), _place(event))
            found[name] = self._value(self._next(), (*path, name))
        return found

    def _sequence(self, path: Path) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            found.append(self._value(event, (*path, len(found))))
        return found

    def _scalar(self, event: Any, path: Path) -> Any:
        value = self._text(event, path)
        if event.style is not None:
            return value
        if value in _WORDS:
            return _WORDS[value]
        if _INTEGER.fullmatch(value):
            return int(value)
        return float(value) if _NUMBER.fullmatch(value) else value

    def _text(self, event: Any, path: Path) -> str:
        """The characters; JSON writes those beyond the first plane as two halves, which are put together here."""
        try:
            text = str(event.value).encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise self._refuse(event, path, "half a character (a lone surrogate)") from None
        if "\0" in text:
            raise self._refuse(event, path, "no text holds the character NUL")
        return text

    def _refuse(self, event: Any, path: Path, detail: str) -> PolicyError:
        return PolicyError([PolicyFault(shown(path), detail, *_place(event))])


def _place(event: Any) -> Place:
    return event.start_mark.line + 1, event.start_mark.column + 1
