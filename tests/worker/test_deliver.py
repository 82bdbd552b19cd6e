"""The sender against receivers that misbehave: each try ends in its code, nothing is lost, none waits for another."""

import asyncio
import json
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import pytest
import standardwebhooks
from aiohttp.abc import AbstractResolver
from structlog.testing import capture_logs

from db import deliveries, outbox, webhooks
from db.delivery_codes import DELIVERY_CODES, OURS
from db.ids import uuid7
from db.session import Database
from db.webhook_secrets import Keys
from db.webhook_targets import TEXTS, Targets
from tests.conftest import TestAccount
from tests.faults.system import until
from tests.hostile import CERTIFICATES, FixedResolver, HostileServer
from tests.worker.line import rows, run_sql, settings
from worker import deliver, delivery_schedule, roles
from worker.deliver import Sender
from worker.errors import FetchCode
from worker.heartbeat import Counters
from worker.netguard import NetGuard
from worker.settings import WorkerSettings
from worker.webhook_post import Answer, Poster

KEY = "k" * 40
OK = b"ok"


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer(files={"ok": OK}) as running:
        yield running


class House:
    """An account's endpoints, and a sender to run by hand."""

    def __init__(self, owner_db: Database, db: Database, database_url: str, account: TestAccount, folder: Path) -> None:
        self.owner_db = owner_db
        self.db = db
        self.account = account
        self.folder = folder
        self.database_url = database_url
        self.secrets: dict[UUID, str] = {}

    def settings(self, *servers: HostileServer, **more: Any) -> WorkerSettings:
        given = {
            "webhook_keys": [KEY], "webhook_http": True, "webhook_ports": [each.port for each in servers],
            "webhook_cidrs": ["127.0.0.0/8"], "webhook_timeout_s": 0.6, "webhook_poll_s": 0.05,
        }  # fmt: skip
        return settings(self.folder, self.database_url, **{**given, **more})

    def endpoint(self, url: str) -> UUID:
        with self.owner_db.transaction() as session:
            made, secret = webhooks.create(session, self.account.id, url, None, None, keys=Keys([KEY]), actor="test")
        self.secrets[made.id] = secret
        return made.id

    def emit(self, number: int = 1, **payload: Any) -> None:
        with self.db.transaction() as session:
            for _ in range(number):
                outbox.emit(session, self.account.id, "job.finished", str(uuid7()), payload)

    def send(self, given: WorkerSettings, **poster: Any) -> None:
        """Fan out, and send all that is due, once."""

        async def main() -> None:
            async with self.poster(given, **poster) as post:
                sender = Sender(given, self.db, uuid7(), Counters(), post)
                while await sender.turn():
                    await sender.settled()

        asyncio.run(main())

    def poster(self, given: WorkerSettings, **more: Any) -> Poster:
        guard = NetGuard(allow_cidrs=given.webhook_cidrs, deny_cidrs=given.deny_cidrs, allow_ports=given.webhook_ports)
        return Poster(guard, Targets.of(given), total_s=given.webhook_timeout_s, **more)

    def later(self) -> None:
        """When everything that waits is due."""
        run_sql(self.owner_db, "UPDATE deliveries SET not_before = now() - interval '1 s' WHERE state = 'pending'")
        run_sql(self.owner_db, "UPDATE webhooks SET paused_until = NULL")

    def delivery(self, hook: UUID) -> Any:
        """The one delivery of an endpoint, with the seconds until its next try and those of the endpoint's pause."""
        (found,) = rows(
            self.owner_db,
            "SELECT d.*, extract(epoch FROM d.not_before - now())::float8 AS wait_s, h.reason,"
            " extract(epoch FROM h.paused_until - now())::float8 AS pause_s"
            " FROM deliveries d JOIN webhooks h ON h.id = d.webhook_id WHERE d.webhook_id = :hook",
            hook=hook,
        )
        return found


@pytest.fixture
def house(owner_db: Database, db: Database, database_url: str, account: TestAccount, tmp_path: Path) -> House:
    return House(owner_db, db, database_url, account, tmp_path)


# --- what arrives ----------------------------------------------------------------------------------------------------


