"""The crawler and the ingest stage, in process, against a real server, database, blob store and sandbox."""

import asyncio
import contextlib
import io
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from PIL import Image

from api.settings import ApiSettings
from db import banks, jobs
from db.blobs import LocalBlobs, raw_key
from db.chunks import Chunk, ChunkItem
from db.ids import uuid7
from db.jobs import JobSpec, NewItem
from db.recording import IngestOutcome
from db.session import Database
from tests.conftest import TestAccount
from tests.hostile import HostileServer
from tests.misbehaviour import png
from tests.worker.line import rows, run_sql, settings
from worker import wiring
from worker.crawl_loop import Crawler
from worker.errors import Deferral
from worker.heartbeat import Counters
from worker.ingest import Harvest, Ingest
from worker.politeness import HostGate
from worker.reuse import Reuse
from worker.sandbox import Normaliser


class Line:
    """A crawler to run on a test's database until nothing is left to do now."""

    def __init__(self, database: Database, url: str, folder: Path, server: HostileServer, account_id: int) -> None:
        self.database = database
        self.url = url
        self.folder = folder
        self.server = server
        self.account_id = account_id
        self.blobs = LocalBlobs(folder / "blobs")
        self.counters = Counters()

    def submit(self, items: Sequence[NewItem | str], chunk_size: int = 16, lane: str = "bulk", **asked: Any) -> UUID:
        """A job of items or of paths on the server."""
        made = [NewItem(url=self.server.url(item)) if isinstance(item, str) else item for item in items]
        spec = JobSpec(lane=lane, **asked)
        with self.database.transaction() as session:
            return jobs.submit(session, self.account_id, spec, made, max_items=1000, chunk_size=chunk_size).id

    def crawl(self, blobs: LocalBlobs | None = None, **more: Any) -> None:
        """Until no ingest chunk is ready or leased now."""
        asyncio.run(self._crawl(blobs or self.blobs, more))

    async def _crawl(self, blobs: LocalBlobs, more: dict[str, Any]) -> None:
        with_settings = settings(self.folder, self.url, allow_ports=[self.server.port], **more)
        gate = wiring.gate(with_settings)
        stop = asyncio.Event()
        async with wiring.fetcher(with_settings) as fetcher, wiring.normaliser(with_settings) as normaliser:
            ingest = Ingest(
                with_settings,
                fetcher=fetcher,
                gate=gate,
                normaliser=normaliser,
                blobs=blobs,
                counters=self.counters,
                reuse=Reuse(with_settings, self.database, blobs),
            )
            crawler = Crawler(with_settings, self.database, ingest, gate, uuid7(), self.counters)
            running = asyncio.create_task(crawler.run(stop))
            open_now = (
                "SELECT 1 FROM chunks WHERE stage = 'ingest' AND (state = 'leased' OR state = 'ready' AND"
                " not_before <= now())"
            )
            async with asyncio.timeout(60):
                while not running.done() and await asyncio.to_thread(rows, self.database, open_now):
                    await asyncio.sleep(0.05)
            stop.set()
            await running
            ingest.close()

    def outcomes(self, job: UUID) -> list[str | None]:
        """The code of each ingested item in order; None for a success."""
        return [
            row.code
            for row in rows(self.database, "SELECT code FROM ingests WHERE job_id = :job ORDER BY seq", job=job)
        ]


@pytest.fixture
def line(db: Database, database_url: str, tmp_path: Path, account: TestAccount) -> Iterator[Line]:
    files = {f"{n}.png": png(20 + n, 10, (n, 100, 200)) for n in range(40)}
    # The owner's connection would see the same: submit needs rights that the worker has not.
    owner = Database(database_url)
    with HostileServer(files=files, addresses=("127.0.0.1", "127.0.0.2")) as server:
        yield Line(owner, database_url, tmp_path, server, account.id)
    owner.dispose()


@pytest.mark.parametrize(("less", "code"), [(0, None), (1, "too_large")])
def test_one_limit_of_bytes_for_uploads_and_urls(line: Line, less: int, code: str | None) -> None:
    picture = png(30, 30)
    line.server.files["30.png"] = picture
    limit = ApiSettings(
        database_url=line.url, blob_root=line.folder, model_root=line.folder, max_picture_bytes=len(picture) - less
    ).max_picture_bytes
    key, _, _ = line.blobs.put_raw(line.account_id, [picture], len(picture))
    job = line.submit([NewItem(filename="a.png", raw_key=key), "30.png"])
    line.crawl(max_picture_bytes=limit)
    assert line.outcomes(job) == [code, code]


