"""Lets requests through host by host: a place for each, fairly between accounts and hosts; makes no request itself.

    slot(host) ─► host paused for long? ─► refused at once (Deferral), no place held
               ─► waits in its account's queue at the host; accounts with someone ready take turns for the free
                  places, and the hosts of each (worker/turns.py)
               ─► runs, reports what came of it, and wakes the next

A place of the whole is taken only together with one of the host, so that ten thousand URLs of one slow host
hold as many places as that host may have, and never more. What a redirect leads to is fetched in the place of the
host that sent it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Final, Self, TypeVar

from yarl import URL

from worker.errors import Deferral, DeferralCode, FetchFailure, fetch_failure
from worker.hosts import Answer, HostLine, HostRules, judge
from worker.lanes import Lanes
from worker.retry import Again, GiveUp, RetryPolicy, next_step
from worker.turns import Turns

T = TypeVar("T")
Refusal = Deferral | FetchFailure

_DEFAULT_RULES: Final = HostRules()
_DEFAULT_POLICY: Final = RetryPolicy()
_SWEEP_AT: Final = 20_000
URGENT_PLACES: Final = 8
"""Places of the whole on top of `total`, for what is urgent; the places of a host stay as many as they are."""


def host_of(url: str) -> str:
    """The host a URL is counted under: lower case, ASCII, without port; "" for what is no URL."""
    try:
        return (URL(url).raw_host or "").rstrip(".")
    except ValueError:
        return ""


class _Host:
    __slots__ = ("line", "name", "timer", "waiting")

    def __init__(self, name: str, rules: HostRules) -> None:
        self.name = name
        self.line = HostLine(rules)
        self.waiting: dict[int, Lanes[asyncio.Future[Refusal | None]]] = {}  # by account
        self.timer: asyncio.TimerHandle | None = None

    def forget_settled(self) -> None:
        """Let go of the first waiters of each account that have their answer."""
        for account, waiting in list(self.waiting.items()):
            while waiting and waiting.first().done():
                waiting.take()
            if not waiting:
                del self.waiting[account]


class HostGate:
    """All hosts of one crawler process, on one event loop."""

    def __init__(self, rules: HostRules = _DEFAULT_RULES, *, total: int = 64, patience_s: float = 3.0) -> None:
        """`total` places in all; a host paused for longer than `patience_s` is refused instead of waited for."""
        self._rules = rules
        self._total = self._free = total
        self._patience = patience_s
        self._hosts: dict[str, _Host] = {}
        self._turns: Turns[_Host] = Turns(total)
        self._sweep_at = _SWEEP_AT

    def slot(self, host: str, wait_s: float | None = None, *, account: int = 0, urgent: bool = False) -> "Slot":
        """`async with gate.slot(host) as slot`: a place, or `slot.refusal` (host_busy after `wait_s`). What is `urgent`
        comes before all else that waits of its account, at this host and at others."""
        return Slot(self, host, wait_s, account, urgent)

    def restore(self, blocked: Mapping[str, float]) -> None:
        """Take over pauses (host → seconds from now) that another process or an earlier run was asked for."""
        now = asyncio.get_running_loop().time()
        for name, seconds in blocked.items():
            host = self._host(name)
            host.line.block(now + seconds, "http_429")
            self._wake(host, now)
        self._pump(now)

    def deferrals(self) -> dict[str, float]:
        """The pauses that hosts asked for and that still run: host → seconds from now."""
        now = asyncio.get_running_loop().time()
        left = {name: host.line.blocked_until - now for name, host in self._hosts.items()}
        return {name: seconds for name, seconds in left.items() if seconds > 0}

    def counts(self) -> dict[str, int]:
        """For the heartbeat: requests in flight, requests waiting, hosts remembered."""
        hosts = self._hosts.values()
        waiting = sum(not turn.done() for host in hosts for turns in host.waiting.values() for turn in turns)
        return {"in_flight": self._total - self._free, "waiting": waiting, "hosts": len(self._hosts)}

    async def enter(self, name: str, wait_s: float | None, account: int, urgent: bool = False) -> Refusal | None:
        """Wait for a place at the host; None: it is taken and must be given back by `leave`."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        host = self._host(name)
        refusal = self._refusal(host, now)
        if refusal is not None:
            return refusal
        # What is urgent may find all places held by slow hosts: a few more are kept for it.
        free = self._free > (-URGENT_PLACES if urgent else 0)
        if free and (urgent or not host.waiting) and host.line.wait(now) <= 0:
            self._grant(host, account, now)
            return None
        turn: asyncio.Future[Refusal | None] = loop.create_future()
        host.waiting.setdefault(account, Lanes()).put(turn, urgent=urgent)
        self._wake(host, now, account if urgent else None)
        self._pump(now)
        busy = None
        if wait_s is not None:
            busy = loop.call_later(wait_s, _settle, turn, Deferral(name, wait_s, "host_busy"))
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result() is None:
                self.leave(name, account, loop.time(), Answer.NOTHING, None)
            self._tidy(host, loop.time())
            raise
        finally:
            if busy is not None:
                busy.cancel()

    def leave(self, name: str, account: int, began: float, answer: Answer, retry_after_s: float | None) -> None:
        """Give the place back and say what came of it."""
        now = asyncio.get_running_loop().time()
        host = self._hosts[name]
        host.line.end(now, began, answer, retry_after_s)
        self._free += 1
        self._turns.gave(account)
        self._wake(host, now)
        self._pump(now)
        self._tidy(host, now)

    def _host(self, name: str) -> _Host:
        host = self._hosts.get(name)
        if host is None:
            if len(self._hosts) >= self._sweep_at:
                self._sweep()
            host = self._hosts[name] = _Host(name, self._rules)
        return host

    def _refusal(self, host: _Host, now: float) -> Refusal | None:
        pause = host.line.pause(now)
        if pause is None or pause[0] <= self._patience:
            return None
        if host.line.dead(now):
            return fetch_failure("host_unavailable", "the host failed too often in a row", retryable=False)
        return Deferral(host.name, *pause)

    def _grant(self, host: _Host, account: int, now: float) -> None:
        self._free -= 1
        self._turns.took(account)
        host.line.begin(now)

    def _wake(self, host: _Host, now: float, urgent_of: int | None = None) -> None:
        """Put a host with waiters where it belongs: in the ready row, on a timer, or nowhere until a place ends."""
        host.forget_settled()
        if not host.waiting:
            return
        refusal = self._refusal(host, now)
        if refusal is not None:
            for turns in host.waiting.values():
                for turn in turns:
                    _settle(turn, refusal)
            host.waiting.clear()
            return
        wait = host.line.wait(now)
        if wait <= 0:
            for account in host.waiting:
                self._turns.ready(account, host, first=account == urgent_of)
        elif wait != float("inf"):
            if host.timer is not None:
                host.timer.cancel()
            host.timer = asyncio.get_running_loop().call_later(wait, self._on_timer, host)

    def _on_timer(self, host: _Host) -> None:
        host.timer = None
        now = asyncio.get_running_loop().time()
        self._wake(host, now)
        self._pump(now)

    def _pump(self, now: float) -> None:
        while self._free > 0 and (turn := self._turns.next()) is not None:
            account, host = turn
            host.forget_settled()
            if account in host.waiting and host.line.wait(now) <= 0:
                self._grant(host, account, now)
                waiting = host.waiting.pop(account)
                waiting.take().set_result(None)
                host.waiting[account] = waiting  # behind the other accounts that wait for this host
            self._wake(host, now)

    def _tidy(self, host: _Host, now: float) -> None:
        """Forget a host that nobody uses or waits for and whose account is blank."""
        host.forget_settled()
        if not host.waiting and host.line.blank(now) and self._hosts.get(host.name) is host:
            del self._hosts[host.name]

    def _sweep(self) -> None:
        """Forget idle hosts without a running pause: their old windows cost memory and mean little by now."""
        now = asyncio.get_running_loop().time()
        for name, host in list(self._hosts.items()):
            if host.line.active == 0 and not host.waiting and host.line.pause(now) is None:
                del self._hosts[name]
        self._sweep_at = max(_SWEEP_AT, 2 * len(self._hosts))


