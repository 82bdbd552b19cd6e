"""The policy engine: what decides, what it says of it, and what it does not know."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from db import policy
from db.policy import Evidence, Hit, Policy, decide, settled_by
from db.policy_evidence import facts
from db.states import VERDICTS

DEFAULT = policy.validate(
    {"name": "p", "version": 1, "thresholds": {"Porn": {"review": 0.3, "reject": 0.85}, "Sexy": {"review": 0.6}}}
)
ENTRY = UUID(int=7)
BLOCKED = Hit("bans", "block", ENTRY, 12, "sold as somebody else's")
ALLOWED = Hit("our photos", "allow", ENTRY, 3)
FACTS = facts(width=640, height=400, bytes=50_000, format="JPEG", sharpness=80.0)
TAGS = [{"label": "dress", "group": "category", "score": 0.8}, {"label": "red", "group": "colour", "score": 0.4}]
CALM = {"Porn": 0.1, "Sexy": 0.1}


def rules(*given: Mapping[str, Any], **fields: Any) -> Policy:
    """A policy of these rules; a rule's id is its code, and it rejects unless it says otherwise."""
    numbered = [{"id": f"r{number}", "then": "reject", **rule} for number, rule in enumerate(given)]
    return policy.validate({"name": "p", "version": 3, "rules": numbered, **fields})


def verdict(when: Mapping[str, Any], **known: Any) -> str:
    evidence = Evidence(**{"scores": CALM, "tags": TAGS, "facts": FACTS, **known})
    return decide(rules({"when": when}), evidence).verdict


def scored(**scores: float) -> Evidence:
    return Evidence(CALM | scores)


def test_verdicts_follow_the_thresholds() -> None:
    assert decide(DEFAULT, scored(Porn=0.29)).verdict == "approve"
    review = decide(DEFAULT, scored(Porn=0.3))
    assert (review.verdict, review.reasons[0]["code"], review.rule) == ("review", "porn_review", "porn_review")
    both = decide(DEFAULT, scored(Porn=0.85, Sexy=0.6))
    assert (both.verdict, both.rule) == ("reject", "porn_reject")
    assert [reason["code"] for reason in both.reasons] == ["porn_reject", "sexy_review"]
    assert both.reasons[0] == {
        "code": "porn_reject",
        "class": "Porn",
        "score": 0.85,
        "threshold": 0.85,
        "verdict": "reject",
        "rule": "porn_reject",
    }


def test_no_score_is_never_an_approval() -> None:
    assert decide(DEFAULT, Evidence(None)).verdict == "review"
    assert decide(DEFAULT, Evidence({"Porn": 0.0})).reasons == [
        {"code": "class_not_scored", "class": "Sexy", "verdict": "review"}
    ]
    assert decide(DEFAULT, scored(Porn=float("nan"))).verdict == "review"
    assert decide(rules({"when": {"score": "Porn", "below": 0.5}}), scored(Porn=float("nan"))).verdict == "review"
    approving = rules({"when": {"score": "Porn", "below": 0.5}, "then": "approve"}, otherwise="reject")
    assert decide(approving, scored(Porn=float("nan"))).verdict == "review"


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_higher_score_is_never_judged_milder(one: float, two: float) -> None:
    def severity(score: float) -> int:
        return VERDICTS.index(decide(DEFAULT, scored(Porn=score)).verdict)

    assert severity(min(one, two)) <= severity(max(one, two))


def test_thresholds_leave_banks_their_say() -> None:
    assert decide(DEFAULT, replace(scored(), hits=[BLOCKED])).rule == "bank_block"
    assert decide(DEFAULT, replace(scored(Porn=0.99), hits=[ALLOWED])).verdict == "approve"
    assert decide(DEFAULT, replace(scored(), hits=[BLOCKED, ALLOWED])).verdict == "reject"


