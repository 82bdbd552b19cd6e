"""Politeness: limits per host and in all, fairness, pauses, the breaker; on virtual time but for the last part."""

import asyncio
import math
import selectors
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial
from heapq import heappop
from itertools import pairwise
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hostile import FixedResolver, HostileServer
from worker.errors import Deferral, FetchFailure, fetch_failure
from worker.fetcher import Fetched, Fetcher, FetchLimits, NotModified
from worker.hosts import Answer, HostLine, HostRules, judge
from worker.netguard import NetGuard
from worker.politeness import HostGate, host_of, visit
from worker.retry import RetryPolicy

T = TypeVar("T")
RULES = HostRules()
BUSY = fetch_failure("http_429", "", retry_after_s=60, status=429)
SLOW_DOWN = fetch_failure("http_5xx", "", status=503)
DOWN = fetch_failure("connect_failed", "")


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0].cancelled():
            heappop(scheduled)._scheduled = False  # type: ignore[attr-defined]
            self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
        if not self._ready and scheduled:  # type: ignore[attr-defined]
            self.now = max(self.now, scheduled[0].when())
        super()._run_once()  # type: ignore[misc]


def virtually(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_what_is_urgent_comes_first_of_its_account() -> None:
    async def run() -> list[str]:
        gate = HostGate(HostRules(concurrency=1), total=4)
        served: list[str] = []

        async def one(name: str, host: str, account: int, *, urgent: bool = False) -> None:
            async with gate.slot(host, account=account, urgent=urgent):
                served.append(name)
                await asyncio.sleep(1)

        plain = [one(f"{account}.{n}", "h", account) for n in range(3) for account in (1, 2)]
        await asyncio.gather(*plain, one("now", "h", 1, urgent=True))
        return served

    # The first was let in before the urgent one came; then accounts take turns.
    assert virtually(run()) == ["1.0", "2.0", "now", "2.1", "1.1", "2.2", "1.2"]


def test_a_few_places_are_kept_for_what_is_urgent() -> None:
    """All places may be held by hosts that do not answer; a host still gets no more requests than it may have."""

    async def run() -> tuple[list[float], float]:
        gate = HostGate(HostRules(concurrency=2), total=4)
        began = now()

        async def one(host: str, seconds: float, *, urgent: bool = False) -> float:
            async with gate.slot(host, urgent=urgent):
                entered = now() - began
                await asyncio.sleep(seconds)
                return entered

        slow = [asyncio.create_task(one(f"slow{n}", 20)) for n in range(4)]
        await asyncio.sleep(0)
        plain = asyncio.create_task(one("fast", 1))
        urgent = [asyncio.create_task(one("fast", 1, urgent=True)) for _ in range(4)]
        entered = await asyncio.gather(*urgent)
        waited = await plain
        await asyncio.gather(*slow)
        return entered, waited

    entered, waited = virtually(run())
    assert entered == [0, 0, 20, 20], "beyond the host's two places there is no short cut"
    assert waited == 21, "and what is urgent stays before the rest"


# The account of one host: pure.


def test_what_outcomes_say_about_a_host() -> None:
    assert judge(None) is Answer.FINE
    assert judge(fetch_failure("http_404", "", status=404)) is Answer.FINE
    assert judge(fetch_failure("not_an_image", "")) is Answer.FINE
    assert judge(BUSY) is Answer.THROTTLED
    assert judge(SLOW_DOWN) is Answer.THROTTLED
    assert judge(fetch_failure("http_5xx", "", status=500)) is Answer.BROKEN
    assert judge(DOWN) is Answer.BROKEN
    assert judge(fetch_failure("dns_failed", "")) is Answer.BROKEN
    assert judge(fetch_failure("dns_failed", "", retryable=False)) is Answer.NOTHING
    assert judge(fetch_failure("blocked_address", "")) is Answer.NOTHING


def test_throttling_halves_the_window_once_per_round_and_answers_widen_it() -> None:
    line = HostLine(HostRules(concurrency=8))
    for _ in range(8):
        line.begin(0.0)
    assert line.wait(0.0) == math.inf
    for _ in range(8):  # all eight were sent before the first 429 came back: one cut, not eight
        line.end(1.0, 0.0, Answer.THROTTLED)
    assert line.window == 4
    assert line.spacing == RULES.spacing_s
    line.begin(2.0)
    line.end(2.5, 2.0, Answer.THROTTLED)
    assert line.window == 2
    assert line.wait(2.5) == line.spacing == 2 * RULES.spacing_s
    for step in range(100):
        line.begin(100.0 + step)
        line.end(100.5 + step, 100.0 + step, Answer.FINE)
    assert line.window == 8
    assert line.spacing == 0
    assert line.blank(300.0)


def test_the_breaker_opens_probes_and_closes() -> None:
    line = HostLine(RULES)
    clock = 0.0
    for _ in range(RULES.broken_after):
        assert line.pause(clock) is None
        line.begin(clock)
        line.end(clock, clock, Answer.BROKEN)
    assert line.pause(clock) == (RULES.pause_s, "host_unavailable")
    lengths = []
    for _ in range(6):  # each probe fails: twice as long, up to the cap
        pause = line.pause(clock)
        assert pause is not None
        lengths.append(pause[0])
        clock += pause[0]
        assert line.wait(clock) == 0
        line.begin(clock)
        assert line.wait(clock) == math.inf  # one probe at a time
        line.end(clock, clock, Answer.BROKEN)
    assert lengths == [30, 60, 120, 240, 480, 600]
    assert line.dead(clock)
    clock += 600
    assert not line.dead(clock)
    line.begin(clock)
    line.end(clock, clock, Answer.FINE)
    assert line.pause(clock) is None
    assert line.wait(clock) == 0
    assert line.openings == 0


def test_failures_of_before_the_opening_do_not_open_again() -> None:
    line = HostLine(HostRules(concurrency=20, broken_after=8))
    for _ in range(20):
        line.begin(0.0)
    for _ in range(20):
        line.end(5.0, 0.0, Answer.BROKEN)
    assert line.openings == 1
    assert line.pause(5.0) == (30, "host_unavailable")


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.sampled_from(Answer), st.none() | st.floats(0, 100), st.booleans()),
        max_size=60,
    ),
    st.integers(1, 6),
    st.floats(0, 3),
)
def test_no_history_breaks_the_limits(
    history: list[tuple[float, Answer, float | None, bool]], concurrency: int, interval: float
) -> None:
    line = HostLine(HostRules(concurrency=concurrency, interval_s=interval, broken_after=3))
    clock, last, flying, quiet_until = 0.0, -math.inf, [], -math.inf
    for step, answer, retry_after, finish in history:
        clock += step
        if finish and flying:
            line.end(clock, flying.pop(0), answer, retry_after)
            if answer is Answer.THROTTLED and retry_after:
                quiet_until = max(quiet_until, clock + retry_after)
        elif line.wait(clock) == 0:
            assert clock >= quiet_until
            assert clock - last >= interval - 1e-6
            line.begin(clock)
            flying.append(clock)
            last = clock
        assert line.active == len(flying) <= concurrency
        assert 1 <= line.window <= concurrency
    for began in flying:
        line.end(clock, began, Answer.FINE)
    # Whatever happened, the host gets another chance, and within the longest pause.
    assert line.wait(clock + 3600) == 0


