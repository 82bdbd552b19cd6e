"""Erasing what a rerun has copied: staged, published, or being copied at that moment."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from db import publishing, reruns
from db.ids import item_id
from db.session import WORKER_ROLE, Database
from tests.conftest import TestAccount
from tests.db.erasing import erase, traces, worked_off
from tests.db.test_erasure import sha
from tests.db.test_line import urls
from tests.db.test_reruns import EVERYTHING, catalog, end, infer, install, new, old, run, start
from tests.worker.line import rows


@pytest.fixture
def models(db: Database) -> None:
    install(db, "tagger@1")
    install(db, "tagger@2")


def left(owner_db: Database, seq: int) -> list[str]:
    return traces(owner_db, f"pictures.test/{seq}.jpg", sha(f"http://pictures.test/{seq}.jpg"))


@pytest.mark.parametrize("published", [False, True])
def test_the_copy_in_a_rerun_goes_too(
    db: Database, owner_db: Database, account: TestAccount, models: None, published: bool
) -> None:
    job = catalog(db, account, old, 8)
    rerun = start(db, account, "tagger@2")
    if published:
        infer(db, new)
        end(db, rerun)
        run(db, publishing.publish, account, rerun)
    erase(db, account.id, "item", item_id(job, 3))
    assert left(owner_db, 3) == []
    if published:
        run(db, publishing.roll_back, account, rerun)
    else:
        infer(db, new)
        end(db, rerun)
        run(db, publishing.publish, account, rerun)
    codes = rows(owner_db, "SELECT seq FROM results WHERE job_id = :j AND code = 'erased'", j=job)
    assert [row.seq for row in codes] == [3]
    assert left(owner_db, 3) == []


def test_a_copy_made_at_that_moment_is_found_when_it_is_looked_for_once_more(
    database_url: str, owner_db: Database, db: Database, account: TestAccount, models: None
) -> None:
    pooled = Database(database_url, role=WORKER_ROLE, pool_size=4)
    job = catalog(pooled, account, old, len(urls(8)))
    with pooled.transaction(account.id) as session:
        reruns.start(session, account.id, "tagger@2", EVERYTHING, chunk_size=16)
        with ThreadPoolExecutor(1) as pool:
            erasure = pool.submit(erase, pooled, account.id, "item", item_id(job, 3)).result(30)
    assert left(owner_db, 3) != []
    worked_off(pooled, erasure.id)
    assert left(owner_db, 3) == []
    pooled.dispose()
