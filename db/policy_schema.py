"""The JSON Schema (2020-12) of policy documents, for editors and clients. What it cannot say is said by validation."""

from typing import Any, Final

from db.policy_conditions import BOUNDS
from db.policy_document import CODE, MAX_REASONS, MAX_RULES, MAX_TEXT, NAME
from db.policy_evidence import NUMBERS, WORDS
from db.policy_rules import FALLBACKS, MODES
from db.policy_when import BITS, KINDS, MAX_NAME, MAX_PARTS
from db.states import VERDICTS

_NAME: Final = {"type": "string", "minLength": 1, "maxLength": MAX_NAME}
_SHARE: Final = {"type": "number", "minimum": 0, "maximum": 1}
_AMOUNT: Final = {"type": "number", "minimum": 0}


def _names(shortest: int = 1) -> dict[str, Any]:
    one = {"type": "string", "minLength": shortest, "maxLength": MAX_NAME}
    return {"oneOf": [one, {"type": "array", "items": one, "minItems": 1, "maxItems": MAX_PARTS, "uniqueItems": True}]}


def _object(description: str, required: list[str], /, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "description": description,
        "required": required,
        "properties": properties,
        "additionalProperties": False,
    }


def _compared(description: str, what: str, named: Any, bound: dict[str, Any], /, **more: Any) -> dict[str, Any]:
    """Something with at least one bound."""
    bounds = dict.fromkeys(BOUNDS, bound)
    found = _object(description, [what], **{what: named}, **more, **bounds)
    return {**found, "anyOf": [{"required": [each]} for each in BOUNDS]}


def _conditions() -> list[dict[str, Any]]:
    condition = {"$ref": "#/$defs/condition"}
    parts = {"type": "array", "items": condition, "minItems": 1, "maxItems": MAX_PARTS}
    several = {"type": "array", "items": _NAME, "minItems": 2, "maxItems": MAX_PARTS, "uniqueItems": True}
    within = {"type": "number", "minimum": 0, "maximum": BITS}
    kind = {"enum": [*KINDS, "any"]}
    bounds = dict.fromkeys(BOUNDS, _SHARE)
    return [
        _compared("The score of a class.", "score", _NAME, _SHARE),
        _compared("The sum of the scores of classes.", "sum", several, _AMOUNT),
        _object("A hash bank knows the picture.", ["bank"], bank=_NAME, bank_kind=kind, within=within),
        _object("A hash bank of a kind knows the picture.", ["bank_kind"], bank_kind=kind, within=within),
        _compared("A content fact that is a number.", "fact", {"enum": list(NUMBERS)}, _AMOUNT),
        {**_object("A content fact that is a word.", ["fact", "in"], fact={"enum": list(WORDS)}, **{"in": _names()})},
        _object("The tagger gives a label, with such a score.", ["tag"], tag=_NAME, group=_NAME, **bounds),
        _object(
            "The declared category is not among the tags of at least this score.",
            ["category_mismatch"],
            category_mismatch=_SHARE,
            group=_NAME,
        ),
        _object("The declared category is one of these.", ["category"], category=_names()),
        _object("The context is one of these; empty: none.", ["context"], context=_names(0)),
        _object("The account is one of these.", ["account"], account=_names()),
        _object("All of these hold.", ["all"], all=parts),
        _object("At least one of these holds.", ["any"], any=parts),
        _object("This does not hold.", ["not"], **{"not": condition}),
    ]


def schema() -> dict[str, Any]:
    """The schema of a policy as it is sent: versions are given by Tagmill."""
    text = {"type": "string", "maxLength": MAX_TEXT}
    rule = _object(
        "When the condition holds, `then` is the verdict.",
        ["id", "when", "then"],
        id={"type": "string", "pattern": f"^{NAME}$"},
        when={"$ref": "#/$defs/condition"},
        then={"enum": list(VERDICTS)},
        code={"type": "string", "pattern": f"^{CODE}$", "description": "The reason; without it, the id."},
        text={**text, "description": "For the person whose picture it is."},
    )
    reason = _object(
        "A reason for which people reject, and its text for the person whose picture it is.",
        ["code", "text"],
        code={"type": "string", "pattern": f"^{CODE}$"},
        text={**text, "minLength": 1},
    )
    fallback = {"enum": list(FALLBACKS)}
    common = {
        "name": {"type": "string", "pattern": f"^{NAME}$"},
        "description": text,
        "on_missing": {**fallback, "default": "review", "description": "Without the model that a rule needs."},
        "on_late": {"enum": [*FALLBACKS, None], "description": "Without waiting longer than late_after_s."},
        "late_after_s": {"type": ["number", "null"], "minimum": 1, "maximum": 30 * 86400},
        "audit_share": {**_SHARE, "default": 0, "description": "The share of automatic verdicts that people check."},
        "reject_reasons": {
            "type": "array",
            "items": reason,
            "maxItems": MAX_REASONS,
            "description": "What reviewers choose from when they reject, before the codes of rules that reject.",
        },
    }
    whole = _object(
        "A policy of rules.",
        ["name", "rules"],
        **common,
        mode={"enum": list(MODES), "default": "most_severe"},
        rules={"type": "array", "items": {"$ref": "#/$defs/rule"}, "maxItems": MAX_RULES},
        otherwise={"enum": list(VERDICTS), "default": "approve", "description": "Where no rule holds."},
    )
    threshold = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
    levels = {**_object("", [], review=threshold, reject=threshold), "minProperties": 1}
    short = _object(
        "A policy of thresholds by class.",
        ["name", "thresholds"],
        **common,
        thresholds={"type": "object", "additionalProperties": levels},
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tagmill policy",
        "oneOf": [whole, short],
        "$defs": {"rule": rule, "condition": {"oneOf": _conditions()}},
    }
