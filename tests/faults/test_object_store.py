"""The blobs are in an object store that hangs, resets, throttles and fails: the line waits and loses nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text

from db.blob_store import open_blobs
from tests import object_server
from tests.faults.front import Front, Reply
from tests.faults.system import PATIENT, SETTLE_S, System, until
from tests.object_server import CREDENTIALS, StoreFront, variables
from tests.oracle import Expected

pytestmark = pytest.mark.faults
TIMEOUT_S = 0.7
READY = "SELECT count(*) FROM chunks WHERE stage = 'infer' AND state = 'ready' AND job_id = :job"
HURRY = "UPDATE chunks SET not_before = now() WHERE state = 'ready'"
TRIES = "SELECT max(attempts) FROM chunks WHERE job_id = ANY(:jobs)"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with object_server.moto(tmp_path_factory.mktemp("moto") / "log") as port:
        yield port


@pytest.fixture
def store(port: int) -> Iterator[StoreFront]:
    with StoreFront(port) as front:
        yield front


@dataclass
class Desk:
    """Uploads of one picture through the API."""

    front: Front
    system: System

    def __post_init__(self) -> None:
        path, self.expected = self.system.pictures.more(1)[0]
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        self.body = head + self.system.pictures.files[path] + b"\r\n--x--\r\n"

    def upload(self) -> Reply:
        return self.front.ask("POST", "/v1/jobs", self.body, Content_Type="multipart/form-data; boundary=x")

    def refused(self) -> None:
        """It is not taken now."""
        reply = self.upload()
        assert (reply.status, reply.body["code"], reply.headers["retry-after"]) == (503, "unavailable", "5")
        assert "test-key" not in str(reply.body)

    def taken(self) -> UUID:
        """It is, at last: on a busy machine even a store that is well may be too slow for so short a limit."""
        replies: list[Reply] = []

        def again() -> bool:
            replies.append(self.upload())
            return replies[-1].status == 202

        until(again, 60, "the upload to be taken")
        job = UUID(replies[-1].body["id"])
        self.system.accepted[job] = [self.expected]
        return job


def hurried(system: System, jobs: list[UUID]) -> bool:
    """Whether these jobs have ended; what was put back for some seconds need not wait for them."""
    with system.owner.transaction() as session:
        session.execute(text(HURRY))
    return system.ended(*jobs)


def harm(system: System, job: UUID, folder: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the working copy of the job's first picture, and alter that of the second."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    blobs = open_blobs(object_server.settings(folder, port))
    sql = (
        "SELECT p.work_key FROM ingests i JOIN images p ON p.account_id = i.account_id AND p.sha256 = i.sha256"
        " WHERE i.job_id = :job ORDER BY i.seq LIMIT 2"
    )
    with system.owner.transaction() as session:
        first, second = session.execute(text(sql), {"job": job}).scalars()
    blobs.delete(first)
    blobs.put(second, blobs.get(second)[:-1] + b"x")
    system.accepted[job][:2] = [Expected(code="blob_missing"), Expected(code="blob_altered")]


def test_an_ill_store_costs_time_and_nothing_else(
    system: System, store: StoreFront, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The crawler cannot store, the worker cannot read: chunks are put back and cost no attempt. The API says 503 to an
    upload, and takes it afterwards. What is really missing or altered is told of its picture alone."""
    told = {**PATIENT, **variables(store.port, TIMEOUT_S)}
    for name in ("crawler", "worker", "maintenance"):
        system.end(system.role(name))
    folder = tmp_path / "blobs"
    told["TAGMILL_BLOB_ROOT"] = str(folder)
    crawler = system.start("crawler", **told)
    system.start("maintenance", **told)
    with Front(system, told) as front:
        stored = system.submit(4)
        until(lambda: system.count(READY, job=stored) > 0, 120, "the pictures to be stored")
        harm(system, stored, tmp_path / "other", port, monkeypatch)
        store.ill = "hang"
        worker = system.start("worker", **told)
        desk, jobs = Desk(front, system), [stored]
        for ill in ("hang", "reset", "503"):
            store.ill = ill
            said = crawler.log.read_text().count("chunk put back")
            jobs.append(system.submit(4))
            desk.refused()
            until(lambda: crawler.log.read_text().count("chunk put back") > said, 60, f"a chunk to meet {ill}")  # noqa: B023
        worker.wait_for("the blob store is away")
        before = system.pids()
        store.ill, store.pause_s = "slow", 0.1
        jobs.append(desk.taken())
        until(lambda: hurried(system, jobs), SETTLE_S, "the jobs to end")
        system.settle(*jobs)
        assert system.pids() == before
        assert system.count(TRIES, jobs=jobs) == 1, "an outage costs no attempt"
        item = front.ask("GET", f"/v1/jobs/{jobs[-1]}/items").body["items"][0]["id"]
        store.ill = "500"
        assert front.ask("GET", f"/v1/items/{item}/thumbnail").status == 503
        store.well()
        until(lambda: front.ask("GET", f"/v1/items/{item}/thumbnail").status == 200, 60, "the picture")
        for role in (crawler, worker, front.role):
            words = role.log.read_text()
            assert "hunter2" not in words
            assert "test-key" not in words
    assert [path for path in folder.rglob("*") if path.is_file()] == [], "no picture stays on this disk"