# The gate: on virtual time.


async def use(
    gate: HostGate, host: str, seconds: float, log: list[Any], failure: FetchFailure | None = None, account: int = 0
) -> Any:
    async with gate.slot(host, account=account) as slot:
        if slot.refusal is not None:
            return slot.refusal
        log.append(("begin", host, now()))
        await asyncio.sleep(seconds)
        log.append(("end", host, now()))
        slot.report(failure)
    return None


def peaks(log: list[Any]) -> tuple[Counter[str], int]:
    """The most at once per host and in all."""
    active: Counter[str] = Counter()
    peak: Counter[str] = Counter()
    most = 0
    for kind, host, _ in log:
        active[host] += 1 if kind == "begin" else -1
        peak[host] = max(peak[host], active[host])
        most = max(most, active.total())
    return peak, most


def test_ten_thousand_urls_of_one_slow_host_do_not_starve_a_hundred_others() -> None:
    async def main() -> tuple[list[Any], float]:
        gate, log = HostGate(total=16), []
        began = now()
        slow = [asyncio.create_task(use(gate, "slow.test", 20, log)) for _ in range(10_000)]
        await asyncio.sleep(0)
        assert gate.counts() == {"in_flight": 4, "waiting": 9996, "hosts": 1}
        others = [asyncio.create_task(use(gate, f"h{n}.test", 0.1, log)) for n in range(100) for _ in range(5)]
        await asyncio.gather(*others)
        took = now() - began
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        assert gate.counts() == {"in_flight": 0, "waiting": 0, "hosts": 0}
        return log, took

    log, took = virtually(main())
    peak, most = peaks(log)
    assert max(peak.values()) == 4
    assert most == 16
    assert took == pytest.approx(500 * 0.1 / 12, rel=0.1)  # all the other twelve places, all the time


