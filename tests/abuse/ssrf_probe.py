"""Run by test_ssrf in a namespace: the crawler's and the sender's own clients, as worker.wiring builds them, are led
towards canaries in every way we know; with their guard, with its text check gone, and with all of it gone.

Prints {mode: {client: {group: {"hits": canaries reached, "outcomes": {url: code}}}}} and what the public server saw.
"""

import asyncio
import json
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from yarl import URL

from db.webhook_targets import Targets
from tests.abuse.namespace import Canaries, NameServer, Turn, ask_here, give
from tests.hostile import HostileServer
from worker import wiring
from worker.errors import FetchFailure
from worker.netguard import NetGuard
from worker.settings import WorkerSettings

PUBLIC, PUBLIC_SIX, SERVER = "93.184.216.34", "2606:4700::1111", "127.0.0.53"
PORTS = (22, 25, 80, 443, 5432, 6379, 8080)
INTERNAL = (
    "127.0.0.1", "10.0.0.5", "10.1.2.3", "172.16.0.9", "192.168.1.1", "169.254.169.254", "169.254.170.2",
    "100.100.100.200", "192.0.0.192", "168.63.129.16", "198.18.0.1", "240.0.0.1",
)  # fmt: skip
INTERNAL_SIX = (
    "::1", "fd00:ec2::254", "fe80::1", "fec0::1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::",
    "2001:0:a9fe:a9fe::5601:5601", "2001:db8::1", "3fff::1",
)  # fmt: skip
STATUSES = (301, 302, 303, 307, 308)
NAMES: dict[str, list[Turn]] = {
    "public.test": [{"A": [PUBLIC]}],
    "private.test": [{"A": ["10.0.0.5"]}],
    "metadata.test": [{"A": ["169.254.169.254"]}],
    "loop.test": [{"A": ["127.0.0.1"], "AAAA": ["::1"]}],
    "any.test": [{"A": ["0.0.0.0"]}],
    "six.test": [{"AAAA": ["fd00:ec2::254"]}],
    "mapped.test": [{"AAAA": ["::ffff:169.254.169.254"]}],
    "nat64.test": [{"AAAA": ["64:ff9b::a9fe:a9fe"]}],
    "cname.test": [{"CNAME": ["private.test"]}],
    "mixed.test": [{"A": ["10.0.0.5", PUBLIC]}],
    "mixed-turned.test": [{"A": [PUBLIC, "10.0.0.5"]}],
    "mixed-six.test": [{"A": [PUBLIC], "AAAA": ["fd00:ec2::254", "::1"]}],
    "mixed-none.test": [{"A": ["10.0.0.5", "169.254.169.254"], "AAAA": ["::1"]}],
    "rebind.test": [{"A": [PUBLIC]}, {"A": ["10.0.0.5"]}],
}
INSIDE = ("http://10.0.0.5/", "http://169.254.169.254/latest/", "http://[::1]/", "http://private.test/")


def host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def groups() -> dict[str, list[str]]:
    """Every way we know, by its kind; all of them end in our network if nobody looks."""
    redirects = [
        f"http://{PUBLIC}/redirect?status={status}&to={to}"
        for status in STATUSES
        for to in (*INSIDE, "//10.0.0.5/", f"http://{PUBLIC}@10.0.0.5/", f"http://{PUBLIC}:6379/")
    ]
    return {
        "addresses": [f"{scheme}://{address}/" for address in INTERNAL for scheme in ("http", "https")],
        "addresses of IPv6": [f"{scheme}://[{each}]/" for each in INTERNAL_SIX for scheme in ("http", "https")],
        "v4 in v6": [
            f"http://[{each}]/"
            for each in ("::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "0:0:0:0:0:ffff:10.0.0.5", "::169.254.169.254",
                         "::ffff:0:169.254.169.254", "64:ff9b::169.254.169.254", "2002:a9fe:a9fe::",
                         "2001:0:a9fe:a9fe::5601:5601", "fe80::1%25lo", "fe80::1%lo")
        ],
        "spellings": [
            f"http://{each}/"
            for each in ("0xa9fea9fe", "0xa9.0xfe.0xa9.0xfe", "0xa9.254.169.254", "2852039166", "025177524776",
                         "0251.0376.0251.0376", "169.254.43518", "10.5", "127.1", "0", "0.0.0.0",
                         "①⑥⑨.②⑤④.①⑥⑨.②⑤④", "⑩.⓪.⓪.⑤", "169。254。169。254", "１６９.254.169.254", "10．0．0．5",
                         "%31%30.0.0.5", "169.254.169.254.", "٠.٠.٠.٠", "LOCALHOST", "localhost.", "[::]")
        ],
        "userinfo": ["http://user:pw@10.0.0.5/", f"http://{PUBLIC}@10.0.0.5/", f"http://{PUBLIC}:80@10.0.0.5/",
                     f"http://{PUBLIC}%40@10.0.0.5/", f"http://{PUBLIC}\\@10.0.0.5/", f"http://10.0.0.5/#@{PUBLIC}/",
                     f"http://10.0.0.5/?@{PUBLIC}/", "http://@10.0.0.5/"],
        "line ends": ["http://10.0.0.5/\r\nHost: public.test\r\n\r\n", "http://10.0.0.5/%0d%0aX-Evil:%201",
                      "http://10.0.0.5/?a=\r\nX-Evil: 1", "http://10.0.0.5/\x00", "http://10.0.0.5/\t"],
        "ports": [f"http://{host(each)}:{port}/" for each in (PUBLIC, PUBLIC_SIX) for port in PORTS
                  if port not in (80, 443)],
        "redirects": redirects,
        "names": [f"http://{name}/" for name in ("private.test", "metadata.test", "loop.test", "any.test", "six.test",
                                                 "mapped.test", "nat64.test", "cname.test", "localhost")],
        "mixed answers": [f"http://{name}/" for name in ("mixed.test", "mixed-turned.test", "mixed-six.test",
                                                         "mixed-none.test")],
    }  # fmt: skip


