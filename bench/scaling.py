"""From one to four workers, and from one to four crawlers, where no core is the limit: how near to linear it is.

python -m bench.scaling [--most 4] [--rounds 3] [--folder ../shared/data/clothing/images] [--json FILE]

workers    a model that sleeps 40 ms a picture instead of computing (TAGMILL_SLEEP_MS, of test builds only)
crawlers   a server that answers after 200 ms, four requests in flight a crawler, no model

Goal: four do at least 3.6 times as much as one. The rate is that of the middle of a job: from when a tenth of its
pictures is through until nine tenths are, by the ends of chunks, so that neither start nor end counts.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from bench.pictures import serving
from bench.system import SHARED, System, reaching, running, submit, watched
from bench.tables import spread
from db.session import Database
from ml.tiny import make_tiny

SLEEP_MS = 40
LATENCY_MS = 200
IN_FLIGHT = 4
EACH = {"workers": 500, "crawlers": 500}
"""Pictures of a job for each process that takes part: 25 s of work."""
_ENDS = text(
    "SELECT extract(epoch FROM finished_at)::float8, done FROM chunks WHERE job_id = :id AND stage = :stage"
    " ORDER BY finished_at"
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--most", type=int, default=4)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--folder", type=Path, default=SHARED / "data" / "clothing" / "images")
    arguments.add_argument("--json", type=Path, default=None, help="write every figure there")
    options = arguments.parse_args()
    console = Console(width=110, highlight=False)
    counts = sorted({1, 2, options.most})
    found: dict[str, dict[int, list[float]]] = {kind: {count: [] for count in counts} for kind in EACH}
    for turn in range(options.rounds):
        for count in counts:
            found["workers"][count].append(_workers(options.folder, count, turn))
            found["crawlers"][count].append(_crawlers(options.folder, count, turn))
    table = Table("processes", "pictures/s: median (min–max)", "of linear", title=f"load {os.getloadavg()[0]:.1f}")
    for kind, by_count in found.items():
        for count, rates in by_count.items():
            share = statistics.median(rates) / (count * statistics.median(by_count[1]))
            table.add_row(f"{count} {kind}", spread(rates, ".1f"), f"{share:.2f}")
    console.print(table)
    ideal = f"asleep: {1000 / SLEEP_MS:.0f} pictures/s a worker, {1000 * IN_FLIGHT / LATENCY_MS:.0f} a crawler"
    console.print(f"what one could do at most, {ideal}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


def _workers(folder: Path, count: int, turn: int) -> float:
    settings = {
        "TAGMILL_TEST_BUILD": "1",
        "TAGMILL_SLEEP_MS": str(SLEEP_MS),
        "TAGMILL_DEVICES": ",".join(["cpu"] * count),
    }
    with tempfile.TemporaryDirectory() as place, serving(folder) as port:
        make_tiny(Path(place), "tags")
        with running({**settings, **reaching(port)}, artifact=Path(place)) as system:
            return _rate(system, folder, port, EACH["workers"] * count, "infer", f"w{turn}")


def _crawlers(folder: Path, count: int, turn: int) -> float:
    settings = {
        "TAGMILL_FETCH_PER_HOST": str(IN_FLIGHT),
        "TAGMILL_FETCH_CONCURRENCY": str(IN_FLIGHT),
        # All pictures are on one host: those that wait longer for it than this would be put off, to be polite.
        "TAGMILL_HOST_WAIT_S": "600",
    }
    with (
        serving(folder, latency_ms=LATENCY_MS) as port,
        running({**reaching(port), **settings}, with_models=False) as system,
        _more_crawlers(system, count - 1),
    ):
        return _rate(system, folder, port, EACH["crawlers"] * count, "ingest", f"c{turn}")


@contextmanager
def _more_crawlers(system: System, count: int) -> Iterator[None]:
    """Further processes of the role, with the environment of the first."""
    pairs = Path(f"/proc/{system.supervisor.pids['crawler']}/environ").read_text().split("\0")
    environment = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    command = [sys.executable, "-m", "worker.crawler"]
    crawlers = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(count)
    ]
    try:
        time.sleep(5)  # their sandboxes
        yield
    finally:
        for crawler in crawlers:
            crawler.terminate()
        for crawler in crawlers:
            crawler.wait(60)


def _rate(system: System, folder: Path, port: int, count: int, stage: str, mark: str) -> float:
    """Pictures a second in the middle of a job of so many."""
    names = sorted(path.name for path in folder.iterdir())

    def done(size: int, kind: str) -> str:
        urls = [f"http://127.0.0.1:{port}/{names[n % len(names)]}?{mark}{kind}{n}" for n in range(size)]
        job = submit(system.client, ({"url": url} for url in urls), analyses="tags")
        watched(system, job)
        return job

    done(16 * _chunks_to_warm(count), "warm")
    job = done(count, "job")
    database = Database(system.supervisor.database_url, pool_size=1)
    with database.transaction() as session:
        ends = [(float(when), int(done)) for when, done in session.execute(_ENDS, {"id": job, "stage": stage})]
    database.dispose()
    assert sum(done for _, done in ends) == count, "not every picture came through"
    return middle(ends)


def _chunks_to_warm(count: int) -> int:
    """Chunks of a first job that loads models and opens connections in every process."""
    return max(2, count // 250)


def middle(ends: list[tuple[float, int]]) -> float:
    """Pictures a second from the first chunk's end by which a tenth is through to the one by which nine tenths are."""
    total = sum(done for _, done in ends)
    through, first, last = 0, (0.0, 0), (0.0, 0)
    for when, done in ends:
        through += done
        if not first[1] and through >= 0.1 * total:
            first = (when, through)
        if through <= 0.9 * total or last[1] == 0:
            last = (when, through)
    return (last[1] - first[1]) / (last[0] - first[0])


if __name__ == "__main__":
    main()
