"""Single steps beside the way that is usual for them, as ratios: decoding, the engine, the queue, fetching, rows.

python -m bench.goals [--only NAME ...] [--rounds 5] [--folder ../shared/data/clothing/images]

Ways are measured in turn, round by round; a ratio is taken inside a round. `must` and `stretch` are what this project
asked of itself before it was built. CPU time is compared where a step computes, the clock where it waits.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from rich.console import Console
from rich.table import Table

from bench import goal_queue, goal_ways, model, scale, stages
from bench.compare import CACHE
from bench.peers import environments, kernel
from bench.peers.process import Failed, Peer
from bench.peers.protocol import Round
from bench.pictures import serving
from bench.scale_rows import CHUNK
from bench.submit import job_of_nowhere
from bench.system import SHARED, reaching, running
from bench.tables import spread
from worker.embedded import EmbeddedValkey
from worker.settings import WorkerSettings

LATENCY_MS, AT_ONCE = 100, 256
SUBMITTED = 100_000
SHIPPED = Path(__file__).resolve().parents[1] / "ml" / "shipped" / "clothing"
TAGS = {"tags": [{"label": f"label-{n}", "score": 0.1 * n} for n in range(5)]}


@dataclass(frozen=True)
class Asked:
    """What is compared with what, and how much better it should be; `share`: as a share of an ideal, not a multiple."""

    what: str
    must: float
    stretch: float
    share: bool = False


@dataclass(frozen=True)
class Given:
    """What the measurements need."""

    folder: Path
    photos: Sequence[bytes]
    rounds: int
    scratch: Path


Ratios = list[tuple[Asked, list[float]]]


def decoding(given: Given) -> Ratios:
    """Against Pillow without limits; the larger pictures are photos that were enlarged to 2000 × 3000."""
    big = [goal_ways.enlarged(photo) for photo in given.photos[:24]]
    pairs = [
        (
            Asked("worker: picture to 224 × 224 : Pillow", 2.4, 2.8),
            goal_ways.pillow_224,
            goal_ways.worker_224,
            given.photos,
        ),
        (
            Asked("sandbox: 6 megapixels to a copy of 384 : Pillow", 2.8, 3.3),
            goal_ways.pillow_copy,
            goal_ways.sandbox_copy,
            big,
        ),
    ]
    found: Ratios = []
    for asked, usual, ours, pictures in pairs:
        found.append((asked, [_all(usual, pictures) / _all(ours, pictures) for _ in range(given.rounds)]))
    return found


def engine(given: Given) -> Ratios:
    """One thread, batches of eight, against eager torch in fp32; of a trained network also how near its logits are."""
    slow, fast = goal_ways.networks(model.provide(CACHE, given.folder))
    crops = np.stack([kernel.crop(photo).numpy() for photo in given.photos])
    batches = [
        crops[at : at + kernel.BATCH] for at in range(0, len(crops) // kernel.BATCH * kernel.BATCH, kernel.BATCH)
    ]
    slow(batches[0]), fast(batches[0])
    ratios = []
    for _ in range(given.rounds):
        ratios.append(_all(slow, batches) / _all(fast, batches))
    name, slow, fast, batches = goal_ways.shipped(SHIPPED, given.photos)
    of_shipped = [_all(slow, batches) / _all(fast, batches) for _ in range(given.rounds)]
    of_slow, of_fast = (np.concatenate([way(batch).numpy() for batch in batches]) for way in (slow, fast))
    same = float((of_slow.argmax(1) == of_fast.argmax(1)).mean())
    error = float(np.linalg.norm(of_fast - of_slow) / np.linalg.norm(of_slow))
    return [
        (Asked("mobilenet_v3_large, bf16 : eager torch, fp32", 4.5, 5.5), ratios),
        (Asked(f"the tagger of clothes, {name} : eager torch, fp32", 3, 4.5), of_shipped),
        (Asked("… the same first label", 0.99, 0.99, share=True), [same]),
        (Asked("… logits alike (1 - relative error)", 0.99, 0.99, share=True), [1 - error]),
    ]


def queue(given: Given) -> Ratios:
    """CPU of publishing, of the broker and of Celery's worker, a picture."""
    with EmbeddedValkey(given.scratch / "valkey") as valkey:
        spent = goal_queue.per_picture_us(valkey, 2000, given.rounds)
    ratios = [task / hint for task, hint in zip(spent["task"], spent["hint"], strict=True)]
    return [(Asked(f"a hint for {CHUNK} : a task a picture", 100, 200), ratios)]


def distance(given: Given) -> Ratios:
    """A server that answers after 100 ms, 256 requests at a time: the share of what that allows at best."""
    with serving(given.folder, latency_ms=LATENCY_MS) as port:
        names = [path.name for path in sorted(given.folder.iterdir())]
        urls = [f"http://127.0.0.1:{port}/{name}" for name in itertools.islice(itertools.cycle(names), 20 * AT_ONCE)]
        settings = _settings(given, port, at_once=AT_ONCE)
        rates, loops = [], []
        for _ in range(given.rounds):
            rates.append(uvloop.run(goal_ways.fetched(settings, urls)))
            loops.append(goal_ways.one_by_one(urls[:30]))
    ideal = AT_ONCE / (LATENCY_MS / 1000)
    return [
        (
            Asked("fetching at 100 ms, 256 at once: share of the ideal", 0.85, 0.92, share=True),
            [r / ideal for r in rates],
        ),
        (Asked("… : requests in a loop", 200, 240), [a / b for a, b in zip(rates, loops, strict=True)]),
    ]