def test_every_kind_of_item(line: Line) -> None:
    key, _, _ = line.blobs.put_raw(line.account_id, [png(30, 30)], 10_000)
    missing = raw_key(line.account_id, b"\1" * 32)
    altered, _, _ = line.blobs.put_raw(line.account_id, [png(30, 31)], 10_000)
    line.blobs.put(altered, png(31, 30))
    job = line.submit(
        [
            "1.png",
            "status/404",
            "html",
            "truncated",
            "flaky/1?status=500",
            "noai",
            NewItem(filename="a.png", raw_key=key),
            NewItem(filename="b.png", raw_key=missing),
            NewItem(url="http://10.0.0.1/x.png"),
            NewItem(filename="c.png", raw_key=altered),
        ]
    )
    line.crawl()
    assert line.outcomes(job) == [
        None, "http_404", "not_an_image", "corrupt_image", None, "opted_out", None, "blob_missing", "blocked_address",
        "blob_altered",
    ]  # fmt: skip
    assert rows(line.database, "SELECT count(*) AS n FROM results WHERE job_id = :job", job=job)[0].n == 7
    assert rows(line.database, "SELECT seqs FROM chunks WHERE stage = 'infer'")[0].seqs == [0, 4, 6]


def test_the_image_is_kept_with_its_facts(line: Line) -> None:
    line.submit(["5.png"])
    line.crawl()
    image = rows(line.database, "SELECT * FROM images")[0]
    assert (image.width, image.height, image.format) == (25, 10, "PNG")
    assert image.bytes == len(line.server.files["5.png"])
    assert len(image.pdq) == 256
    assert image.colours
    assert line.blobs.get(image.work_key)[:2] == b"\xff\xd8"


def test_a_job_may_leave_facts_out_and_a_later_one_adds_them(line: Line) -> None:
    line.submit(["5.png"], analyses=("tags",), options={"facts": ["colours"]})
    line.crawl()
    facts = "SELECT pdq IS NOT NULL AS pdq, pdq_quality, colours, sharpness FROM images"
    first = rows(line.database, facts)[0]
    assert (first.pdq, first.pdq_quality, first.sharpness) == (False, None, None)
    assert first.colours
    line.submit(["5.png"], options={"facts": []})  # moderation is among the defaults
    line.crawl()
    second = rows(line.database, facts)[0]
    assert (second.pdq, second.colours, second.sharpness) == (True, first.colours, None)
    line.submit(["5.png"])
    line.crawl()
    third = rows(line.database, facts)[0]
    assert (third.pdq, third.pdq_quality, third.colours) == (True, second.pdq_quality, first.colours)
    assert third.sharpness is not None


def test_where_there_is_a_bank_no_job_leaves_out_hashes(line: Line) -> None:
    with line.database.transaction() as session:
        banks.create(session, None, "banned", "block", actor="test")
    line.submit(["5.png"], analyses=("tags",), options={"facts": []})
    line.crawl()
    found = rows(line.database, "SELECT pdq IS NOT NULL AS pdq, colours FROM images")[0]
    assert (found.pdq, found.colours) == (True, None)


def test_a_repeated_url_is_fetched_once(line: Line) -> None:
    job = line.submit(["3.png", "4.png", "3.png", "3.png"])
    line.crawl()
    assert line.outcomes(job) == [None] * 4
    assert (line.server.asked["/3.png"], line.server.asked["/4.png"]) == (1, 1)


def test_a_pausing_host_holds_up_nobody(line: Line) -> None:
    """Its items go into a chunk of their own; the pause is kept for other crawlers."""
    other = line.server.url("status/429?after=30", host="127.0.0.2")
    job = line.submit(["1.png", NewItem(url=other), "2.png"])
    line.crawl()
    assert line.outcomes(job) == [None, None]
    waiting = rows(
        line.database,
        "SELECT seqs, lo, hi, deferrals, not_before > now() + interval '20 s' AS later FROM chunks"
        " WHERE stage = 'ingest' AND state = 'ready'",
    )
    assert [(c.lo, c.hi, c.deferrals, c.later) for c in waiting] == [(1, 2, 1, True)]
    kept = rows(line.database, "SELECT host, not_before > now() + interval '20 s' AS later FROM hosts")
    assert [(row.host, row.later) for row in kept] == [("127.0.0.2", True)]


def test_a_host_that_pauses_too_often_fails_its_items(line: Line) -> None:
    job = line.submit(["status/429?after=30"])
    line.crawl(max_deferrals=0)
    assert line.outcomes(job) == ["http_429"]


