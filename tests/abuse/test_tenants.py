"""Every route of the app against another account's objects: 404, by the application and, without it, by Postgres alone.

The cases come from the route table itself: a route that nobody has thought of here fails the first test.
"""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from api.routing import Call, Operation
from db.blobs import LocalBlobs
from db.session import Database
from tests.abuse.cases import BODIES, INSTALLATION, LISTS, MAKING, OWN_DOING, REFERRING, SOFT
from tests.abuse.estate import POLICY, WEBHOOK_KEYS, Estate, estate, made, rows_of
from tests.api.conftest import Make, client_of
from tests.api.test_routes import operations
from tests.conftest import TestAccount
from tests.db.reviewing import sha_of
from worker import erasing


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
    assert routes - cases == set(), "say in cases.py what another account may see of it"
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
        with careless(other, victim.account) if wall != "both" else nullcontext():
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
def test_naming_a_strangers_object_does_not_reach_it(
    app: Flask, owner_db: Database, victim: Estate, other: TestAccount, wall: str
) -> None:
    stranger, before = client_of(app, other), rows_of(owner_db, victim.account)
    for route, refers in REFERRING.items():
        path, body = refers(victim)
        with careless(other, victim.account) if wall != "both" else nullcontext():
            answer = stranger.open(path, method=route.partition(" ")[0], json=body)
        # Postgres alone does not even know the account that the application takes for the asker's.
        known = {SOFT.get(route, 404)} if wall == "both" else {SOFT.get(route, 404), 404}
        assert answer.status_code in known, (route, answer.text)
        if route == "POST /v1/labels":
            assert (answer.json["labelled"], answer.json["errors"][0]["code"]) == (0, "not_found")
        if route == "POST /v1/reviews/decide":
            assert (answer.json["decided"], answer.json["refused"][0]["code"]) == ([], "not_found")
        if route == "POST /v1/reviews/claim":
            assert answer.json["reviews"] == []
        assert rows_of(owner_db, victim.account) == before, route


@pytest.mark.parametrize("wall", ["both", "row-level security alone"])
def test_a_stranger_erases_nothing(
    app: Flask, db: Database, owner_db: Database, victim: Estate, other: TestAccount, tmp_path: Path, wall: str
) -> None:
    """By whatever name: a product's and a person's are each account's own, all else is not found."""
    eraser = erasing.Eraser(db, lambda: LocalBlobs(tmp_path / "blobs"), threading.Event())
    eraser.run_once()  # what the account itself asked for
    stranger, before = client_of(app, other), rows_of(owner_db, victim.account)
    asked = {"item": victim.items[0], "job": victim.at["job_id"], "product": victim.at["product_id"],
             "subject": "acme-user", "picture": sha_of("acme-0").hex(), "account": "acme"}  # fmt: skip
    for kind, target in asked.items():
        body = {"kind": kind, "target": target}
        with careless(other, victim.account) if wall != "both" else nullcontext():
            answer = stranger.post("/v1/erasures", json=body)
        assert answer.status_code < 500 or wall != "both", (kind, answer.text)
        if kind in ("item", "job", "account"):
            assert answer.status_code in (404, 422), (kind, answer.text)
    eraser.run_once()
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
