"""The policy engine: what is known of a picture in, a verdict with its reasons out. Pure: no I/O, no clock, no torch.

    Evidence ──► rules, each: holds · does not · cannot be known ──► Verdict(approve | review | reject, reasons, rule)

`first_match`: the first rule that holds decides. `most_severe`: of all rules that hold, the most severe verdict does.
Where none holds it is `otherwise`. A rule that cannot be evaluated never approves by that: for want of a model the
policy says what to do (`on_missing`, `on_late`), and a class or fact that is not known sends the picture to review.

Documents become policies in `db.policy_document`, conditions are `db.policy_conditions`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from db import policy_document
from db.policy_evidence import Evidence, Hit
from db.policy_logic import SCORES, TAGS, Gap
from db.policy_rules import FAIL_CLOSED, FAIL_OPEN, Policy, PolicyError, PolicyFault, Rule
from db.states import VERDICTS

__all__ = [
    "NO_POLICY",
    "Evidence",
    "Hit",
    "Policy",
    "PolicyError",
    "PolicyFault",
    "Rule",
    "Verdict",
    "decide",
    "settled_by",
    "validate",
]

NO_POLICY: Final = {"name": "none", "version": 0, "rules": [], "otherwise": "review"}
"""What jobs pin where no policy is active: people look at everything."""

SEVERITY: Final = {verdict: number for number, verdict in enumerate(VERDICTS)}


@dataclass(frozen=True, slots=True)
class Verdict:
    """approve, review or reject; why: [{code, verdict, rule?, text?, class?, score?, threshold?, …, also?}]; and the
    id of the rule that decided, None where no rule did."""

    verdict: str
    reasons: list[dict[str, Any]]
    rule: str | None = None


def validate(document: Mapping[str, Any]) -> Policy:
    """The policy that a document describes; PolicyError names every field that is wrong."""
    return policy_document.policy(document)


def decide(policy: Policy, evidence: Evidence) -> Verdict:
    """The verdict on a picture."""
    matched, unknown = _weigh(policy, evidence)
    if not unknown or _nothing_worse(policy, matched, unknown):
        return _decided(policy, evidence, matched)
    return _in_doubt(policy, evidence, matched, unknown)


def settled_by(policy: Policy, evidence: Evidence) -> Verdict | None:
    """The verdict that holds whatever the models say: `decide` gives the same, by the same rule, on this evidence with
    any scores and tags, or none. None where they could change it. Scores and tags in `evidence` are not looked at."""
    blind = replace(evidence, scores=None, tags=None, late=False)
    matched, unknown = _weigh(policy, blind)
    if unknown and not _nothing_worse(policy, matched, unknown):
        return None
    return _decided(policy, blind, matched)


def _weigh(policy: Policy, evidence: Evidence) -> tuple[list[Rule], list[Rule]]:
    """The rules that hold and those that cannot be known; of `first_match`, up to the first that holds."""
    matched: list[Rule] = []
    unknown: list[Rule] = []
    for rule in policy.rules:
        held = rule.when.holds(evidence)
        if held:
            matched.append(rule)
            if policy.first_match:
                break
        elif held is None:
            unknown.append(rule)
    return matched, unknown


def _nothing_worse(policy: Policy, matched: Sequence[Rule], unknown: Sequence[Rule]) -> bool:
    """What holds is as severe as anything that the rest could bring, doubt itself (review) included."""
    if policy.first_match or not matched:
        return False
    worst = max(SEVERITY[rule.then] for rule in matched)
    return worst >= max(SEVERITY["review"], *(SEVERITY[rule.then] for rule in unknown))


def _decided(policy: Policy, evidence: Evidence, matched: Sequence[Rule]) -> Verdict:
    if not matched:
        verdict = policy.otherwise
        return Verdict(verdict, [] if verdict == "approve" else [{"code": "no_rule_matched", "verdict": verdict}])
    rule = _deciding(evidence, matched)
    return Verdict(rule.then, [_reason(each, evidence) for each in matched], rule.id)


def _in_doubt(policy: Policy, evidence: Evidence, matched: Sequence[Rule], unknown: Sequence[Rule]) -> Verdict:
    doubts = list(_doubts(policy, evidence, unknown))
    reasons = [*(_reason(rule, evidence) for rule in matched), *doubts]
    worst = max((doubt["verdict"] for doubt in doubts), key=SEVERITY.__getitem__)
    if worst == "approve":  # fail_open all through: the rules that cannot be known are left out
        rest = _decided(policy, evidence, matched)
        return Verdict(rest.verdict, [*rest.reasons, *doubts], rest.rule)
    if matched and not policy.first_match:
        rule = _deciding(evidence, matched)
        if SEVERITY[rule.then] >= SEVERITY[worst]:
            return Verdict(rule.then, reasons, rule.id)
    return Verdict(worst, doubts if policy.first_match else reasons)


def _doubts(policy: Policy, evidence: Evidence, unknown: Sequence[Rule]) -> Iterator[dict[str, Any]]:
    """A reason for each thing that is not known, with what follows from it."""
    gaps: dict[Gap, None] = dict.fromkeys(gap for rule in unknown for gap in rule.when.gaps(evidence))
    absent = [gap for gap in (SCORES, TAGS) if gap in gaps]
    late = evidence.late and policy.on_late is not None
    how = policy.on_late if late and policy.on_late else policy.on_missing
    verdict = {FAIL_OPEN: "approve", FAIL_CLOSED: "reject"}.get(how, "review")
    if absent and late:
        yield {"code": "moderation_late", "verdict": verdict}
    elif absent:
        codes = {SCORES: "no_moderation_model", TAGS: "no_tags_model"}
        yield from ({"code": codes[gap], "verdict": verdict} for gap in absent)
    for kind, name in gaps:
        if kind == "class":
            yield {"code": "class_not_scored", "class": name, "verdict": "review"}
        elif kind == "fact":
            yield {"code": "fact_not_known", "fact": name, "verdict": "review"}


def _deciding(evidence: Evidence, matched: Sequence[Rule]) -> Rule:
    """The most severe rule; of several, one that holds without any score comes first, so that it is the same rule
    whether a model was asked or not; then the order of the document."""
    worst = max(SEVERITY[rule.then] for rule in matched)
    rules = [rule for rule in matched if SEVERITY[rule.then] == worst]
    if len(rules) > 1 and (evidence.scores is not None or evidence.tags is not None):
        blind = replace(evidence, scores=None, tags=None)
        rules = [rule for rule in rules if rule.when.holds(blind)] or rules
    return rules[0]


def _reason(rule: Rule, evidence: Evidence) -> dict[str, Any]:
    """What a rule found: the first finding beside the rule's own words, the others in `also`."""
    first, *others = rule.when.findings(evidence) or [{}]
    reason = {"code": rule.code, **first, "verdict": rule.then, "rule": rule.id}
    if rule.text:
        reason["text"] = rule.text
    if others:
        reason["also"] = others
    return reason
