"""The embedded servers start, keep their data, are private, and never outlive or obstruct their owner."""

import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker import leashed, service
from worker.embedded import EmbeddedPostgres, EmbeddedValkey
from worker.service import Service, ServiceError


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path / "pg", settings={"fsync": "off"}) as server:
        yield server


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path / "vk") as server:
        yield server


def test_postgres_knows_unicode_and_has_pgvector(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.url) as connection:
        row = connection.execute("SELECT current_database(), upper('ärmel'), current_setting('server_encoding')")
        assert row.fetchone() == ("tagmill", "ÄRMEL", "UTF8")
        assert connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'").fetchone()


def test_postgres_asks_for_its_password(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres.url.replace(postgres.password, "guess"))
    with psycopg.connect(postgres.url) as connection:
        row = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'tagmill'").fetchone()
    assert row is not None
    assert row[0].startswith("SCRAM-SHA-256$")


def test_postgres_listens_on_loopback_only(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
        assert connection.execute("SHOW unix_socket_directories").fetchone() == ("",)


def test_valkey_asks_for_its_password_and_is_set_for_a_broker(valkey: EmbeddedValkey) -> None:
    with (
        redis.Redis(port=valkey.port, retry=Retry(NoBackoff(), 0)) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        wanted = {
            "maxmemory-policy": "noeviction",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "bind": "127.0.0.1",
        }
        assert client.config_get(*wanted) == wanted


def test_secrets_are_readable_by_their_owner_only(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> None:
    for secret in (postgres.password_path, valkey.password_path, valkey.data_dir / "valkey.conf"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    for server in (postgres, valkey):
        assert server.password not in (leashed.command_line(server.pid or 0) or server.password)


def test_data_and_port_survive_a_stop_and_a_kill(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> None:
    ports = postgres.port, valkey.port
    with psycopg.connect(postgres.url) as connection:
        connection.execute("CREATE TABLE t AS SELECT 7 AS n")
    with redis.Redis.from_url(valkey.url) as client:
        client.set("n", 7)
        client.execute_command("WAITAOF", 1, 0, 2000)
    for end in (Service.stop, Service.kill):
        for server in (postgres, valkey):
            end(server)
            assert not server.running
            server.start()
        assert (postgres.port, valkey.port) == ports
        with psycopg.connect(postgres.url) as connection:
            assert connection.execute("SELECT n FROM t").fetchone() == (7,)
        with redis.Redis.from_url(valkey.url) as client:
            assert client.get("n") == b"7"


def test_a_second_owner_of_the_folder_is_refused(valkey: EmbeddedValkey) -> None:
    with pytest.raises(ServiceError) as caught:
        EmbeddedValkey(valkey.data_dir).start()
    assert caught.value.code == "already_running"
    assert valkey.running


def test_a_taken_port_is_left_to_its_holder(tmp_path: Path, valkey: EmbeddedValkey) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "port").write_text(str(valkey.port))
    with EmbeddedValkey(tmp_path / "other") as other:
        assert other.port != valkey.port


def test_whoever_listens_on_the_recorded_port_hears_no_password_and_names_no_victim(tmp_path: Path) -> None:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as impostor, subprocess.Popen(["sleep", "60"]) as bystander:

        def listen() -> None:
            with suppress(OSError):
                while True:
                    client, _ = impostor.accept()
                    client.settimeout(1)
                    heard.append(client.recv(4096))

        ear = threading.Thread(target=listen)
        ear.start()
        folder = tmp_path / "vk"
        folder.mkdir()
        (folder / "port").write_text(str(impostor.getsockname()[1]))
        (folder / "pid").write_text(str(bystander.pid))
        with EmbeddedValkey(folder) as server:
            assert server.port != impostor.getsockname()[1]
        impostor.shutdown(socket.SHUT_RDWR)
        ear.join()
        alive = bystander.poll() is None
        bystander.kill()
    assert alive
    assert heard == []


def test_each_owner_of_a_valkey_has_a_password_of_its_own(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "vk") as first:
        url = first.url
        first.kill()
        assert first.start().url == url
    with EmbeddedValkey(tmp_path / "vk") as second, redis.Redis.from_url(second.url) as client:
        assert client.ping()
        assert second.password not in url


def test_a_server_that_comes_back_waits_for_its_port(
    tmp_path: Path, valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "PORT_PATIENCE_S", 0.2)
    port = valkey.port
    valkey.kill()
    with socket.create_server(("127.0.0.1", port)), pytest.raises(ServiceError) as caught:
        valkey.start()
    assert caught.value.code == "port_taken"
    valkey.start()
    assert valkey.port == port
    with redis.Redis.from_url(valkey.url) as client:
        assert client.ping()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_first_ports_are_not_those_of_outgoing_connections() -> None:
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    if high - low > 45_000:
        pytest.skip("the kernel lends nearly every port")
    assert not [port for port in (service.free_port() for _ in range(20)) if low <= port <= high]


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "pg", settings={"shared_buffers": "nonsense"})
    with pytest.raises(ServiceError, match="shared_buffers") as caught:
        server.start()
    assert caught.value.code == "start_failed"
    assert not server.running


def test_an_interrupted_initdb_is_not_taken_for_a_cluster(tmp_path: Path) -> None:
    half = tmp_path / "pg" / "cluster.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with (
        EmbeddedPostgres(tmp_path / "pg", settings={"fsync": "off"}) as server,
        psycopg.connect(server.url) as connection,
    ):
        assert connection.execute("SELECT 1").fetchone() == (1,)


_OWNER = textwrap.dedent("""
    import os, pathlib, signal, sys
    from worker.embedded import EmbeddedPostgres, EmbeddedValkey
    folder = pathlib.Path(sys.argv[1])
    pg = EmbeddedPostgres(folder / "pg", settings={"fsync": "off"}).start()
    vk = EmbeddedValkey(folder / "vk").start()
    print(pg.pid, vk.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
""")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells children of a parent's death on Linux only")
def test_nothing_survives_a_sigkill_of_the_owner(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", _OWNER, str(tmp_path)], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    for pid in map(int, ended.stdout.split()):
        assert leashed.wait_gone(pid, 20), leashed.command_line(pid)


def test_orphans_are_stopped_at_the_next_start(tmp_path: Path) -> None:
    """As on a system without parent-death signals: the lock is gone, the servers still run."""
    first = (
        EmbeddedPostgres(tmp_path / "pg", settings={"fsync": "off"}).start(),
        EmbeddedValkey(tmp_path / "vk").start(),
    )
    orphans = [server.pid or 0 for server in first]
    for server in first:
        server.abandon()
    second: tuple[Service, ...] = (
        EmbeddedPostgres(tmp_path / "pg", settings={"fsync": "off"}),
        EmbeddedValkey(tmp_path / "vk"),
    )
    try:
        for again, orphan in zip(second, orphans, strict=True):
            again.start()
            assert again.pid != orphan
            assert leashed.command_line(orphan) is None
    finally:
        for again in second:
            again.stop()


def test_a_pid_file_that_names_somebody_else_is_no_obstacle(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "pg", settings={"fsync": "off"}) as server:
        pid_file = server.cluster / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getppid()), *lines[1:]]) + "\n")
    with EmbeddedPostgres(tmp_path / "pg", settings={"fsync": "off"}) as server:
        assert server.running
    assert leashed.command_line(os.getppid()) is not None