@pytest.mark.parametrize(
    ("when", "known", "expected"),
    [
        ({"score": "Porn", "at_least": 0.1}, {}, "reject"),
        ({"score": "Porn", "above": 0.1}, {}, "approve"),
        ({"score": "Porn", "at_least": 0.05, "below": 0.1}, {}, "approve"),
        ({"score": "Porn", "at_most": 0.1}, {}, "reject"),
        ({"sum": ["Porn", "Sexy"], "at_least": 0.2}, {}, "reject"),
        ({"sum": ["Porn", "Sexy"], "above": 0.2}, {}, "approve"),
        ({"sum": ["Porn", "Other"], "at_least": 0.2}, {}, "review"),
        ({"bank": "bans"}, {"hits": [BLOCKED]}, "reject"),
        ({"bank": "others"}, {"hits": [BLOCKED]}, "approve"),
        ({"bank_kind": "block", "within": 11}, {"hits": [BLOCKED]}, "approve"),
        ({"bank_kind": "block", "within": 12}, {"hits": [ALLOWED, BLOCKED]}, "reject"),
        ({"bank_kind": "any"}, {"hits": [ALLOWED]}, "reject"),
        ({"bank_kind": "any"}, {}, "approve"),
        ({"fact": "short_side", "below": 401}, {}, "reject"),
        ({"fact": "aspect", "above": 1.6}, {}, "approve"),
        ({"fact": "sharpness", "below": 100}, {}, "reject"),
        ({"fact": "format", "in": ["gif", "JPEG"]}, {}, "reject"),
        ({"fact": "pdq_quality", "below": 50}, {}, "review"),
        ({"tag": "dress"}, {}, "reject"),
        ({"tag": "dress", "above": 0.8}, {}, "approve"),
        ({"tag": "red", "group": "category"}, {}, "approve"),
        ({"tag": "red", "group": "colour", "at_least": 0.4}, {}, "reject"),
        ({"not": {"tag": "shoe"}}, {}, "reject"),
        ({"category_mismatch": 0.3}, {"category": "shoe"}, "reject"),
        ({"category_mismatch": 0.3}, {"category": "dress"}, "approve"),
        ({"category_mismatch": 0.9}, {"category": "dress"}, "reject"),
        ({"category_mismatch": 0.3, "group": "category"}, {"category": "red"}, "reject"),
        ({"category_mismatch": 0.3}, {}, "approve"),
        ({"category_mismatch": 0.3}, {"tags": None}, "approve"),
        ({"category": ["shoe", "bag"]}, {"category": "bag"}, "reject"),
        ({"context": "avatar"}, {"context": "avatar"}, "reject"),
        ({"context": ["avatar", ""]}, {}, "reject"),
        ({"account": ["acme"]}, {"account": "acme"}, "reject"),
        ({"account": ["acme"]}, {"account": "other"}, "approve"),
        ({"all": [{"context": "avatar"}, {"score": "Other", "at_least": 0.1}]}, {}, "approve"),
        ({"any": [{"context": ""}, {"score": "Other", "at_least": 0.1}]}, {}, "reject"),
        ({"any": [{"context": "x"}, {"score": "Other", "at_least": 0.1}]}, {}, "review"),
        ({"not": {"score": "Other", "at_least": 0.1}}, {}, "review"),
        ({"not": {"not": {"score": "Porn", "at_least": 0.1}}}, {}, "reject"),
    ],
)
def test_conditions(when: Mapping[str, Any], known: Mapping[str, Any], expected: str) -> None:
    assert verdict(when, **known) == expected


def test_the_first_match_decides_or_the_most_severe() -> None:
    both = (
        {"id": "ours", "when": {"bank_kind": "allow"}, "then": "approve"},
        {"id": "nudity", "when": {"score": "Porn", "at_least": 0.5}, "text": "No nudity, please."},
    )
    evidence = replace(scored(Porn=0.9), hits=[ALLOWED])
    first, severe = (decide(rules(*both, mode=mode), evidence) for mode in ("first_match", "most_severe"))
    assert (first.verdict, first.rule, len(first.reasons)) == ("approve", "ours", 1)
    assert (severe.verdict, severe.rule, len(severe.reasons)) == ("reject", "nudity", 2)
    assert severe.reasons[1]["text"] == "No nudity, please."