def test_an_event_arrives_signed_by_the_standard(house: House, server: HostileServer) -> None:
    hook = house.endpoint(server.url("ok"))
    house.emit(job="größe")
    house.send(house.settings(server))
    (got,) = server.log
    given = {name: str(got.header(name)) for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}
    told = standardwebhooks.Webhook(house.secrets[hook]).verify(got.body, given)
    assert told["type"] == "job.finished"
    assert told["data"] == {"job": "größe"}
    assert told["timestamp"].endswith("+00:00")
    assert got.raw.startswith(b"POST /ok HTTP/1.1")
    assert got.header("content-type") == "application/json"
    assert len(got.body) < 20_000
    found = house.delivery(hook)
    assert (found.state, found.attempts, found.code, found.status) == ("delivered", 1, None, 200)
    assert given["webhook-id"] == str(found.event_id)
    house.send(house.settings(server))
    assert len(server.log) == 1


def test_during_a_rotation_both_secrets_verify(house: House, server: HostileServer) -> None:
    hook = house.endpoint(server.url("ok"))
    with house.owner_db.transaction() as session:
        _, new = webhooks.rotate(session, house.account.id, hook, keys=Keys([KEY]), actor="test")
    house.emit()
    house.send(house.settings(server))
    (got,) = server.log
    given = {name: str(got.header(name)) for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}
    assert given["webhook-signature"].count("v1,") == 2
    for secret in (house.secrets[hook], new):
        standardwebhooks.Webhook(secret).verify(got.body, given)


# --- what goes wrong -------------------------------------------------------------------------------------------------

BROKEN = {
    "status/500": ("http_5xx", 500),
    "status/404": ("http_4xx", 404),
    "redirect?to=http://127.0.0.1:1/": ("redirect", 302),
    "redirect?to=http://127.0.0.1:1/&status=308": ("redirect", 308),
    "silent": ("timeout", None),
    "drip-header": ("timeout", None),
    "flood-1xx": ("timeout", None),
    "not-http": ("bad_response", None),
    "big-header": ("bad_response", None),
    "many-headers": ("bad_response", None),
    "upgrade": ("bad_response", None),
    "reset": ("connection_reset", None),
    "hang-up": ("connection_reset", None),
}


@pytest.mark.parametrize("path", BROKEN)
def test_each_failure_has_its_code_and_is_due_again_by_the_schedule(
    house: House, server: HostileServer, path: str
) -> None:
    hook = house.endpoint(server.url(path))
    house.emit()
    house.send(house.settings(server))
    found = house.delivery(hook)
    assert (found.state, found.attempts, found.code, found.status) == ("pending", 1, *BROKEN[path])
    assert 2 < found.wait_s <= 5.5
    house.later()
    house.send(house.settings(server))
    found = house.delivery(hook)
    assert (found.state, found.attempts) == ("pending", 2)
    assert 240 < found.wait_s <= 330
    ids = {got.header("webhook-id") for got in server.log}
    assert ids == {str(found.event_id)}, "the same id at every try"
    assert len({got.body for got in server.log}) == 1


@pytest.mark.parametrize("path", ["endless", "endless-chunked", "drip-body", "stall-body", "reset-body", "gzip-bomb"])
def test_a_status_is_enough_whatever_body_follows(house: House, server: HostileServer, path: str) -> None:
    """An answer without end, or one byte at a time: we have gone before the server notices."""
    hook = house.endpoint(server.url(path))
    house.emit()
    house.send(house.settings(server))
    assert house.delivery(hook).state == "delivered"
    until(lambda: server.active[f"path /{path}"] == 0, 20, "the connection to be closed")


def test_a_redirect_is_not_followed_even_to_where_we_may_go(house: House, server: HostileServer) -> None:
    house.endpoint(server.url(f"redirect?to={server.url('ok')}&status=307"))
    house.emit()
    house.send(house.settings(server))
    assert server.asked["/ok"] == 0


def test_gone_disables_the_endpoint(house: House, server: HostileServer) -> None:
    hook = house.endpoint(server.url("status/410"))
    house.emit()
    with capture_logs() as lines:
        house.send(house.settings(server))
    found = house.delivery(hook)
    assert (found.state, found.code, found.reason) == ("failed", "http_410", "gone")
    assert [line["webhook"] for line in lines] == [str(hook)]
    assert server.url("") not in str(lines)


@pytest.mark.parametrize(
    ("path", "wait_s"),
    [("status/429?after=1800", 1800), ("status/503?after=%2B1200", 1200), ("status/503?after=99999999", 3600)],
)
def test_retry_after_is_honoured_for_the_whole_endpoint(
    house: House, server: HostileServer, path: str, wait_s: float
) -> None:
    hook = house.endpoint(server.url(path))
    house.emit()
    house.send(house.settings(server))
    found = house.delivery(hook)
    assert wait_s - 60 < found.wait_s <= wait_s
    assert wait_s - 60 < found.pause_s <= wait_s
    house.emit()
    house.send(house.settings(server))
    assert len(server.log) == 1, "nor is another event sent there"


