"""The commands behind the roles, and their environment: the same for `tagmill up`, in containers and by hand."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

ROLES = ("api", "crawler", "worker", "maintenance", "trainer")
BEATING = ROLES[1:]  # those with a heartbeat; the API is asked over HTTP
_MODULES = {
    "crawler": "worker.crawler",
    "worker": "worker.app",
    "maintenance": "worker.maintenance",
    "trainer": "worker.trainer",
}


@dataclass(frozen=True)
class Listen:
    """Where the API listens and with how many processes and threads (an event stream or export holds a thread)."""

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 2
    threads: int = 16


def command(role: str, listen: Listen | None = None) -> list[str]:
    """The program and arguments of a role; ValueError for an unknown one."""
    if role == "api":
        return _api(listen or Listen())
    if role not in _MODULES:
        raise ValueError(f"unknown role {role!r}: one of {', '.join(ROLES)}")
    return [sys.executable, "-m", _MODULES[role]]


def _api(listen: Listen) -> list[str]:
    options = {
        "--worker-class": "api.server.HeadFirstWorker",  # gthread, but safe from clients that dawdle
        "--workers": str(listen.workers),
        "--threads": str(listen.threads),
        "--bind": f"{listen.host}:{listen.port}",
        "--graceful-timeout": "30",
        "--keep-alive": "75",
        # A stuck thread does not stop the heartbeat of gthread: this only catches a dead process.
        "--timeout": "60",
    }
    flat = [part for pair in options.items() for part in pair]
    # No control socket: it is one more way in. No preload: connections do not survive a fork.
    return [sys.executable, "-m", "gunicorn", "api.wsgi:app", *flat, "--no-control-socket"]


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with `given` on top; unbuffered, so that logs are not late."""
    return {**os.environ, "PYTHONUNBUFFERED": "1", **given}
