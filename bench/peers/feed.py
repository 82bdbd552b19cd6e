"""The client of the serving systems: aiohttp on uvloop fetches pictures and posts their bytes, 64 at a time.

The server runs in child processes; it is started once, and rounds are fed to it.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import aiohttp
import uvloop

from bench.peers.protocol import Result, Round

AT_ONCE = 64


def feed(asked: Round, target: str) -> Result:
    """Every picture of the round through `target`."""
    return uvloop.run(_feed(asked, target))


async def _feed(asked: Round, target: str) -> Result:
    urls = iter(asked.urls)
    done = 0
    connector = aiohttp.TCPConnector(limit=2 * AT_ONCE, limit_per_host=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def lane() -> None:
            nonlocal done
            for url in urls:
                async with session.get(url) as answer:
                    data = await answer.read()
                async with session.post(target, data=data) as answer:
                    found = await answer.json(content_type=None)
                done += answer.status == 200 and len(found) > 0

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(lane())
    return Result(done)


def free_port() -> int:
    """A port where nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], alive: str, *, patience_s: float = 120.0) -> Iterator[None]:
    """A server in a child process, from the first time that `alive` answers."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True) as child:
        try:
            deadline = time.monotonic() + patience_s
            while not _answers(alive):
                if child.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command[2:4]} did not start (exit code {child.poll()})")
                time.sleep(0.2)
            yield
        finally:
            child.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # its children too: some do not end with it


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status < 500)
    except OSError as error:
        return getattr(error, "code", 0) in (404, 405)