def test_a_reason_names_all_that_was_found() -> None:
    when = {
        "all": [
            {"bank": "bans", "within": 20},
            {"score": "Porn", "above": 0.05, "below": 0.5},
            {"not": {"tag": "shoe", "at_least": 0.5}},
            {"fact": "aspect", "at_most": 2},
        ]
    }
    found = decide(rules({"when": when, "code": "banned"}), Evidence(CALM, TAGS, FACTS, [BLOCKED]))
    assert found.reasons == [
        {
            "code": "banned",
            "bank": "bans",
            "kind": "block",
            "entry": str(ENTRY),
            "distance": 12,
            "bank_reason": "sold as somebody else's",
            "verdict": "reject",
            "rule": "r0",
            "also": [
                {"class": "Porn", "score": 0.1, "threshold": 0.05, "bound": "above", "below": 0.5},
                {"not": True, "tag": "shoe", "score": None, "threshold": 0.5},
                {"fact": "aspect", "value": 1.6, "threshold": 2, "bound": "at_most"},
            ],
        }
    ]


def test_otherwise_is_a_verdict_with_a_reason() -> None:
    found = decide(rules(otherwise="review"), scored())
    assert (found.verdict, found.rule) == ("review", None)
    assert found.reasons == [{"code": "no_rule_matched", "verdict": "review"}]
    assert decide(policy.validate(policy.NO_POLICY), scored()).verdict == "review"


@pytest.mark.parametrize(
    ("on_missing", "expected"), [("fail_open", "approve"), ("fail_closed", "reject"), ("review", "review")]
)
@pytest.mark.parametrize("mode", ["first_match", "most_severe"])
def test_a_missing_model_fails_as_the_policy_says(mode: str, on_missing: str, expected: str) -> None:
    strict = rules({"when": {"score": "Porn", "at_least": 0.5}}, mode=mode, on_missing=on_missing)
    found = decide(strict, Evidence(None))
    assert (found.verdict, found.rule) == (expected, None)
    assert found.reasons == [{"code": "no_moderation_model", "verdict": expected}]
    tagged = rules({"when": {"tag": "gun"}}, mode=mode, on_missing=on_missing)
    assert decide(tagged, Evidence(CALM)).reasons == [{"code": "no_tags_model", "verdict": expected}]


def test_fail_open_is_no_way_around_the_rules_that_need_no_model() -> None:
    open_ = rules(
        {"when": {"score": "Porn", "at_least": 0.5}},
        {"when": {"fact": "short_side", "below": 500}, "then": "review", "code": "too_small"},
        on_missing="fail_open",
    )
    found = decide(open_, Evidence(None, facts=FACTS))
    assert (found.verdict, found.rule) == ("review", "r1")
    assert [reason["code"] for reason in found.reasons] == ["too_small", "no_moderation_model"]


def test_lateness_has_its_own_answer() -> None:
    late = rules(
        {"when": {"score": "Porn", "at_least": 0.5}}, on_missing="fail_closed", on_late="fail_open", late_after_s=60
    )
    assert decide(late, Evidence(None)).verdict == "reject"
    found = decide(late, Evidence(None, late=True))
    assert (found.verdict, found.reasons) == ("approve", [{"code": "moderation_late", "verdict": "approve"}])
    assert decide(late, Evidence({"Porn": 0.9}, late=True)).verdict == "reject", "known scores are used, however late"


def test_bank_hits_settle_before_any_network() -> None:
    assert settled_by(DEFAULT, Evidence(None)) is None
    blocked = settled_by(DEFAULT, Evidence(None, hits=[BLOCKED]))
    assert blocked is not None
    assert (blocked.verdict, blocked.rule) == ("reject", "bank_block")
    allowed = settled_by(DEFAULT, Evidence(None, hits=[ALLOWED]))
    assert allowed is not None
    assert allowed.verdict == "approve"


