"""The model card: what a model is, which labels it gives and how a picture is prepared for it; reads no file.

`from_dict` is the only way in for a card that somebody else wrote: every error names the field.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

from ml.errors import ArtifactError

Task = Literal["tags", "moderation"]
Head = Literal["softmax", "sigmoid"]
CardPrecision = Literal["fp32", "bf16"]
Precision = Literal[
    "fp32", "bf16", "int8"
]  # what a backend computes in; int8 is never a card's to allow: `ml.quantise`

MAX_LABELS = 100_000
ONNX = "onnx"  # the architecture of a network that came as an ONNX file
_ONNX_CHOICES = {"layout": ("NCHW", "NHWC"), "channels": ("RGB", "BGR"), "outputs": ("logits", "probabilities")}
_ONNX_TEXTS = ("format", "original_sha256", "runtimes")
_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Label:
    """One output of a model. Labels of a `group` compete; `threshold` is the least score to report."""

    name: str
    group: str
    threshold: float | None = None
    parent: str | None = None
    taxonomy_id: str | None = None


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Everything about a model but its weights.

    `head` maps each label group to its activation. `temperature` divides the logits before it: one for all
    groups, or one per group. `precision` is the lowest one in which the scores still
    hold what the card promises: a backend may compute in more, never in less. `preset` is {"name": …,
    parameters…}. `onnx` says how an imported network (architecture "onnx") is fed and read: see `ml.onnx_model`.
    """

    name: str
    version: str
    task: Task
    architecture: str
    labels: tuple[Label, ...]
    head: Mapping[str, Head]
    preset: Mapping[str, Any]
    precision: CardPrecision = "fp32"
    temperature: float | Mapping[str, float] = 1.0
    metrics: Mapping[str, Any] = field(default_factory=dict)
    data_manifest_sha256: str | None = None
    licence: str = "unknown"
    source: str = "unknown"
    parent: str | None = None
    onnx: Mapping[str, Any] | None = None

    @property
    def ref(self) -> str:
        """The name by which jobs and stored scores refer to this model: name@version."""
        return f"{self.name}@{self.version}"

    @property
    def groups(self) -> dict[str, list[int]]:
        """Label positions by group, in the order of the model's outputs."""
        groups: dict[str, list[int]] = {}
        for position, label in enumerate(self.labels):
            groups.setdefault(label.group, []).append(position)
        return groups

    def temperature_of(self, group: str) -> float:
        """What the logits of one group are divided by."""
        return self.temperature if isinstance(self.temperature, int | float) else self.temperature[group]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; label fields that are not set are left out."""
        card = {name: getattr(self, name) for name in self.__slots__}
        card["labels"] = [{k: v for k, v in asdict(label).items() if v is not None} for label in self.labels]
        for name in ("head", "preset", "metrics"):
            card[name] = dict(card[name])
        # Left out where there is none: the cards inside older artifacts, and so their digests, have no such field.
        if card.pop("onnx") is not None:
            card["onnx"] = dict(self.onnx or {})
        if isinstance(self.temperature, Mapping):
            card["temperature"] = dict(self.temperature)
        return card


def from_dict(document: object) -> ModelCard:
    """Check a decoded card.json; ArtifactError('card_invalid') names the field that is wrong."""
    if not isinstance(document, dict):
        raise _invalid("card", "must be an object")
    unknown = set(document) - set(ModelCard.__slots__)
    if unknown:
        raise _invalid(min(map(str, unknown)), "is not a field of a card")
    labels = _labels(document.get("labels"))
    return ModelCard(
        name=_identifier(document, "name"),
        version=_identifier(document, "version"),
        task=cast("Task", _choice(document.get("task"), "task", get_args(Task))),
        architecture=_identifier(document, "architecture"),
        labels=labels,
        head=_heads(document.get("head"), labels),
        preset=_preset(document.get("preset")),
        precision=cast(
            "CardPrecision", _choice(document.get("precision", "fp32"), "precision", get_args(CardPrecision))
        ),
        temperature=_temperatures(document.get("temperature", 1.0), labels),
        metrics=MappingProxyType(_object(document.get("metrics", {}), "metrics")),
        data_manifest_sha256=_sha256(document.get("data_manifest_sha256")),
        licence=_text(document.get("licence", "unknown"), "licence"),
        source=_text(document.get("source", "unknown"), "source"),
        parent=None if document.get("parent") is None else _text(document["parent"], "parent"),
        onnx=_onnx(document.get("onnx"), document.get("architecture") == ONNX),
    )


def _invalid(name: str, why: str) -> ArtifactError:
    return ArtifactError("card_invalid", f"{name} {why}", field=name)


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 2000:
        raise _invalid(name, "must be a text of 1 to 2000 characters")
    return value


def _identifier(document: dict[str, Any], name: str) -> str:
    # Names and versions become folder names, so their alphabet is closed.
    value = document.get(name)
    if not isinstance(value, str) or not _IDENTIFIER.fullmatch(value):
        raise _invalid(name, f"must match {_IDENTIFIER.pattern}")
    return value


def _choice(value: object, name: str, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise _invalid(name, f"must be one of {', '.join(choices)}")
    return value


def _object(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise _invalid(name, "must be an object")
    return dict(value)


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise _invalid(name, "must be a finite number")
    return float(value)


def _temperatures(value: object, labels: tuple[Label, ...]) -> float | Mapping[str, float]:
    """`value` is one temperature for all groups, or {group: temperature} for exactly the groups that exist."""
    if not isinstance(value, dict):
        return _temperature(value, "temperature")
    groups = {label.group for label in labels}
    if set(value) != groups:
        raise _invalid("temperature", f"must name exactly the groups {sorted(groups)}")
    return MappingProxyType({group: _temperature(value[group], f"temperature.{group}") for group in sorted(groups)})


def _temperature(value: object, name: str) -> float:
    temperature = _number(value, name)
    if temperature <= 0:
        raise _invalid(name, "must be above 0")
    return temperature


def _sha256(value: object) -> str | None:
    if value is not None and not (isinstance(value, str) and _SHA256.fullmatch(value)):
        raise _invalid("data_manifest_sha256", "must be 64 lowercase hex digits")
    return value


def _preset(value: object) -> Mapping[str, Any]:
    preset = _object(value, "preset")
    _text(preset.get("name"), "preset.name")
    return MappingProxyType(preset)


def _onnx(value: object, imported: bool) -> Mapping[str, Any] | None:
    """{layout, channels, outputs, batch: pictures at once or null, format, original_sha256, runtimes, gap}."""
    if (value is not None) != imported:
        raise _invalid("onnx", f"belongs to the architecture {ONNX!r}, and to no other")
    if value is None:
        return None
    entry = _object(value, "onnx")
    unknown = set(entry) - {*_ONNX_CHOICES, *_ONNX_TEXTS, "batch", "gap"}
    if unknown:
        raise _invalid(f"onnx.{min(unknown)}", "is not a field of an imported network")
    for name, choices in _ONNX_CHOICES.items():
        _choice(entry.get(name), f"onnx.{name}", choices)
    for name in _ONNX_TEXTS:
        if name in entry:
            _text(entry[name], f"onnx.{name}")
    if "gap" in entry:
        _number(entry["gap"], "onnx.gap")
    batch = entry.get("batch")
    if batch is not None and (isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= 4096):
        raise _invalid("onnx.batch", "must be an integer in 1…4096, or null")
    return MappingProxyType(entry)


def _labels(value: object) -> tuple[Label, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_LABELS:
        raise _invalid("labels", f"must be a list of 1 to {MAX_LABELS} labels")
    labels = tuple(_label(entry, f"labels[{position}]") for position, entry in enumerate(value))
    seen: set[tuple[str, str]] = set()
    for position, label in enumerate(labels):
        if (label.group, label.name) in seen:
            raise _invalid(f"labels[{position}].name", f"appears twice in group {label.group!r}: {label.name!r}")
        seen.add((label.group, label.name))
    return labels


def _label(value: object, where: str) -> Label:
    entry = _object(value, where)
    unknown = set(entry) - set(Label.__slots__)
    if unknown:
        raise _invalid(f"{where}.{min(unknown)}", "is not a field of a label")
    threshold = entry.get("threshold")
    if threshold is not None and not 0 <= _number(threshold, f"{where}.threshold") <= 1:
        raise _invalid(f"{where}.threshold", "must lie in 0…1")
    optional = {
        key: _text(entry[key], f"{where}.{key}") for key in ("parent", "taxonomy_id") if entry.get(key) is not None
    }
    name, group = _text(entry.get("name"), f"{where}.name"), _text(entry.get("group"), f"{where}.group")
    return Label(name, group, threshold, **optional)


def _heads(value: object, labels: tuple[Label, ...]) -> Mapping[str, Head]:
    """`value` is one activation for all groups, or {group: activation} for exactly the groups that exist."""
    groups = {label.group for label in labels}
    heads = dict.fromkeys(groups, value) if isinstance(value, str) else _object(value, "head")
    if set(heads) != groups:
        raise _invalid("head", f"must name exactly the groups {sorted(groups)}")
    for group, head in heads.items():
        _choice(head, f"head.{group}", get_args(Head))
    return MappingProxyType(dict(sorted(heads.items())))
