"""What a queue costs: a Celery task for every picture, as tutorials have it, beside a hint for every chunk, as here.

Both publish, travel through Valkey and end in a prefork child that does nothing. Counted is the CPU of the publisher,
the worker with its child, and Valkey. What a chunk costs in Postgres (claim, record) is not in it: bench.line has that.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from celery import Celery

from bench.system import cpu_seconds
from worker.app import configuration
from worker.embedded import EmbeddedValkey
from worker.settings import WorkerSettings

CHUNK = 512
SETTLE_S, PATIENCE_S = 2.0, 120.0


def application(broker: str, *, ours: bool) -> Celery:
    """A tutorial's application: Celery's defaults, no result backend. Ours: the worker's own settings."""
    app = Celery("queue")
    app.conf.update(broker_url=broker, task_ignore_result=True, worker_hijack_root_logger=False)
    if ours:
        settings = WorkerSettings(
            database_url="postgresql://nobody:nothing@127.0.0.1:1/none",
            blob_root=Path("/none"),
            model_root=Path("/none"),
            broker_url=broker,
        )
        app.conf.update(configuration(settings))
    app.conf.worker_concurrency = 1
    app.task(nothing, name="nothing", ignore_result=True)
    return app


def nothing(url: str | None = None, chunk_id: int | None = None, v: int | None = None) -> None:
    """The work of a task that only shows what the way to it costs."""


def per_picture_us(valkey: EmbeddedValkey, pictures: int, rounds: int) -> dict[str, list[float]]:
    """Microseconds of CPU a picture: "task" for each of so many pictures, "hint" for each chunk of as many hints."""
    spent: dict[str, list[float]] = {"task": [], "hint": []}
    with _worker(valkey, ours=False) as (app, pid):
        kwargs = [{"url": f"https://shop.test/{n}.jpg"} for n in range(pictures)]
        spent["task"] = [1e6 * _round(app, pid, valkey, kwargs) / pictures for _ in range(rounds)]
    with _worker(valkey, ours=True) as (app, pid):
        hints: list[dict[str, Any]] = [{"chunk_id": n, "v": 1} for n in range(pictures // 4)]
        each = len(hints) * CHUNK
        spent["hint"] = [1e6 * _round(app, pid, valkey, hints) / each for _ in range(rounds)]
    return spent


def _round(app: Celery, worker: int, valkey: EmbeddedValkey, messages: Sequence[dict[str, Any]]) -> float:
    """CPU seconds from the first message published to the last one worked through."""
    assert valkey.pid is not None
    pids = {"publisher": os.getpid(), "valkey": valkey.pid}
    before = cpu_seconds(pids)
    with app.connection_for_write() as connection:
        for kwargs in messages:
            app.send_task("nothing", kwargs=kwargs, connection=connection, ignore_result=True)
    with redis.Redis.from_url(app.conf.broker_url) as client:
        deadline = time.monotonic() + PATIENCE_S
        while sum(client.llen(key) for key in ("celery", "tagmill:infer")):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the worker {worker} did not empty its queue")
            time.sleep(0.05)
    time.sleep(SETTLE_S)  # what it took last is still in its hands
    after = cpu_seconds(pids)
    return sum(after[name] - before[name] for name in pids)  # the worker is a child of the publisher


@contextmanager
def _worker(valkey: EmbeddedValkey, *, ours: bool) -> Iterator[tuple[Celery, int]]:
    """A worker of that application, warm."""
    broker = valkey.url_of(1 if ours else 0)
    command = [sys.executable, "-m", "bench.goal_queue", broker, "ours" if ours else "tutorial"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        try:
            app = application(broker, ours=ours)
            _round(app, child.pid, valkey, [{}] * 50)
            yield app, child.pid
        finally:
            child.terminate()
            child.wait(30)


if __name__ == "__main__":
    options = ["worker", "-l", "warning"]
    if sys.argv[2] == "ours":
        options += ["-Q", "infer", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    application(sys.argv[1], ours=sys.argv[2] == "ours").worker_main(["--quiet", *options])
