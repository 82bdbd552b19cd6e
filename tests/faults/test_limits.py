"""Limits of accounts while servers are away: they are kept where the items are, over all processes of the API."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from sqlalchemy import text

from tests.conftest import Services
from tests.faults.front import Front
from tests.faults.system import System, signal_all
from tests.faults.test_broker_network import gone

pytestmark = pytest.mark.faults
PER_MINUTE = 30
TODAY = "SELECT coalesce(sum(items), 0) FROM account_days WHERE day = (now() AT TIME ZONE 'UTC')::date"


@pytest.fixture
def limits(system: System) -> Iterator[dict[str, str]]:
    """Thirty requests a minute, and twenty items more than the account submitted before."""
    forget_requests(system)
    yield {
        "TAGMILL_REQUESTS_PER_MINUTE": str(PER_MINUTE),
        "TAGMILL_ITEMS_PER_DAY": str(system.count(TODAY) + 20),
    }
    forget_requests(system)


def forget_requests(system: System) -> None:
    """The account is every test's."""
    with system.owner.transaction() as session:
        session.execute(text("DELETE FROM account_rates"))


def asked(fronts: tuple[Front, ...], times: int) -> Counter[int]:
    """The statuses of so many requests to each, all at once."""
    with ThreadPoolExecutor(16) as clients:
        return Counter(clients.map(lambda front: front.ask("GET", "/v1/jobs").status, fronts * times))


def test_rate_limits_hold_without_valkey(system: System, services: Services, limits: dict[str, str]) -> None:
    """Away, flushed or there: two processes together answer as many requests as one may send, and say no in time."""
    with Front(system, limits) as one, Front(system, limits) as other:
        began = time.monotonic()
        with gone(services.valkey):
            found = asked((one, other), 40)
            assert found.keys() == {200, 429}
            assert PER_MINUTE <= found[200] <= PER_MINUTE + 1 + (time.monotonic() - began) * PER_MINUTE / 60
        with redis.Redis.from_url(system.broker_url) as client:
            client.flushdb()
        answered = found[200] + asked((one, other), 20)[200]
        assert answered <= PER_MINUTE + 1 + (time.monotonic() - began) * PER_MINUTE / 60
        assert one.ask("GET", "/readyz").status == 200


def test_a_process_that_stands_still_holds_up_nobody(system: System, limits: dict[str, str]) -> None:
    """Stopped in the middle of requests of the account: what it counts is locked for no longer than a statement of the
    server's. Sixty times, because it must be met there."""
    limits = {**limits, "TAGMILL_REQUESTS_PER_MINUTE": "6000000"}
    with Front(system, limits) as stopped, Front(system, limits) as other, ThreadPoolExecutor(8) as clients:
        pids = [stopped.role.pid, *stopped.role.children()]
        ended = threading.Event()

        def ask() -> None:
            while not ended.is_set():
                stopped.ask("GET", "/v1/jobs")

        asking = [clients.submit(ask) for _ in range(8)]
        try:
            for _ in range(60):
                time.sleep(0.01)
                signal_all(pids, signal.SIGSTOP)
                try:
                    # Behind a lock it would hear 503 after ten seconds.
                    assert other.ask("GET", "/v1/account").status == 200
                finally:
                    signal_all(pids, signal.SIGCONT)
        finally:
            ended.set()
        for each in asking:
            each.result(60)


def test_quotas_hold_without_valkey_and_over_a_crash_of_postgres(
    system: System, services: Services, limits: dict[str, str]
) -> None:
    before = system.count(TODAY)
    with Front(system, limits) as front:
        with gone(services.valkey):
            orders = [system.pictures.more(3) for _ in range(12)]
            with ThreadPoolExecutor(12) as clients:
                replies = list(clients.map(front.submit, orders))
        assert Counter(reply.status for reply in replies) == {202: 6, 429: 6}
        assert {reply.body["code"] for reply in replies if reply.status == 429} == {"quota_exceeded"}
        system.settle(*(front.job(reply) for reply in replies if reply.status == 202), timeout=90)
        with gone(services.postgres):
            assert front.ask("GET", "/v1/account").status == 503
        said = front.ask("GET", "/v1/account")
        # What was spent of the day is as safe as the items; the bucket of requests, which is not logged, is full.
        assert said.body["items"]["today"] == before + 18
        assert said.body["requests"]["left"] >= PER_MINUTE - 1
        assert front.submit(system.pictures.more(3)).status == 429
        system.settle(front.job(front.submit(system.pictures.more(2))), timeout=90)