def _settle(turn: asyncio.Future[Refusal | None], refusal: Refusal) -> None:
    if not turn.done():
        turn.set_result(refusal)


class Slot:
    """One place at one host, or the reason why there is none (`refusal`: then nothing may be sent)."""

    __slots__ = ("_account", "_answer", "_began", "_gate", "_host", "_retry_after", "_urgent", "_wait", "refusal")

    def __init__(self, gate: HostGate, host: str, wait_s: float | None, account: int, urgent: bool = False) -> None:
        self._gate = gate
        self._account = account
        self._urgent = urgent
        self._host = host
        self._wait = wait_s
        self._began = 0.0
        self._answer = Answer.NOTHING
        self._retry_after: float | None = None
        self.refusal: Refusal | None = None

    async def __aenter__(self) -> Self:
        self.refusal = await self._gate.enter(self._host, self._wait, self._account, self._urgent)
        self._began = asyncio.get_running_loop().time()
        return self

    def report(self, failure: FetchFailure | None) -> None:
        """What the request came to (None: a success). Without a report it says nothing about the host."""
        self._answer = judge(failure)
        self._retry_after = failure.retry_after_s if failure is not None else None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.refusal is None:
            self._gate.leave(self._host, self._account, self._began, self._answer, self._retry_after)


async def visit(
    gate: HostGate,
    host: str,
    fetch: Callable[[], Awaitable[T | FetchFailure]],
    *,
    policy: RetryPolicy = _DEFAULT_POLICY,
    deferrals: int = 0,
    wait_s: float | None = None,
    account: int = 0,
    urgent: bool = False,
) -> T | FetchFailure | Deferral:
    """One item's fetch, with its turns at the host and its retries; between them it holds no place."""
    attempt = 0
    while True:
        attempt += 1
        async with gate.slot(host, wait_s, account=account, urgent=urgent) as slot:
            if slot.refusal is not None:
                return slot.refusal
            answer = await fetch()
            failure = answer if isinstance(answer, FetchFailure) else None
            slot.report(failure)
        if failure is None:
            return answer
        step = next_step(failure, attempt, policy=policy, deferrals=deferrals, chance=random.random())
        if isinstance(step, GiveUp):
            return failure
        if not isinstance(step, Again):
            code: DeferralCode = "http_429" if failure.code == "http_429" else "http_5xx"
            return Deferral(host, step.wait_s, code)
        await asyncio.sleep(step.delay_s)
