"""What each step of the ingest stage costs on real photos: CPU milliseconds an image, and as a ratio to plain Pillow.

python -m bench.stages [--count 400] [--rounds 5] [--folder ../shared/data/clothing/images]

Rounds are interleaved, so that a busy moment of the machine hits all steps alike; CPU time is counted, not the clock.
The lower table crawls the photos from a server on loopback, with all guards on: from the claimed chunk to its outcomes.
"""

import argparse
import asyncio
import gc
import os
import random
import resource
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Coroutine, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import uvloop
from PIL import Image
from rich.console import Console
from rich.table import Table

from bench.pictures import serving
from bench.system import SHARED
from db.blobs import LocalBlobs
from db.chunks import Chunk, ChunkItem
from ml import facts, images
from worker import wiring
from worker.fetcher import Fetched, Fetcher
from worker.heartbeat import Counters
from worker.ingest import Harvest, Ingest
from worker.settings import WorkerSettings

_SIDE: Final = 384
_TICK: Final = os.sysconf("SC_CLK_TCK")
_PLAIN: Final = "Pillow: decode, resize to 384, encode"
_LIMITS: Final = images.Limits(draft_short_side=_SIDE)
# What is switched on in the crawl, from nothing but the fetch to all that is on by default.
_CRAWLS: Final = (
    ("crawl, no facts", ()),
    ("crawl, only the PDQ hash", ("pdq",)),
    ("crawl, all facts", facts.ALL_FACTS),
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--count", type=int, default=400)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--folder", type=Path, default=SHARED / "data" / "clothing" / "images")
    options = arguments.parse_args()
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":  # as in the sandbox; it is read when numpy is imported
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable, "-m", "bench.stages", *sys.argv[1:]])
    paths = sorted(path for path in options.folder.iterdir() if path.is_file())
    random.Random(1).shuffle(paths)
    paths = paths[: options.count]
    spent = _steps([path.read_bytes() for path in paths], options.rounds)
    console = Console(width=110)
    console.print(_table("Steps in one process", spent, statistics.median(spent[_PLAIN])))
    crawled = _crawls(options.folder, [path.name for path in paths], options.rounds)
    console.print(_table("Crawl stage: crawler + its sandboxed processes", crawled, statistics.median(spent[_PLAIN])))


def _table(title: str, spent: dict[str, list[float]], plain: float) -> Table:
    table = Table("step", "ms an image", "least", "most", "× plain Pillow", title=title)
    for name, values in spent.items():
        middle = statistics.median(values)
        table.add_row(name, f"{middle:.3f}", f"{min(values):.3f}", f"{max(values):.3f}", f"{middle / plain:.2f}")
    return table


def _steps(photos: Sequence[bytes], rounds: int) -> dict[str, list[float]]:
    """CPU milliseconds an image of every step, one value a round."""
    read = [images.read(photo, _LIMITS) for photo in photos]
    pictures = [picture.image for picture in read]
    steps: dict[str, Callable[[int], object]] = {
        _PLAIN: lambda at: _plain(photos[at]),
        "decode under limits": lambda at: images.read(photos[at], _LIMITS),
        "bound (resize where it is worth it)": lambda at: images.bounded(pictures[at], _SIDE),
        "working copy (bound, encode)": lambda at: images.working_copy(read[at], _SIDE),
        "PDQ hash": lambda at: facts.facts(pictures[at], ["pdq"]),
        "colours": lambda at: facts.facts(pictures[at], ["colours"]),
        "sharpness": lambda at: facts.facts(pictures[at], ["sharpness"]),
        "all facts together": lambda at: facts.facts(pictures[at]),
    }
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            began = time.process_time()
            for at in range(len(photos)):
                step(at)
            spent[name].append(1000 * (time.process_time() - began) / len(photos))
    return spent


