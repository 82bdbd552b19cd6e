"""The oracle on real runs of planted bugs: each history is run by the code as it is, which passes, and then by a build
with one deliberate bug, which must not. A checker that passes both would prove nothing of all other fault tests."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from db import chunks, delivery_queue, endings, jobs, outbox, recording, rescue, retries, webhooks
from db.blobs import LocalBlobs
from db.chunks import Chunk
from db.delivery_queue import Bounds, Tried
from db.errors import LeaseLost
from db.ids import uuid7
from db.jobs import JobSpec, NewItem
from db.recording import IngestOutcome, finish_ingest
from db.session import WORKER_ROLE, Database, Session
from db.webhook_secrets import Keys
from tests.conftest import TestAccount
from tests.faults.system import until
from tests.oracle import Expected, problems
from tests.worker.line import _stored, fetched, install_models, jpeg, settings
from worker import failpoints, finalise, infer_rows
from worker.infer import Inference
from worker.predictors import Predictors

COLOURS = [("red", "reject"), ("blue", "approve"), ("grey", "approve"), ("green", "review")]
Found = list[str]


class Died(BaseException):
    """The process is no more: nothing that catches exceptions catches this one."""


class Line:
    """The stages by themselves, over a real database; several owners, as several processes would be."""

    def __init__(self, database: Database, owner: Database, account: TestAccount, folder: Path, url: str) -> None:
        self.database, self.owner, self.account, self.folder, self.url = database, owner, account, folder, url
        self.blobs = LocalBlobs(folder / "blobs")
        self.accepted: dict[UUID, list[Expected]] = {}
        self.copies: list[bytes] = []

    def submit(self, number: int = 4, chunk_size: int = 16) -> UUID:
        """A job of pictures of its own."""
        sent = [COLOURS[n % len(COLOURS)] for n in range(number)]
        self.copies = [jpeg(colour, n + 1) for n, (colour, _) in enumerate(sent)]
        items = [NewItem(url=f"http://pictures.test/{uuid7().hex}.jpg") for _ in sent]
        with self.database.transaction(self.account.id) as session:
            job = jobs.submit(session, self.account.id, JobSpec(), items, max_items=1000, chunk_size=chunk_size)
        self.accepted[job.id] = [Expected(tag=colour, verdict=verdict) for colour, verdict in sent]
        return job.id

    def fetch(self) -> None:
        fetched(self.database, self.blobs, self.account.id, self.copies)

    def claim(self, stage: str, lease_s: float = 60) -> Chunk:
        with self.database.transaction() as session:
            (chunk,) = chunks.claim(session, stage, uuid7(), lease_s)
        return chunk

    def ingest(self, chunk: Chunk) -> list[IngestOutcome]:
        """What a crawler would record of a chunk."""
        with self.database.transaction() as session:
            members = chunks.items(session, chunk)
        return [IngestOutcome(m.seq, image=_stored(self.blobs, self.account.id, self.copies[m.seq])) for m in members]

    def infer(self) -> None:
        """One worker process: it drains what is ready, and may die on the way."""
        made = settings(self.folder, self.url)
        with suppress(Died):
            Inference(made, self.database, self.blobs, Predictors(made, self.database, "cpu"), uuid7()).run()

    def overdue(self) -> None:
        """Every lease has run out."""
        with self.owner.transaction() as session:
            session.execute(text("UPDATE chunks SET lease_until = now() - interval '1 s' WHERE state = 'leased'"))

    def reap(self) -> None:
        with self.database.transaction() as session:
            rescue.reap(session)

    def finalise(self) -> None:
        finalise.run_once(self.database)

    def waiting(self) -> int:
        """Transactions that wait for a lock."""
        sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        with self.owner.transaction() as session:
            return int(session.execute(text(sql)).scalar_one())

    def problems(self, *, told: bool = False) -> Found:
        return problems(self.owner, self.accepted, told=told)


@pytest.fixture
def line(owner_db: Database, account: TestAccount, tmp_path: Path, database_url: str) -> Iterator[Line]:
    install_models(owner_db, tmp_path / "models")
    database = Database(database_url, role=WORKER_ROLE, pool_size=12)
    yield Line(database, owner_db, account, tmp_path, database_url)
    database.dispose()


Plant = Callable[[pytest.MonkeyPatch], None]
Run = Callable[[Line], None]


def both(line: Line, run: Run, plant: Plant, *, told: bool = False) -> tuple[Found, Found]:
    """What the oracle finds after the history with the code as it is, and with the bug planted."""
    run(line)
    sound = line.problems(told=told)
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        run(line)
        return sound, line.problems(told=told)


def has(found: Found, words: str) -> bool:
    return any(words in problem for problem in found)


# --- no fence --------------------------------------------------------------------------------------------------------


def _zombie_crawler(line: Line) -> None:
    """A crawler is thought dead while it fetches, another does its chunk, and then it comes back and records."""
    line.submit()
    zombie = line.claim("ingest")
    outcomes = line.ingest(zombie)
    line.overdue()
    line.reap()
    line.fetch()
    with suppress(LeaseLost), line.database.transaction() as session:
        finish_ingest(session, zombie, outcomes)
    line.infer()
    line.finalise()


def _zombie_with_failures(line: Line) -> None:
    """The same, and what it could not fetch is what it records."""
    line.submit()
    zombie = line.claim("ingest")
    line.overdue()
    line.reap()
    line.fetch()
    line.infer()
    with suppress(LeaseLost), line.database.transaction() as session:
        finish_ingest(session, zombie, [IngestOutcome(n, code="timeout") for n in range(4)])
    line.infer()
    line.finalise()


def _no_fence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recording, "_require_lease", lambda session, chunk: None)


def test_no_fence_and_a_zombie_that_did_the_same(line: Line) -> None:
    sound, buggy = both(line, _zombie_crawler, _no_fence)
    assert sound == []
    assert has(buggy, "chunks sum to")


def test_no_fence_and_a_zombie_that_failed(line: Line) -> None:
    sound, buggy = both(line, _zombie_with_failures, _no_fence)
    assert sound == []
    assert has(buggy, "chunks say codes {'timeout': 4}")


# --- ack before commit -----------------------------------------------------------------------------------------------


def _killed_while_recording(line: Line) -> None:
    """A worker is killed at the last moment before it commits; the reaper and another worker go on."""
    line.submit()
    line.fetch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(failpoints, "hit", _die_at("before_infer_commit"))
        line.infer()
    line.overdue()
    line.reap()
    line.infer()
    line.finalise()


def _die_at(point: str) -> Callable[..., None]:
    def hit(name: str, subject: str = "") -> None:
        if name == point:
            raise Died

    return hit


def _ack_before_commit(line: Line) -> Plant:
    """The chunk is said to be done in a transaction of its own, and its rows follow."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        record = infer_rows.record

        def acknowledged(session: Session, work: Any, outcomes: Any, **more: Any) -> None:
            with line.database.transaction() as first:
                recording._close(first, work.chunk, len(outcomes), Counter(), {})
            patch.setattr(recording, "_require_lease", lambda session, chunk: None)
            record(session, work, outcomes, **more)

        patch.setattr(infer_rows, "record", acknowledged)

    return plant