def test_a_ping_is_tried_once(house: House, server: HostileServer) -> None:
    hook = house.endpoint(server.url("status/500"))
    with house.owner_db.transaction() as session:
        webhooks.ping(session, house.account.id, hook)
    house.send(house.settings(server))
    found = house.delivery(hook)
    assert (found.type, found.state, found.code) == ("webhook.ping", "failed", "http_5xx")


def test_a_receiver_that_is_down_for_hours_gets_it_in_the_end(house: House) -> None:
    with HostileServer(files={"ok": OK}) as gone:
        url, port = gone.url("ok"), gone.port
    hook = house.endpoint(url)
    house.emit()
    given = house.settings(webhook_ports=[port])
    for attempt in range(1, 7):
        house.send(given)
        found = house.delivery(hook)
        assert (found.state, found.attempts, found.code) == ("pending", attempt, "connect_failed")
        expected = delivery_schedule.SCHEDULE[attempt]
        assert 0.9 * expected - 60 < found.wait_s <= 1.1 * expected
        house.later()
    with HostileServer(files={"ok": OK}, port=port) as back:
        house.send(given)
        assert len(back.log) == 1
    assert house.delivery(hook).state == "delivered"
    with house.db.transaction() as session:
        log = deliveries.attempts(session, house.account.id, hook, house.delivery(hook).event_id)
    assert [each.code for each in log] == ["connect_failed"] * 6 + [None]
    assert [each.n for each in log] == list(range(1, 8))


def test_one_that_stays_away_is_given_up_after_the_whole_schedule(house: House) -> None:
    hook = house.endpoint("http://127.0.0.1:1/")
    house.emit()
    given = house.settings(webhook_ports=[1])
    for tries in range(1, len(delivery_schedule.SCHEDULE) + 1):
        house.send(given)
        assert house.delivery(hook).attempts == tries
        house.later()
    found = house.delivery(hook)
    assert (found.state, found.attempts, found.code) == ("failed", 10, "connect_failed")
    house.send(given)
    assert house.delivery(hook).attempts == 10


# --- the guard -------------------------------------------------------------------------------------------------------


def test_a_name_that_is_pointed_at_our_network_later_is_blocked(house: House) -> None:
    """It was good at its registration and at its first delivery."""
    with HostileServer(files={"ok": OK}, addresses=("127.0.0.1", "127.0.0.2")) as server:
        hook = house.endpoint(f"http://hooks.example:{server.port}/ok")
        resolver = FixedResolver({"hooks.example": [["127.0.0.1"], ["127.0.0.2"], ["10.0.0.1"], ["127.0.0.2"]]})
        given = house.settings(server, webhook_cidrs=["127.0.0.1/32"])
        house.emit()
        house.send(given, resolver=resolver)
        assert (house.delivery(hook).state, server.connections) == ("delivered", 1)
        run_sql(house.owner_db, "DELETE FROM deliveries")
        house.emit()
        for _ in range(2):
            house.send(given, resolver=resolver)
            assert house.delivery(hook).code == "blocked_address"
            house.later()
        assert server.connections == 1, "no packet reached what the name leads to now"
        house.send(house.settings(server), resolver=resolver)
        assert (house.delivery(hook).state, server.connections) == ("delivered", 2), "without the guard it would have"


@pytest.mark.parametrize(
    ("url", "changed", "code"),
    [
        ("http://127.0.0.1:{port}/ok", {"webhook_http": False}, "blocked_scheme"),
        ("http://127.0.0.1:{port}/ok", {"webhook_ports": []}, "blocked_port"),
        ("http://127.0.0.1:{port}/ok", {"webhook_cidrs": []}, "blocked_address"),
        ("http://127.0.0.1:{port}/ok", {"deny_cidrs": ["127.0.0.0/8"]}, "blocked_address"),
        ("http://127.0.0.1:{port}/ok", {"webhook_cidrs": [], "allow_cidrs": ["127.0.0.0/8"]}, "blocked_address"),
        ("http://0x7f000001:{port}/ok", {}, "invalid_url"),
        ("http://user@127.0.0.1:{port}/ok", {}, "blocked_userinfo"),
        ("http://nowhere.example:{port}/ok", {}, "dns_failed"),
        ("ftp://127.0.0.1:{port}/ok", {}, "blocked_scheme"),
    ],
)
def test_what_was_stored_is_checked_again_at_each_try(
    house: House, server: HostileServer, url: str, changed: dict[str, Any], code: str
) -> None:
    hook = house.endpoint(url.format(port=server.port))
    house.emit()
    house.send(house.settings(server, **changed), resolver=FixedResolver({}))
    assert (house.delivery(hook).code, server.connections) == (code, 0)