numbers = st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0])
scores = st.one_of(
    st.none(),
    st.dictionaries(
        st.sampled_from(["Porn", "Sexy", "Neutral"]), st.one_of(numbers, st.just(float("nan"))), max_size=3
    ),
)
tagged = st.one_of(
    st.none(),
    st.lists(
        st.builds(lambda label, score: {"label": label, "group": "g", "score": score}, st.sampled_from("ab"), numbers),
        max_size=2,
    ),
)
blind = st.builds(
    Evidence,
    st.none(),
    st.none(),
    st.sampled_from([FACTS, {}, facts(width=9, height=9, bytes=9, format="gif")]),
    st.lists(st.sampled_from([BLOCKED, ALLOWED]), max_size=2, unique=True),
    st.sampled_from(["", "avatar"]),
    st.just("acme"),
    st.sampled_from([None, "a", "c"]),
    st.booleans(),
)
leaf = st.one_of(
    st.builds(lambda c, t: {"score": c, "at_least": t}, st.sampled_from(["Porn", "Sexy"]), numbers),
    st.builds(lambda t: {"score": "Neutral", "at_most": t}, numbers),
    st.builds(lambda t: {"sum": ["Porn", "Sexy"], "above": t}, numbers),
    st.builds(
        lambda kind, within: {"bank_kind": kind, "within": within}, st.sampled_from(["block", "any"]), st.just(9)
    ),
    st.just({"bank": "bans"}),
    st.just({"fact": "sharpness", "below": 50}),
    st.just({"context": "avatar"}),
    st.builds(lambda t: {"tag": "a", "at_least": t}, numbers),
    st.just({"category_mismatch": 0.5}),
)
conditions = st.recursive(
    leaf,
    lambda part: st.one_of(
        st.builds(lambda parts: {"all": parts}, st.lists(part, min_size=1, max_size=3)),
        st.builds(lambda parts: {"any": parts}, st.lists(part, min_size=1, max_size=3)),
        st.builds(lambda inner: {"not": inner}, part),
    ),
    max_leaves=5,
)
policies = st.builds(
    lambda found, fields: rules(*found, **fields),
    st.lists(
        st.builds(lambda when, then: {"when": when, "then": then}, conditions, st.sampled_from(VERDICTS)), max_size=5
    ),
    st.fixed_dictionaries(
        {
            "mode": st.sampled_from(["first_match", "most_severe"]),
            "otherwise": st.sampled_from(VERDICTS),
            "on_missing": st.sampled_from(["fail_open", "fail_closed", "review"]),
        },
        optional={},
    ).flatmap(
        lambda fields: st.sampled_from(
            [
                fields,
                {**fields, "on_late": "fail_open", "late_after_s": 9},
                {**fields, "on_late": "fail_closed", "late_after_s": 9},
            ]
        )
    ),
)


@given(policies, blind, scores, tagged)
def test_what_is_settled_no_score_can_change(any_: Policy, known: Evidence, said: Any, seen: Any) -> None:
    settled = settled_by(any_, known)
    event("settled" if settled else "open")
    if settled is None:
        return
    found = decide(any_, replace(known, scores=said, tags=seen))
    assert (found.verdict, found.rule) == (settled.verdict, settled.rule)


@given(policies, blind, scores, tagged)
def test_doubt_never_approves(any_: Policy, known: Evidence, said: Any, seen: Any) -> None:
    """Without fail_open, what is not known can only make a verdict more severe than approve."""
    evidence = replace(known, scores=said, tags=seen)
    found = decide(any_, evidence)
    doubts = {reason["code"] for reason in found.reasons if "rule" not in reason} - {"no_rule_matched"}
    if doubts & {"class_not_scored", "fact_not_known"} or (
        doubts and not (any_.on_missing == "fail_open" or any_.on_late == "fail_open")
    ):
        assert found.verdict != "approve"
    if found.rule is not None:
        deciding = next(rule for rule in any_.rules if rule.id == found.rule)
        assert deciding.when.holds(evidence)
        assert deciding.then == found.verdict
