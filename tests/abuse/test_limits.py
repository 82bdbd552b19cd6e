"""Limits under many requests at the same moment: never one more than allowed, and the others are told so."""

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from db import webhooks
from db.session import Database
from tests.abuse.estate import WEBHOOK_KEYS, estate
from tests.api.conftest import Make, client_of
from tests.api.rows import count
from tests.conftest import TestAccount

MANY = 40


def at_once(call: Callable[[int], int]) -> Counter[int]:
    """The statuses of as many calls that begin together."""
    barrier, found = threading.Barrier(MANY), []

    def one(number: int) -> None:
        barrier.wait(30)
        found.append(call(number))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(MANY)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == MANY
    return Counter(found)


def test_no_account_has_more_webhooks_than_it_may(
    make_app: Make, account: TestAccount, owner_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "MAX_WEBHOOKS", 5)
    app = make_app(webhook_keys=WEBHOOK_KEYS, database_pool=20)

    def create(number: int) -> int:
        body = {"url": f"https://hooks.example/{number}"}
        return client_of(app, account).post("/v1/webhooks", json=body).status_code

    found = at_once(create)
    assert count(owner_db, "webhooks") == 5
    assert found[201] == 5
    assert found.keys() == {201, 422}, found


def test_no_reviewer_sees_more_than_the_day_allows(
    make_app: Make, db: Database, account: TestAccount, owner_db: Database, tmp_path: Path
) -> None:
    app = make_app(webhook_keys=WEBHOOK_KEYS, review_exposure_limit=2, database_pool=20)
    known = estate(app, db, account, tmp_path / "blobs", "acme")

    def look(number: int) -> int:
        return client_of(app, account).post(f"/v1/items/{known.items[number % 3]}/thumbnail").status_code

    found = at_once(look)
    assert found.keys() <= {200, 429}, found
    assert found[200] >= 1
    assert count(owner_db, "review_exposures") <= 2
