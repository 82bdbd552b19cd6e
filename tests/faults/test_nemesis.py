"""Random mixes of faults, for as long as asked: `make nemesis SECONDS=600 SEED=7`. The seed is printed and repeats
them."""

import os
import random
import time

import pytest

from tests.conftest import Services
from tests.faults.front import Front
from tests.faults.nemesis import FAULTS, Nemesis, plan
from tests.faults.proxy import Proxy
from tests.faults.system import MODULES, System

SECONDS = float(os.environ.get("NEMESIS_SECONDS") or 60)
SEED = int(os.environ.get("NEMESIS_SEED") or random.SystemRandom().randrange(10**6))


def test_a_seed_gives_the_same_faults() -> None:
    rounds = [plan(7, number) for number in range(200)]
    assert rounds == [plan(7, number) for number in range(200)]
    assert rounds != [plan(8, number) for number in range(200)]
    assert {blow.fault for blows in rounds for blow in blows} == set(FAULTS)


@pytest.mark.faults
@pytest.mark.nemesis
@pytest.mark.timeout(SECONDS + 900)
def test_random_faults(
    system: System, services: Services, endpoint: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    def say(text: str) -> None:
        with capsys.disabled():
            print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)

    say(f"nemesis for {SECONDS:.0f} s; again with: make nemesis SECONDS={SECONDS:.0f} SEED={SEED}")
    with Proxy(services.valkey.port) as broker, Proxy(services.postgres.port, postgres=True) as postgres:
        settings = {
            **endpoint,
            "TAGMILL_BROKER_URL": broker.url(system.broker_url),
            "TAGMILL_DATABASE_URL": postgres.url(system.database_url),
            "TAGMILL_STATEMENT_TIMEOUT_MS": "3000",
        }
        system.restart(*MODULES, **settings)
        with Front(system, settings) as front:
            nemesis = Nemesis(system, services, front, broker, postgres, settings, SEED, say)
            until, number = time.monotonic() + SECONDS, 0
            while time.monotonic() < until:
                try:
                    nemesis.round(number)
                except BaseException:
                    say(f"round {number} of seed {SEED} failed; logs: {system.folder}")
                    raise
                number += 1
            blows = sum(nemesis.blows.values())
            say(f"{number} rounds of seed {SEED}, {nemesis.orders} orders, {blows} faults: all well")
            nemesis.mend()
