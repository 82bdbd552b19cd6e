"""Policies as text: what is wrong is named by line, and nothing of the text is executed, expanded or guessed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db import policy_schema, policy_text
from db.policy import PolicyError
from db.policy_document import OWN_CODES
from tests.db.test_policy import conditions

START = "name: shop\nrules:\n"
RULE = {"id": "r", "when": {"score": "Porn", "at_least": 0.5}, "then": "reject"}


def faults(text: str) -> list[tuple[int | None, int | None, str]]:
    """Where each fault is; empty for a policy."""
    try:
        policy_text.read(text)
    except PolicyError as error:
        return [(fault.line, fault.column, fault.field) for fault in error.faults]
    return []


def refused(document: dict[str, Any]) -> list[str]:
    """The fields that are wrong; empty for a policy."""
    try:
        policy_text.written(document)
    except PolicyError as error:
        return [fault.field for fault in error.faults]
    return []


def test_everything_that_is_wrong_is_named_by_line() -> None:
    text = START + (
        "  - id: a\n"
        "    when:\n"
        "      all:\n"
        "        - {score: Porn, at_least: 2}\n"
        "        - fact: colour\n"
        "          below: 3\n"
        "    then: ban\n"
        "  - id: a\n"
        "    when: {tag: dress}\n"
        "    then: approve\n"
        "mood: good\n"
    )
    assert faults(text) == [
        (6, 25, "rules[0].when.all[0].at_least"),
        (7, 11, "rules[0].when.all[1].fact"),
        (9, 5, "rules[0].then"),
        (10, 5, "rules[1].id"),
        (13, 1, "mood"),
    ]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("name: a\nrules: [1, 2", (2, 13), "not YAML"),
        ("name: a\n\trules: []", (2, 1), "not YAML"),
        ("name: a\nname: b\nrules: []", (2, 1), "given twice"),
        ("name: &x a\nrules: []", (1, 7), "anchors"),
        ("name: a\nrules: *x", (2, 8), "aliases"),
        ("name: !!python/name:os.system a", (1, 7), "tags are not read"),
        ("name: !!str a\nrules: []", (1, 7), "tags are not read"),
        ("<<: {name: a}\nrules: []", (1, 1), "merge keys"),
        ("? [a, b]\n: 1", (1, 3), "plain word"),
        ("name: a\nrules: []\n---\nname: b", (3, 1), "one document"),
        ("- name: a", (1, 1), "a mapping"),
        ("", (1, 1), "a mapping"),
        ("name: a\x07b", (1, 8), "U+0007"),
        ('{"name": "\\ud83d", "rules": []}', (1, 10), "lone surrogate"),
        ('{"name": "a\\u0000", "rules": []}', (1, 10), "NUL"),
        ("name: a\nversion: 3\nrules: []", (2, 1), "given by Tagmill"),
        ("name: a\nrules: " + "[" * 60_000, (2, None), "deep"),
        ("x: " + "a" * 70_000, (1, 1), "65536 characters"),
        ("name: a\nrules: [" + "1," * 12_000 + "]", (2, None), "10000 values"),
    ],
)
def test_what_is_no_plain_data_is_refused(text: str, place: tuple[int, int | None], words: str) -> None:
    with pytest.raises(PolicyError) as error:
        policy_text.read(text)
    first = error.value.faults[0]
    assert words in first.detail
    assert (first.line, first.column if place[1] else None) == place


def test_json_is_read_too_with_its_tabs_and_its_lines() -> None:
    document = {"name": "a", "description": "\U0001f600 \u2028", "rules": [RULE]}
    assert policy_text.read(json.dumps(document, indent="\t")).document == document
    broken = json.dumps({**document, "mode": "x"}, indent="\t")
    assert faults(broken) == [(14, 2, "mode")]


def test_words_stay_words_and_numbers_are_numbers() -> None:
    text = START + "  - {id: no, when: {fact: format, in: [on, no, 'true']}, then: reject, text: 2026-11-22}\n"
    rule = policy_text.read(text).document["rules"][0]
    assert rule["when"]["in"] == ["on", "no", "true"]
    assert (rule["id"], rule["text"]) == ("no", "2026-11-22")
    numbers = START.replace("rules:", "rules: []") + "audit_share: 1e-1"
    assert policy_text.read(numbers).document["audit_share"] == 0.1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "Shop"}, "name"),
        ({"name": "a" * 65}, "name"),
        ({"rules": None}, "rules"),
        ({"rules": [RULE] * 201}, "rules"),
        ({"mode": "first"}, "mode"),
        ({"otherwise": "ban"}, "otherwise"),
        ({"on_missing": "approve"}, "on_missing"),
        ({"on_late": "review"}, "late_after_s"),
        ({"late_after_s": 60}, "on_late"),
        ({"on_late": "review", "late_after_s": 0}, "late_after_s"),
        ({"audit_share": 1.5}, "audit_share"),
        ({"audit_share": float("nan")}, "audit_share"),
        ({"audit_share": True}, "audit_share"),
        ({"description": "\x1b[31m"}, "description"),
        ({"description": 3}, "description"),
        ({"thresholds": {}}, "rules"),
        ({"rules": [{**RULE, "id": "R"}]}, "rules[0].id"),
        ({"rules": [{**RULE, "code": "Not ok"}]}, "rules[0].code"),
        ({"rules": [{**RULE, "code": OWN_CODES[0]}]}, "rules[0].code"),
        ({"rules": [{**RULE, "text": "x" * 1001}]}, "rules[0].text"),
        ({"rules": [{**RULE, "colour": 1}]}, "rules[0].colour"),
        ({"rules": [{"id": "r", "then": "approve"}]}, "rules[0]"),
        ({"rules": [RULE, RULE]}, "rules[1].id"),
        ({"rules": ["r"]}, "rules[0]"),
    ],
)
def test_fields_are_checked(change: dict[str, Any], field: str) -> None:
    assert field in refused({"name": "shop", "rules": [], **change})


@pytest.mark.parametrize(
    ("when", "field"),
    [
        ({}, ""),
        ([], ""),
        ({"colour": "red"}, ""),
        ({"score": "Porn"}, ""),
        ({"score": "Porn", "tag": "dress", "above": 0.5}, ""),
        ({"score": "Porn", "above": 0.5, "at_least": 0.5}, ""),
        ({"score": "Porn", "at_least": 0.6, "below": 0.5}, ""),
        ({"score": "Porn", "at_least": 0.5, "below": 0.5}, ""),
        ({"score": "Porn", "above": "0.5"}, ".above"),
        ({"score": "Porn", "above": float("nan")}, ".above"),
        ({"score": 3, "above": 0.5}, ".score"),
        ({"score": "a\x00", "above": 0.5}, ".score"),
        ({"score": "Porn", "above": 0.5, "within": 3}, ".within"),
        ({"sum": "Porn", "above": 0.5}, ".sum"),
        ({"sum": ["Porn", "Porn"], "above": 0.5}, ".sum"),
        ({"sum": ["Porn", "Sexy"], "above": 2.5}, ".above"),
        ({"bank_kind": "red"}, ".bank_kind"),
        ({"bank": "x", "within": 257}, ".within"),
        ({"fact": "colour", "below": 3}, ".fact"),
        ({"fact": ["width"], "below": 3}, ".fact"),
        ({"fact": "format"}, ".in"),
        ({"fact": "width", "in": ["a"]}, ".in"),
        ({"category_mismatch": True}, ".category_mismatch"),
        ({"category": []}, ".category"),
        ({"account": [""]}, ".account[0]"),
        ({"all": []}, ".all"),
        ({"any": {}}, ".any"),
        ({"not": []}, ".not"),
        ({"all": [{"tag": "a"}, {"tag": ""}]}, ".all[1].tag"),
    ],
)
def test_conditions_are_checked(when: Any, field: str) -> None:
    found = refused({"name": "shop", "rules": [{"id": "r", "when": when, "then": "reject"}]})
    assert f"rules[0].when{field}" in found


def test_conditions_are_nested_eight_deep_at_most() -> None:
    when: dict[str, Any] = {"tag": "a"}
    for _ in range(7):
        when = {"not": when}
    rule = {"id": "r", "then": "reject"}
    policy_text.written({"name": "shop", "rules": [{**rule, "when": when}]})
    assert refused({"name": "shop", "rules": [{**rule, "when": {"not": when}}]}) == ["rules[0].when" + ".not" * 8]


@given(st.lists(conditions, max_size=3))
def test_what_is_valid_can_be_written_and_read_again(whens: list[dict[str, Any]]) -> None:
    rules = [{"id": f"r{number}", "when": when, "then": "reject"} for number, when in enumerate(whens)]
    document = {"name": "shop", "rules": rules, "description": "a: b # c"}
    first = policy_text.written(document)
    again = policy_text.read(first.text)
    assert (again.document, again.policy) == (document, first.policy)


@given(st.text(max_size=200))
def test_any_text_is_a_policy_or_names_its_faults(text: str) -> None:
    assert all(line is not None and line >= 1 for line, _, _ in faults(text))


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(["score", "all", "any", "not", "tag", "bank", "fact", "at_least", "x"]),
                inner,
                max_size=3,
            ),
        ),
        max_leaves=8,
    )
)
def test_any_condition_is_one_or_names_its_faults(when: Any) -> None:
    document = {"name": "shop", "rules": [{"id": "r", "when": when, "then": "reject"}]}
    wrong = refused(document)
    assert all(field.startswith("rules[0].when") for field in wrong)
    if not wrong:
        assert policy_text.read(policy_text.written(document).text).policy == policy_text.written(document).policy


def test_what_people_reject_for_is_checked_as_rules_are() -> None:
    good = {"name": "shop", "thresholds": {"Porn": {"reject": 0.5}}, "reject_reasons": [{"code": "a", "text": "A."}]}
    assert policy_text.written(good).policy.offered == {"a": "A.", "bank_block": "", "porn_reject": ""}
    assert refused({**good, "reject_reasons": {"a": "A."}}) == ["reject_reasons"]
    assert refused({**good, "reject_reasons": [{"code": "a", "text": "A."}] * 51}) == ["reject_reasons"]
    wrong = [
        "a",
        {"code": "A b", "text": "A."},
        {"code": "moderation_late", "text": "A."},
        {"code": "a", "text": " "},
        {"code": "b"},
        {"code": "c", "text": 3},
        {"code": "c", "text": "A.", "verdict": "reject"},
    ]
    assert sorted(refused({**good, "reject_reasons": wrong})) == [
        "reject_reasons[0]",
        "reject_reasons[1].code",
        "reject_reasons[2].code",
        "reject_reasons[3].text",
        "reject_reasons[4].text",
        "reject_reasons[5].text",
        "reject_reasons[6].code",
        "reject_reasons[6].verdict",
    ]


def test_the_schema_has_every_field_of_the_checks() -> None:
    from db.policy_document import COMMON
    from db.policy_when import READERS

    schema = policy_schema.schema()
    whole, short = schema["oneOf"]
    common = set(COMMON) - {"version"}
    assert whole["properties"].keys() == common | {"mode", "rules", "otherwise"}
    assert short["properties"].keys() == common | {"thresholds"}
    named = {name for each in schema["$defs"]["condition"]["oneOf"] for name in each["properties"]}
    assert READERS.keys() <= named
