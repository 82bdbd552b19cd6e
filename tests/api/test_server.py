"""Behind a real gunicorn: chunked bodies, memory, cut connections, silent clients, live event streams."""

import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.session import Database
from tests.api.conftest import Server, gunicorn
from tests.api.rows import count, settle
from tests.conftest import TestAccount


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[Server]:
    with gunicorn(
        database_url,
        tmp_path,
        body_idle_s=0.5,
        events_poll_s=0.05,
        max_lines_bytes=40 << 20,
        database_role="tagmill_api",
    ) as url:
        yield url


def connect(server: Server) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(server.address, timeout=60)


def headers(account: TestAccount, kind: str = "application/x-ndjson") -> dict[str, str]:
    return {"Authorization": f"Bearer {account.secret}", "Content-Type": kind}


def lines(n: int, pad: int = 0) -> Iterator[bytes]:
    for start in range(0, n, 1000):
        yield b"".join(
            b'{"url": "http://shop.example/%d/%s.jpg"}\n' % (i, b"x" * pad) for i in range(start, min(n, start + 1000))
        )


def test_a_chunked_body_of_100000_lines_at_flat_memory(
    server: Server, account: TestAccount, owner_db: Database
) -> None:
    connection = connect(server)
    connection.request("POST", "/v1/jobs", lines(2000), headers(account), encode_chunked=True)
    assert connection.getresponse().read()
    before = server.peak_memory()
    connection = connect(server)
    connection.request("POST", "/v1/jobs", lines(100_000, pad=200), headers(account), encode_chunked=True)
    answer = connection.getresponse()
    body = json.loads(answer.read())
    assert (answer.status, body["total"]) == (202, 100_000)
    assert count(owner_db, "items") == 102_000
    grown = server.peak_memory() - before
    # 24 MB of body; what may grow is the table of repeated URLs, about 100 bytes an item.
    assert grown < 40 << 20, f"{grown >> 20} MiB"


def test_a_chunked_body_over_the_limit(server: Server, account: TestAccount, owner_db: Database) -> None:
    connection = connect(server)
    try:
        connection.request("POST", "/v1/jobs", lines(100_000, pad=1000), headers(account), encode_chunked=True)
    except (BrokenPipeError, ConnectionResetError):
        return  # refused while we were still sending: also an answer
    finally:
        assert count(owner_db, "jobs") == 0
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["code"]) == (413, "body_too_large")


def raw(server: Server, account: TestAccount, head: str, body: bytes) -> socket.socket:
    host, port = server.address.split(":")
    found = socket.create_connection((host, int(port)), timeout=30)
    found.sendall(
        f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {account.secret}\r\n"
        f"Content-Type: application/x-ndjson\r\n{head}\r\n\r\n".encode()
        + body
    )
    return found


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("Content-Length: 1000", b'{"url": "http://a/"}\n'),
        ("Transfer-Encoding: chunked", b'15\r\n{"url": "http://a/"}\n\r\n'),
        ("Transfer-Encoding: chunked", b'15\r\n{"url": "http'),
    ],
)
def test_a_silent_client_is_given_up(
    server: Server, account: TestAccount, owner_db: Database, head: str, body: bytes
) -> None:
    with raw(server, account, head, body) as client:
        assert b" 408 " in client.recv(65536).split(b"\r\n")[0]
    assert count(owner_db, "jobs") == 0


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("Content-Length: 1000", b'{"url": "http://a/"}\n'),
        ("Transfer-Encoding: chunked", b'15\r\n{"url": "http://a/"}\n\r\n'),
        ("Transfer-Encoding: chunked", b"zz\r\n"),
        ("Transfer-Encoding: chunked", b'5\r\n{"url": "http://a/"}\n\r\n0\r\n\r\n'),
    ],
)
def test_a_body_cut_short_makes_no_job(
    server: Server, account: TestAccount, owner_db: Database, head: str, body: bytes
) -> None:
    with raw(server, account, head, body) as client:
        client.shutdown(socket.SHUT_WR)
        assert b" 400 " in client.recv(65536).split(b"\r\n")[0]
    assert count(owner_db, "jobs") == 0
    connection = connect(server)
    connection.request("GET", "/readyz")
    assert connection.getresponse().status == 200


def test_events_arrive_while_the_job_runs(server: Server, account: TestAccount, owner_db: Database) -> None:
    connection = connect(server)
    connection.request("POST", "/v1/jobs", b'{"url": "http://a/"}', headers(account))
    job = json.loads(connection.getresponse().read())["id"]
    connection.request("GET", f"/v1/jobs/{job}/events", headers=headers(account))
    stream = connection.getresponse()
    said = b""
    while b"event: progress" not in said:
        said += stream.readline()
    settle(owner_db, job, {0: None})
    rest = stream.read()
    assert rest.count(b"event: finished") == 1


def test_multipart_and_zip_files_stream_through(server: Server, account: TestAccount, tmp_path: Path) -> None:
    content = bytes(range(256)) * 60_000
    body = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.jpg"\r\n\r\n' + content + b"\r\n--b--\r\n"
    connection = connect(server)
    pieces = (body[at : at + 65_537] for at in range(0, len(body), 65_537))
    kind = "multipart/form-data; boundary=b"
    connection.request("POST", "/v1/jobs", pieces, headers(account, kind), encode_chunked=True)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["total"]) == (202, 1)
    (blob,) = (path for path in (tmp_path / "blobs" / "raw").rglob("*") if path.is_file())
    assert blob.read_bytes() == content


def test_a_killed_server_leaves_no_job_and_no_scratch_file(
    server: Server, account: TestAccount, owner_db: Database, tmp_path: Path
) -> None:
    scratch = tmp_path / "blobs" / "tmp"
    with raw(server, account, "Content-Length: 3000000", b'{"url": "http://a/"}\n' * 100_000):
        until = time.monotonic() + 20
        while not scratch.exists() and time.monotonic() < until:
            time.sleep(0.02)
        os.killpg(server.pid, signal.SIGKILL)
    assert count(owner_db, "jobs") == 0
    assert list(scratch.iterdir()) == []