def test_hosts_take_turns_when_places_are_few() -> None:
    async def main() -> list[str]:
        gate, log = HostGate(HostRules(concurrency=1), total=1), []
        await asyncio.gather(*(use(gate, host, 1, log) for host in "aaaaabbbcc"))
        return [host for kind, host, _ in log if kind == "begin"]

    assert "".join(virtually(main())) == "abcabcabaa"


def by_account(log: list[Any], account: int, until: float = math.inf) -> int:
    """How many requests of the account's hosts ("<account>-…") have ended."""
    return sum(kind == "end" and host.startswith(f"{account}-") and at <= until for kind, host, at in log)


def test_an_account_of_slow_hosts_starves_no_other() -> None:
    """As many hosts as there are turns; what counts is how long each keeps its place."""

    async def main() -> tuple[float, int, list[Any]]:
        gate, log = HostGate(total=64), []
        began = now()
        slow = [asyncio.create_task(use(gate, f"1-{n}.test", 20, log, account=1)) for n in range(1536)]
        await asyncio.sleep(0)
        assert gate.counts()["in_flight"] == 64  # alone, it may have all
        quick = [asyncio.create_task(use(gate, f"2-{n % 20}.test", 0.1, log, account=2)) for n in range(4000)]
        await asyncio.gather(*quick)
        took = now() - began
        await asyncio.gather(*slow)
        return took, by_account(log, 1, began + took), log

    took, slow_meanwhile, log = virtually(main())
    # The first places are free after 20 s; from then on the quick one has half of them.
    assert took == pytest.approx(20 + 4000 * 0.1 / 32, rel=0.1)
    assert slow_meanwhile >= 64
    _, most = peaks(log)
    assert most == 64


def test_an_account_holds_no_more_than_half_while_another_waits() -> None:
    async def main() -> None:
        gate, log = HostGate(total=10), []
        tasks = [
            asyncio.create_task(use(gate, f"{account}-{n}.test", seconds, log, account=account))
            for n in range(200)
            for account, seconds in ((1, 7.0), (2, 1.0))
        ]
        await asyncio.gather(*tasks)
        active: Counter[str] = Counter()
        moments: dict[float, Counter[str]] = {}
        for kind, host, at in log:
            active[host[0]] += 1 if kind == "begin" else -1
            moments[at] = active.copy()
        ended = max(at for kind, host, at in log if kind == "begin" and host[0] == "2")
        assert {count["1"] for at, count in moments.items() if at < ended} == {5}

    virtually(main())


def test_accounts_take_turns_at_a_host_that_both_want() -> None:
    async def main() -> str:
        gate, order = HostGate(HostRules(concurrency=1)), []

        async def one(account: str) -> None:
            async with gate.slot("same.test", account=ord(account)):
                order.append(account)
                await asyncio.sleep(1)

        await asyncio.gather(*(one(account) for account in "aaaaaabbbc"))
        return "".join(order)

    assert virtually(main()) == "aabcababaa"


def test_the_least_interval_between_starts_is_kept() -> None:
    async def main() -> list[float]:
        gate, log = HostGate(HostRules(interval_s=0.5)), []
        await asyncio.gather(*(use(gate, "a", 0.01, log) for _ in range(20)))
        return [at for kind, _, at in log if kind == "begin"]

    starts = virtually(main())
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert gaps == pytest.approx([0.5] * 19)


def test_retry_after_refuses_those_who_wait_and_those_who_come() -> None:
    async def main() -> None:
        gate, log = HostGate(), []
        outcomes = await asyncio.gather(
            *(use(gate, "a", 1, log, BUSY if n == 0 else None) for n in range(50)), use(gate, "b", 5, log)
        )
        assert [outcome for outcome in outcomes if outcome is None] == [None] * 5  # four in flight at a, one at b
        assert Deferral("a", 60, "http_429") in outcomes
        refused = await use(gate, "a", 1, log)
        assert isinstance(refused, Deferral)
        assert refused.wait_s == pytest.approx(56)
        assert gate.deferrals() == {"a": pytest.approx(56)}
        await asyncio.sleep(56)
        assert gate.deferrals() == {}
        assert await use(gate, "a", 1, log) is None
        assert sum(host == "a" and kind == "begin" for kind, host, _ in log) == 5

    virtually(main())


