"""From a document to a policy: every field is checked, and all that is wrong is said at once, by field path. Pure.

    {"name": "shop", "mode": "first_match", "rules": [{"id": "nudity", "when": {"score": "Porn", "at_least": 0.85},
     "then": "reject", "code": "nudity", "text": "…"}], "otherwise": "approve"}

The short form names thresholds by class and stands for rules (`_short`): `{"name", "version", "thresholds": {"Porn":
{"review": 0.3, "reject": 0.85}}}`, and what is not about rules. Conditions are read in `db.policy_when`.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from db.policy_conditions import Band, BankHit, Score
from db.policy_logic import All, Condition, Not
from db.policy_rules import FALLBACKS, MODES, Policy, PolicyError, RejectReason, Rule
from db.policy_when import Faults, Path, condition, is_class, number
from db.states import VERDICTS

MAX_RULES: Final = 200
MAX_TEXT: Final = 1000
MAX_REASONS: Final = 50
NAME: Final = r"[a-z0-9][a-z0-9_.-]{0,63}"
CODE: Final = r"[a-z][a-z0-9_]{0,63}"
OWN_CODES: Final = (
    "no_moderation_model",
    "no_tags_model",
    "moderation_late",
    "class_not_scored",
    "fact_not_known",
    "no_rule_matched",
)
"""The reasons that the engine gives by itself; no rule may give one of them."""
COMMON: Final = (
    "name",
    "version",
    "description",
    "on_missing",
    "on_late",
    "late_after_s",
    "audit_share",
    "reject_reasons",
)
_RULE_FIELDS: Final = ("id", "when", "then", "code", "text")
_PLAIN: Final = re.compile("[^\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]*")
_HIT_BLOCK, _HIT_ALLOW = BankHit(kind="block"), BankHit(kind="allow")


def policy(document: Mapping[str, Any]) -> Policy:
    """The policy; PolicyError with every fault."""
    faults = Faults()
    if not isinstance(document, Mapping):
        faults.add((), "must be an object with name and rules")
    found = None if faults.found else _policy(document, faults)
    if found is None:
        raise PolicyError(faults.found)
    return found


def is_name(text: str) -> bool:
    """Whether a policy could have this name."""
    return re.fullmatch(NAME, text) is not None


def _policy(document: Mapping[str, Any], faults: Faults) -> Policy | None:
    short = "thresholds" in document
    faults.unknown(document, ("thresholds", *COMMON) if short else ("mode", "rules", "otherwise", *COMMON), ())
    version = document.get("version", 0)
    if not isinstance(version, int) or isinstance(version, bool) or not 0 <= version < 2**31:
        faults.add(("version",), "must be an integer from 0")
    _matches(document.get("name"), NAME, ("name",), "a name of a-z, 0-9, _ . - (64 at most)", faults)
    on_late, late_after = document.get("on_late"), document.get("late_after_s")
    if (on_late is None) != (late_after is None):
        faults.add(("on_late",) if on_late is None else ("late_after_s",), "on_late and late_after_s go together")
    made = Policy(
        name=str(document.get("name")),
        version=version,
        rules=tuple(_short(document["thresholds"], faults) if short else _rules(document.get("rules"), faults)),
        mode=_choice(document, "mode", MODES, "most_severe", faults),
        otherwise=_choice(document, "otherwise", VERDICTS, "approve", faults),
        on_missing=_choice(document, "on_missing", FALLBACKS, "review", faults),
        on_late=None if on_late is None else _choice(document, "on_late", FALLBACKS, "review", faults),
        late_after_s=None if late_after is None else number(late_after, ("late_after_s",), 1, 30 * 86400, faults),
        audit_share=number(document.get("audit_share", 0.0), ("audit_share",), 0, 1, faults),
        description=_text(document.get("description", ""), ("description",), faults),
        reject_reasons=tuple(_reasons(document.get("reject_reasons", []), faults)),
    )
    return None if faults.found else made


def _rules(rules: object, faults: Faults) -> list[Rule]:
    if not isinstance(rules, list) or len(rules) > MAX_RULES:
        faults.add(("rules",), f"must be a list of at most {MAX_RULES} rules")
        return []
    made: list[Rule] = []
    ids: set[str] = set()
    for number_, rule in enumerate(rules):
        path: Path = ("rules", number_)
        if not isinstance(rule, Mapping):
            faults.add(path, "a rule is an object with id, when and then")
            continue
        found = _rule(rule, path, faults)
        if found.id in ids:
            faults.add((*path, "id"), f"{found.id} is the id of a rule before this one")
        ids.add(found.id)
        made.append(found)
    return made


def _rule(rule: Mapping[str, Any], path: Path, faults: Faults) -> Rule:
    faults.unknown(rule, _RULE_FIELDS, path)
    id_ = rule.get("id")
    _matches(id_, NAME, (*path, "id"), "a name of a-z, 0-9, _ . - (64 at most)", faults)
    code = rule.get("code", re.sub(r"[.-]", "_", str(id_)))
    where = (*path, "code") if "code" in rule else (*path, "id")
    _matches(code, CODE, where, "a reason code of a-z, 0-9, _ that begins with a letter (64 at most)", faults)
    if code in OWN_CODES:
        faults.add(where, f"{code} is a reason that Tagmill gives by itself: take another code")
    then = rule.get("then")
    if then not in VERDICTS:
        faults.add((*path, "then"), "must be approve, review or reject")
    if "when" not in rule:
        faults.add(path, "when is missing: the condition that the rule is about")
    when = condition(rule["when"], (*path, "when"), faults) if "when" in rule else None
    text = _text(rule.get("text", ""), (*path, "text"), faults)
    return Rule(str(id_), when or _HIT_BLOCK, str(then), str(code), text)


def _reasons(reasons: object, faults: Faults) -> list[RejectReason]:
    if not isinstance(reasons, list) or len(reasons) > MAX_REASONS:
        faults.add(("reject_reasons",), f"must be a list of at most {MAX_REASONS} reasons")
        return []
    made: dict[str, RejectReason] = {}
    for number_, reason in enumerate(reasons):
        path: Path = ("reject_reasons", number_)
        if not isinstance(reason, Mapping):
            faults.add(path, "a reason is an object with code and text")
            continue
        faults.unknown(reason, ("code", "text"), path)
        code = reason.get("code")
        _matches(code, CODE, (*path, "code"), "a reason code of a-z, 0-9, _ that begins with a letter", faults)
        if code in OWN_CODES:
            faults.add((*path, "code"), f"{code} is a reason that Tagmill gives by itself: take another code")
        if str(code) in made:
            faults.add((*path, "code"), f"{code} is the code of a reason before this one")
        words = _text(reason.get("text", ""), (*path, "text"), faults)
        if not words and isinstance(reason.get("text", ""), str):
            faults.add((*path, "text"), "must say to the person concerned why the picture is rejected")
        made[str(code)] = RejectReason(str(code), words)
    return list(made.values())


def _short(thresholds: object, faults: Faults) -> list[Rule]:
    """Thresholds as rules of `most_severe`: per class one for each verdict, the milder one below the severer one's
    threshold. Hash banks have their say without being named: a block bank rejects, an allow bank stills the scores."""
    rules = [
        Rule("bank_block", _HIT_BLOCK, "reject", "bank_block"),
        Rule("bank_allow", _HIT_ALLOW, "approve", "bank_allow"),
    ]
    if not isinstance(thresholds, Mapping):
        faults.add(("thresholds",), "must map classes to thresholds")
        return rules
    for label, levels in thresholds.items():
        path: Path = ("thresholds", str(label))
        if not is_class(label):
            faults.add(("thresholds",), "the name of a class is a text of at most 200 visible characters")
            continue
        if not isinstance(levels, Mapping) or not levels:
            faults.add(path, "must name review, reject or both")
            continue
        before = len(faults.found)
        for verdict, threshold in levels.items():
            if verdict not in ("review", "reject"):
                faults.add((*path, str(verdict)), "must be review or reject")
            elif number(threshold, (*path, str(verdict)), 0, 1, faults) <= 0 and len(faults.found) == before:
                faults.add((*path, str(verdict)), "must be a number above 0 and up to 1")
        if len(faults.found) > before:
            continue
        review, reject = levels.get("review"), levels.get("reject")
        if review is not None and reject is not None and review > reject:
            faults.add(path, "review must not need a higher score than reject")
            continue
        if reject is not None:
            rules.append(_threshold(str(label), "reject", Band(at_least=reject)))
        if review is not None and review != reject:
            rules.append(_threshold(str(label), "review", Band(at_least=review, below=reject)))
    return rules


def _threshold(label: str, verdict: str, band: Band) -> Rule:
    code = f"{label.lower()}_{verdict}"
    when: Condition = All((Not(_HIT_ALLOW), Score((label,), band)))
    return Rule(code, when, verdict, code)


def _choice(document: Mapping[str, Any], field: str, choices: tuple[str, ...], default: str, faults: Faults) -> str:
    value = document.get(field, default)
    if value not in choices:
        faults.add((field,), f"must be {', '.join(choices[:-1])} or {choices[-1]}")
    return str(value)


def _matches(value: object, pattern: str, path: Path, what: str, faults: Faults) -> None:
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        faults.add(path, f"must be {what}")


def _text(value: object, path: Path, faults: Faults) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT or not _PLAIN.fullmatch(value):
        faults.add(path, f"must be plain text of at most {MAX_TEXT} characters")
        return ""
    return value.strip()
