"""The same bytes are not fetched and decoded twice: validators, known bytes, and everything that must not be reused."""

import ast
import asyncio
import hashlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from db import retries, validators
from db.jobs import NewItem
from db.progress import progress
from db.session import Database
from tests.conftest import TestAccount, make_account
from tests.hostile import HostileServer
from tests.misbehaviour import BEHAVIOURS, Request, Wire, png, respond
from tests.worker.line import rows, run_sql, settings
from tests.worker.test_ingest import Line
from worker import reuse
from worker.together import Together

RED, BLUE = png(30, 20, (200, 0, 0)), png(30, 20, (0, 0, 200))
DATE = "Last-Modified: Tue, 01 Sep 2026 10:00:00 GMT"


class Shelf:
    """A web server's pictures: `bodies` by name; the ETag is made of the bytes. `not_modified`: what a conditional
    request gets instead, and any other too if it `lies`."""

    def __init__(self) -> None:
        self.bodies = {"a": RED, "b": BLUE}
        self.conditions: list[tuple[str | None, str | None]] = []
        self.sent = 0
        self.marks = lambda body: [f'ETag: W/"{hashlib.sha256(body).hexdigest()[:8]}"']
        self.not_modified: bytes | None = None
        self.lies = False

    async def serve(self, wire: Wire, request: Request, name: str) -> None:
        asked = request.header("If-None-Match"), request.header("If-Modified-Since")
        self.conditions.append(asked)
        body = self.bodies[name]
        marks = self.marks(body)
        current = [f"ETag: {asked[0]}", f"Last-Modified: {asked[1]}"]
        if self.not_modified is not None and (self.lies or any(asked)):
            await wire.send(self.not_modified)
        elif any(mark in current for mark in marks):
            await wire.send(("HTTP/1.1 304 Not Modified\r\n" + "\r\n".join(marks) + "\r\n\r\n").encode())
        else:
            self.sent += 1
            await wire.send(respond(body, *marks))

    async def moved(self, wire: Wire, request: Request, name: str) -> None:
        await self.redirect(wire, request, f"/shelf/{name}")

    async def redirect(self, wire: Wire, request: Request, target: str) -> None:
        self.conditions.append((request.header("If-None-Match"), request.header("If-Modified-Since")))
        await wire.send(respond(b"", f"Location: {target}", status="302 Found"))


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    made = Shelf()
    monkeypatch.setitem(BEHAVIOURS, "shelf", made.serve)
    monkeypatch.setitem(BEHAVIOURS, "moved", made.moved)
    return made


@pytest.fixture
def line(database_url: str, tmp_path: Path, account: TestAccount) -> Iterator[Line]:
    owner = Database(database_url)
    with HostileServer() as server:
        yield Line(owner, database_url, tmp_path, server, account.id)
    owner.dispose()


def crawled(line: Line, *paths: str | NewItem, **more: Any) -> UUID:
    """A job of these pictures, through the crawler."""
    within = {key: more.pop(key) for key in list(more) if key not in ("options",)}
    job = line.submit(list(paths), **more)
    line.crawl(**within)
    return job


def reused(line: Line, job: UUID) -> dict[str, int]:
    with line.database.transaction() as session:
        return {kind: count for kind, count in progress(session, job).reused.items() if count}


def ingests(line: Line, job: UUID) -> list[tuple[str | None, int | None]]:
    found = rows(line.database, "SELECT code, status FROM ingests WHERE job_id = :job ORDER BY seq", job=job)
    return [(row.code, row.status) for row in found]


def copies(line: Line) -> dict[bytes, bytes]:
    return {bytes(row.sha256): line.blobs.get(row.work_key) for row in rows(line.database, "SELECT * FROM images")}


def decoded(line: Line) -> float:
    """Pictures that went through the sandbox."""
    return line.counters.snapshot().get("pictures", 0)


