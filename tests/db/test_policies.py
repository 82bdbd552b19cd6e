"""Policies in Postgres: versions and their moves, whose they are, where they apply, and what jobs pin."""

import threading
from typing import Any

import pytest
from sqlalchemy import text

from db import jobs, policies, policy_assignments, policy_text
from db.errors import Conflict, NotFound
from db.jobs import JobSpec, NewItem
from db.policies import PolicyInUse, PolicyNameTaken, PolicyReadOnly
from db.policy_assignments import UnknownPolicy
from db.policy_text import Written
from db.session import Database
from tests.conftest import TestAccount, make_account


def written(name: str = "shop", threshold: float = 0.5) -> Written:
    rule = {"id": "nudity", "when": {"score": "Porn", "at_least": threshold}, "then": "reject"}
    return policy_text.written({"name": name, "rules": [rule]})


def active(db: Database, owner: int | None, name: str = "shop", threshold: float = 0.5) -> str:
    """A new version of a policy, active."""
    with db.transaction() as session:
        row = policies.add(session, owner, written(name, threshold), actor="cli")
        return policies.activate(session, owner, name, row.version, actor="cli").ref


def assign(db: Database, account: int | None, context: str | None, name: str | None) -> None:
    with db.transaction() as session:
        policy_assignments.assign(session, account, context, name, actor="cli")


def deciding(db: Database, account: int | None, context: str = "") -> str | None:
    with db.transaction() as session:
        found = policy_assignments.deciding(session, account, context)
        return None if found is None else found.ref


def submit(db: Database, account: int, **spec: Any) -> jobs.Job:
    with db.transaction() as session:
        return jobs.submit(session, account, JobSpec(**spec), [NewItem(url="http://h/a.png")], max_items=9)


def test_a_version_never_changes_and_at_most_one_is_active(db: Database, account: TestAccount) -> None:
    assert active(db, account.id) == "shop@1"
    assert active(db, account.id, threshold=0.6) == "shop@2"
    with db.transaction() as session:
        rows = policies.versions(session, account.id, "shop")
        assert [(row.version, row.state) for row in rows] == [(2, "active"), (1, "retired")]
        same = policies.add(session, account.id, written(threshold=0.6), actor="cli")
        assert (same.version, same.state) == (2, "active"), "what says the same is the same version"
        again = policies.add(session, account.id, written(), actor="cli")
        assert (again.version, again.state) == (3, "draft"), "an old text is a new version"
        assert policies.get(session, account.id, "shop").version == 2, "the active one is meant"


