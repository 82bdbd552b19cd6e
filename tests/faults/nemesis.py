"""Breaks a running system at random, reproducibly: a seed gives the same faults in the same order with the same pauses.

each round:  orders go to the API as a careful client sends them · some faults, one after the other
             all is mended · the oracle judges everything that was ever accepted, and what the endpoint was told
"""

import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from uuid import UUID

import redis

from tests.conftest import Services
from tests.faults.front import Front, Order
from tests.faults.proxy import Proxy
from tests.faults.servers import failing, frozen
from tests.faults.system import MODULES, Role, System, signal_all, until
from tests.oracle import check
from worker.service import Service

COMMITS = (
    "UPDATE chunks SET state = 'done'",
    "UPDATE chunks c SET state = 'leased'",
    "UPDATE jobs SET settled_at",
    "INSERT INTO jobs",
    "INSERT INTO results",
)
MOST_S = 5.0  # beyond a lease, and beyond what a client of the broker or the database waits for


@dataclass(frozen=True)
class Blow:
    """One fault: its name, the role that it is for, how long it lasts, and what comes before the next."""

    fault: str
    role: str
    lasts_s: float
    then_s: float
    words: str


def plan(seed: int, number: int) -> list[Blow]:
    """The faults of round `number`."""
    chance = random.Random(f"{seed}/{number}")
    return [
        Blow(
            fault=chance.choice(sorted(FAULTS)),
            role=chance.choice(sorted(MODULES)),
            lasts_s=round(chance.uniform(0, MOST_S), 2),
            then_s=round(chance.uniform(0, 1.5), 2),
            words=chance.choice(COMMITS),
        )
        for _ in range(chance.randint(1, 4))
    ]


@dataclass
class Nemesis:
    """The system, its API, and the wires to its servers."""

    system: System
    services: Services
    front: Front
    broker: Proxy
    postgres: Proxy
    settings: dict[str, str]
    seed: int
    say: Callable[[str], None]
    orders: int = 0
    blows: dict[str, int] = field(default_factory=dict)

    def round(self, number: int) -> None:
        """One round. AssertionError if an order is never accepted, a job does not end, or the oracle objects."""
        blows = plan(self.seed, number)
        self.say(f"round {number}: " + ", ".join(f"{blow.fault} {blow.role} {blow.lasts_s} s" for blow in blows))
        amounts = random.Random(f"{self.seed}/{number}/orders")
        with ThreadPoolExecutor(3) as clients:
            orders = [self.system.pictures.more(amounts.randint(4, 40)) for _ in range(3)]
            accepted = [clients.submit(self._order, order) for order in orders]
            for blow in blows:
                time.sleep(blow.then_s)
                FAULTS[blow.fault](self, blow)
                self.blows[blow.fault] = self.blows.get(blow.fault, 0) + 1
            self.mend()
            supervised = threading.Event()
            supervisor = threading.Thread(target=self._supervise, args=(supervised,), daemon=True)
            supervisor.start()
            try:
                jobs = [each.result(180) for each in accepted]
                self.system.settle(*jobs, timeout=240)
                # A delivery whose sender was killed waits for its lease to run out.
                until(lambda: self.system.undelivered() == 0, 180, "the endpoint to be told")
            finally:
                supervised.set()
                supervisor.join()
        check(self.system.owner, self.system.accepted, told=True)

    def mend(self) -> None:
        """Wires whole, servers up, one process of each role and the API; what was asked to be cut is forgotten."""
        self.broker.flow()
        self.postgres.flow()
        self.postgres.forget()
        self.services.postgres.start()
        self.services.valkey.start()
        for name in MODULES:
            self.alive(name)
        if self.front.role.process.poll() is not None:
            self.system.end(self.front.role)
            self.front.start()

    def alive(self, name: str) -> Role:
        """The role's process, started again if it has ended, as a supervisor would."""
        for role in [each for each in self.system.roles if each.name == name]:
            if role.process.poll() is None:
                return role
            self.say(f"    {name} had ended with code {role.process.returncode}: {role.log}")
            self.system.end(role)
        return self.system.start(name, **self.settings)

    def _supervise(self, end: threading.Event) -> None:
        """What a fault made end a little later is started again."""
        while not end.wait(0.5):
            for name in MODULES:
                self.alive(name)

    def _order(self, order: Order) -> UUID:
        """As a careful client: with a key, again until it is accepted."""
        self.orders += 1
        key = f"nemesis-{self.seed}-{self.orders}"
        give_up = time.monotonic() + 170
        while True:
            with suppress(OSError, HTTPException):
                reply = self.front.submit(order, key, timeout=20)
                if reply.status == 202:
                    return self.front.job(reply)
                # In flight: by an earlier try of ours whose connection was cut.
                assert reply.status in (409, 503), reply
            assert time.monotonic() < give_up, "an order was not accepted"
            time.sleep(0.5)