def test_a_short_retry_after_is_waited_for() -> None:
    async def main() -> None:
        gate, log = HostGate(patience_s=3), []
        await use(gate, "a", 0, log, replace(BUSY, retry_after_s=2))
        began = now()
        assert await use(gate, "a", 0, log) is None
        assert now() - began == pytest.approx(2)

    virtually(main())


def test_pauses_survive_the_process() -> None:
    async def first() -> dict[str, float]:
        gate = HostGate()
        await use(gate, "a", 0, [], BUSY)
        await use(gate, "b", 0, [])
        return gate.deferrals()

    async def second(blocked: dict[str, float]) -> Any:
        gate = HostGate()
        gate.restore(blocked)
        assert await use(gate, "b", 0, []) is None
        return await use(gate, "a", 0, [])

    blocked = virtually(first())
    assert blocked == {"a": 60}
    assert virtually(second(blocked)) == Deferral("a", 60, "http_429")


def test_a_host_that_is_down_is_left_alone_probed_and_given_up() -> None:
    async def main() -> None:
        gate, log = HostGate(), []
        outcomes = await asyncio.gather(*(use(gate, "a", 1, log, DOWN) for _ in range(1000)))
        assert 8 <= sum(outcome is None for outcome in outcomes) < 8 + 4  # and what was in flight
        assert Deferral("a", 30, "host_unavailable") in outcomes
        for pause in (30, 60):
            await asyncio.sleep(pause)
            outcomes = await asyncio.gather(*(use(gate, "a", 1, log, DOWN) for _ in range(100)))
            assert sum(outcome is None for outcome in outcomes) == 1  # the probe
        refused = await use(gate, "a", 1, log)
        assert isinstance(refused, FetchFailure)
        assert refused.code == "host_unavailable"
        await asyncio.sleep(120)
        outcomes = await asyncio.gather(*(use(gate, "a", 1, log) for _ in range(100)))
        assert outcomes == [None] * 100
        peak, _ = peaks(log)
        assert peak["a"] == 4

    virtually(main())


def test_a_busy_host_lets_go_after_the_longest_wait() -> None:
    async def main() -> None:
        gate, log = HostGate(), []
        busy = [asyncio.create_task(use(gate, "a", 100, log)) for _ in range(4)]
        await asyncio.sleep(0)
        began = now()
        async with gate.slot("a", wait_s=15) as slot:
            assert slot.refusal == Deferral("a", 15, "host_busy")
        assert now() - began == pytest.approx(15)
        await asyncio.gather(*busy)
        assert gate.counts() == {"in_flight": 0, "waiting": 0, "hosts": 0}

    virtually(main())


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 3), st.floats(0, 6), st.integers(1, 3)), max_size=40),
    st.integers(1, 3),
)
def test_cancelled_requests_give_their_places_back(plan: list[tuple[str, float, float, int]], total: int) -> None:
    async def main() -> None:
        gate, log = HostGate(HostRules(concurrency=2), total=total), []
        tasks = []
        for host, seconds, cancel_after, account in plan:
            task = asyncio.create_task(use(gate, host, seconds, log, account=account))
            asyncio.get_running_loop().call_later(cancel_after, task.cancel)
            tasks.append(task)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert gate.counts() == {"in_flight": 0, "waiting": 0, "hosts": 0}
        log.clear()
        await asyncio.gather(*(use(gate, host, 1, log) for host in "aabb"))
        assert len(log) == 8

    virtually(main())


def test_a_cancellation_at_the_moment_of_the_grant_loses_no_place() -> None:
    async def main() -> None:
        gate, log = HostGate(total=1), []
        async with gate.slot("a"):
            waiter = asyncio.create_task(use(gate, "b", 1, log))
            await asyncio.sleep(1)
        waiter.cancel()  # it has its place by now, but has not run yet
        await asyncio.gather(waiter, return_exceptions=True)
        assert log == []
        assert gate.counts()["in_flight"] == 0
        assert await use(gate, "c", 1, log) is None

    virtually(main())


