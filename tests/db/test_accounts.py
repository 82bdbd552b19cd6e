"""API keys: shown once, stored hashed, refused for every reason there is; idempotency keys."""

from datetime import UTC, datetime, timedelta
from threading import Event, Thread

import pytest
from sqlalchemy import text

from db import accounts, idempotency
from db.errors import BadKey, Conflict, InFlight, NotFound
from db.session import Database
from tests.conftest import TestAccount


def reason(db: Database, presented: str) -> str:
    with pytest.raises(BadKey) as refused, db.transaction() as session:
        accounts.authenticate(session, presented)
    return refused.value.reason


def test_a_key_opens_its_account_with_its_scopes(api_db: Database, owner_db: Database, account: TestAccount) -> None:
    with owner_db.transaction() as session:
        row, secret = accounts.create_key(session, account.id, "reader", ("jobs:read",))
        stored = session.scalar(
            text("SELECT count(*) FROM api_keys WHERE api_keys::text LIKE :s"), {"s": f"%{secret}%"}
        )
    assert stored == 0
    with api_db.transaction() as session:
        principal = accounts.authenticate(session, secret)
        assert (principal.account_id, principal.account_name) == (account.id, "acme")
        assert principal.scopes == {"jobs:read"}
        assert session.scalar(text("SELECT current_setting('tagmill.account')")) == str(account.id)
    with owner_db.transaction() as session:
        keys = {key.key_id: key for key in accounts.list_keys(session, account.id)}
        assert keys[row.key_id].last_used_at is not None


def test_bad_keys_are_refused_for_their_reason(api_db: Database, owner_db: Database, account: TestAccount) -> None:
    with owner_db.transaction() as session:
        past = datetime.now(UTC) - timedelta(seconds=1)
        _, expired = accounts.create_key(session, account.id, "old", expires_at=past)
        revoked_row, revoked = accounts.create_key(session, account.id, "lost")
        accounts.revoke_key(session, account.id, revoked_row.key_id)
        _, unknown = accounts.create_key(session, account.id, "deleted")
        session.execute(text("DELETE FROM api_keys WHERE name = 'deleted'"))
    assert reason(api_db, expired) == "expired"
    assert reason(api_db, revoked) == "revoked"
    assert reason(api_db, unknown) == "unknown"
    assert reason(api_db, account.secret[:-1]) == "malformed"
    swapped = account.secret[:-1] + ("0" if account.secret[-1] != "0" else "1")
    assert reason(api_db, swapped) == "malformed"
    assert reason(api_db, "") == "malformed"


def test_keys_of_others_and_names_twice_are_refused(owner_db: Database, account: TestAccount) -> None:
    with pytest.raises(Conflict), owner_db.transaction() as session:
        accounts.create(session, "acme")
    with pytest.raises(NotFound), owner_db.transaction() as session:
        accounts.revoke_key(session, account.id, "nokey123")
    with pytest.raises(ValueError, match="scopes"), owner_db.transaction() as session:
        accounts.create_key(session, account.id, "x", ("everything",))


def test_the_first_answer_to_an_idempotency_key_is_kept(api_db: Database, account: TestAccount) -> None:
    with api_db.transaction(account.id) as session:
        assert idempotency.begin(session, account.id, "k") is None
        idempotency.store(session, account.id, "k", b"h", 202, {"id": "1"}, "/v1/jobs/1")
    with api_db.transaction(account.id) as session:
        stored = idempotency.begin(session, account.id, "k")
    assert stored == idempotency.Stored(b"h", 202, {"id": "1"}, "/v1/jobs/1")


def test_a_key_in_flight_is_refused_and_free_again_after_a_rollback(api_db: Database, account: TestAccount) -> None:
    held, release = Event(), Event()

    def hold() -> None:
        with pytest.raises(RuntimeError), api_db.transaction(account.id) as session:
            idempotency.begin(session, account.id, "k")
            held.set()
            release.wait(20)
            raise RuntimeError

    thread = Thread(target=hold)
    thread.start()
    assert held.wait(20)
    with pytest.raises(InFlight), api_db.transaction(account.id) as session:
        idempotency.begin(session, account.id, "k")
    release.set()
    thread.join(20)
    with api_db.transaction(account.id) as session:
        assert idempotency.begin(session, account.id, "k") is None