def test_certificates_are_verified(house: House) -> None:
    trusting = ssl.create_default_context(cafile=str(CERTIFICATES / "valid.pem"))
    resolver = FixedResolver({"good.test": ["127.0.0.1"], "bad.test": ["127.0.0.1"]})
    with HostileServer(files={"ok": OK}, tls="valid") as server:
        good, bad = (house.endpoint(server.url("ok", host)) for host in ("good.test", "bad.test"))
        house.emit()
        given = house.settings(server, webhook_http=False)
        house.send(given, resolver=resolver)
        assert house.delivery(good).code == house.delivery(bad).code == "tls_failed", "signed by nobody we know"
        house.later()
        house.send(given, resolver=resolver, ssl_context=trusting)
        assert house.delivery(good).state == "delivered"
        assert house.delivery(bad).code == "tls_failed", "of another name"


# --- processes -------------------------------------------------------------------------------------------------------


def test_a_sender_killed_after_sending_sends_the_same_again(house: House, server: HostileServer) -> None:
    hook = house.endpoint(server.url("ok"))
    house.emit()
    given = house.settings(server)
    marker = house.folder / "killed"
    variables = {
        "TAGMILL_DATABASE_URL": house.database_url,
        "TAGMILL_DATABASE_ROLE": "tagmill_worker",
        "TAGMILL_BROKER_URL": "redis://127.0.0.1:1/0",
        "TAGMILL_BLOB_ROOT": str(house.folder),
        "TAGMILL_MODEL_ROOT": str(house.folder),
        "TAGMILL_WEBHOOK_KEYS": KEY,
        "TAGMILL_WEBHOOK_HTTP": "true",
        "TAGMILL_WEBHOOK_PORTS": str(server.port),
        "TAGMILL_WEBHOOK_CIDRS": "127.0.0.0/8",
        "TAGMILL_TEST_BUILD": "1",
        "TAGMILL_FAILPOINTS": f"deliver_after_send={marker}",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.maintenance"],
        env=roles.environment(variables),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.wait(60) == -signal.SIGKILL
    finally:
        process.kill()
        process.wait(10)
    found = house.delivery(hook)
    assert len(server.log) == 1
    assert (found.state, found.attempts) == ("pending", 0)
    assert found.owner is not None
    house.send(given)
    assert len(server.log) == 1, "its lease still holds"
    run_sql(house.owner_db, "UPDATE deliveries SET lease_until = now() - interval '1 s'")
    house.send(given)
    first, second = server.log
    assert first.header("webhook-id") == second.header("webhook-id") == str(found.event_id)
    assert first.body == second.body
    assert house.delivery(hook).state == "delivered"


def test_a_delivery_that_kills_its_senders_counts_as_failed(house: House, server: HostileServer) -> None:
    hook = house.endpoint(server.url("ok"))
    house.emit()
    given = house.settings(server, webhook_keys=["n" * 40])
    house.send(given)
    assert (house.delivery(hook).code, len(server.log)) == ("no_signing_key", 0)
    house.later()
    run_sql(house.owner_db, "UPDATE deliveries SET claims = :most", most=deliver.MAX_CLAIMS)
    house.send(house.settings(server))
    assert (house.delivery(hook).code, len(server.log)) == ("sender_died", 0)
    (found,) = rows(house.db, "SELECT failures FROM webhooks")
    assert found.failures == 0, "neither is the endpoint's fault"
    house.later()
    house.send(house.settings(server))
    assert house.delivery(hook).state == "delivered"


def test_a_slow_endpoint_holds_up_no_other(house: House, server: HostileServer) -> None:
    slow, quick = house.endpoint(server.url("silent")), house.endpoint(server.url("ok"))
    house.emit(30)
    given = house.settings(server, webhook_timeout_s=60, webhook_concurrency=8)

    def delivered() -> int:
        return len(rows(house.db, "SELECT 1 FROM deliveries WHERE webhook_id = :q AND state = 'delivered'", q=quick))

    async def main() -> None:
        async with house.poster(given) as post:
            running = asyncio.create_task(Sender(given, house.db, uuid7(), Counters(), post).run(lambda: False))
            for _ in range(600):
                if await asyncio.to_thread(delivered) == 30:
                    break
                await asyncio.sleep(0.05)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())
    assert delivered() == 30
    assert server.peak_paths["/silent"] == 4, "it got the places of one endpoint"
    assert rows(house.db, "SELECT 1 FROM delivery_attempts WHERE webhook_id = :slow", slow=slow) == []