def crawling(given: Given) -> Ratios:
    """CPU a picture, of ours with all guards against img2dataset's less what its start costs."""
    asked = [
        Asked("fetching : img2dataset without resizing", 6, 10),
        Asked("fetching and making copies : img2dataset, crop to 224", 2.5, 3.5),
    ]
    with serving(given.folder) as port:
        names = [path.name for path in sorted(given.folder.iterdir())[:1000]]
        urls = [f"http://127.0.0.1:{port}/{name}" for name in names]
        settings = _settings(given, port, at_once=64)
        python = str(environments.python(CACHE, "img2dataset"))
        found: Ratios = [(each, []) for each in asked]
        for turn in range(given.rounds):
            fetch_ms = stages.cpu_of(partial(stages.fetch_all, settings, urls), len(urls))
            read_ms = _all(goal_ways.sandbox_copy, given.photos) / len(given.photos)
            for at, (mode, ours) in enumerate((("no", fetch_ms), ("center_crop", fetch_ms + read_ms))):
                command = [python, "-m", "bench.peers.img2dataset_peer", "--mode", mode, "--side", "224"]
                turned = Peer.whole(command, Round(f"http://127.0.0.1:{port}", names, 2000, f"{mode}-{turn}"))
                theirs = 1000 * (turned.cpu_s - turned.parts["start_cpu_s"]) / turned.count
                found[at][1].append(theirs / ours)
    return found


def accepting(given: Given) -> Ratios:
    """100,000 URLs posted to the API until it says that they are kept, against the ORM's add_all of such rows."""
    ratios = []
    with running(reaching(1), with_models=False) as system:
        job_of_nowhere(system, 100)
        engine = goal_ways.orm(system.supervisor.database_url)
        for turn in range(min(3, given.rounds)):
            began = time.perf_counter()
            job = job_of_nowhere(system, SUBMITTED)
            ours = time.perf_counter() - began
            system.client.cancel(job)
            ratios.append(goal_ways.orm_add_all(engine, turn, SUBMITTED) / ours)
        engine.dispose()
    return [(Asked("100,000 URLs accepted : ORM add_all", 10, 18), ratios)]


def writing(given: Given) -> Ratios:
    """A picture's share of claiming and recording a chunk of 512, against an ORM object and a commit for each."""
    ratios = []
    with scale.opened(str(given.scratch)) as house:
        engine = goal_ways.orm(house.url)
        goal_ways.orm_add_all(engine, 1, 1000)
        for turn in range(given.rounds):
            times = scale.Times(turn)
            scale.through(house, times, turn, 8)
            ours = (
                sum(statistics.median(times.calls[name]) for name in ("claim, infer", f"record {CHUNK}, infer")) / CHUNK
            )
            ids = range(1 + turn * 150, 151 + turn * 150)
            ratios.append(1000 * goal_ways.orm_results(engine, ids, TAGS) / len(ids) / ours)
        engine.dispose()
    return [(Asked("results of a chunk claimed and written : ORM objects", 30, 100), ratios)]


MEASURES: dict[str, Callable[[Given], Ratios]] = {
    measure.__name__: measure for measure in (decoding, engine, queue, distance, crawling, accepting, writing)
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES), metavar="NAME")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--folder", type=Path, default=SHARED / "data" / "clothing" / "images")
    options = arguments.parse_args()
    if not options.folder.is_dir():
        raise SystemExit(f"{options.folder} is not there: --folder FOLDER with JPEGs")
    kernel.single_threaded()
    photos = [path.read_bytes() for path in sorted(options.folder.iterdir())[:400]]
    table = Table("step : usual way", "must", "stretch", "median (least–most)", "met")
    for name in options.only:
        with tempfile.TemporaryDirectory(prefix="tagmill-bench-") as scratch:
            try:
                found = MEASURES[name](Given(options.folder, photos, options.rounds, Path(scratch)))
            except (environments.NotInstalled, Failed) as error:
                table.add_row(name, "", "", f"not measured: {error}", "")
                continue
        for asked, values in found:
            table.add_row(asked.what, *_cells(asked, values))
    Console(width=120, highlight=False).print(table)


def _cells(asked: Asked, values: list[float]) -> tuple[str, str, str, str]:
    form = ".3f" if asked.share else ".2f" if statistics.median(values) < 10 else ".0f"
    middle = statistics.median(values)
    met = "stretch" if middle >= asked.stretch else "must" if middle >= asked.must else "no"
    shown = spread(values, form) if len(values) > 1 else f"{middle:{form}}"
    sign = "" if asked.share else " ×"
    return f"{asked.must:g}{sign}", f"{asked.stretch:g}{sign}", shown, met


def _all(way: Callable[[Any], object], given: Sequence[Any]) -> float:
    return goal_ways.cpu_ms(lambda: [way(each) for each in given])


def _settings(given: Given, port: int, *, at_once: int) -> WorkerSettings:
    nowhere: dict[str, Any] = {"database_url": "postgresql://nobody:nothing@127.0.0.1:1/none"}
    return WorkerSettings(
        **nowhere,
        blob_root=given.scratch / "blobs",
        model_root=given.scratch / "models",
        allow_cidrs=["127.0.0.0/8"],
        allow_ports=[port],
        fetch_concurrency=at_once,
        fetch_per_host=at_once,
    )


if __name__ == "__main__":
    main()