def _plain(photo: bytes) -> bytes:
    """What a few lines of Pillow do for the same working copy, without limits or facts."""
    image = Image.open(BytesIO(photo)).convert("RGB")
    scale = min(1.0, _SIDE / min(image.size))
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    out = BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()


def _crawls(folder: Path, names: Sequence[str], rounds: int) -> dict[str, list[float]]:
    spent: dict[str, list[float]] = {name: [] for name in ("fetch alone", *(name for name, _ in _CRAWLS))}
    with serving(folder) as port, tempfile.TemporaryDirectory(prefix="tagmill-bench-") as store:
        urls = [f"http://127.0.0.1:{port}/{name}" for name in names]
        settings = WorkerSettings(
            database_url="postgresql://nobody:nothing@127.0.0.1:1/none",
            blob_root=Path(store) / "blobs",
            model_root=Path(store) / "models",
            allow_cidrs=["127.0.0.0/8"],
            allow_ports=[port],
            fetch_per_host=64,
        )
        for _ in range(rounds):
            spent["fetch alone"].append(cpu_of(partial(fetch_all, settings, urls), len(urls)))
            for name, wanted in _CRAWLS:
                spent[name].append(cpu_of(partial(_crawl, settings, urls, wanted), len(urls)))
    return spent


def cpu_of(crawl: Callable[[], Coroutine[Any, Any, None]], count: int) -> float:
    """CPU milliseconds an image of this process and all that it starts and ends."""
    gc.collect()
    before = _used()
    uvloop.run(crawl())  # as the crawler does
    return 1000 * (_used() - before) / count


def _used() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime


async def fetch_all(settings: WorkerSettings, urls: Sequence[str]) -> None:
    """The HTTP client behind its guard, and nothing else."""
    async with wiring.fetcher(settings) as fetcher:
        await fetch_each(fetcher, urls, settings.fetch_concurrency)


async def fetch_each(fetcher: Fetcher, urls: Sequence[str], at_once: int) -> None:
    """All of these, so many at a time; each must be there."""
    places = asyncio.Semaphore(at_once)

    async def one(url: str) -> None:
        async with places:
            assert isinstance(await fetcher.fetch(url), Fetched)

    await asyncio.gather(*map(one, urls))


async def _crawl(settings: WorkerSettings, urls: Sequence[str], wanted: Collection[str]) -> None:
    """As a crawler works through its chunks: turns at the host, fetch, sandbox, blob store."""
    harvests = [_harvest(urls[at : at + 512], wanted) for at in range(0, len(urls), 512)]
    with tempfile.TemporaryDirectory(dir=settings.blob_root.parent) as store:
        async with wiring.fetcher(settings) as fetcher, wiring.normaliser(settings) as normaliser:
            ingest = Ingest(
                settings,
                fetcher=fetcher,
                gate=wiring.gate(settings),
                normaliser=normaliser,
                blobs=LocalBlobs(Path(store)),
                counters=Counters(),
            )
            try:
                for harvest in harvests:
                    await ingest.work(harvest, lambda: None)
            finally:
                ingest.close()
    done = sum(outcome.image is not None for harvest in harvests for outcome in harvest.outcomes)
    assert done == len(urls), f"{done} of {len(urls)} pictures came through"


def _harvest(urls: Sequence[str], wanted: Collection[str]) -> Harvest:
    chunk = Chunk(
        id=1,
        account_id=1,
        job_id=uuid.uuid4(),
        bucket=0,
        round=1,
        stage="ingest",
        lo=0,
        hi=len(urls),
        seqs=None,
        owner=uuid.uuid4(),
        fence=1,
        attempts=1,
        deferrals=0,
        lane="bulk",
        analyses=("tags",),
        options={},
        models={},
        policy={},
        followers=0,
        context="",
        account="bench",
        waited_s=0.0,
    )
    return Harvest(chunk, [ChunkItem(at, url, None) for at, url in enumerate(urls)], facts=wanted)


if __name__ == "__main__":
    main()
