"""Policies over HTTP: checked by line, saved as drafts, activated, assigned; walled by account; pinned by jobs."""

import json
from typing import Any

import jsonschema
import pytest
from flask.testing import FlaskClient

from db.session import Database
from tests.api.conftest import client_of, key_with
from tests.conftest import TestAccount
from tests.worker.line import rows

POLICIES = "/v1/policies"
ASSIGNMENTS = "/v1/policy-assignments"
SHOP = """\
name: shop            # ours
mode: first_match
rules:
  - id: nudity
    when: {score: Porn, at_least: 0.5}
    then: reject
    text: No nudity, please.
otherwise: review
"""


def save(client: FlaskClient, source: str = SHOP) -> Any:
    answer = client.post(POLICIES, json={"source": source})
    assert answer.status_code == 201, answer.json
    return answer.json


def activate(client: FlaskClient, name: str, version: int = 1) -> Any:
    answer = client.post(f"{POLICIES}/{name}/versions/{version}/activate")
    assert answer.status_code == 200, answer.json
    return answer.json


def test_a_policy_goes_from_draft_to_active_to_retired(client: FlaskClient) -> None:
    made = save(client)
    assert (made["name"], made["version"], made["state"], made["owner"]) == ("shop", 1, "draft", "account")
    assert made["source"] == SHOP
    assert made["document"]["rules"][0]["when"] == {"score": "Porn", "at_least": 0.5}
    assert client.get(made["url"]).json == made
    assert save(client)["version"] == 1, "the same text again is the same version"
    assert activate(client, "shop")["state"] == "active"
    second = save(client, SHOP.replace("0.5", "0.6"))
    assert (second["version"], second["state"]) == (2, "draft")
    assert client.get(f"{POLICIES}/shop").json["version"] == 1, "a draft decides nothing"
    activate(client, "shop", 2)
    activate(client, "shop", 1)
    found = client.get(f"{POLICIES}/shop/versions").json
    assert [(each["version"], each["state"]) for each in found["versions"]] == [(2, "retired"), (1, "active")]
    assert [(each["version"], each["replaced"]) for each in found["activations"]] == [(1, 2), (2, 1), (1, None)]


def test_who_activated_it_is_in_the_audit_log(client: FlaskClient, account: TestAccount, owner_db: Database) -> None:
    save(client)
    activate(client, "shop")
    entries = rows(
        owner_db, "SELECT account_id, actor, action, subject FROM audit_log WHERE action LIKE 'policy.%' ORDER BY id"
    )
    actor = f"key:{account.key_id}"
    assert [tuple(entry) for entry in entries] == [
        (account.id, actor, "policy.add", "shop@1"),
        (account.id, actor, "policy.activate", "shop@1"),
    ]


def test_a_bad_policy_is_refused_with_the_line_that_is_wrong(client: FlaskClient) -> None:
    bad = SHOP.replace("at_least: 0.5", "at_least: 1.5").replace("then: reject", "then: ban")
    for path in (POLICIES, f"{POLICIES}/validate"):
        answer = client.post(path, json={"source": bad})
        assert (answer.status_code, answer.json["code"]) == (422, "invalid_policy")
        places = [(each["field"], each["line"], each["column"]) for each in answer.json["errors"]]
        assert places == [("rules[0].when.at_least", 5, 25), ("rules[0].then", 6, 5)]
    assert client.get(f"{POLICIES}/shop").status_code == 404
    as_object = client.post(POLICIES, json={"document": {"name": "shop", "rules": [{}]}})
    assert (as_object.status_code, as_object.json["errors"][0]["field"]) == (422, "rules[0].id")
    for neither in ({}, {"source": SHOP, "document": {}}):
        assert client.post(POLICIES, json=neither).json["code"] == "invalid_body"


