"""Every route of the app against another account's objects: 404, by the application and, without it, by Postgres alone.

The cases come from the route table itself: a route that nobody has thought of here fails the first test.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from api.routing import Call, Operation
from db.session import Database
from tests.abuse.estate import ELSE, POLICY, SINCE, WEBHOOK_KEYS, Estate, estate, made, rows_of
from tests.api.conftest import Make, client_of
from tests.api.test_routes import operations
from tests.conftest import TestAccount

# What is the same for every account, and why.
INSTALLATION = {
    "GET /metrics": "sums over all accounts, behind a scope of operators",
    "POST /v1/training-runs": "models belong to the installation",
    "GET /v1/training-runs": "models belong to the installation",
    "GET /v1/training-runs/<uuid:run_id>": "models belong to the installation",
    "GET /v1/training-runs/<uuid:run_id>/log": "models belong to the installation",
    "POST /v1/training-runs/<uuid:run_id>/cancel": "models belong to the installation",
    "GET /v1/policy-schema": "a file",
}
# Lists and figures: those of another account do not stand in them. True: the owner finds an own id there.
LISTS = {
    "GET /v1/jobs": True,
    "GET /v1/moderations": True,
    "GET /v1/policies": True,
    "GET /v1/replays": True,
    "GET /v1/webhooks": True,
    "GET /v1/appeals": True,
    "GET /v1/audit": True,
    "GET /v1/reviews": True,
    "GET /v1/reviews/gold": True,
    "GET /v1/banks": True,
    "GET /v1/drift": False,
    "GET /v1/policy-assignments": False,
    "GET /v1/audit/verify": False,
    "GET /v1/reviews/quality": False,
    "GET /v1/reviews/exposure": False,
}
# Routes that make something of the asker's own out of nothing.
MAKING = {"POST /v1/policies", "POST /v1/policies/validate", "POST /v1/webhooks", "POST /v1/banks"}
Refers = Callable[[Estate], tuple[str, Any]]
# Routes whose query or body names something: the address and the body, with the other account's ids.
REFERRING: dict[str, Refers] = {
    "POST /v1/jobs": lambda e: (
        "/v1/jobs",
        {"items": [{"url": "http://a.test/"}], "policy": e.at["policy_name"]},
    ),
    "POST /v1/moderations": lambda e: ("/v1/moderations", {"url": "http://a.test/", "policy": e.at["policy_name"]}),
    "POST /v1/labels": lambda e: ("/v1/labels", {"labels": [{"item_id": e.items[2], "groups": {"category": "Dress"}}]}),
    "POST /v1/replays": lambda e: ("/v1/replays", {"since": SINCE, "policy": e.at["policy_name"]}),
    "PUT /v1/policy-assignments": lambda e: ("/v1/policy-assignments", {"policy": e.at["policy_name"]}),
    "POST /v1/reviews/claim": lambda e: ("/v1/reviews/claim", {"count": 100, "curator": True}),
    "POST /v1/reviews/decide": lambda e: (
        "/v1/reviews/decide",
        {"decisions": [{"id": e.at["review_id"], "version": e.review_version, "verdict": "approve"}]},
    ),
    "POST /v1/reviews/undo": lambda e: ("/v1/reviews/undo", {"ids": [e.at["review_id"]]}),
    "POST /v1/reviews/gold": lambda e: ("/v1/reviews/gold", {"item_id": e.items[1], "verdict": "reject"}),
    "GET /v1/banks/look-up": lambda e: (f"/v1/banks/look-up?item_id={e.items[0]}", None),
}
# What these say of a thing that is not there, where it is not 404.
SOFT = {
    "POST /v1/jobs": 422,
    "POST /v1/moderations": 422,
    "POST /v1/labels": 200,
    "POST /v1/reviews/claim": 200,
    "POST /v1/reviews/decide": 200,
}
# These know only what the very key that asks has done itself: nothing, here.
OWN_DOING = {"POST /v1/reviews/<uuid:review_id>/undo"}
BODIES: dict[str, Any] = {
    "PUT /v1/items/<item_id>/labels": {"json": {"groups": {"category": "Dress"}}},
    "PATCH /v1/webhooks/<uuid:webhook_id>": {"json": {"enabled": False}},
    "POST /v1/webhooks/<uuid:webhook_id>/redeliver": {"json": {"since": SINCE}},
    "POST /v1/items/<item_id>/appeals": {"json": {"text": "It is a dress."}},
    "POST /v1/moderations/<uuid:moderation_id>/appeals": {"json": {"text": "It is a dress."}},
    "POST /v1/reviews/<uuid:review_id>/decide": {"json": {"version": 1, "verdict": "approve"}},
    "POST /v1/reviews/<uuid:review_id>/escalate": {"json": {"version": 1}},
    "POST /v1/reviews/<uuid:review_id>/skip": {"json": {"version": 1}},
    "POST /v1/reviews/<uuid:review_id>/release": {"json": {"version": 1}},
    "POST /v1/reviews/<uuid:review_id>/comment": {"json": {"text": "Look."}},
    "PATCH /v1/banks/<uuid:bank_id>": {"json": {"enabled": False}},
    "POST /v1/banks/<uuid:bank_id>/entries": {"json": {"pdq": ELSE}},
    "PATCH /v1/banks/<uuid:bank_id>/entries/<uuid:entry_id>": {"json": {"enabled": False}},
    "POST /v1/banks/<uuid:bank_id>/import": {"data": f"pdq\n{ELSE}\n", "content_type": "text/csv"},
}


def name_of(op: Operation) -> str:
    return f"{op.method} {op.path}"


def with_objects(app: Flask) -> list[Operation]:
    """The routes that name an object of an account in their path; what only reads first, what removes last."""
    found = [op for op in operations(app) if "<" in op.path and name_of(op) not in INSTALLATION]
    order = ("GET", "PUT", "PATCH", "POST", "DELETE")
    return sorted(found, key=lambda op: (order.index(op.method), op.path.endswith(("cancel", "retire", "decide"))))


def address(op: Operation, things: dict[str, str]) -> str:
    return re.sub(r"<(?:\w+:)?(\w+)>", lambda parameter: things[parameter[1]], op.path)


def ask(client: FlaskClient, op: Operation, things: dict[str, str]) -> Any:
    return client.open(address(op, things), method=op.method, **BODIES.get(name_of(op), {}))


@pytest.fixture
def app(make_app: Make) -> Flask:
    return make_app(webhook_keys=WEBHOOK_KEYS)


@pytest.fixture
def victim(app: Flask, db: Database, account: TestAccount, tmp_path: Path) -> Estate:
    return estate(app, db, account, tmp_path / "blobs", "acme")


@pytest.fixture
def rival(app: Flask, db: Database, other: TestAccount, tmp_path: Path) -> Estate:
    """Somebody who owns one of everything too, so that a parent of the path may be an own one."""
    return estate(app, db, other, tmp_path / "blobs", "rival")


@contextmanager
def careless(attacker: TestAccount, victim: TestAccount) -> Iterator[None]:
    """The mutation: views and queries take the attacker for the victim. Only what the transaction says to Postgres,
    as it always does, is the truth."""
    kept, patched = Call.account_id, Call.transaction

    def transaction(self: Call) -> Any:
        return self.house.database.transaction(attacker.id)

    Call.account_id = property(lambda self: victim.id)  # type: ignore[assignment, method-assign]
    Call.transaction = transaction  # type: ignore[method-assign]
    try:
        yield
    finally:
        Call.account_id, Call.transaction = kept, patched  # type: ignore[method-assign]


def owner_of(owner_db: Database) -> str:
    """The name of the tables' owner, whom row-level security does not hold."""
    with owner_db.transaction() as session:
        return str(session.scalar(text("SELECT current_user")))