def test_a_busy_host_costs_no_deferral(line: Line) -> None:
    job = line.submit([f"{n}.png" for n in range(12)])
    line.server.latency_s = 0.3
    line.crawl(fetch_per_host=1, host_wait_s=0.5, max_deferrals=1)
    chunks = rows(line.database, "SELECT deferrals FROM chunks WHERE stage = 'ingest'")
    assert len(chunks) > 1, "nothing was put off: the test shows nothing"
    assert {chunk.deferrals for chunk in chunks} == {0}
    done = len(line.outcomes(job))
    assert 0 < done <= 12
    assert set(line.outcomes(job)) == {None}


def test_a_pause_of_another_crawler_is_respected(line: Line) -> None:
    run_sql(line.database, "INSERT INTO hosts (host, not_before) VALUES ('127.0.0.1', now() + interval '1 hour')")
    job = line.submit(["1.png"])
    line.crawl()
    assert line.outcomes(job) == []
    assert line.server.asked["/1.png"] == 0


def test_a_lost_lease_writes_nothing(line: Line) -> None:
    job = line.submit(["1.png", "2.png"])

    class Losing(LocalBlobs):
        """Loses the lease while the first working copy is written."""

        def put_many(self, blobs: Iterable[tuple[str, bytes]]) -> None:
            run_sql(
                line.database,
                "UPDATE chunks SET owner = gen_random_uuid(), fence = fence + 1, lease_until = now() + interval '1 h'"
                " WHERE fence = 1",
            )
            super().put_many(blobs)
            run_sql(
                line.database, "UPDATE chunks SET state = 'done', owner = NULL, lease_until = NULL, finished_at = now()"
            )

    line.crawl(Losing(line.folder / "blobs"))
    assert line.outcomes(job) == []
    assert rows(line.database, "SELECT 1 FROM images") == []


def test_a_full_disk_costs_no_attempt(line: Line) -> None:
    line.submit(["1.png"])

    class Full(LocalBlobs):
        def put_many(self, blobs: Iterable[tuple[str, bytes]]) -> None:
            raise OSError(28, "No space left on device")

    line.crawl(Full(line.folder / "blobs"))
    chunk = rows(line.database, "SELECT state, attempts, not_before > now() AS later FROM chunks")[0]
    assert (chunk.state, chunk.attempts, chunk.later) == ("ready", 0, True)


def test_a_chunk_on_its_last_chance_goes_alone(line: Line) -> None:
    job = line.submit([f"{n}.png" for n in range(24)], chunk_size=8)
    suspect = rows(line.database, "SELECT id FROM chunks ORDER BY id OFFSET 1 LIMIT 1")[0].id
    run_sql(line.database, "UPDATE chunks SET attempts = 2 WHERE id = :id", id=suspect)
    beside: list[int] = []

    class Looking(LocalBlobs):
        def put_many(self, blobs: Iterable[tuple[str, bytes]]) -> None:
            for _, data in blobs:
                width = Image.open(io.BytesIO(data)).width
                if 28 <= width < 36:  # one of the suspect's own, 8.png to 15.png
                    beside.append(len(rows(line.database, "SELECT 1 FROM chunks WHERE state = 'leased'")))
            super().put_many(blobs)

    line.crawl(Looking(line.folder / "blobs"))
    assert line.outcomes(job) == [None] * 24
    assert beside == [1] * 8


def test_fetched_pictures_wait_in_bounded_number(line: Line) -> None:
    """A fast network and a slow sandbox must not fill the memory."""
    job = line.submit([f"{n}.png" for n in range(30)], chunk_size=32)
    line.crawl(ingest_in_hand=2, host_wait_s=60)  # else those that wait for long are put off
    assert line.outcomes(job) == [None] * 30
    assert line.server.peak["127.0.0.1"] <= 2


