"""The best loop that we can write by hand for this machine: one process, no lease, no second chance, no sandbox.

python -m bench.loop MODEL DATABASE [--same-work] [--without pdq …]    rounds on stdin (bench.peers.protocol)

    event loop: fetch, 64 at a time ─► 256 bodies at most ─► a thread a core: eight decoded → forward → rows
                                                                              256 rows → one COPY, in a fourth thread

bare: the fastest decoder, forward, five tags a row. With `--same-work` what Tagmill does to a picture besides: the
strict decoder under its limits, the working copy (encoded and on disk, in one file of 256), the facts, their rows.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # else each small matrix product of the PDQ hash wakes a thread a core

import argparse
import asyncio
import hashlib
import json
import queue
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psycopg
import torch
import uvloop

from bench.peers import kernel, protocol
from ml import facts, images
from ml.presets import ImagenetPreset

AT_ONCE, IN_HAND, ROWS = 64, 256, 256
SHORT_SIDE, QUALITY = 384, 90
THREADS = os.cpu_count() or 1
_PRESET = ImagenetPreset()
_LIMITS = images.Limits(draft_short_side=SHORT_SIDE)
TABLES = """
DROP TABLE IF EXISTS loop_results, loop_images;
CREATE TABLE loop_results (job text, url text, sha256 bytea, tags jsonb, PRIMARY KEY (job, url));
CREATE TABLE loop_images (sha256 bytea PRIMARY KEY, pack text, at int, size int, bytes int, width int, height int,
  format text, pdq bytea, pdq_quality smallint, colours jsonb, sharpness real);
"""

Fetched = tuple[str, bytes]


@dataclass
class Hands:
    """What the threads share. `wanted`: facts; None: the bare loop."""

    network: kernel.Network
    labels: list[str]
    database: str
    packs: Path
    wanted: tuple[str, ...] | None
    job: str = ""
    bodies: "queue.Queue[Fetched | None]" = field(default_factory=lambda: queue.Queue(IN_HAND))
    writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "rows"))
    connection: "psycopg.Connection[Any] | None" = None
    written: int = 0


@dataclass
class Rows:
    """What one thread has not handed to the writer yet."""

    results: list[tuple[Any, ...]] = field(default_factory=list)
    images: list[tuple[Any, ...]] = field(default_factory=list)
    copies: list[bytes] = field(default_factory=list)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("model", type=Path)
    arguments.add_argument("database")
    arguments.add_argument("--same-work", action="store_true")
    arguments.add_argument("--without", nargs="*", default=(), choices=facts.ALL_FACTS)
    options = arguments.parse_args()
    kernel.single_threaded()
    wanted = tuple(name for name in facts.ALL_FACTS if name not in options.without)
    labels = json.loads((options.model / "labels.json").read_text())
    network = kernel.Network(options.model, streams=THREADS)
    with tempfile.TemporaryDirectory(prefix="tagmill-bench-") as folder:
        hands = Hands(network, labels, options.database, Path(folder), wanted if options.same_work else None)
        with psycopg.connect(options.database, autocommit=True) as connection:
            connection.execute(TABLES)
            hands.connection = connection
            protocol.serve(lambda asked: work(hands, asked), decoder=kernel.decoder(), threads=THREADS)


def work(hands: Hands, asked: protocol.Round) -> protocol.Result:
    """One round: URLs in, rows out."""
    hands.job, hands.written = asked.tag, 0
    threads = [threading.Thread(target=_thread, args=(hands,)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    uvloop.run(_fetch(hands, asked.urls))
    for thread in threads:
        thread.join()
    hands.writer.submit(int).result()  # it has written what was handed to it before
    assert hands.connection is not None
    found = hands.connection.execute("SELECT count(*) FROM loop_results WHERE job = %s", [asked.tag]).fetchone()
    assert found is not None
    assert found[0] == hands.written, f"{found[0]} rows of {hands.written}"
    return protocol.Result(hands.written)


async def _fetch(hands: Hands, urls: list[str]) -> None:
    waiting = iter(urls)
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE)) as session:

        async def lane() -> None:
            for url in waiting:
                async with session.get(url) as answer:
                    body = (url, await answer.read())
                try:
                    hands.bodies.put_nowait(body)
                except queue.Full:
                    await loop.run_in_executor(None, hands.bodies.put, body)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(lane())
    for _ in range(THREADS):
        await loop.run_in_executor(None, hands.bodies.put, None)


def _thread(hands: Hands) -> None:
    request = hands.network.request()
    prepare: Callable[[Hands, Rows, Fetched], torch.Tensor] = _bare if hands.wanted is None else _careful
    rows, batch = Rows(), list[Fetched]()
    while True:
        body = hands.bodies.get()
        if body is not None:
            request.put(len(batch), prepare(hands, rows, body))
            batch.append(body)
        if batch and (body is None or len(batch) == kernel.BATCH):
            for (url, data), best in zip(batch, kernel.tags(request.run(), len(batch)), strict=True):
                named = [{"label": hands.labels[at], "score": score} for at, score in best]
                rows.results.append((hands.job, url, hashlib.sha256(data).digest(), json.dumps(named)))
            batch.clear()
        if rows.results and (body is None or len(rows.results) >= ROWS):
            hands.writer.submit(_write, hands, rows).add_done_callback(_loud)
            rows = Rows()
        if body is None:
            return


def _bare(hands: Hands, rows: Rows, body: Fetched) -> torch.Tensor:
    return kernel.crop(body[1])


def _careful(hands: Hands, rows: Rows, body: Fetched) -> torch.Tensor:
    """As the line does it, but each step once: the network is given the picture that was decoded here."""
    data = body[1]
    picture = images.read(data, _LIMITS)
    copy = images.working_copy(picture, SHORT_SIDE, QUALITY)
    found = facts.facts(picture.image, hands.wanted or ())
    colours = json.dumps(found["colours"]) if "colours" in found else None
    at = sum(map(len, rows.copies))
    rows.copies.append(copy)
    rows.images.append(
        (
            *(hashlib.sha256(data).digest(), at, len(copy), len(data), picture.width, picture.height, picture.format),
            *(found.get("pdq"), found.get("pdq_quality"), colours, found.get("sharpness")),
        )
    )
    return _PRESET(torch.from_numpy(np.array(picture.image)).permute(2, 0, 1))


def _write(hands: Hands, rows: Rows) -> None:
    assert hands.connection is not None
    pack = ""
    if rows.copies:
        with tempfile.NamedTemporaryFile(dir=hands.packs, delete=False) as file:
            file.write(b"".join(rows.copies))
            file.flush()
            os.fsync(file.fileno())
            pack = file.name
    with hands.connection.transaction(), hands.connection.cursor() as cursor:
        if rows.images:
            columns = "sha256, at, size, bytes, width, height, format, pdq, pdq_quality, colours, sharpness, pack"
            with cursor.copy(f"COPY loop_images ({columns}) FROM STDIN") as copy:
                for row in rows.images:
                    copy.write_row((*row, pack))
        with cursor.copy("COPY loop_results (job, url, sha256, tags) FROM STDIN") as copy:
            for row in rows.results:
                copy.write_row(row)
    hands.written += len(rows.results)


def _loud(future: Any) -> None:
    if error := future.exception():
        print(f"rows were not written: {error}")


if __name__ == "__main__":
    main()
