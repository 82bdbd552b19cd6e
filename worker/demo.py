"""`make demo`: the whole system on a few pictures, from an empty folder to a table of results, and a clean stop.

servers and roles → models → pictures on a local web server → one job of URLs over HTTP → progress → table
"""

import os
import shutil
import signal
import time
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console

from worker import demo_pictures, demo_report, interrupts, job_files, live, roles, url_lists
from worker.client import Client
from worker.demo_models import provide
from worker.embedded import EmbeddedPostgres, EmbeddedValkey
from worker.home import Home
from worker.picture_server import PictureServer
from worker.screen import console, counted, news, plain
from worker.service import LOOPBACK, is_free
from worker.supervise import Supervisor

SHARED = Path("..") / "shared"
PORT = 8080
# Small chunks show progress on a small job; big ones are quicker on a big one.
_SETTINGS = {"TAGMILL_CHUNK_SIZE": "32"}
# What the shell may hold for another installation; the demo brings its own.
_FOREIGN = (
    "DATABASE_URL",
    "DATABASE_ROLE",
    "BROKER_URL",
    "BLOB_ROOT",
    "BLOB_STORE",
    "MODEL_ROOT",
    "URL",
    "API_KEY",
    "ALLOW_CIDRS",
    "ALLOW_PORTS",
)


def run(images: Path | None, count: int, home: Home, *, public: str | None = None, shared: Path = SHARED) -> None:
    """The demo from start to end. Raises ClientError, ServiceError or DbError if something cannot be.

    ``public``: the URL of a folder with the photos of `worker.public_photos`, to fetch those where it answers.
    """
    screen = console()
    interrupts.on(signal.SIGTERM, signal.SIGHUP)
    for name in _FOREIGN:
        os.environ.pop(f"TAGMILL_{name}", None)
    _clear(home)

    def say(text: str) -> None:
        news(screen, text)

    pictures = demo_pictures.choose(images, count, home, shared, public=public, say=say)
    say(f"{counted(pictures.count, 'picture')}: {pictures.origin}")
    with PictureServer(pictures.paths) if pictures.paths else nullcontext() as server:
        urls = server.urls if server else pictures.urls
        allowed = demo_pictures.allowance(urls)
        if server:
            say(f"serving them on {LOOPBACK}:{server.port}, which the crawler is allowed to fetch from (only here)")
        listen = roles.Listen(port=PORT if is_free(PORT) else 0)
        supervisor = Supervisor(home, listen=listen, settings=_SETTINGS | _pace(bool(allowed)) | allowed, say=say)
        try:
            supervisor.start()
            provide(supervisor.database_url, home.models, shared / "models", say)
            supervisor.await_ready()
            say(f"the API answers at {supervisor.url}")
            _work(screen, supervisor, urls, pictures)
        finally:
            # Once it stops, it stops: a second Ctrl-C must not leave half of it running.
            interrupts.ignore(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            say("stopping")
            supervisor.stop()
    say(f"stopped. Its data stays in {home.root} until the next demo; see it again with:")
    screen.print(f"    TAGMILL_HOME={plain(home.root)} {Path('.venv/bin/tagmill')} up", soft_wrap=True)


def _pace(own: bool) -> dict[str, str]:
    """Our own server takes many requests at once; a stranger's gets the default."""
    return {"TAGMILL_FETCH_PER_HOST": "16"} if own else {}


def _work(screen: Console, supervisor: Supervisor, urls: list[str], pictures: demo_pictures.Pictures) -> None:
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
    demo_report.agreement(screen, items, pictures.labels, pictures.agreed)
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
