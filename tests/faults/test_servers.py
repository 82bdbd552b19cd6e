"""Valkey and Postgres that forget, stop and come back: hints may be lost, work never is."""

import signal
import time

import psycopg
import pytest
import redis

from tests.conftest import Services
from tests.faults.system import System, signal_all, until
from tests.faults.test_processes import working_child
from worker.app import KEY_PREFIX, QUEUE

pytestmark = pytest.mark.faults
QUEUED = KEY_PREFIX + QUEUE


def test_every_hint_is_flushed(system: System) -> None:
    system.end(system.role("worker"))
    job = system.submit(80)
    with redis.Redis.from_url(system.broker_url) as client:
        until(lambda: client.llen(QUEUED) >= 5, 120, "hints to queue up")
        client.flushall()
        assert client.llen(QUEUED) == 0 or system.count(
            "SELECT count(*) FROM chunks WHERE stage = 'infer' AND state = 'ready'"
        )
    system.start("worker")
    system.settle(job)


def test_valkey_stops_and_comes_back(system: System, services: Services) -> None:
    """Crawling goes on without it; the dispatcher says so once in ten seconds at most; then all drains."""
    maintenance = system.role("maintenance")
    said = maintenance.log.read_text().count("broker away")
    services.valkey.kill()
    started = time.monotonic()
    job = system.submit(40)
    ingested = "SELECT count(*) FROM ingests WHERE job_id = :job"
    until(lambda: system.count(ingested, job=job) == 40, 120, "ingest to go on without the broker")
    until(lambda: maintenance.log.read_text().count("broker away") > said, 60, "the dispatcher to notice")
    time.sleep(2)
    lines = maintenance.log.read_text().count("broker away") - said
    assert lines <= 1 + (time.monotonic() - started) / 10
    services.valkey.start()
    system.settle(job)


def test_valkey_is_away_when_a_hint_is_accepted(system: System, services: Services) -> None:
    """A hint that cannot be acknowledged must not count as in hand for ever: the worker would take no other."""
    worker = system.role("worker")
    worker.wait_for("ready")
    until(lambda: len(worker.children()) >= 2, 120, "the worker's child to start")
    until(lambda: "calling self.run()" in worker.log.read_text(), 120, "the child to listen")
    children = worker.children()
    signal_all(children, signal.SIGSTOP)
    try:
        with redis.Redis.from_url(system.broker_url) as client:
            given, waiting = messages(client)
            before = given - waiting
            job = system.submit(40)
            began = time.monotonic()

            def in_hand() -> bool:
                """It took a message since; or it takes none although some wait: so it has one from before."""
                given, waiting = messages(client)
                return waiting > 0 and (given - waiting > before or time.monotonic() > began + 20)

            until(in_hand, 120, "the worker to take a message")
        services.valkey.kill()
    finally:
        signal_all(children, signal.SIGCONT)
    time.sleep(1)
    services.valkey.start()
    system.settle(job)


def messages(client: redis.Redis) -> tuple[int, int]:
    """How many the server was given since its start, and how many wait."""
    both = client.pipeline()
    both.info("commandstats")
    both.llen(QUEUED)
    counted, waiting = both.execute()
    return int(counted.get("cmdstat_lpush", {}).get("calls", 0)), int(waiting)


def test_postgres_is_killed_under_load(system: System, services: Services) -> None:
    """All processes live on and reconnect by themselves, one of them with a chunk in hand."""
    child = working_child(system, system.role("worker"))
    before = system.pids()
    job = system.submit(300)
    until(lambda: system.outcomes(job) > 0, 120, "the first outcomes")
    with system.caught([child], "infer"):
        services.postgres.kill()
    time.sleep(1)
    services.postgres.start()
    system.settle(job)
    assert system.pids() == before


def test_connections_are_cut_under_load(system: System, services: Services) -> None:
    """Also in the middle of transactions and at their commit."""
    job = system.submit(200)
    with psycopg.connect(services.postgres.url, autocommit=True) as connection:
        for _ in range(20):
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'tagmill %' AND datname = 'faults'"
            )
            time.sleep(0.1)
    system.settle(job)


def test_bad_messages_do_no_harm(system: System) -> None:
    """Garbage, pickle, giants, unknown tasks, other versions, every hint five times: the worker lives, nothing runs."""
    worker = system.role("worker")
    worker.wait_for("ready")
    canary = system.folder / "pickled"
    with redis.Redis.from_url(system.broker_url) as client:
        for body in bad_messages(str(canary)):
            client.lpush(QUEUED, body)
    system.start("maintenance", TAGMILL_RESEND_S="0.1", TAGMILL_HINT_WINDOW="500")
    job = system.submit(80)
    system.settle(job)
    assert not canary.exists()
    assert worker.process.poll() is None
    worker.signal(signal.SIGTERM)
    assert worker.process.wait(60) == 0


def bad_messages(canary: str) -> list[bytes]:
    """Messages as an attacker with access to the broker might put them into the queue."""
    import base64
    import json
    import pickle

    class Gadget:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return open, (canary, "w")

    def message(body: bytes, kind: str, task: str) -> bytes:
        envelope = {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "binary" if kind.endswith("serialize") else "utf-8",
            "content-type": kind,
            "headers": {"lang": "py", "task": task, "id": task, "argsrepr": "", "kwargsrepr": ""},
            "properties": {
                "correlation_id": task,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": QUEUE},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": task,
            },
        }
        return json.dumps(envelope).encode()

    hint = b'[[], {"chunk_id": 1, "v": 99}, {}]'
    return [
        message(pickle.dumps(Gadget()), "application/x-python-serialize", "tagmill.infer"),
        message(hint, "application/json", "tagmill.infer"),
        message(hint, "application/json", "os.system"),
        message(hint[:-6] + b', "more": "' + b"x" * 5_000_000 + b'"}, {}]', "application/json", "tagmill.infer"),
        message(b"[[], {}, {}]", "application/json", "tagmill.infer"),
        message(b"{not json", "application/json", "tagmill.infer"),
    ]
