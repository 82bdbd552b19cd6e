"""Valkey that hangs, and a network in front of it that swallows, cuts and turns elsewhere: work goes on afterwards."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from db import stats
from tests.conftest import Services
from tests.faults.front import Front
from tests.faults.proxy import Proxy
from tests.faults.system import System, until
from worker.app import KEY_PREFIX, QUEUE
from worker.embedded import EmbeddedValkey

pytestmark = pytest.mark.faults
QUEUED = KEY_PREFIX + QUEUE
RESUMES_S = 90.0  # the promise
READY = "SELECT count(*) FROM chunks WHERE stage = 'infer' AND state = 'ready'"


@pytest.fixture
def wire(system: System, services: Services) -> Iterator[Proxy]:
    """Worker and maintenance speak to Valkey through it."""
    with Proxy(services.valkey.port) as wire:
        url = wire.url(system.broker_url)
        worker, _ = system.restart("worker", "maintenance", TAGMILL_BROKER_URL=url)
        worker.wait_for("ready")
        yield wire


def listening(system: System, wire: Proxy) -> None:
    """A job went through: every connection is made."""
    system.settle(system.submit(8))
    assert wire.open > 0


def pids(system: System) -> dict[str, int]:
    return {role.name: role.pid for role in system.roles if role.process.poll() is None}


def test_half_open_connections_to_the_broker(system: System, wire: Proxy) -> None:
    """Both sides of every connection hear nothing, and nobody tells them: consumption resumes in 90 s at most."""
    listening(system, wire)
    before = pids(system)
    assert wire.half_open() >= 2
    job = system.submit(40)
    system.settle(job, timeout=RESUMES_S)
    assert pids(system) == before, "it resumes without a restart"


def test_the_connection_is_reset_every_other_second(system: System, wire: Proxy) -> None:
    listening(system, wire)
    before = pids(system)
    jobs = []
    for _ in range(5):
        jobs.append(system.submit(24))
        wire.reset()
        time.sleep(2)
    system.settle(*jobs, timeout=RESUMES_S)
    assert pids(system) == before


def test_the_broker_is_another_one_now(system: System, services: Services, wire: Proxy, tmp_path: Path) -> None:
    """A failover to an empty one behind the same address."""
    listening(system, wire)
    before = pids(system)
    with EmbeddedValkey(tmp_path / "standby") as standby:
        with redis.Redis.from_url(standby.url) as client:
            client.config_set("requirepass", services.valkey.password)
        wire.retarget(standby.port)
        wire.reset()
        job = system.submit(40)
        system.settle(job, timeout=RESUMES_S)
        wire.retarget(services.valkey.port)
        wire.reset()
        system.settle(system.submit(16), timeout=RESUMES_S)
    assert pids(system) == before


def test_the_api_accepts_and_answers_while_the_broker_is_away(system: System, services: Services) -> None:
    """Stopped, then killed: it never speaks to it. What was accepted meanwhile drains afterwards."""
    accepted = []
    with Front(system) as front:
        for fault in (signal.SIGSTOP, signal.SIGKILL):
            assert services.valkey.pid is not None
            os.kill(services.valkey.pid, fault)
            try:
                for _ in range(10):
                    reply = front.submit(system.pictures.more(8))
                    accepted.append(front.job(reply))
                    assert front.ask("GET", f"/v1/jobs/{accepted[-1]}").status == 200
                    assert reply.seconds < 5
                assert front.ask("GET", "/readyz").status == 200
                # Longer than any timeout of the broker's clients.
                until(lambda: "broker away" in system.role("maintenance").log.read_text(), 60, "somebody to notice")
            finally:
                if fault == signal.SIGSTOP:
                    os.kill(services.valkey.pid, signal.SIGCONT)
                else:
                    services.valkey.kill()
                    services.valkey.start()
        system.settle(*accepted, timeout=RESUMES_S)


def test_the_brokers_memory_is_full(system: System) -> None:
    """Publishing fails loudly, nobody ends, the age of what waits shows; with memory again all drains."""
    system.settle(system.submit(8))
    before = pids(system)
    maintenance = system.role("maintenance")
    said = maintenance.log.read_text().count("broker away")
    with redis.Redis.from_url(system.broker_url) as client:
        client.config_set("maxmemory", "1mb")
        try:
            job = system.submit(40)
            until(lambda: system.count(READY) > 0, 60, "chunks to become ready")
            until(lambda: maintenance.log.read_text().count("broker away") > said, 30, "the dispatcher to say so")
            time.sleep(1)
            with system.owner.transaction() as session:
                ages = [s.value for s in stats.samples(session) if s.name == "oldest_ready_chunk_seconds"]
            assert max(ages) > 1
        finally:
            client.config_set("maxmemory", "0")
    system.settle(job, timeout=RESUMES_S)
    assert pids(system) == before


def test_the_queue_is_never_longer_than_its_window(system: System) -> None:
    """However many chunks wait, and for however long nobody takes a hint."""
    window = 8
    system.end(system.role("worker"))
    system.end(system.role("maintenance"))
    with redis.Redis.from_url(system.broker_url) as client:
        client.delete(QUEUED)
        job = system.submit(240)
        until(lambda: system.count(READY) >= 3 * window, 60, "chunks to become ready")
        system.start(
            "maintenance", TAGMILL_HINT_WINDOW=str(window), TAGMILL_RESEND_S="0.2", TAGMILL_CANARY_EVERY_S="0.2"
        )
        until(lambda: client.llen(QUEUED) > 0, 60, "hints")
        lengths = []
        for _ in range(60):
            lengths.append(client.llen(QUEUED))
            time.sleep(0.05)
        assert max(lengths) <= window, lengths
        # A hint is an envelope around a chunk's id.
        assert max(len(message) for message in client.lrange(QUEUED, 0, -1)) <= 1200
    system.start("worker")
    system.settle(job, timeout=90)
