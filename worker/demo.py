"""`make demo`: the whole system on a few pictures, from an empty folder to a table of results, and a clean stop.

servers and roles → models → pictures on a local web server → one job of URLs over HTTP → progress → table
"""

import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console

from worker import demo_report, drawings, job_files, live, roles, url_lists
from worker.client import Client, ClientError
from worker.demo_models import provide
from worker.embedded import EmbeddedPostgres, EmbeddedValkey
from worker.home import Home
from worker.picture_server import PictureServer
from worker.screen import console, counted, news, plain
from worker.service import LOOPBACK, is_free
from worker.supervise import Supervisor

SHARED = Path("..") / "shared"
PORT = 8080
# What the shell may hold for another installation; the demo brings its own.
_FOREIGN = (
    "DATABASE_URL",
    "DATABASE_ROLE",
    "BROKER_URL",
    "BLOB_ROOT",
    "MODEL_ROOT",
    "URL",
    "API_KEY",
    "ALLOW_CIDRS",
    "ALLOW_PORTS",
)


@dataclass(frozen=True)
class Pictures:
    """What the demo works on, and where it is from, in words."""

    paths: list[Path]
    origin: str


def run(images: Path | None, count: int, home: Home, *, shared: Path = SHARED) -> None:
    """The demo from start to end. Raises ClientError, ServiceError or DbError if something cannot be."""
    screen = console()
    _interrupt_on(signal.SIGTERM, signal.SIGHUP)
    for name in _FOREIGN:
        os.environ.pop(f"TAGMILL_{name}", None)
    _clear(home)
    pictures = choose(images, count, home, shared)
    news(screen, f"{counted(len(pictures.paths), 'picture')}: {pictures.origin}")
    with PictureServer(pictures.paths) as server:
        news(
            screen, f"serving them on {LOOPBACK}:{server.port}, which the crawler is allowed to fetch from (only here)"
        )
        listen = roles.Listen(port=PORT if is_free(PORT) else 0)
        supervisor = Supervisor(home, listen=listen, settings=_settings(server), say=lambda text: news(screen, text))
        try:
            supervisor.start()
            provide(supervisor.database_url, home.models, shared / "models", lambda text: news(screen, text))
            supervisor.await_ready()
            news(screen, f"the API answers at {supervisor.url}")
            _work(screen, supervisor, server.urls)
        finally:
            # Once it stops, it stops: a second Ctrl-C must not leave half of it running.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            news(screen, "stopping")
            supervisor.stop()
    news(screen, f"stopped. Its data stays in {home.root} until the next demo; see it again with:")
    screen.print(f"    TAGMILL_HOME={plain(home.root)} {Path('.venv/bin/tagmill')} up", soft_wrap=True)


def choose(images: Path | None, count: int, home: Home, shared: Path) -> Pictures:
    """The user's pictures, else the photos beside the checkout, else drawings; ClientError for a folder without any."""
    if images is not None:
        if not images.is_dir():
            raise ClientError("no_such_folder", f"{images}: no such folder")
        found = job_files.pictures(images)
        if not found:
            raise ClientError("no_pictures", f"{images}: no pictures in it")
        return Pictures(
            _spread(found, count), f"from {images}" + (f" ({len(found)} in all)" if len(found) > count else "")
        )
    photos = shared / "data" / "clothing"
    if photos.is_dir() and (found := job_files.pictures(photos)):
        return Pictures(_spread(found, count), f"photos of clothes from {photos} ({len(found)} in all)")
    drawn = drawings.draw(home.root / "drawings", count)
    return Pictures(drawn, "drawn by the demo itself, because there are no photos here; try make demo IMAGES=folder")


def _spread(found: list[Path], count: int) -> list[Path]:
    """`count` of them, evenly from the whole list."""
    step = max(1.0, len(found) / count)
    return [found[int(n * step)] for n in range(min(count, len(found)))]


def _settings(server: PictureServer) -> dict[str, str]:
    return {
        # The default refuses loopback and odd ports: this is the operator's explicit allowance.
        "TAGMILL_ALLOW_CIDRS": "127.0.0.0/8",
        "TAGMILL_ALLOW_PORTS": str(server.port),
        "TAGMILL_FETCH_PER_HOST": "16",
        # Small chunks show progress on a small job; big ones are quicker on a big one.
        "TAGMILL_CHUNK_SIZE": "32",
    }


def _work(screen: Console, supervisor: Supervisor, urls: list[str]) -> None:
    key = supervisor.home.saved_key()
    with Client(supervisor.url, key) as client:
        rows = [url_lists.row({"url": url, "id": url.rsplit("/", 1)[1]}) for url in urls]
        started = time.monotonic()
        accepted = client.submit(
            lambda: iter(rows), job_files.NDJSON, params={"name": "demo"}, idempotency_key=f"demo-{os.urandom(8).hex()}"
        )
        job_id = str(accepted["id"])
        news(screen, f"submitted as one job over HTTP: {supervisor.url}/v1/jobs/{job_id}")

        def look() -> None:
            supervisor.watch()
            # A role that cannot run would keep the job open for ever.
            supervisor.give_up_on_failing()

        job = live.wait(client, job_id, screen, meanwhile=look)
        seconds = time.monotonic() - started
        items = client.items(job_id, 200)
    demo_report.show(screen, job, items, seconds)
    demo_report.links(screen, supervisor.url, job_id, supervisor.home)


def _clear(home: Home) -> None:
    """An empty system: everything of the last demo but its models, which need not be pulled again."""
    home.take()
    try:
        EmbeddedPostgres(home.postgres).discard()
        EmbeddedValkey(home.valkey).discard()
        for folder in (home.blobs, home.run, home.root / "drawings"):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (home.key, home.log):
            file.unlink(missing_ok=True)
    finally:
        home.leave()


def _interrupt_on(*numbers: signal.Signals) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, interrupt)
