"""Tagmill itself: the whole system in a throw-away home, at its defaults, with the comparison's model and no other.

python -m bench.peers.tagmill_peer PORT [--model FOLDER]    PORT: of the picture server, which the crawler may ask

What it cost is what its roles, their children and its broker used; without `--model` the crawler alone.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

from bench.peers import protocol
from bench.system import System, cpu_seconds, running

POLL_S = 0.2
PATIENCE_S = 900.0


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("port")
    arguments.add_argument("--model", type=Path)
    options = arguments.parse_args()
    settings = {
        "TAGMILL_ALLOW_CIDRS": "127.0.0.0/8",
        "TAGMILL_ALLOW_PORTS": options.port,
        "TAGMILL_FETCH_PER_HOST": "64",
    }
    counted = {"crawler"} if options.model is None else None
    with running(settings, with_models=False, artifact=options.model) as system:
        protocol.serve(
            lambda asked: _round(system, asked, counted),
            models=list(system.models.values()),
            pids={**system.supervisor.pids, **_servers(system)},
        )


def _round(system: System, asked: protocol.Round, counted: set[str] | None) -> protocol.Result:
    before, began = _spent(system), time.perf_counter()
    done = _job(system, asked)
    seconds = time.perf_counter() - began
    after = _spent(system)
    spent = {role: after[role] - before.get(role, 0.0) for role in after}
    ours = [value for role, value in spent.items() if role != "postgres" and (counted is None or role in counted)]
    parts = {f"{role}_cpu_ms": 1000 * value / asked.count for role, value in spent.items()}
    return protocol.Result(done, sum(ours), seconds, parts)


def _job(system: System, asked: protocol.Round) -> int:
    """Submit, and wait until every picture has its result row; how many are good."""

    def lines() -> Iterator[bytes]:
        yield "".join(json.dumps({"url": url}) + "\n" for url in asked.urls).encode()

    answer = system.client.submit(
        lines, "application/x-ndjson", params={"analyses": "tags"}, idempotency_key=f"bench-{asked.tag}"
    )
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        progress = system.client.job(str(answer["id"]))["progress"]
        if progress["settled"] >= asked.count:
            return int(progress["outcomes"].get("done", 0))
        system.supervisor.watch()
        time.sleep(POLL_S)
    raise TimeoutError(f"the job did not end in {PATIENCE_S} s")


def _spent(system: System) -> dict[str, float]:
    return cpu_seconds({**system.supervisor.pids, **_servers(system)})


def _servers(system: System) -> dict[str, int]:
    return {server.name: server.pid for server in system.supervisor._services if server.pid is not None}


if __name__ == "__main__":
    main()
