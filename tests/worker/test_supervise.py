"""The supervisor's smaller decisions; the whole of it is tested by running it, in test_up."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from tests.conftest import Services
from tests.worker.test_up import clean_environment
from worker import roles, service
from worker.embedded import EmbeddedValkey
from worker.home import Home
from worker.service import ServiceError, free_port
from worker.supervise import Supervisor, with_login


def test_another_login_for_the_same_database() -> None:
    assert with_login("postgresql://a:b@h:5/d?sslmode=require", "r", "p") == "postgresql://r:p@h:5/d?sslmode=require"
    assert with_login("postgresql://h/d", "r", "p") == "postgresql://r:p@h/d"


def test_a_role_that_cannot_run_is_given_up_with_its_own_log_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = Supervisor(Home(tmp_path), listen=roles.Listen(port=free_port()))
    supervisor.home.log.write_text("worker      │ no module named x\ncrawler     │ all is well\n")
    monkeypatch.setattr(Supervisor, "restarts", {"worker": 4, "crawler": 0})
    supervisor.give_up_on_failing()
    monkeypatch.setattr(Supervisor, "restarts", {"worker": 5, "crawler": 0})
    with pytest.raises(ServiceError, match="no module named x") as caught:
        supervisor.give_up_on_failing()
    assert caught.value.code == "role_failing"
    assert "all is well" not in str(caught.value)


def test_a_taken_port_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        supervisor = Supervisor(Home(tmp_path), listen=roles.Listen(port=holder.getsockname()[1]))
        with pytest.raises(ServiceError, match="--port") as caught:
            supervisor.start()
    assert caught.value.code == "port_taken"
    assert not (tmp_path / "postgres").exists()
    assert Home(tmp_path).running() is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TAGMILL_MAX_SIDE", "abc"),
        ("TAGMILL_EXPORT_BATCH", "0"),  # the API's
        ("TAGMILL_ALLOW_CIDRS", "10.0.0.0/8,everything"),
        ("TAGMILL_ALLOW_PORTS", "8080,web"),
        ("TAGMILL_BROKER_URL", "junk-with-a-secret"),
        ("TAGMILL_DATABASE_URL", "junk-with-a-secret"),
        ("TAGMILL_FAILPOINTS", "somewhere"),
    ],
)
def test_settings_that_no_role_can_read_are_refused_before_anything_starts(
    tmp_path: Path, name: str, value: str
) -> None:
    ended = up(tmp_path, **{name: value})
    assert ended.returncode == 1
    assert ended.stderr.startswith(name)
    assert ended.stderr.count(name) == 1, "of two roles that read it, one says so"
    assert "secret" not in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Tagmill is up" not in ended.stdout
    assert not (tmp_path / "postgres").exists()


def test_a_role_that_refuses_what_it_is_given_ends_the_start(
    tmp_path: Path, services: Services, database_url: str, broker_url: str
) -> None:
    """A broker that may evict: the worker refuses it, and would do so for ever."""
    with redis.Redis.from_url(broker_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            ended = up(tmp_path, TAGMILL_DATABASE_URL=database_url, TAGMILL_BROKER_URL=broker_url)
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "worker refuses to start" in ended.stderr
    assert "maxmemory-policy noeviction" in ended.stderr


def up(home: Path, **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "worker.cli", "up", "--port", "0", "--workers", "1"],
        env=clean_environment(home, **settings),
        capture_output=True,
        text=True,
        timeout=150,
    )


def test_a_server_that_cannot_come_back_yet_does_not_end_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "PORT_PATIENCE_S", 0.0)
    said: list[str] = []
    supervisor = Supervisor(Home(tmp_path), listen=roles.Listen(port=free_port()), say=said.append)
    with EmbeddedValkey(tmp_path / "vk") as valkey:
        supervisor._services.append(valkey)
        url = valkey.url
        valkey.kill()
        with socket.create_server(("127.0.0.1", valkey.port)):
            supervisor.watch()
            supervisor.watch()  # not before its pause is over
        assert not valkey.running
        assert len([text for text in said if "trying again" in text]) == 1
        until = time.monotonic() + 30
        while not valkey.running and time.monotonic() < until:
            supervisor.watch()
            time.sleep(0.05)
        assert valkey.running
        assert valkey.url == url


def test_role_commands_are_what_was_measured_to_be_safe() -> None:
    api = roles.command("api", roles.Listen("0.0.0.0", 9, 3, 7))
    assert "--no-control-socket" in api
    assert "--preload" not in api
    assert api[api.index("--worker-class") + 1] == "api.server.HeadFirstWorker"
    assert api[api.index("--bind") + 1] == "0.0.0.0:9"
    with pytest.raises(ValueError, match="unknown role"):
        roles.command("cook")