def test_ack_before_commit(line: Line) -> None:
    sound, buggy = both(line, _killed_while_recording, _ack_before_commit(line))
    assert sound == []
    assert has(buggy, "item 0 has no outcome")


# --- no reaper -------------------------------------------------------------------------------------------------------


def test_no_reaper(line: Line) -> None:
    sound, buggy = both(
        line, _killed_while_recording, lambda patch: patch.setattr(rescue, "reap", lambda session: None)
    )
    assert sound == []
    assert has(buggy, "is running, not ended")
    assert has(buggy, "is still leased")


# --- outbox by a cursor over ids -------------------------------------------------------------------------------------


def _late_event(line: Line) -> None:
    """Two jobs end at once; the event that was made first is committed last, after the sender looked."""
    first = line.submit()
    line.fetch()
    line.infer()
    second = line.submit()
    line.fetch()
    line.infer()
    emitted, go = threading.Event(), threading.Event()

    def end_first() -> None:
        with line.database.transaction() as session:
            assert endings.finish(session, first)
            emitted.set()
            assert go.wait(60)

    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(end_first)
        assert emitted.wait(60)
        with line.database.transaction() as session:
            assert endings.finish(session, second)
        _send_all(line)
        go.set()
        ended.result(60)
    _send_all(line)


def _send_all(line: Line) -> None:
    """What a sender does until nothing is due; every endpoint takes it."""
    with line.database.transaction() as session:
        delivery_queue.fan_out(session)
    while True:
        with line.database.transaction() as session:
            claimed = delivery_queue.claim(session, uuid7(), 60, 16, Bounds())
            for each in claimed:
                delivery_queue.record(session, each, Tried(None, 204, 0.1), disable_days=5)
        if not claimed:
            return


def _id_cursor(patch: pytest.MonkeyPatch) -> None:
    """Events are read in the order of their ids, from where the last look ended."""
    at = [UUID(int=0)]

    def fan_out(session: Session, limit: int = 500) -> int:
        newer = text(
            "WITH next AS (SELECT id, account_id, type FROM outbox WHERE id > :at ORDER BY id LIMIT :limit), made AS ("
            " INSERT INTO deliveries (webhook_id, event_id, account_id, type) SELECT h.id, n.id, n.account_id, n.type"
            " FROM next n JOIN webhooks h ON h.account_id = n.account_id ON CONFLICT DO NOTHING)"
            " SELECT id FROM next ORDER BY id"
        )
        found = list(session.scalars(newer, {"at": at[0], "limit": limit}))
        at[0] = found[-1] if found else at[0]
        return len(found)

    patch.setattr(delivery_queue, "fan_out", fan_out)