def test_checking_stores_nothing_and_says_what_may_not_be_meant(client: FlaskClient) -> None:
    answer = client.post(f"{POLICIES}/validate", json={"source": SHOP})
    assert answer.json == {"name": "shop", "rules": 1, "classes": ["Porn"], "warnings": []}
    unknown = SHOP.replace("{score: Porn, at_least: 0.5}", "{bank: stolen}")
    warned = client.post(f"{POLICIES}/validate", json={"source": unknown}).json["warnings"]
    assert warned == ["There is no hash bank named stolen: the condition holds for no picture"]
    assert [each["name"] for each in client.get(POLICIES).json["policies"]] == ["default"]


def test_the_schema_takes_what_is_taken_and_refuses_what_is_refused(client: FlaskClient) -> None:
    schema = client.get("/v1/policy-schema").json
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    condition = {"any": [{"not": {"bank_kind": "block", "within": 20}}, {"fact": "format", "in": ["gif"]}]}
    good = {
        "name": "a",
        "rules": [{"id": "r", "when": condition, "then": "approve"}],
        "on_late": "review",
        "late_after_s": 5,
    }
    assert validator.is_valid(good)
    assert client.post(f"{POLICIES}/validate", json={"document": good}).status_code == 200
    for bad in (
        {"name": "a"},
        {"name": "A", "rules": []},
        {"name": "a", "rules": [], "mood": 1},
        {"name": "a", "rules": [{"id": "r", "then": "approve"}]},
        {"name": "a", "rules": [{"id": "r", "when": {"score": "Porn"}, "then": "approve"}]},
        {"name": "a", "rules": [{"id": "r", "when": {"sum": ["Porn"], "above": 1}, "then": "approve"}]},
        {"name": "a", "thresholds": {"Porn": {"review": 0}}},
    ):
        assert not validator.is_valid(bad), bad
        assert client.post(f"{POLICIES}/validate", json={"document": bad}).status_code == 422, bad


def test_another_accounts_policy_is_not_there(client: FlaskClient, app: Any, other: TestAccount) -> None:
    save(client)
    activate(client, "shop")
    theirs = client_of(app, other)
    for answer in (
        theirs.get(f"{POLICIES}/shop"),
        theirs.get(f"{POLICIES}/shop/versions"),
        theirs.get(f"{POLICIES}/shop/versions/1"),
        theirs.post(f"{POLICIES}/shop/versions/1/activate"),
        theirs.post(f"{POLICIES}/shop/versions/1/retire"),
        theirs.put(ASSIGNMENTS, json={"policy": "shop"}),
    ):
        assert (answer.status_code, answer.json["code"]) == (404, "not_found")
    own = save(theirs, SHOP.replace("0.5", "0.9"))
    assert own["version"] == 1, "a name is an account's own"
    assert client.get(f"{POLICIES}/shop").json["source"] == SHOP


def test_the_installations_policies_are_read_only(client: FlaskClient) -> None:
    found = client.get(f"{POLICIES}/default").json
    assert (found["owner"], found["state"], found["version"]) == ("installation", "active", 1)
    assert found["source"].startswith("name: default\nthresholds:\n")
    assert set(found["classes"]) == {"Porn", "Hentai", "Sexy"}
    taken = client.post(POLICIES, json={"source": SHOP.replace("name: shop", "name: default")})
    assert (taken.status_code, taken.json["code"]) == (409, "policy_name_taken")
    for act in ("activate", "retire"):
        answer = client.post(f"{POLICIES}/default/versions/1/{act}")
        assert (answer.status_code, answer.json["code"]) == (403, "policy_read_only")


@pytest.mark.parametrize(
    "name", ["nope", "a%00b", "%3Cscript%3E", "x" * 300, "..", "shop/versions/99999999999999999999"]
)
def test_odd_names_are_not_found(client: FlaskClient, name: str) -> None:
    assert client.get(f"{POLICIES}/{name}").status_code == 404