class TextOnly(NetGuard):
    """A URL is taken as it is; what sees the connections stays."""

    def check_url(self, text: str) -> URL:
        return URL(text)


class NoGuard(TextOnly):
    """The mutation: nothing is looked at."""

    def socket_factory(self, info: Any) -> socket.socket:
        return socket.socket(*info[:3])


@contextmanager
def mode(name: str) -> Iterator[None]:
    """The guard as it is, without its text check, or without anything."""
    kept = wiring.NetGuard, Targets.problem
    if name != "guarded":
        wiring.NetGuard = {"text check gone": TextOnly, "guard gone": NoGuard}[name]  # type: ignore[misc]
        Targets.problem = lambda self, url: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        wiring.NetGuard, Targets.problem = kept  # type: ignore[misc, method-assign]


async def fetch(settings: WorkerSettings, url: str) -> str:
    """How the crawler's client ends with it."""
    async with wiring.fetcher(settings) as fetcher:
        try:
            outcome = await fetcher.fetch(url)
        except Exception as error:
            return f"raised {type(error).__name__}"
        return outcome.code if isinstance(outcome, FetchFailure) else "fetched"


async def post(settings: WorkerSettings, url: str) -> str:
    """How the sender's client ends with it."""
    async with wiring.poster(settings) as poster:
        try:
            return (await poster.post(url, {"webhook-id": "x"}, b"{}")).code or "sent"
        except Exception as error:
            return f"raised {type(error).__name__}"


async def lead(client: Callable[..., Any], settings: WorkerSettings, canaries: Canaries) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for group, urls in groups().items():
        before, outcomes = canaries.touched, {}
        for url in urls:
            outcomes[url] = await client(settings, url)
        found[group] = {"hits": canaries.touched - before, "outcomes": outcomes}
    return found


async def rebind(client: Callable[..., Any], settings: WorkerSettings, name: str, canaries: Canaries) -> dict[str, Any]:
    """Three times the same name, a connection and a look-up each; the answer changes after the first."""
    before = canaries.touched
    outcomes = [await client(settings, f"http://{name}/close") for _ in range(3)]
    return {"hits": canaries.touched - before, "outcomes": outcomes}


def main() -> None:
    internal = give(*INTERNAL, *INTERNAL_SIX)
    give(PUBLIC, PUBLIC_SIX)
    with tempfile.TemporaryDirectory() as folder:
        ask_here(Path(folder), SERVER)
        print(json.dumps(probe(internal, Path(folder))))


def probe(internal: list[str], folder: Path) -> dict[str, Any]:
    """Everything, in all three modes."""
    made = WorkerSettings(
        database_url="postgresql://nobody@127.0.0.1/none", broker_url="redis://127.0.0.1/0", blob_root=folder,
        model_root=folder, webhook_http=True, fetch_timeout_s=20, fetch_connect_s=10, fetch_dns_s=10,
        webhook_timeout_s=20,
    )  # fmt: skip
    page = f'<html><meta http-equiv="refresh" content="0; url={INSIDE[0]}"><img src="{INSIDE[1]}"></html>'.encode()
    result: dict[str, Any] = {"internal": internal}
    with (
        Canaries(internal, PORTS) as canaries,
        Canaries((PUBLIC, PUBLIC_SIX), set(PORTS) - {80, 443}) as services,
        HostileServer(files={"page": page}, addresses=(PUBLIC, PUBLIC_SIX), port=80) as server,
    ):
        canaries.hits = services.hits  # one count for both
        for name in ("guarded", "text check gone", "guard gone"):
            told = result[name] = {}
            for client in (fetch, post):
                # A fresh name server each: every one begins with the first turn.
                with NameServer(SERVER, NAMES) as dns, mode(name):
                    told[client.__name__] = asyncio.run(lead(client, made, canaries))
                    told[client.__name__]["rebinding"] = asyncio.run(rebind(client, made, "rebind.test", canaries))
                    told[client.__name__]["asked"] = dict(dns.asked)
        with NameServer(SERVER, NAMES):
            served = ("http://public.test/image", f"http://[{PUBLIC_SIX}]/image", f"http://{PUBLIC}/page",
                      f"http://{PUBLIC}/image%0d%0aX-Evil:%201", f"http://{PUBLIC}/image?q=%0aX-Evil:%201")  # fmt: skip
            before = canaries.touched
            result["public"] = {url: asyncio.run(fetch(made, url)) for url in served}
            result["public hits"] = canaries.touched - before
        result["lines"] = sorted({line.decode("latin-1") for each in server.log for line in each.raw.split(b"\r\n")})
        result["status lines"] = [each.raw.partition(b"\r\n")[0].decode("latin-1") for each in server.log[-5:]]
    return result


if __name__ == "__main__":
    main()