def test_an_outbox_read_by_a_cursor_over_ids(line: Line) -> None:
    with line.owner.transaction() as session:
        keys = Keys(["k" * 40])
        webhooks.create(session, line.account.id, "https://hooks.example/in", None, None, keys=keys, actor="test")
    sound, buggy = both(line, _late_event, _id_cursor, told=True)
    assert sound == []
    assert has(buggy, "was told 0 times")
    assert not has(line.problems(), "told"), "only where webhooks are looked at"


# --- an unlocked finaliser -------------------------------------------------------------------------------------------


def _two_last_chunks(line: Line) -> None:
    """The last two chunks of a job are recorded at the same moment, by two workers."""
    line.submit(32, chunk_size=16)
    chunk, other = line.claim("ingest"), line.claim("ingest")
    recorded = threading.Barrier(2)

    def end(mine: Chunk) -> None:
        with line.database.transaction() as session:
            finish_ingest(session, mine, [IngestOutcome(n, code="http_404") for n in range(mine.lo, mine.hi)])
            recorded.wait(60)

    line.accepted[chunk.job_id] = [Expected(code="http_404")] * 32
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(end, [chunk, other]))
    line.finalise()


def _naive_finaliser(patch: pytest.MonkeyPatch) -> None:
    """Whoever ends a chunk ends its job, where it sees no open one; and nobody else looks."""
    close = recording._close

    def close_and_end(session: Session, chunk: Chunk, *rest: Any) -> None:
        close(session, chunk, *rest)
        if not session.scalar(endings._HAS_OPEN_CHUNK, {"id": chunk.job_id}):
            session.execute(endings._SETTLE, {"id": chunk.job_id})
            payload = {"job": str(chunk.job_id), "round": chunk.round}
            outbox.emit(session, chunk.account_id, "job.finished", str(chunk.job_id), payload, round_=chunk.round)

    patch.setattr(recording, "_close", close_and_end)
    patch.setattr(finalise, "run_once", lambda database: 0)


def test_a_finaliser_without_the_jobs_lock(line: Line) -> None:
    sound, buggy = both(line, _two_last_chunks, _naive_finaliser)
    assert sound == []
    assert has(buggy, "is running, not ended")
    assert has(buggy, "0 events of round 0")


def _finaliser_against_retry(line: Line) -> None:
    """Two finalisers look at one job; one of them is slow, and meanwhile the client takes its failures back."""
    job = line.submit()
    with line.database.transaction() as session:
        (chunk,) = chunks.claim(session, "ingest", uuid7(), 60)
        finish_ingest(session, chunk, [IngestOutcome(n, code="timeout") for n in range(4)])
    looked, go = threading.Event(), threading.Event()

    class Slow(Session):
        """Stops after it has seen that no chunk is open."""

        def scalar(self, statement: Any, *rest: Any, **more: Any) -> Any:
            found = super().scalar(statement, *rest, **more)
            if statement is endings._HAS_OPEN_CHUNK:
                looked.set()
                assert go.wait(60)
            return found

    def slow() -> None:
        with Slow(line.database.engine) as session, session.begin():
            endings.finish(session, job)

    with ThreadPoolExecutor(2) as pool:
        behind = pool.submit(slow)
        assert looked.wait(60)

        def others() -> None:
            with line.database.transaction() as session:
                endings.finish(session, job)
            with line.owner.transaction() as session:
                assert retries.retry(session, line.account.id, job) == 4

        ahead = pool.submit(others)
        # With the lock, the others wait for the slow one; without it, they are done before.
        until(lambda: ahead.done() or line.waiting() > 0, 60, "the others to be done, or to wait")
        go.set()
        behind.result(60)
        ahead.result(60)
    line.fetch()
    line.infer()
    line.finalise()


def _no_lock(patch: pytest.MonkeyPatch) -> None:
    """The statement that takes the job row's lock takes none."""
    made = endings.text

    def unlocked(sql: str) -> Any:
        return made(sql.replace(" FOR UPDATE", ""))

    patch.setattr(endings, "text", unlocked)


def test_two_finalisers_and_a_retry_without_the_jobs_lock(line: Line) -> None:
    sound, buggy = both(line, _finaliser_against_retry, _no_lock)
    assert sound == []
    assert has(buggy, "has no outcome")
    assert has(buggy, "is still ready")