@pytest.mark.parametrize("marks", [None, [DATE]])
def test_what_the_server_calls_unchanged_is_neither_sent_nor_decoded_again(
    line: Line, shelf: Shelf, marks: list[str] | None
) -> None:
    if marks is not None:
        shelf.marks = lambda body: marks
    first = crawled(line, "shelf/a", "shelf/b")
    images, stored = rows(line.database, "SELECT * FROM images ORDER BY sha256"), copies(line)
    assert (reused(line, first), shelf.sent, decoded(line)) == ({}, 2, 2)
    again = crawled(line, "shelf/a", "shelf/b")
    assert ingests(line, again) == [(None, 304), (None, 304)]
    assert reused(line, again) == {"not_modified": 2}
    assert (shelf.sent, decoded(line)) == (2, 2)
    assert (rows(line.database, "SELECT * FROM images ORDER BY sha256"), copies(line)) == (images, stored)
    shas = [row.sha256 for row in rows(line.database, "SELECT sha256 FROM ingests WHERE job_id = :j", j=again)]
    assert {bytes(sha) for sha in shas} == {hashlib.sha256(body).digest() for body in (RED, BLUE)}
    assert rows(line.database, "SELECT 1 FROM chunks WHERE stage = 'infer' AND job_id = :j", j=again)
    assert line.counters.snapshot()["not_modified"] == 2


def test_changed_bytes_are_fetched_and_remembered(line: Line, shelf: Shelf) -> None:
    crawled(line, "shelf/a")
    shelf.bodies["a"] = BLUE
    changed = crawled(line, "shelf/a")
    assert ingests(line, changed) == [(None, 200)]
    assert reused(line, changed) == {}
    assert reused(line, crawled(line, "shelf/a")) == {"not_modified": 1}
    assert shelf.sent == 2
    sha = rows(line.database, "SELECT sha256 FROM ingests ORDER BY job_id DESC LIMIT 1")[0].sha256
    assert bytes(sha) == hashlib.sha256(BLUE).digest()


def test_a_304_that_nobody_asked_for_is_a_failure(line: Line, shelf: Shelf) -> None:
    shelf.marks = lambda body: []
    crawled(line, "shelf/a")
    shelf.not_modified, shelf.lies = b"HTTP/1.1 304 Not Modified\r\n\r\n", True
    assert ingests(line, crawled(line, "shelf/a")) == [("bad_response", 304)]
    assert shelf.conditions[-1] == (None, None)


@pytest.mark.parametrize("mark", ['ETag: "another"', 'ETag: "unclosed'])
def test_a_304_for_another_version_is_a_failure_that_a_retry_mends(line: Line, shelf: Shelf, mark: str) -> None:
    crawled(line, "shelf/a")
    shelf.not_modified = f"HTTP/1.1 304 Not Modified\r\n{mark}\r\n\r\n".encode()
    job = crawled(line, "shelf/a")
    assert ingests(line, job) == [("bad_response", 304)]
    run_sql(line.database, "UPDATE jobs SET state = 'finished', settled_at = now() WHERE id = :job", job=job)
    with line.database.transaction() as session:
        assert retries.retry(session, line.account_id, job) == 1
    line.crawl()
    assert ingests(line, job) == [(None, 200)]
    assert shelf.conditions[-1] == (None, None)


def test_a_job_that_is_retried_still_says_what_it_reused(line: Line, shelf: Shelf) -> None:
    crawled(line, "shelf/a")
    job = crawled(line, "shelf/a", "status/404")
    run_sql(line.database, "UPDATE chunks SET state = 'done', finished_at = now() WHERE state = 'ready'")
    run_sql(line.database, "UPDATE jobs SET state = 'finished', settled_at = now() WHERE id = :job", job=job)
    with line.database.transaction() as session:
        assert retries.retry(session, line.account_id, job) == 1
    assert reused(line, job) == {"not_modified": 1}


def test_who_opts_out_with_a_304_is_heard(line: Line, shelf: Shelf) -> None:
    crawled(line, "shelf/a")
    shelf.not_modified = b"HTTP/1.1 304 Not Modified\r\nX-Robots-Tag: noai\r\n\r\n"
    assert [code for code, _ in ingests(line, crawled(line, "shelf/a"))] == ["opted_out"]


def test_an_older_file_under_a_date_that_is_only_not_newer_is_no_304(line: Line, shelf: Shelf) -> None:
    shelf.marks = lambda body: [DATE]
    crawled(line, "shelf/a")
    older = "Last-Modified: Tue, 01 Jul 2025 10:00:00 GMT"
    shelf.not_modified = f"HTTP/1.1 304 Not Modified\r\n{older}\r\n\r\n".encode()
    assert ingests(line, crawled(line, "shelf/a")) == [("bad_response", 304)]


