"""Clients that dawdle cost the others nothing: half heads, idle connections, answers that nobody reads."""

import http.client
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import text

from db.session import Database
from tests.api.conftest import Server, gunicorn
from tests.conftest import TestAccount

THREADS = 8  # of the server
MORE = 12
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[Server]:
    with gunicorn(database_url, tmp_path, head_total_s=60) as url:
        yield url


def connect(server: Server, timeout_s: float = 20) -> socket.socket:
    host, port = server.address.split(":")
    return socket.create_connection((host, int(port)), timeout=timeout_s)


def answered(client: socket.socket) -> bool:
    """Whether one whole answer of /healthz comes, keeping the connection."""
    said = b""
    while b"{}}" not in said:
        piece = client.recv(65536)
        if not piece:
            return False
        said += piece
    return said.startswith(b"HTTP/1.1 200 ")


def healthy(server: Server) -> bool:
    """Whether a new client is served."""
    with connect(server) as client:
        client.sendall(HEALTH)
        return answered(client)


@pytest.mark.parametrize("part", [b"", b"G", b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"\r\n\r\n"])
def test_half_heads_stop_nobody(server: Server, part: bytes) -> None:
    with ExitStack() as held:
        for _ in range(MORE):
            held.enter_context(connect(server)).sendall(part)
        assert healthy(server)


def test_idle_connections_hold_no_thread(server: Server) -> None:
    with ExitStack() as held:
        clients = [held.enter_context(connect(server)) for _ in range(MORE)]
        for client in clients:
            client.sendall(HEALTH)
            assert answered(client)
        assert healthy(server)
        for client in clients:  # and half of a next request holds none either
            client.sendall(HEALTH[:30])
        assert healthy(server)
        for client in clients:
            client.sendall(HEALTH[30:])
            assert answered(client)


def test_a_head_that_does_not_end_is_given_up(database_url: str, tmp_path: Path) -> None:
    with gunicorn(database_url, tmp_path, head_total_s=0.3) as server:
        for part in (b"", b"GET /healthz HTTP/1.1\r\n", b"\r\n"):
            with connect(server) as client:
                client.sendall(part)
                assert client.recv(65536) == b""
        with connect(server) as client, pytest.raises(OSError, match=r"reset|pipe"):
            client.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
            while True:
                client.sendall(b"x" * 65536)
        assert healthy(server)


def test_heads_arrive_in_any_pieces(server: Server) -> None:
    for cut in range(1, len(HEALTH)):
        with connect(server) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(HEALTH[:cut])
            client.sendall(HEALTH[cut:])
            assert answered(client)
    with connect(server) as client:
        client.sendall(b"\r\n" + HEALTH * 3)  # one read, three requests
        for _ in range(3):
            assert answered_one(client)


def answered_one(client: socket.socket) -> bool:
    """Like `answered`, byte by byte: the next answer stays in the socket."""
    said = b""
    while not said.endswith(b"{}}"):
        piece = client.recv(1)
        if not piece:
            return False
        said += piece
    return said.lstrip().startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("extra", [b"Connection: close\r\n", b"Content-Length: 1000\r\n"])
def test_clients_that_neither_hang_up_nor_send_their_body_hold_nobody_up(server: Server, extra: bytes) -> None:
    with ExitStack() as held:
        for _ in range(5 * MORE):  # at seconds each, one after the other or eight at a time, it would take too long
            held.enter_context(connect(server)).sendall(HEALTH[:-2] + extra + b"\r\n")
        assert healthy(server)


def test_an_early_refusal_arrives_although_the_client_still_sends(server: Server) -> None:
    with connect(server) as client:
        client.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        client.sendall(b"x" * 50_000)
        said = client.recv(65536)
        assert said.startswith(b"HTTP/1.1 401 ")


def large_job(server: Server, account: TestAccount, database: Database) -> str:
    """A job with eight megabytes of results: more than the buffers between server and client hold."""
    connection = http.client.HTTPConnection(server.address, timeout=60)
    key = {"Authorization": f"Bearer {account.secret}", "Content-Type": "application/x-ndjson"}
    lines = "".join(f'{{"url": "http://a.example/{n}/{"x" * 2000}"}}\n' for n in range(4000))
    connection.request("POST", "/v1/jobs", lines.encode(), key)
    job = json.loads(connection.getresponse().read())["id"]
    with database.transaction() as session:
        session.execute(
            text(
                "INSERT INTO results (bucket, job_id, seq, account_id, outcome, code)"
                " SELECT bucket, job_id, seq, account_id, 'failed', 'http_404' FROM items"
            )
        )
    assert isinstance(job, str)
    return job


def test_exports_that_nobody_reads_are_given_up(
    database_url: str, tmp_path: Path, account: TestAccount, owner_db: Database
) -> None:
    settings = {"send_idle_s": 0.5, "max_streams": THREADS, "max_streams_per_account": THREADS}
    with gunicorn(database_url, tmp_path, database_role="tagmill_api", **settings) as server, ExitStack() as held:
        job = large_job(server, account, owner_db)
        key = f"Host: x\r\nAuthorization: Bearer {account.secret}\r\n\r\n"
        request = f"GET /v1/jobs/{job}/results HTTP/1.1\r\n{key}".encode()
        host, port = server.address.split(":")
        for _ in range(THREADS):
            client = held.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 60, 0))
            client.connect((host, int(port)))
            client.sendall(request)
            assert client.recv(12) == b"HTTP/1.1 200"  # it began: the thread is busy
        assert healthy(server)
        whole = http.client.HTTPConnection(server.address, timeout=60)
        whole.request("GET", f"/v1/jobs/{job}/results", headers={"Authorization": f"Bearer {account.secret}"})
        answer = whole.getresponse()
        assert answer.status == 200  # the seats are free again, too
        assert len(json.loads(answer.read())["results"]) == 4000