def test_a_crash_in_a_slot_gives_the_place_back_and_blames_nobody() -> None:
    async def main() -> None:
        gate = HostGate(total=1)
        for _ in range(20):
            with pytest.raises(ZeroDivisionError):
                async with gate.slot("a"):
                    raise ZeroDivisionError
        assert await use(gate, "a", 0, []) is None

    virtually(main())


def test_many_hosts_are_forgotten() -> None:
    async def main() -> None:
        gate = HostGate()
        for n in range(45_000):
            await use(gate, f"h{n}", 0, [], DOWN)  # one failure: worth remembering, but not for ever
        assert gate.counts()["hosts"] <= 20_000

    virtually(main())


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://Example.COM:8080/a", "example.com"),
        ("https://example.com./a", "example.com"),
        ("http://bücher.example/", "xn--bcher-kva.example"),
        ("http://[::1]:80/", "::1"),
        ("http://[", ""),
        ("nonsense", ""),
    ],
)
def test_host_of(url: str, host: str) -> None:
    assert host_of(url) == host


# Whole visits: the real server, the real fetcher, short pauses.

QUICK = RetryPolicy(base_s=0.01, cap_s=0.02, patience_s=0.5)


def visits(
    server: HostileServer, *urls: str, gate_total: int = 64, rules: HostRules = RULES, **options: Any
) -> list[Fetched | NotModified | FetchFailure | Deferral]:
    async def main() -> list[Fetched | NotModified | FetchFailure | Deferral]:
        gate = HostGate(rules, total=gate_total)
        guard = NetGuard(allow_cidrs=["127.0.0.0/8"], allow_ports=[server.port])
        resolver = FixedResolver({}, default="127.0.0.1")
        async with Fetcher(guard, FetchLimits(total_s=2, sock_read_s=0.5), resolver=resolver) as fetcher:
            return await asyncio.gather(
                *(visit(gate, host_of(url), partial(fetcher.fetch, url), policy=QUICK, **options) for url in urls)
            )

    return asyncio.run(main())


@pytest.mark.parametrize("kind", ["500", "503", "408", "reset"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_passing_failure_and_then_a_picture(kind: str, times: int) -> None:
    with HostileServer() as server:
        (outcome,) = visits(server, server.url(f"flaky/{times}?status={kind}"))
        assert isinstance(outcome, Fetched)
        assert server.asked[f"/flaky/{times}"] == times + 1


def test_three_tries_and_no_more() -> None:
    with HostileServer() as server:
        lasting, missing = visits(server, server.url("status/500"), server.url("status/404"))
        assert getattr(lasting, "code", None) == "http_5xx"
        assert getattr(missing, "code", None) == "http_404"
        assert server.asked == {"/status/500": 3, "/status/404": 1}


@pytest.mark.parametrize("after", ["60", "%2B60"])
@pytest.mark.parametrize("status", ["429", "503"])
def test_a_server_that_asks_for_a_pause_is_asked_once(status: str, after: str) -> None:
    with HostileServer() as server:
        urls = [server.url(f"status/{status}?after={after}&n={n}") for n in range(30)]
        outcomes = visits(server, *urls, rules=HostRules(concurrency=1))
        assert server.asked.total() == 1
    assert all(isinstance(outcome, Deferral) and 50 < outcome.wait_s <= 61 for outcome in outcomes)


def test_an_item_put_off_too_often_fails() -> None:
    with HostileServer() as server:
        (outcome,) = visits(server, server.url("status/429"), deferrals=QUICK.max_deferrals)
    assert isinstance(outcome, FetchFailure)
    assert outcome.code == "http_429"


def test_the_server_sees_no_more_than_the_limits() -> None:
    with HostileServer(files={"a.png": b"\x89PNG" + bytes(100)}, latency_s=0.005) as server:
        urls = [server.url("a.png", "big.test")] * 300
        urls += [server.url("a.png", f"h{n % 20}.test") for n in range(100)]
        outcomes = visits(server, *urls, gate_total=12)
        assert all(isinstance(outcome, Fetched) for outcome in outcomes)
        assert server.asked_hosts["big.test"] == 300
        assert max(server.peak.values()) <= 4
        assert server.peak_paths["/a.png"] <= 12