def _kill(nemesis: Nemesis, blow: Blow) -> None:
    nemesis.alive(blow.role).kill()
    nemesis.alive(blow.role)


def _kill_child(nemesis: Nemesis, blow: Blow) -> None:
    signal_all(nemesis.alive("worker").children(), signal.SIGKILL)


def _kill_api(nemesis: Nemesis, blow: Blow) -> None:
    nemesis.front.role.kill()
    nemesis.mend()


def _terminate(nemesis: Nemesis, blow: Blow) -> None:
    role = nemesis.alive(blow.role)
    role.signal(signal.SIGTERM)
    time.sleep(blow.lasts_s)
    role.kill()
    nemesis.alive(blow.role)


def _stop(nemesis: Nemesis, blow: Blow) -> None:
    role = nemesis.alive(blow.role)
    _hold([role.pid, *role.children()], blow.lasts_s)


def _hold(pids: list[int], seconds: float) -> None:
    signal_all(pids, signal.SIGSTOP)
    time.sleep(seconds)
    signal_all(pids, signal.SIGCONT)


def _hold_server(server: Service, seconds: float) -> None:
    with frozen(server):
        time.sleep(seconds)


def _kill_server(server: Service, seconds: float) -> None:
    server.kill()
    time.sleep(seconds)
    server.start()


def _flush(nemesis: Nemesis, blow: Blow) -> None:
    with redis.Redis.from_url(nemesis.system.broker_url) as client:
        client.flushall()


def _abort(nemesis: Nemesis, blow: Blow) -> None:
    with failing(nemesis.system.database_url):
        time.sleep(blow.lasts_s)


def _stall(wire: Proxy, seconds: float) -> None:
    wire.stall()
    time.sleep(seconds)
    wire.flow()


def _refuse(wire: Proxy, seconds: float) -> None:
    wire.refuse()
    time.sleep(seconds)
    wire.flow()


FAULTS: dict[str, Callable[[Nemesis, Blow], object]] = {
    "kill": _kill,
    "kill the child of": _kill_child,
    "kill the api beside": _kill_api,
    "terminate": _terminate,
    "stop": _stop,
    "flush": _flush,
    "kill valkey": lambda n, b: _kill_server(n.services.valkey, b.lasts_s),
    "stop valkey": lambda n, b: _hold_server(n.services.valkey, b.lasts_s),
    "stall valkey": lambda n, b: _stall(n.broker, b.lasts_s),
    "half-open valkey": lambda n, b: n.broker.half_open(),
    "reset valkey": lambda n, b: n.broker.reset(),
    "refuse valkey": lambda n, b: _refuse(n.broker, b.lasts_s),
    "abort postgres": _abort,
    "kill postgres": lambda n, b: _kill_server(n.services.postgres, b.lasts_s / 2),
    "stop postgres": lambda n, b: _hold_server(n.services.postgres, b.lasts_s),
    "stall postgres": lambda n, b: _stall(n.postgres, b.lasts_s),
    "half-open postgres": lambda n, b: n.postgres.half_open(),
    "reset postgres": lambda n, b: n.postgres.reset(),
    "refuse postgres": lambda n, b: _refuse(n.postgres, b.lasts_s),
    "cut postgres": lambda n, b: n.postgres.cut_after_commit(b.words, 2),
}