def test_what_waits_for_one_endpoint_is_not_sent_one_poll_at_a_time(house: House, server: HostileServer) -> None:
    house.endpoint(server.url("ok"))
    house.emit(40)
    given = house.settings(server, webhook_poll_s=3600)

    async def main() -> None:
        async with house.poster(given) as post:
            running = asyncio.create_task(Sender(given, house.db, uuid7(), Counters(), post).run(lambda: False))
            for _ in range(600):
                if server.asked["/ok"] == 40:
                    break
                await asyncio.sleep(0.05)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())
    assert server.asked["/ok"] == 40


def test_several_senders_share_the_work_and_send_nothing_twice(house: House, server: HostileServer) -> None:
    hooks = [house.endpoint(server.url("ok")) for _ in range(3)]
    house.emit(60)
    given = house.settings(server, webhook_per_account=8)

    def left() -> int:
        sent = len(rows(house.db, "SELECT 1 FROM deliveries WHERE state = 'delivered'"))
        return 60 * len(hooks) - sent

    async def main() -> None:
        async with house.poster(given) as post:
            senders = [Sender(given, house.db, uuid7(), Counters(), post) for _ in range(3)]
            running = [asyncio.create_task(each.run(lambda: False)) for each in senders]
            for _ in range(1200):
                if await asyncio.to_thread(left) == 0:
                    break
                await asyncio.sleep(0.05)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    asyncio.run(main())
    assert left() == 0
    assert len(server.log) == 180
    assert len({(got.header("webhook-id"), got.header("webhook-signature")) for got in server.log}) == 180
    assert server.peak["127.0.0.1"] <= 8, "the account's bound holds for all of them together"
    assert len(rows(house.db, "SELECT DISTINCT fence FROM deliveries WHERE fence = 1")) == 1


def test_a_stopped_sender_hands_back_what_it_cannot_end(house: House, server: HostileServer) -> None:
    house.endpoint(server.url("silent"))
    house.emit()
    given = house.settings(server, webhook_timeout_s=60)

    async def main() -> None:
        async with house.poster(given) as post:
            sender = Sender(given, house.db, uuid7(), Counters(), post)
            assert await sender.turn() == 1
            sender._settings = given.model_copy(update={"webhook_timeout_s": -0.9})  # do not wait a minute
            await sender.run(lambda: True)

    asyncio.run(main())
    (found,) = rows(house.db, "SELECT owner, claims, attempts FROM deliveries")
    assert tuple(found) == (None, 0, 0)


# --- lists and pure decisions ----------------------------------------------------------------------------------------


def test_every_code_that_a_try_can_end_with_has_its_meaning() -> None:
    own = {"redirect", "http_410", "http_429", "http_4xx", "http_5xx", "endpoint_disabled", *OURS}
    assert DELIVERY_CODES.keys() - set(get_args(FetchCode)) - own == set()
    assert TEXTS.keys() <= DELIVERY_CODES.keys()
    assert own <= DELIVERY_CODES.keys()


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 5), (1, 300), (2, 1800), (3, 7200), (7, 72_000), (8, 86_400), (9, None), (40, None)]
)
def test_the_schedule(step: int, expected: float | None) -> None:
    for chance in (0.0, 0.5, 0.999):
        wait = delivery_schedule.again("job.finished", "http_5xx", step, chance=chance)
        assert wait == (None if expected is None else pytest.approx(expected * (0.9 + 0.2 * chance)))
    assert delivery_schedule.again("job.finished", "http_410", step) is None


def test_a_retry_after_only_ever_lengthens_a_wait() -> None:
    assert delivery_schedule.again("job.finished", "http_429", 0, retry_after_s=90) == 90
    assert delivery_schedule.again("job.finished", "http_429", 1, retry_after_s=90, chance=0.5) == 300
    assert delivery_schedule.pause(503, None) > 0
    assert delivery_schedule.pause(500, None) == 0


def test_a_poster_raises_for_nothing_that_a_resolver_says(house: House, server: HostileServer) -> None:
    class Broken(AbstractResolver):
        async def resolve(self, *_: Any, **__: Any) -> Any:
            raise OSError("no")

        async def close(self) -> None:
            return None

    async def main() -> Answer:
        async with house.poster(house.settings(server), resolver=Broken()) as post:
            return await post.post(f"http://x.example:{server.port}/", {}, json.dumps({}).encode())

    assert asyncio.run(main()).code == "dns_failed"
