"""The look that duties share: it sees what their own queries would find, and is asked once for all of them."""

from db import audit, pending, replays
from db.session import Database
from tests.conftest import TestAccount
from tests.db.test_line import finish, infer_all, ingest_all, submit, urls
from tests.worker.line import run_sql
from worker import finalise, sealing
from worker.looking import LASTS_S, Look


def seen(db: Database) -> set[str]:
    with db.transaction() as session:
        return set(pending.kinds(session))


def test_nothing_waits_in_a_new_installation(owner_db: Database, db: Database, account: TestAccount) -> None:
    sealing.run_once(db)
    assert seen(db) == set()
    with db.transaction() as session:
        assert not replays.waits(session)
        assert not pending.deliveries(session)


def test_each_kind_is_seen_until_it_is_done(owner_db: Database, db: Database, account: TestAccount) -> None:
    sealing.run_once(db)
    job = submit(db, account, urls(3))
    assert seen(db) == {"jobs"}
    ingest_all(db, account)
    infer_all(db)
    assert "jobs" in seen(db)
    assert finish(db, job)
    assert "jobs" not in seen(db)
    with db.transaction() as session:
        assert pending.deliveries(session), "the event of its end"
        audit.record(session, account.id, "test", "test.done", "x")
    assert seen(db) == {"audit"}
    assert sealing.run_once(db) > 0
    assert seen(db) == set()
    move = "INSERT INTO model_moves (id, action, task, actor) VALUES (gen_random_uuid(), 'rollback', 'tags', 'x')"
    run_sql(owner_db, move.replace("task, actor", "task, ref, actor").replace("'tags', 'x'", "'tags', 'm@1', 'x'"))
    assert seen(db) == {"moves"}


def test_duties_share_a_look_for_half_a_second(db: Database, account: TestAccount) -> None:
    now = [100.0]
    look = Look(db, clock=lambda: now[0])
    close = look.gated("jobs", lambda: finalise.run_once(db))
    assert close() == 0
    submit(db, account, urls(2))
    ingest_all(db, account)
    infer_all(db)
    assert close() == 0, "it has just looked"
    now[0] += LASTS_S
    assert close() == 1