def test_every_route_has_its_case(app: Flask) -> None:
    routes = {name_of(op) for op in operations(app) if op.scope is not None}
    cases = {name_of(op) for op in with_objects(app)} | set(INSTALLATION) | set(LISTS) | MAKING | set(REFERRING)
    assert routes - cases == set(), "say in this file what another account may see of it"
    assert cases - routes == set(), "this route is gone"
    assert len(with_objects(app)) > 45
    bodies = {name_of(op) for op in with_objects(app) if op.body} - set(BODIES)
    assert bodies <= {"POST /v1/jobs/<uuid:job_id>/retry"}, "a body is read before anything is looked up: give one"


def test_another_accounts_objects_are_not_there(
    app: Flask, owner_db: Database, victim: Estate, other: TestAccount
) -> None:
    stranger, before = client_of(app, other), rows_of(owner_db, victim.account)
    for op in with_objects(app):
        answer = ask(stranger, op, victim.at)
        assert (answer.status_code, answer.json["code"]) == (404, "not_found"), name_of(op)
    assert rows_of(owner_db, victim.account) == before
    # The cases do reach something: its owner is never told that it is not there.
    for op in with_objects(app):
        if op.method != "DELETE" and name_of(op) not in OWN_DOING:
            assert ask(victim.client, op, victim.at).status_code != 404, name_of(op)


def test_an_own_parent_does_not_open_a_strangers_child(app: Flask, victim: Estate, rival: Estate) -> None:
    tried = 0
    for op in with_objects(app):
        names = re.findall(r"<(?:\w+:)?(\w+)>", op.path)
        if len(names) < 2 or "policy_name" in names:
            continue
        tried += 1
        mixed = {**rival.at, names[-1]: victim.at[names[-1]]}
        assert ask(rival.client, op, mixed).status_code == 404, name_of(op)
    assert tried >= 7