@pytest.mark.parametrize("same_url", [True, False])
def test_a_working_copy_that_is_gone_is_made_again(line: Line, shelf: Shelf, same_url: bool) -> None:
    shelf.bodies["same"] = RED
    crawled(line, "shelf/a")
    stored = copies(line)
    line.blobs.delete(rows(line.database, "SELECT work_key FROM images")[0].work_key)
    job = crawled(line, "shelf/a" if same_url else "shelf/same")
    assert ingests(line, job) == [(None, 200)]
    assert reused(line, job) == {}
    assert copies(line) == stored
    if same_url:
        assert shelf.conditions[-1] == (None, None), "it was asked for again without a condition"


def test_known_bytes_behind_another_url_or_in_an_upload_are_not_decoded_again(line: Line, shelf: Shelf) -> None:
    shelf.bodies["same"] = RED
    crawled(line, "shelf/a")
    key, _, _ = line.blobs.put_raw(line.account_id, [RED], 10_000)
    job = crawled(line, "shelf/same", NewItem(filename="a.png", raw_key=key), "shelf/b")
    assert reused(line, job) == {"known_bytes": 2}
    assert decoded(line) == 2
    assert len(rows(line.database, "SELECT 1 FROM images")) == 2
    assert reused(line, crawled(line, "shelf/same")) == {"not_modified": 1}


def test_another_account_reuses_nothing(line: Line, shelf: Shelf) -> None:
    crawled(line, "shelf/a")
    line.account_id = make_account(line.database, "other").id
    job = crawled(line, "shelf/a")
    assert (reused(line, job), shelf.sent, decoded(line)) == ({}, 2, 2)
    assert shelf.conditions[-1] == (None, None)