def test_two_who_activate_at_once_leave_one_active(owner_db: Database, db: Database, account: TestAccount) -> None:
    with db.transaction() as session:
        for threshold in (0.1, 0.2, 0.3, 0.4):
            policies.add(session, account.id, written(threshold=threshold), actor="cli")
    start = threading.Barrier(4)

    def one(version: int) -> None:
        start.wait()
        with db.transaction() as session:
            policies.activate(session, account.id, "shop", version, actor="cli")

    threads = [threading.Thread(target=one, args=(version,)) for version in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.transaction() as session:
        states = [row.state for row in policies.versions(session, account.id, "shop")]
        moves = policies.history(session, account.id, "shop")
    assert sorted(states) == ["active", "retired", "retired", "retired"]
    assert [each.replaced for each in moves] == [*[each.version for each in moves][1:], None], "each replaced the last"


def test_two_who_save_at_once_get_two_versions(db: Database, account: TestAccount) -> None:
    start = threading.Barrier(4)

    def one(threshold: float) -> None:
        start.wait()
        with db.transaction() as session:
            policies.add(session, account.id, written(threshold=threshold), actor="cli")

    threads = [threading.Thread(target=one, args=(number / 10,)) for number in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.transaction() as session:
        assert [row.version for row in policies.versions(session, account.id, "shop")] == [4, 3, 2, 1]


def test_a_name_is_one_policy_to_whoever_reads_it(db: Database, account: TestAccount) -> None:
    active(db, account.id)
    with db.transaction() as session, pytest.raises(PolicyNameTaken):
        policies.add(session, account.id, written("default"), actor="cli")
    with db.transaction() as session, pytest.raises(PolicyNameTaken):
        policies.add(session, None, written("shop"), actor="cli")


def test_an_account_changes_its_own_policies_only(
    api_db: Database, db: Database, owner_db: Database, account: TestAccount
) -> None:
    other = make_account(owner_db, "globex")
    active(db, account.id)
    with api_db.transaction(account.id) as session:
        assert policies.add(session, account.id, written(threshold=0.7), actor="key:x").version == 2
        policies.activate(session, account.id, "shop", 2, actor="key:x")
    with api_db.transaction(account.id) as session, pytest.raises(PolicyReadOnly):
        policies.retire(session, account.id, "default", 1, actor="key:x")
    with api_db.transaction(other.id) as session, pytest.raises(NotFound):
        policies.get(session, other.id, "shop")
    # The wall, without the query's own conditions.
    with api_db.transaction(other.id) as session:
        seen = session.execute(text("SELECT name FROM policies ORDER BY name")).scalars().all()
        changed = session.execute(text("UPDATE policies SET state = 'retired'")).rowcount  # type: ignore[attr-defined]
        assert (seen, changed) == (["default"], 0)
        assert session.execute(text("SELECT DISTINCT account_id FROM policy_assignments")).scalars().all() == [None]
    with pytest.raises(Exception, match="row-level security"), api_db.transaction(other.id) as session:
        session.execute(text("INSERT INTO policy_assignments (policy, actor) VALUES ('shop', 'x')"))


def test_the_most_specific_assignment_decides(db: Database, owner_db: Database, account: TestAccount) -> None:
    other = make_account(owner_db, "globex")
    for name in ("strict", "avatars"):
        active(db, None, name)
    for name in ("mine", "portraits"):
        active(db, account.id, name)
    assert deciding(db, account.id) == "default@1"
    assign(db, None, "avatar", "avatars")
    assert [deciding(db, account.id, context) for context in ("", "avatar")] == ["default@1", "avatars@1"]
    assign(db, account.id, None, "mine")
    assert [deciding(db, account.id, context) for context in ("", "avatar")] == ["mine@1", "mine@1"]
    assign(db, account.id, "avatar", "portraits")
    assert [deciding(db, account.id, context) for context in ("", "avatar")] == ["mine@1", "portraits@1"]
    assert [deciding(db, other.id, context) for context in ("", "avatar")] == ["default@1", "avatars@1"]
    assert deciding(db, None, "avatar") == "avatars@1"
    assign(db, account.id, "avatar", None)
    assign(db, account.id, None, None)
    assert deciding(db, account.id, "avatar") == "avatars@1"
    with db.transaction() as session:
        past = policy_assignments.history(session, account.id)
    assert [each.policy for each in past] == [None, None, "portraits", "mine", "avatars", "default"]


def test_what_is_assigned_has_an_active_version(db: Database, owner_db: Database, account: TestAccount) -> None:
    other = make_account(owner_db, "globex")
    active(db, account.id)
    for whose, name, error in ((other.id, "shop", NotFound), (None, "shop", NotFound), (account.id, "nope", NotFound)):
        with db.transaction() as session, pytest.raises(error):
            policy_assignments.assign(session, whose, None, name, actor="cli")
    assign(db, account.id, "listing", "shop")
    with db.transaction() as session, pytest.raises(PolicyInUse, match="account acme in context 'listing'"):
        policies.retire(session, account.id, "shop", 1, actor="cli")
    with db.transaction() as session, pytest.raises(PolicyInUse, match="all accounts"):
        policies.retire(session, None, "default", 1, actor="cli")
    assign(db, account.id, "listing", "default")
    with db.transaction() as session:
        assert policies.retire(session, account.id, "shop", 1, actor="cli").state == "retired"
    with db.transaction() as session, pytest.raises(Conflict, match="no active version"):
        policy_assignments.assign(session, account.id, None, "shop", actor="cli")


def test_jobs_pin_what_decides_when_they_are_submitted(db: Database, account: TestAccount) -> None:
    active(db, account.id)
    assign(db, account.id, "listing", "shop")
    before = submit(db, account.id, context="listing")
    active(db, account.id, threshold=0.9)
    after = submit(db, account.id, context="listing")
    asked = submit(db, account.id, policy="shop")
    plain = submit(db, account.id)
    named = [(job.policy["name"], job.policy["version"]) for job in (before, after, asked, plain)]
    assert named == [("shop", 1), ("shop", 2), ("shop", 2), ("default", 1)]
    with pytest.raises(UnknownPolicy), db.transaction() as session:
        jobs.submit(session, account.id, JobSpec(policy="nope"), [NewItem(url="http://h/a.png")], max_items=9)


def test_where_nothing_is_assigned_people_look_at_everything(db: Database, account: TestAccount) -> None:
    assign(db, None, None, None)
    assert deciding(db, account.id) is None
    job = submit(db, account.id)
    assert (job.policy["name"], job.policy["otherwise"]) == ("none", "review")


def test_a_deleted_account_takes_its_policies_along(owner_db: Database, db: Database) -> None:
    gone = make_account(owner_db, "gone")
    active(db, gone.id)
    assign(db, gone.id, None, "shop")
    with owner_db.transaction() as session:
        session.execute(text("DELETE FROM accounts WHERE id = :id"), {"id": gone.id})
        for table in ("policies", "policy_activations", "policy_assignments"):
            found = session.execute(text(f"SELECT DISTINCT account_id FROM {table}")).scalars().all()
            assert found == [None], table
