"""The crawler process: puts the loop, the network, the sandbox and the heartbeat together, and ends them in order."""

import asyncio
import signal
import sys

from worker import collector, log, wiring
from worker.crawl_loop import Crawler
from worker.heartbeat import Counters, Heartbeat
from worker.ingest import Ingest
from worker.reuse import Reuse
from worker.settings import WorkerSettings


async def crawl(settings: WorkerSettings) -> None:
    """Run one crawler until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    database = wiring.database(settings, "crawler")
    counters = Counters()
    gate = wiring.gate(settings)
    try:
        async with wiring.fetcher(settings) as fetcher, wiring.normaliser(settings) as normaliser:
            ingest = Ingest(
                settings,
                fetcher=fetcher,
                gate=gate,
                normaliser=normaliser,
                blobs=wiring.blobs(settings),
                counters=counters,
                reuse=Reuse(settings, database, wiring.blobs(settings)),
            )
            beat = Heartbeat(database, "crawler", every_s=settings.heartbeat_s, stats=counters.snapshot)
            await loop.run_in_executor(None, beat.start)
            log.get("crawler").info("crawler started", sandbox=normaliser.capabilities)
            collector.settle()
            await Crawler(settings, database, ingest, gate, beat.id, counters).run(stop)
            await loop.run_in_executor(None, beat.stop)
            ingest.close()
    finally:
        database.dispose()
    log.get("crawler").info("crawler stopped", **counters.snapshot())


def main() -> int:
    """Entry point of the role."""
    settings = WorkerSettings()
    log.configure(settings.log_format)
    try:
        import uvloop
    except ImportError:  # not on every platform; only slower
        asyncio.run(crawl(settings))
    else:
        uvloop.run(crawl(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