def test_assignments_decide_the_most_specific_first(client: FlaskClient, app: Any, other: TestAccount) -> None:
    draft = save(client)
    early = client.put(ASSIGNMENTS, json={"policy": "shop"})
    assert (early.status_code, early.json["code"]) == (409, "conflict")
    activate(client, "shop")
    answer = client.put(ASSIGNMENTS, json={"policy": "shop", "context": "avatar"})
    assert [(each["context"], each["policy"], each["owner"]) for each in answer.json["assignments"]] == [
        ("avatar", "shop", "account"),
        (None, "default", "installation"),
    ]
    used = client.post(f"{POLICIES}/shop/versions/1/retire")
    assert (used.status_code, used.json["code"]) == (409, "policy_in_use")
    assert "in context 'avatar'" in used.json["detail"]
    job = client.post("/v1/jobs", json={"items": [{"url": "http://h/a.png"}], "context": "avatar"}).json
    named = client.post("/v1/jobs", json={"items": [{"url": "http://h/a.png"}], "policy": "shop"}).json
    plain = client.post("/v1/jobs", json={"items": [{"url": "http://h/a.png"}]}).json
    pinned = [client.get(each["url"]).json["policy"] for each in (job, named, plain)]
    assert pinned == ["shop@1", "shop@1", "default@1"]
    assert client_of(app, other).get(ASSIGNMENTS).json["assignments"] == answer.json["assignments"][1:]
    back = client.put(ASSIGNMENTS, json={"policy": None, "context": "avatar"}).json
    assert [each["policy"] for each in back["assignments"]] == ["default"]
    assert [each["policy"] for each in back["history"]] == [None, "shop", "default"]
    assert client.post(f"{POLICIES}/shop/versions/1/retire").json["state"] == "retired"
    assert client.get(draft["url"]).json["state"] == "retired"


def test_a_job_cannot_ask_for_a_policy_that_does_not_decide(client: FlaskClient, app: Any, other: TestAccount) -> None:
    save(client)
    body = {"items": [{"url": "http://h/a.png"}], "policy": "shop"}
    draft = client.post("/v1/jobs", json=body)
    assert (draft.status_code, draft.json["code"]) == (422, "unknown_policy")
    activate(client, "shop")
    assert client.post("/v1/jobs", json=body).status_code == 202
    foreign = client_of(app, other).post("/v1/jobs", json=body)
    assert (foreign.status_code, foreign.json["code"]) == (422, "unknown_policy")
    bad = client.post("/v1/jobs", json=body | {"context": "A b"})
    assert (bad.status_code, bad.json["errors"][0]["field"]) == (422, "context")


def test_lists_go_on_where_the_page_before_ended(client: FlaskClient) -> None:
    for number in range(3):
        save(client, SHOP.replace("name: shop", f"name: shop-{number}"))
    first = client.get(f"{POLICIES}?limit=2").json
    second = client.get(f"{POLICIES}?limit=2&cursor={first['next']}").json
    names = [each["name"] for page in (first, second) for each in page["policies"]]
    assert names == ["default", "shop-0", "shop-1", "shop-2"]
    assert second["next"] is None
    assert client.get(f"{POLICIES}?cursor=x").json["code"] == "invalid_cursor"


def test_markup_in_a_policy_is_only_text(client: FlaskClient) -> None:
    source = SHOP.replace("No nudity, please.", "'<script>alert(1)</script>'")
    answer = client.post(POLICIES, json={"source": source})
    assert answer.content_type == "application/json"
    assert answer.json["document"]["rules"][0]["text"] == "<script>alert(1)</script>"
    assert client.post(POLICIES, json={"source": SHOP.replace("name: shop", "name: '<b>'")}).status_code == 422


def test_reading_and_writing_have_scopes_of_their_own(
    client: FlaskClient, app: Any, owner_db: Database, account: TestAccount
) -> None:
    reader = key_with(owner_db, account, "policies:read")
    plain = app.test_client()
    assert plain.get(POLICIES, headers=reader).status_code == 200
    answer = plain.post(POLICIES, headers=reader, data=json.dumps({"source": SHOP}))
    assert (answer.status_code, answer.json["code"]) == (403, "missing_scope")
