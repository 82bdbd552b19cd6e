"""A rerun of a whole catalog under running workers, step by step: plan, run, diff, publish, roll back, in seconds.

python -m bench.rerun [--count 4000] [--folder ../shared/data/clothing/images]

Real photos come in over HTTP and are tagged by MobileNet V2; then SqueezeNet 1.1 is activated and analyses them again.
Ends with an oracle: what was rolled back is what was there before, row by row.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from bench.pictures import serving
from bench.system import SHARED, System, reaching, running, submit, watched
from db import accounts, registry, reruns
from db.reruns import Selection
from db.session import Database
from worker import localkey, model_setup
from worker.rerun import STEPS, carry_out, difference

OTHER = "imagenet-squeezenet1_1"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--count", type=int, default=4000)
    arguments.add_argument("--folder", type=Path, default=SHARED / "data" / "clothing" / "images")
    options = arguments.parse_args()
    names = sorted(path.name for path in options.folder.iterdir())[: options.count]
    with serving(options.folder) as port, running(reaching(port)) as system:
        _measure(system, port, names)


def _submit(system: System, port: int, names: list[str]) -> str:
    rows = ({"url": f"http://127.0.0.1:{port}/{name}", "id": name, "product_id": name[:2]} for name in names)
    return submit(system.client, rows, analyses="tags")


def _measure(system: System, port: int, names: list[str]) -> None:
    database = Database(system.supervisor.database_url, pool_size=2)
    steps = Table("step", "seconds", "a second", title=f"A rerun of {len(names)} results")

    def timed(step: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        value = work()
        seconds = time.perf_counter() - started
        steps.add_row(step, f"{seconds:.2f}", f"{len(names) / seconds:.0f}")
        return value

    timed("the first job: fetch, normalise, tag", lambda: watched(system, _submit(system, port, names)))
    before = _digest(database)
    pids = dict(system.supervisor.pids)
    store = model_setup.store(system.supervisor.home.models, str(SHARED / "models"))
    ref = model_setup.install(database, store, OTHER).ref
    with database.transaction() as session:
        account = accounts.by_name(session, localkey.ACCOUNT).id

    def plan() -> reruns.Plan:
        with database.transaction() as session:
            return reruns.plan(session, account, ref, Selection())

    def start() -> tuple[UUID, UUID]:
        with database.transaction() as session:
            rerun = reruns.start(session, account, ref, Selection())
            return rerun.id, rerun.job_id

    planned: reruns.Plan = timed("plan", plan)
    rerun, job = timed("start", start)
    timed("run, in the bulk lane", lambda: watched(system, str(job)))
    assert _digest(database) == before, "a staged rerun changed what is published"
    found = timed("diff", lambda: difference(database, account, rerun))
    published = timed("publish", lambda: carry_out(database, account, rerun, STEPS["publish"]))
    assert _models(database) == {ref}, "not everything is of the new model"
    restored = timed("roll back", lambda: carry_out(database, account, rerun, STEPS["rollback"]))
    assert _digest(database) == before, "the rollback did not restore every row"
    with database.transaction() as session:
        registry.rollback(session, "tags")
    assert dict(system.supervisor.pids) == pids, "a role was restarted"

    console = Console(width=110)
    console.print(steps)
    seconds = "unknown" if planned.seconds is None else f"{planned.seconds:.0f} s"
    console.print(f"planned: {planned.items} results, {seconds}; published {published}, restored {restored}")
    console.print(f"diff: {found.changed} change, {found.same} stay; {sum(found.added.values())} tags added")
    console.print("oracle: rows after the rollback equal those before the rerun; no process was restarted")
    database.dispose()


_CATALOG = " FROM items i JOIN results r USING (bucket, job_id, seq) WHERE i.product_id IS NOT NULL"


def _digest(database: Database) -> str:
    """A hash of everything published, row by row."""
    with database.transaction() as session:
        rows = session.execute(text(f"SELECT job_id, seq, outcome, code, tags, published{_CATALOG} ORDER BY 1, 2"))
        return hashlib.sha256(json.dumps([list(row) for row in rows], default=str).encode()).hexdigest()


def _models(database: Database) -> set[str]:
    with database.transaction() as session:
        sql = f"SELECT DISTINCT r.tags -> 0 ->> 'model'{_CATALOG} AND r.outcome = 'done' AND r.tags <> '[]'"
        return set(session.scalars(text(sql)))


if __name__ == "__main__":
    main()