def test_row_level_security_alone_hides_them(
    app: Flask, owner_db: Database, victim: Estate, other: TestAccount
) -> None:
    stranger, before = client_of(app, other), rows_of(owner_db, victim.account)
    with careless(other, victim.account):
        found = {name_of(op): ask(stranger, op, victim.at) for op in with_objects(app)}
    wrong = {name: answer.status_code for name, answer in found.items() if answer.status_code != 404}
    assert wrong == {}
    assert rows_of(owner_db, victim.account) == before


def test_the_application_alone_hides_them(
    make_app: Make, owner_db: Database, victim: Estate, other: TestAccount
) -> None:
    """As the tables' owner, whom row-level security does not hold."""
    app = make_app(webhook_keys=WEBHOOK_KEYS, database_role=owner_of(owner_db))
    stranger, before = client_of(app, other), rows_of(owner_db, victim.account)
    for op in with_objects(app):
        assert ask(stranger, op, victim.at).status_code == 404, name_of(op)
    assert rows_of(owner_db, victim.account) == before


def test_without_both_walls_everything_is_open(
    make_app: Make, owner_db: Database, victim: Estate, other: TestAccount
) -> None:
    """The mutation of the two tests above: else a 404 would prove nothing."""
    app = make_app(webhook_keys=WEBHOOK_KEYS, database_role=owner_of(owner_db))
    stranger = client_of(app, other)
    with careless(other, victim.account):
        hidden = {name_of(op) for op in with_objects(app) if ask(stranger, op, victim.at).status_code == 404}
    # And what an earlier of these very requests has removed, with its bank.
    assert hidden <= OWN_DOING | {"DELETE /v1/banks/<uuid:bank_id>/entries/<uuid:entry_id>"}


@pytest.mark.parametrize("wall", ["both", "row-level security alone"])
def test_lists_hold_nothing_of_another_account(
    app: Flask, victim: Estate, rival: Estate, other: TestAccount, wall: str
) -> None:
    ids = victim.ids()
    stranger = client_of(app, other)
    for route, told in LISTS.items():
        path = route.removeprefix("GET ")
        if wall == "both":
            answer = stranger.get(path)
        else:
            with careless(other, victim.account):
                answer = stranger.get(path)
        body = answer.get_data(as_text=True)
        if answer.status_code == 404:  # nothing was computed yet
            continue
        assert answer.status_code == 200, (route, body)
        assert [each for each in ids if each in body] == [], route
        if told:
            own = victim.client.get(path).get_data(as_text=True)
            assert [each for each in ids if each in own], f"{route} shows its owner nothing, so the test is blind"


def test_a_strangers_cursor_leads_to_own_rows_only(app: Flask, victim: Estate, rival: Estate) -> None:
    for n in range(2):
        made(victim.client.post("/v1/jobs", json={"items": [{"url": f"http://acme.test/more/{n}"}]}))
    cursor = made(victim.client.get("/v1/jobs?limit=1"))["next"]
    assert cursor
    shown = made(rival.client.get(f"/v1/jobs?cursor={cursor}"))["jobs"]
    assert {job["id"] for job in shown} <= {rival.at["job_id"]}


@pytest.mark.parametrize("wall", ["both", "row-level security alone"])
@pytest.mark.parametrize("route", REFERRING)
def test_naming_a_strangers_object_does_not_reach_it(
    app: Flask, owner_db: Database, victim: Estate, other: TestAccount, route: str, wall: str
) -> None:
    method = route.partition(" ")[0]
    stranger, before = client_of(app, other), rows_of(owner_db, victim.account)
    path, body = REFERRING[route](victim)
    if wall == "both":
        answer = stranger.open(path, method=method, json=body)
    else:
        with careless(other, victim.account):
            answer = stranger.open(path, method=method, json=body)
    text_ = answer.get_data(as_text=True)
    assert answer.status_code == SOFT.get(route, 404), text_
    if route == "POST /v1/labels":
        assert (answer.json["labelled"], answer.json["errors"][0]["code"]) == (0, "not_found")
    if route == "POST /v1/reviews/decide":
        assert (answer.json["decided"], answer.json["refused"][0]["code"]) == ([], "not_found")
    if route == "POST /v1/reviews/claim":
        assert answer.json["reviews"] == []
    assert rows_of(owner_db, victim.account) == before


def test_banning_by_a_strangers_item_does_not_reach_it(app: Flask, victim: Estate, rival: Estate) -> None:
    answer = rival.client.post(f"/v1/banks/{rival.at['bank_id']}/entries", json={"item_id": victim.items[0]})
    assert answer.status_code == 404


def test_the_same_name_in_two_accounts_is_two_things(app: Flask, victim: Estate, rival: Estate) -> None:
    made(rival.client.post("/v1/policies", json={"source": POLICY.format(name="acme").replace("0.5", "0.9")}))
    assert "0.5" in made(victim.client.get("/v1/policies/acme/versions/1"))["source"]
    assert "0.9" in made(rival.client.get("/v1/policies/acme/versions/1"))["source"]
    stolen = made(rival.client.get("/v1/policies"))
    assert [each["name"] for each in stolen["policies"] if each["owner"] == "account"].count("acme") == 1