def test_fetched_and_uploaded_bytes_wait_in_bounded_amount(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few large pictures fill a memory as well as many small ones."""
    large = {f"large{n}.png": noise(n) for n in range(6)}
    assert all(400_000 < len(data) < 2**19 for data in large.values())
    line.server.files.update(large)  # type: ignore[attr-defined]
    uploads = [line.blobs.put_raw(line.account_id, [noise(100 + n)], 2**20)[0] for n in range(6)]
    job = line.submit([*large, *(NewItem(filename="a.png", raw_key=key) for key in uploads)], chunk_size=32)
    in_hand = peak = 0

    async def watched(self: Normaliser, data: bytes, **whose: Any) -> Any:
        nonlocal in_hand, peak
        in_hand += len(data)
        peak = max(peak, in_hand)
        try:
            return await normalise(self, data, **whose)
        finally:
            in_hand -= len(data)

    normalise = Normaliser.normalise
    monkeypatch.setattr(Normaliser, "normalise", watched)
    line.crawl(ingest_in_hand_mb=1, host_wait_s=60)  # else, on a busy machine, those that wait for long are put off
    assert line.outcomes(job) == [None] * 12
    assert 0 < peak <= 2**20


def noise(seed: int) -> bytes:
    """A picture that does not compress: nearly half a megabyte."""
    pixels = np.random.default_rng(seed).integers(0, 256, (380, 400, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def ended(database: Database) -> list[UUID]:
    """The jobs of ingest chunks in the order in which these ended."""
    sql = "SELECT job_id FROM chunks WHERE stage = 'ingest' AND state = 'done' ORDER BY finished_at, id"
    return [row.job_id for row in rows(database, sql)]


@pytest.mark.parametrize("upload", [True, False])
def test_an_urgent_chunk_has_a_place_of_its_own(line: Line, upload: bool) -> None:
    """A crawler with all that it may lease in hand, and every place at every host held by one that is silent."""
    bulk = line.submit([f"silent?{n}" for n in range(8)])
    item: NewItem | str = "1.png"
    if upload:
        item = NewItem(filename="a.png", raw_key=line.blobs.put_raw(line.account_id, [png(30, 30)], 10_000)[0])
    urgent: list[UUID] = []

    def submit_later() -> None:
        while not rows(line.database, "SELECT 1 FROM chunks WHERE state = 'leased'"):
            time.sleep(0.02)
        urgent.append(line.submit([item], lane="interactive"))

    thread = threading.Thread(target=submit_later)
    thread.start()
    line.crawl(
        ingest_chunks=1, fetch_concurrency=2, fetch_per_host=3, fetch_attempts=1, fetch_timeout_s=2, host_wait_s=30
    )
    thread.join()
    assert line.outcomes(urgent[0]) == [None]
    assert ended(line.database) == [urgent[0], bulk]


def test_the_places_of_the_interactive_lane_are_few(line: Line) -> None:
    """They are on top of the others, so they must be bounded: else calling everything interactive would get all."""
    jobs_of = [line.submit([f"silent?{n}"], lane="interactive") for n in range(6)]
    seen: set[int] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            seen.add(len(rows(line.database, "SELECT 1 FROM chunks WHERE state = 'leased'")))

    thread = threading.Thread(target=look)
    thread.start()
    line.crawl(ingest_chunks=1, urgent_chunks=2, fetch_attempts=1, fetch_timeout_s=1, urgent_poll_s=0.02)
    over.set()
    thread.join()
    assert max(seen) == 3
    assert [line.outcomes(job) for job in jobs_of] == [["timeout"]] * 6


def test_the_gate_knows_whose_items_it_lets_in(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    line.submit(["1.png", "2.png"])
    accounts: list[int] = []
    enter = HostGate.enter

    async def watched(self: HostGate, name: str, wait_s: float | None, account: int, urgent: bool = False) -> Any:
        accounts.append(account)
        return await enter(self, name, wait_s, account, urgent)

    monkeypatch.setattr(HostGate, "enter", watched)
    line.crawl()
    assert accounts == [line.account_id] * 2


def test_a_stop_keeps_what_is_through_and_hands_on_the_rest() -> None:
    chunk = object.__new__(Chunk)
    items = [ChunkItem(seq, f"http://h/{seq}", None) for seq in range(5)]
    harvest = Harvest(chunk, items)
    harvest.outcomes.append(IngestOutcome(0, code="http_404"))
    harvest.deferrals.append((1, Deferral("h", 7.0, "http_429")))
    harvest.deferrals.append((2, Deferral("h", 1.0, "host_busy")))
    parts = {(part.delay_s, part.counts): list(part.seqs) for part in harvest.deferred(stopped=True)}
    assert parts == {(10.0, True): [1], (1.0, False): [2], (0.0, False): [3, 4]}
    assert harvest.rest == [3, 4]


def test_many_pauses_make_few_chunks() -> None:
    harvest = Harvest(object.__new__(Chunk), [ChunkItem(n, "http://h", None) for n in range(500)])
    harvest.deferrals += [(n, Deferral(f"h{n}", 1 + n * 7.3, "http_429")) for n in range(500)]
    parts = harvest.deferred()
    assert len(parts) <= 13
    waits = {seq: part.delay_s for part in parts for seq in part.seqs}
    with contextlib.suppress(KeyError):
        assert all(waits[n] >= min(1 + n * 7.3, 3600) for n in range(500))
    assert len(waits) == 500


def test_a_crawler_removes_what_killed_writers_left(line: Line) -> None:
    old, young = (line.folder / "blobs" / "tmp" / name for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"half a picture")
    os.utime(old, (0, time.time() - 2 * 3600))
    line.submit(["1.png"])
    line.crawl()
    assert (old.exists(), young.exists()) == (False, True)
