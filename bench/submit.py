"""Submitting 100,000 URLs in one request: seconds, the API's peak memory, and a progress query while it runs.

python -m bench.submit [--count 100000] [--repeats 5]
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from bench.system import System, peak_rss_mb, running

FORMS = ("application/json", "application/x-ndjson", "text/csv")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--count", type=int, default=100_000)
    arguments.add_argument("--repeats", type=int, default=5)
    options = arguments.parse_args()
    console = Console(width=110)
    # Nothing is fetched: .invalid has no address (RFC 6761), and the crawler finds that out by itself.
    with running({}, with_models=False) as system:
        api = system.supervisor.pids["api"]
        _submit(system, "application/json", 100)
        before = peak_rss_mb(api)
        table = Table(
            "body", "MB", "seconds: median", "min–max", "API peak MB", title=f"POST /v1/jobs, {options.count} URLs"
        )
        job = ""
        for form in FORMS:
            seconds = []
            for _ in range(options.repeats):
                size = sum(map(len, _body(form, options.count)))
                started = time.perf_counter()
                job = _submit(system, form, options.count)
                seconds.append(time.perf_counter() - started)
                system.client.cancel(job)
            table.add_row(
                form,
                f"{size / 1e6:.1f}",
                f"{statistics.median(seconds):.2f}",
                f"{min(seconds):.2f}–{max(seconds):.2f}",
                f"{peak_rss_mb(api):.0f}",
            )
        console.print(table)
        console.print(f"API process before the first of them: {before:.0f} MB peak")
        job = _submit(system, FORMS[1], options.count)
        _progress(console, system, job)
        system.client.cancel(job)


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


def _submit(system: System, form: str, count: int) -> str:
    def blocks() -> Iterator[bytes]:
        """As a client would send it: in blocks, not in thousands of tiny writes."""
        block = bytearray()
        for part in _body(form, count):
            block += part
            if len(block) > 65536:
                yield bytes(block)
                block.clear()
        yield bytes(block)

    answer = system.client.submit(blocks, form, params={}, idempotency_key=f"bench-{time.time_ns()}")
    return str(answer["id"])


if __name__ == "__main__":
    main()
