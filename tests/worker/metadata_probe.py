"""Run by test_netguard in a network namespace of its own: counts the metadata addresses reached, guarded and not."""

import asyncio
import socket
import subprocess

from yarl import URL

from tests.hostile import FixedResolver, HostileServer
from worker.fetcher import Fetched, Fetcher, FetchLimits
from worker.netguard import NetGuard

V4 = ("169.254.169.254", "10.0.0.5", "100.100.100.200", "192.0.0.192", "168.63.129.16")
V6 = ("fd00:ec2::254",)


class NoGuard(NetGuard):
    """Lets everything through: shows that the canaries are there to be hit."""

    def check_url(self, text: str) -> URL:
        return URL(text)

    def socket_factory(self, info):  # type: ignore[no-untyped-def]
        return socket.socket(*info[:3])


async def reached(guard: NetGuard, urls: list[str]) -> int:
    resolver = FixedResolver({"metadata.test": ["169.254.169.254"]})
    async with Fetcher(guard, FetchLimits(connect_s=1), resolver=resolver) as fetcher:
        return sum([isinstance(await fetcher.fetch(url), Fetched) for url in urls])


def main() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for address in V4:
        subprocess.run(["ip", "addr", "add", f"{address}/32", "dev", "lo"], check=True)
    for address in V6:
        subprocess.run(["ip", "-6", "addr", "add", f"{address}/128", "dev", "lo", "nodad"], check=True)
    with HostileServer(addresses=(*V4, *V6), port=80) as server:
        hosts = [*V4, *(f"[{address}]" for address in V6), "metadata.test"]
        urls = [f"http://{host}/close" for host in hosts]
        guarded = asyncio.run(reached(NetGuard(), urls))
        assert server.connections == 0
        print("guarded", guarded, "unguarded", asyncio.run(reached(NoGuard(), urls)))


if __name__ == "__main__":
    main()
