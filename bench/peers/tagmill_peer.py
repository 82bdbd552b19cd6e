"""Tagmill itself: the whole system in a throw-away home, at its defaults, with the comparison's model and no other.

python -m bench.peers.tagmill_peer PORT [--model FOLDER]    PORT: of the picture server, which the crawler may ask

What it cost is what its roles, their children and its broker used; without `--model` the crawler alone.
"""

import argparse
import time
from pathlib import Path

from bench.peers import protocol
from bench.system import System, cpu_seconds, reaching, running, submit

POLL_S = 0.2
PATIENCE_S = 900.0


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("port", type=int)
    arguments.add_argument("--model", type=Path)
    options = arguments.parse_args()
    counted = {"crawler"} if options.model is None else None
    with running(reaching(options.port), with_models=False, artifact=options.model) as system:
        protocol.serve(
            lambda asked: _round(system, asked, counted),
            models=list(system.models.values()),
            pids=system.pids,
        )


def _round(system: System, asked: protocol.Round, counted: set[str] | None) -> protocol.Result:
    before, began = cpu_seconds(system.pids), time.perf_counter()
    done = _job(system, asked)
    seconds = time.perf_counter() - began
    after = cpu_seconds(system.pids)
    spent = {role: after[role] - before.get(role, 0.0) for role in after}
    ours = [value for role, value in spent.items() if role != "postgres" and (counted is None or role in counted)]
    parts = {f"{role}_cpu_ms": 1000 * value / asked.count for role, value in spent.items()}
    return protocol.Result(done, sum(ours), seconds, parts)


def _job(system: System, asked: protocol.Round) -> int:
    """Submit, and wait until every picture has its result row; how many are good."""
    job = submit(system.client, ({"url": url} for url in asked.urls), analyses="tags")
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        progress = system.client.job(job)["progress"]
        if progress["settled"] >= asked.count:
            return int(progress["outcomes"].get("done", 0))
        system.supervisor.watch()
        time.sleep(POLL_S)
    raise TimeoutError(f"the job did not end in {PATIENCE_S} s")


if __name__ == "__main__":
    main()
