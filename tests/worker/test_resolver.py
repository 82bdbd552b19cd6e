"""The resolver: names whose servers are dead hold up no others, and what a slow answer says about a host."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.hostile import HostileServer
from tests.misbehaviour import PICTURE
from worker.errors import FetchFailure, NoAnswerInTime
from worker.fetcher import Fetched, Fetcher, FetchLimits
from worker.hosts import Answer, judge
from worker.netguard import NetGuard
from worker.resolver import PoolResolver, domain_of


@dataclass
class NameServers:
    """Names with "dead" in them get no answer until `revive`, "slow" ones a late one, other .test names one at once."""

    asked: Counter[str] = field(default_factory=Counter)
    alive: threading.Event = field(default_factory=threading.Event)

    def revive(self) -> None:
        self.alive.set()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServers]:
    servers = NameServers()
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *rest: Any, **more: Any) -> Any:
        if not str(host).endswith(".test"):
            return real(host, *rest, **more)
        servers.asked[host] += 1
        if "dead" in host and not servers.alive.wait(20):
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if "slow" in host:
            threading.Event().wait(0.6)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield servers
    servers.revive()


async def answers(resolver: PoolResolver, hosts: list[str]) -> list[Any]:
    found = await asyncio.gather(*(resolver.resolve(host, 80) for host in hosts), return_exceptions=True)
    return [each if isinstance(each, BaseException) else [one["host"] for one in each] for each in found]


def test_one_domain_with_dead_servers_holds_up_nobody_else(names: NameServers) -> None:
    async def main() -> tuple[list[Any], list[Any]]:
        resolver = PoolResolver(2.0)
        dead = asyncio.create_task(answers(resolver, [f"h{n}.dead.test" for n in range(400)]))
        await asyncio.sleep(0.1)
        good = await answers(resolver, [f"h{n}.shop{n}.test" for n in range(60)])
        assert not dead.done()
        failed = await dead
        # Again, while the abandoned threads are still busy.
        good += await answers(resolver, [f"again{n}.shop{n}.test" for n in range(60)])
        names.revive()
        await resolver.close()
        return failed, good

    failed, good = asyncio.run(main())
    assert {type(each) for each in failed} == {NoAnswerInTime}
    assert good == [["127.0.0.1"]] * 120
    assert sum("dead" in host for host in names.asked) == 16


def test_the_whole_of_a_crawlers_fetches_on_dead_names_leaves_threads(names: NameServers) -> None:
    """Even when each of them is another domain."""

    async def main() -> list[Any]:
        resolver = PoolResolver(2.0)
        dead = asyncio.create_task(answers(resolver, [f"dead{n}.test" for n in range(128)]))
        await asyncio.sleep(0.1)
        good = await answers(resolver, [f"h{n}.shop{n}.test" for n in range(60)])
        names.revive()
        await dead
        await resolver.close()
        return good

    assert asyncio.run(main()) == [["127.0.0.1"]] * 60


def test_an_abandoned_lookup_keeps_its_place_until_its_thread_ends_and_is_joined(names: NameServers) -> None:
    async def main() -> None:
        resolver = PoolResolver(0.2, per_domain=1)
        for host in ("a.dead.test", "a.dead.test", "b.dead.test"):
            with pytest.raises(NoAnswerInTime):
                await resolver.resolve(host)
        assert names.asked == {"a.dead.test": 1}  # joined; and b had no place
        names.revive()
        async with asyncio.timeout(10):
            while True:
                try:
                    assert await resolver.resolve("b.dead.test")
                    break
                except NoAnswerInTime:
                    continue
        assert await resolver.resolve("a.dead.test", 443)
        assert names.asked["a.dead.test"] == 2
        await resolver.close()

    asyncio.run(main())


def test_where_no_thread_can_be_had_the_name_is_for_later(names: NameServers, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> list[Any]:
        resolver = PoolResolver(1.0, per_domain=1)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refused)
            found = await answers(resolver, ["a.shop.test", "b.shop.test"])
        found += await answers(resolver, ["a.shop.test", "b.shop.test"])
        await resolver.close()
        return found

    first, second, *later = asyncio.run(main())
    assert (type(first), type(second)) == (NoAnswerInTime, NoAnswerInTime)
    assert later == [["127.0.0.1"]] * 2


def test_a_failed_lookup_is_a_failure_for_each_that_waits() -> None:
    async def main() -> list[Any]:
        resolver = PoolResolver(10.0)
        found = await answers(resolver, ["a..b", "a..b", "x" * 70 + ".test"])
        await resolver.close()
        return found

    assert all(isinstance(each, socket.gaierror) for each in asyncio.run(main()))


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("a.b.example.com", "example.com"),
        ("Example.COM.", "example.com"),
        ("img.shop.co.uk", "shop.co.uk"),
        ("shop.co.uk", "shop.co.uk"),
        ("co.uk", "co.uk"),
        ("img.shop.de", "shop.de"),
        ("localhost", "localhost"),
    ],
)
def test_domain_of(host: str, domain: str) -> None:
    assert domain_of(host) == domain


def fetched(host: str, limits: FetchLimits) -> Any:
    async def main() -> Any:
        with HostileServer() as server:
            guard = NetGuard(allow_cidrs=["127.0.0.0/8"], allow_ports=[server.port])
            async with Fetcher(guard, limits) as fetcher:
                return await fetcher.fetch(server.url("image", host))

    return asyncio.run(main())


def test_a_name_without_an_answer_is_dns_failed_and_says_nothing_about_the_host(names: NameServers) -> None:
    outcome = fetched("dead.test", FetchLimits(dns_s=0.3, connect_s=0.2))
    names.revive()
    assert isinstance(outcome, FetchFailure)
    assert (outcome.code, outcome.retryable) == ("dns_failed", True)
    assert judge(outcome) is Answer.NOTHING


def test_a_late_answer_is_not_taken_from_the_time_to_connect(names: NameServers) -> None:
    outcome = fetched("slow.test", FetchLimits(dns_s=5.0, connect_s=0.5))
    assert isinstance(outcome, Fetched), outcome
    assert outcome.data == PICTURE
