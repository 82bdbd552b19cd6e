"""Flame graphs of the crawler, of one of its sandboxed processes, and of the worker, while a job of new photos runs.

python -m bench.flames [--count 8000] [--seconds 12] [--folder ../shared/data/clothing/images] [--into docs/images]

Needs py-spy (pip install py-spy); it reads the processes from outside and costs them 1 to 2 %. The crawler is sampled
where it holds Python's lock, because its event loop looks busy to py-spy also while it waits; the others wherever they
are not idle. What a C library does is counted to the Python line that called it.
"""

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rich.console import Console

from bench import model
from bench.compare import CACHE
from bench.pictures import paths, serving
from bench.system import SHARED, System, cpu_seconds, descendants, reaching, running, submit, watched

RATE: Final = "199"
IMAGES: Final = Path(__file__).resolve().parents[1] / "docs" / "images"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--count", type=int, default=8000)
    arguments.add_argument("--seconds", type=int, default=12)
    arguments.add_argument("--folder", type=Path, default=SHARED / "data" / "clothing" / "images")
    arguments.add_argument("--into", type=Path, default=IMAGES)
    options = arguments.parse_args()
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if spy is None:
        raise SystemExit("py-spy is not there: pip install py-spy")
    console = Console(width=110, highlight=False)
    folder = model.provide(CACHE, options.folder)
    with serving(options.folder) as port, running(reaching(port), artifact=folder) as system:
        watched(system, _job(system, port, options.folder, 64, "warm"))
        job = _job(system, port, options.folder, options.count, "flames")
        for _ in range(200):  # until the worker scores pictures, and all stages are under way
            time.sleep(0.1)
            if system.client.job(job)["progress"]["settled"] > options.count // 20:
                break
        recordings = [
            (name, process, subprocess.Popen([spy, "record", *of, *_how(options.seconds, pid, options.into / name)]))
            for name, process, pid, of in _targets(system)
        ]
        for name, process, recording in recordings:
            if recording.wait(options.seconds + 60):
                raise SystemExit(f"py-spy could not read the {process}")
            _title(options.into / name, f"Tagmill's {process}, {options.seconds} s of a job")
            console.print(f"{process}: {options.into / name}")


def _job(system: System, port: int, folder: Path, count: int, tag: str) -> str:
    rows = (
        {"url": f"http://127.0.0.1:{port}/{path.partition('?')[0]}?{tag}-{at}"} for at, path in _numbered(folder, count)
    )
    return submit(system.client, rows, analyses="tags")


def _numbered(folder: Path, count: int) -> Iterator[tuple[int, str]]:
    return enumerate(paths(folder, count))


def _targets(system: System) -> Iterator[tuple[str, str, int, list[str]]]:
    """File, process, pid and options: of a role's descendants the one that is the busiest."""
    crawler, worker = system.pids["crawler"], system.pids["worker"]
    yield "flame-crawler.svg", "crawler", crawler, ["--gil"]
    yield "flame-sandbox.svg", "sandbox", _busiest(crawler), ["--nonblocking"]
    yield "flame-worker.svg", "worker", _busiest(worker), ["--threads", "--nonblocking"]


def _title(path: Path, text: str) -> None:
    """In place of py-spy's own command line."""
    svg = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r'(<text id="title"[^>]*>)[^<]*', rf"\1{text}", svg, count=1), encoding="utf-8")


def _busiest(root: int) -> int:
    children = {str(pid): pid for pid in descendants(root) - {root}}
    before = cpu_seconds(children)
    time.sleep(1.0)
    after = cpu_seconds(children)
    return children[max(after, key=lambda name: after[name] - before.get(name, 0.0))]


def _how(seconds: int, pid: int, path: Path) -> list[str]:
    return ["--rate", RATE, "--duration", str(seconds), "--pid", str(pid), "--format", "flamegraph", "-o", str(path)]


if __name__ == "__main__":
    main()
