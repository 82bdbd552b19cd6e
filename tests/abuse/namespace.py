"""A network namespace with nothing in it, and in it listeners that nobody may ever reach, and a name server of ours."""

import json
import selectors
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

ROOT = Path(__file__).resolve().parents[2]
_WAYS = (["unshare", "--net", "--mount"], ["unshare", "--user", "--map-root-user", "--net", "--mount"])


@lru_cache
def way_in() -> list[str] | None:
    """The command that starts another one in a namespace of its own; None where this machine allows none."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return None
    for way in _WAYS:
        tried = subprocess.run([*way, "ip", "link", "set", "lo", "up"], capture_output=True, timeout=60, check=False)
        if tried.returncode == 0:
            return way
    return None


def run(module: str, *arguments: str, timeout: float = 120) -> Any:
    """What the module prints, as JSON, when it runs in a namespace; skips where there is none."""
    way = way_in()
    if way is None:
        pytest.skip("needs network and mount namespaces (unshare, ip)")
    command = [*way, sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def give(*addresses: str) -> list[str]:
    """Put these addresses on the loopback device; those that the kernel took."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    taken = []
    for address in addresses:
        length = "128" if ":" in address else "32"
        command = ["ip", "addr", "add", f"{address}/{length}", "dev", "lo"]
        if ":" in address:
            command.append("nodad")
        if address in ("127.0.0.1", "::1") or subprocess.run(command, capture_output=True, check=False).returncode == 0:
            taken.append(address)
    return taken


def ask_here(folder: Path, server: str) -> None:
    """From here on, names are asked of this server alone, by the C library itself."""
    for name, text in (
        ("resolv.conf", f"nameserver {server}\noptions timeout:10 attempts:1\n"),
        ("nsswitch.conf", "hosts: files dns\n"),
        ("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ):
        (folder / name).write_text(text)
        subprocess.run(["mount", "--bind", str(folder / name), f"/etc/{name}"], check=True)


class Canaries:
    """Listeners at every address and port; whoever connects is counted, told 404 and hung up on."""

    def __init__(self, addresses: Iterable[str], ports: Iterable[int]) -> None:
        self.hits: Counter[str] = Counter()  # by "address port"
        self._selector = selectors.DefaultSelector()
        self._stop = threading.Event()
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            for port in ports:
                listener = socket.socket(family)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                scope = socket.if_nametoindex("lo") if address.startswith("fe80") else 0
                listener.bind((address, port, 0, scope) if family == socket.AF_INET6 else (address, port))
                listener.listen(64)
                listener.setblocking(False)
                self._selector.register(listener, selectors.EVENT_READ, f"{address} {port}")
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(5)

    @property
    def touched(self) -> int:
        return self.hits.total()

    def _serve(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._selector.select(0.05):
                listener = key.fileobj
                assert isinstance(listener, socket.socket)
                try:
                    taken, _ = listener.accept()
                except OSError:
                    continue
                self.hits[key.data] += 1
                with taken:
                    taken.settimeout(0.2)
                    try:
                        taken.recv(4096)
                        taken.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    except OSError:
                        continue


Turn = Mapping[str, Sequence[str]]  # record type → data


class NameServer:
    """DNS over UDP. The value of a name is a list of turns, one for each look-up, the last one repeated; TTL 0.

    A turn holds addresses by record type, or the name that a CNAME leads to.
    """

    def __init__(self, address: str, names: Mapping[str, Sequence[Turn]]) -> None:
        self.asked: Counter[str] = Counter()
        self._names = names
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 53))
        self._socket.settimeout(0.1)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(5)
        self._socket.close()

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                query, client = self._socket.recvfrom(1500)
            except TimeoutError:
                continue
            self._socket.sendto(self._answer(query), client)

    def _answer(self, query: bytes) -> bytes:
        labels, at = [], 12
        while size := query[at]:
            labels.append(query[at + 1 : at + 1 + size].decode("latin-1"))
            at += size + 1
        kind = struct.unpack("!H", query[at + 1 : at + 3])[0]
        name, question = ".".join(labels).lower(), query[12 : at + 5]
        records = self._records(name, kind)
        code = 0 if name in self._names else 3
        head = query[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, len(records), 0, 0)
        return head + question + b"".join(records)

    def _records(self, name: str, kind: int) -> list[bytes]:
        turns = self._names.get(name, ())
        if not turns:
            return []
        # Both families are asked at once: the turn goes on with the first of them.
        turn = turns[min(self.asked[name] - (kind == 28 and self.asked[name] > 0), len(turns) - 1)]
        self.asked[name] += kind == 1
        if "CNAME" in turn:
            target = turn["CNAME"][0]
            return [self._record(name, 5, _wire(target)), *self._of(target, kind)]
        return self._of(name, kind, turn)

    def _of(self, name: str, kind: int, turn: Turn | None = None) -> list[bytes]:
        turn = self._names[name][0] if turn is None else turn
        family = {1: socket.AF_INET, 28: socket.AF_INET6}.get(kind)
        if family is None:
            return []
        wanted = "A" if kind == 1 else "AAAA"
        return [self._record(name, kind, socket.inet_pton(family, address)) for address in turn.get(wanted, ())]

    def _record(self, name: str, kind: int, data: bytes) -> bytes:
        return _wire(name) + struct.pack("!HHIH", kind, 1, 0, len(data)) + data


def _wire(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
