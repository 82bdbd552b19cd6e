"""What the limits of accounts cost: requests with and without them, in turns, and submits at once of one account.

python -m bench.limits [--rounds 20] [--requests 200] [--clients 8] [--submits 400]
"""

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from flask import Flask
from rich.console import Console
from rich.table import Table

from api.app import create_app
from api.settings import ApiSettings
from bench.report import machine
from db import accounts, migrate
from db.session import Database
from worker.embedded import EmbeddedPostgres

Times = dict[str, list[float]]
BODY = {"items": [{"url": "http://shop.example/1.jpg"}]}
NONE: dict[str, Any] = {"requests_per_minute": 0, "items_per_day": 0}
BOTH: dict[str, Any] = {"requests_per_minute": 6_000_000, "items_per_day": 10_000_000}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=20)
    arguments.add_argument("--requests", type=int, default=200, help="requests of a round")
    arguments.add_argument("--clients", type=int, default=8, help="that submit at once")
    arguments.add_argument("--submits", type=int, default=400, help="jobs of one item in a round of submits")
    options = arguments.parse_args()
    console = Console(width=110, highlight=False)
    with (
        tempfile.TemporaryDirectory(prefix="tagmill-bench-") as folder,
        EmbeddedPostgres(Path(folder) / "pg") as postgres,
    ):
        migrate.upgrade(postgres.url)
        owner = Database(postgres.url, pool_size=1)
        with owner.transaction() as session:
            account = accounts.create(session, "bench")
            _, key = accounts.create_key(session, account.id, "bench")
        given: dict[str, Any] = {
            "database_url": postgres.url,
            "blob_root": Path(folder) / "blobs",
            "model_root": Path(folder) / "models",
        }
        apps = {
            name: create_app(ApiSettings(**given, **limits)) for name, limits in (("without", NONE), ("with", BOTH))
        }
        table = Table("", "without limits", "with limits", "ratio, median of rounds", "spread")
        _add(table, f"GET /v1/jobs, ms each (rounds of {options.requests})", _reads(apps, key, options))
        _add(table, f"POST /v1/jobs of one item, ms each, {options.clients} at once", _submits(apps, key, options))
        console.print(table)
        for app in apps.values():
            app.extensions["tagmill"].database.dispose()
        owner.dispose()
    console.print(machine())


def _reads(apps: dict[str, Flask], key: str, options: argparse.Namespace) -> Times:
    times: Times = {name: [] for name in apps}
    for turn in range(options.rounds + 1):
        for name, app in apps.items():
            client = app.test_client()
            began = time.perf_counter()
            for _ in range(options.requests):
                assert client.get("/v1/jobs?limit=1", headers=_bearer(key)).status_code == 200
            if turn:  # the first one warms up
                times[name].append(1000 * (time.perf_counter() - began) / options.requests)
    return times


def _submits(apps: dict[str, Flask], key: str, options: argparse.Namespace) -> Times:
    times: Times = {name: [] for name in apps}
    for turn in range(max(3, options.rounds // 3) + 1):
        for name, app in apps.items():
            with ThreadPoolExecutor(options.clients) as clients:
                began = time.perf_counter()
                found = list(clients.map(lambda _, app=app: _post(app, key), range(options.submits)))
            assert set(found) == {202}
            if turn:
                times[name].append(1000 * (time.perf_counter() - began) / options.submits)
    return times


def _post(app: Flask, key: str) -> int:
    return app.test_client().post("/v1/jobs", json=BODY, headers=_bearer(key)).status_code


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _add(table: Table, what: str, times: Times) -> None:
    ratios = sorted(b / a for a, b in zip(times["without"], times["with"], strict=True))
    middle = (f"{statistics.median(times[name]):.2f}" for name in ("without", "with"))
    table.add_row(what, *middle, f"{statistics.median(ratios):.2f}", f"{ratios[0]:.2f}–{ratios[-1]:.2f}")


if __name__ == "__main__":
    main()
