"""Submitting 100,000 URLs in one streamed request: URLs a second, what they cost the API and its peak memory, and a
progress query while the job runs.

python -m bench.submit [--count 100000] [--repeats 5] [--json FILE]

Goals: 20,000 URLs a second, 150 MB. The body is made beforehand: what a client needs to write it is not the API's.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.system import System, blocks, cpu_seconds, peak_rss_mb, running, send
from bench.tables import spread

FORMS = ("application/json", "application/x-ndjson", "text/csv")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--count", type=int, default=100_000)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--json", type=Path, default=None, help="write every figure there")
    options = arguments.parse_args()
    console = Console(width=130, highlight=False)
    # Nothing is fetched: .invalid has no address (RFC 6761), and the crawler finds that out by itself.
    with running({}, with_models=False) as system:
        job_of_nowhere(system, 100, "application/json")
        before = peak_rss_mb(system.supervisor.pids["api"])
        found = {form: _measure(system, form, options.count, options.repeats) for form in FORMS}
        table = Table("body", "MB", "URLs/s: median (min–max)", "API's CPU µs a URL", "API's peak MB", "load")
        table.title = f"POST /v1/jobs, {options.count} URLs"
        for form, row in found.items():
            table.add_row(
                form,
                f"{row['bytes'] / 1e6:.1f}",
                spread(row["rates"], ",.0f"),
                f"{statistics.median(row['cpu_us']):.1f}",
                f"{row['peak_mb']:.0f}",
                f"{row['load']:.1f}",
            )
        console.print(table)
        console.print(f"API process before the first of them: {before:.0f} MB peak")
        job = job_of_nowhere(system, options.count)
        _progress(console, system, job)
        system.client.cancel(job)
    if options.json:
        options.json.write_text(json.dumps({"count": options.count, "before_mb": before, "forms": found}, indent=1))


def _measure(system: System, form: str, count: int, repeats: int) -> dict[str, Any]:
    api = {"api": system.supervisor.pids["api"]}
    body = blocks(_body(form, count))
    found: dict[str, Any] = {"bytes": sum(map(len, body)), "load": os.getloadavg()[0], "rates": [], "cpu_us": []}
    for _ in range(repeats):
        spent, started = cpu_seconds(api)["api"], time.perf_counter()
        job = send(system.client, body, form)
        found["rates"].append(count / (time.perf_counter() - started))
        found["cpu_us"].append(1e6 * (cpu_seconds(api)["api"] - spent) / count)
        system.client.cancel(job)
    return {**found, "peak_mb": peak_rss_mb(api["api"])}


def _progress(console: Console, system: System, job: str) -> None:
    """GET /v1/jobs/{id} again and again while the crawler works on it."""
    times = []
    for _ in range(200):
        started = time.perf_counter()
        system.client.job(job)
        times.append(1000 * (time.perf_counter() - started))
        time.sleep(0.01)
    times.sort()
    console.print(
        f"progress while it runs, over HTTP: median {times[100]:.1f} ms, 95th percentile {times[190]:.1f} ms,"
        f" worst {times[-1]:.1f} ms"
    )


def _body(form: str, count: int) -> Iterator[bytes]:
    urls = (f"https://pictures-{n % 50}.invalid/catalog/2026/{n:07d}/front.jpg" for n in range(count))
    if form == "application/json":
        yield b'{"analyses": ["tags"], "items": ['
        for n, url in enumerate(urls):
            yield (b"," if n else b"") + json.dumps({"url": url, "id": f"sku-{n}"}).encode()
        yield b"]}"
    elif form == "text/csv":
        yield b"url,id\n"
        for n, url in enumerate(urls):
            yield f"{url},sku-{n}\n".encode()
    else:
        for n, url in enumerate(urls):
            yield json.dumps({"url": url, "id": f"sku-{n}"}).encode() + b"\n"


def job_of_nowhere(system: System, count: int, form: str = FORMS[1]) -> str:
    """A job whose pictures have no address: it ends by itself."""
    return send(system.client, blocks(_body(form, count)), form)


if __name__ == "__main__":
    main()