def test_validators_are_of_one_url_and_never_follow_a_redirect(
    line: Line, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    crawled(line, "moved/a")
    assert not rows(line.database, "SELECT 1 FROM validators")
    again = crawled(line, "moved/a")
    assert reused(line, again) == {"known_bytes": 1}
    crawled(line, "shelf/b")
    del shelf.conditions[:]
    # What had validators redirects now, to where they would be recognised if they were told.
    monkeypatch.setitem(BEHAVIOURS, "elsewhere", BEHAVIOURS["shelf"])
    monkeypatch.setitem(BEHAVIOURS, "shelf", lambda wire, request, name: shelf.redirect(wire, request, "/elsewhere/b"))
    job = crawled(line, "shelf/b")
    assert [any(each) for each in shelf.conditions] == [True, False]
    assert ingests(line, job) == [(None, 200)]


def test_always_fetches_and_decodes_anew(line: Line, shelf: Shelf) -> None:
    crawled(line, "shelf/a")
    job = crawled(line, "shelf/a", options={"refetch": "always"})
    assert (reused(line, job), shelf.sent, decoded(line)) == ({}, 2, 2)
    assert shelf.conditions[-1] == (None, None)


@pytest.mark.parametrize("other", [{"work_quality": 70}, {"max_pixels": 1000}])
def test_another_normaliser_makes_its_own(line: Line, shelf: Shelf, other: dict[str, int]) -> None:
    crawled(line, "shelf/a")
    assert reused(line, crawled(line, "shelf/a", **other)) == {}
    assert shelf.conditions[-1] == (None, None)
    assert decoded(line) == 2
    assert reused(line, crawled(line, "shelf/a", **other)) == {"not_modified": 1}


def test_an_image_without_a_wanted_fact_is_not_enough(line: Line, shelf: Shelf) -> None:
    crawled(line, "shelf/a", options={"facts": ["pdq"]})
    assert rows(line.database, "SELECT colours FROM images")[0].colours is None
    job = crawled(line, "shelf/a")
    assert reused(line, job) == {}
    assert rows(line.database, "SELECT colours FROM images")[0].colours
    assert reused(line, crawled(line, "shelf/a", options={"facts": ["pdq"]})) == {"not_modified": 1}


@pytest.mark.parametrize(
    "marks",
    [
        ["ETag: unquoted"],
        ['ETag: "two words"'],
        ['ETag: "' + "x" * 300 + '"'],
        ['ETag: "one"', 'ETag: "two"'],
        ['ETag: "\xe9"'],
        ["Last-Modified: <script>"],
    ],
)
def test_tags_that_are_none_are_never_sent_back(line: Line, shelf: Shelf, marks: list[str]) -> None:
    shelf.marks = lambda body: marks
    crawled(line, "shelf/a")
    assert not rows(line.database, "SELECT 1 FROM validators")
    assert reused(line, crawled(line, "shelf/a")) == {"known_bytes": 1}
    assert shelf.conditions[-1] == (None, None)


def test_validators_are_kept_as_long_as_servers_repeat_them(line: Line, shelf: Shelf) -> None:
    crawled(line, "shelf/a", "shelf/b")
    run_sql(line.database, "UPDATE validators SET seen_at = now() - interval '9 days'")
    crawled(line, "shelf/a")
    with line.database.transaction() as session:
        assert validators.forget(session, days=8) == 1
    assert reused(line, crawled(line, "shelf/a", "shelf/b")) == {"not_modified": 1, "known_bytes": 1}


def test_urls_that_differ_in_their_fragments_are_one(line: Line, shelf: Shelf) -> None:
    said = validators.Validators('"1"', None)
    crawled(line, "shelf/a")
    with line.database.transaction() as session:
        sha = hashlib.sha256(RED).digest()
        validators.record(session, line.account_id, {f"http://x/1#{n}": (said, sha) for n in range(2)})
        made_by = rows(line.database, "SELECT made_by FROM images")[0].made_by
        assert set(validators.known(session, line.account_id, ["http://x/1#3", "http://x/2"], made_by)) == {
            "http://x/1#3"
        }


def test_the_api_sees_no_validators_of_others(line: Line, shelf: Shelf, api_db: Database) -> None:
    crawled(line, "shelf/a")
    with pytest.raises(Exception, match="permission denied"):
        rows(api_db, "SELECT 1 FROM validators")


def test_the_fingerprint_is_of_all_code_that_makes_pictures(tmp_path: Path) -> None:
    """Whatever of `ml` the sandboxed process imports, at one or more removes."""
    open_, found = ["worker.sandbox_child"], {"worker.sandbox_child"}
    while open_:
        origin = importlib.util.find_spec(open_.pop()).origin  # type: ignore[union-attr]
        for node in ast.walk(ast.parse(Path(str(origin)).read_text())):
            if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.split(".")[0] == "ml":
                names = [f"ml.{each.name}" for each in node.names] if node.module == "ml" else [node.module]
                open_ += [name for name in names if name not in found]
                found |= set(names)
    assert found - {"ml.errors"} == set(reuse.MAKERS)


def test_limits_and_settings_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    base = settings(tmp_path, "postgresql://x@localhost/x")
    names = ("max_picture_bytes", "max_pixels", "max_side", "work_short_side", "work_quality")
    other = [base.model_copy(update={name: getattr(base, name) - 1}) for name in names]
    assert len({reuse.made_by(each) for each in (base, *other)}) == 1 + len(names)


def test_questions_of_many_tasks_are_one_and_each_gets_its_answer() -> None:
    asked: list[set[int]] = []

    def answer(keys: Any) -> dict[int, str]:
        asked.append(set(keys))
        if 13 in keys:
            raise ValueError("thirteen")
        return {key: str(key) for key in keys if key % 2}

    async def run() -> None:
        async def in_thread(call: Any) -> Any:
            return await asyncio.to_thread(call)

        together = Together(answer, in_thread, gather_s=0.05, most=100)
        answers = await asyncio.gather(*(together.ask(n) for n in (1, 2, 3, 3)))
        assert answers == ["1", None, "3", "3"]
        assert asked == [{1, 2, 3}]
        failed = await asyncio.gather(together.ask(13), together.ask(5), return_exceptions=True)
        assert [type(each) for each in failed] == [ValueError, ValueError]
        leaving = asyncio.create_task(together.ask(7))
        staying = asyncio.create_task(together.ask(9))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await staying == "9"
        patient = Together(answer, in_thread, gather_s=3600, most=3)
        waiting = asyncio.create_task(patient.ask(1))
        assert await patient.ask(3, urgent=True) == "3"
        assert await waiting == "1"
        assert await asyncio.gather(*(patient.ask(n) for n in (1, 3, 5))) == ["1", "3", "5"]

    asyncio.run(run())
