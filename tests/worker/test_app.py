"""The Celery side: what is refused at start, what the parent may not import, settings, failpoints, the watchdog."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Queue
from pydantic import ValidationError

from tests.conftest import Services
from tests.worker.line import settings
from worker import failpoints
from worker.app import BrokerRefused, check_broker, check_configuration, configuration, create_app
from worker.settings import WorkerSettings
from worker.watchdog import Ear


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    return configuration(settings(tmp_path, "postgresql://u:p@h/d"))


def test_the_configuration_passes_its_own_check(config: dict[str, Any]) -> None:
    check_configuration(config)
    assert config["task_soft_time_limit"] > settings(Path("/x"), "postgresql://h/d").infer_budget_s


@pytest.mark.parametrize("timeout", [None, 0, 1])
def test_without_a_socket_timeout_it_refuses(config: dict[str, Any], timeout: float | None) -> None:
    config["broker_transport_options"]["socket_timeout"] = timeout
    with pytest.raises(BrokerRefused, match="socket_timeout"):
        check_configuration(config)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("accept_content", ["json", "pickle"]),
        ("task_acks_late", True),
        ("accept_content", ["pickle"]),
        ("task_queues", [Queue("infer")]),
        ("task_queues", None),
    ],
)
def test_unsafe_settings_are_refused(config: dict[str, Any], name: str, value: object) -> None:
    with pytest.raises(BrokerRefused, match=name):
        check_configuration({**config, name: value})


def test_celery_takes_the_configuration(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path, "postgresql://u:p@h/d", devices=["cpu", "cpu"]))
    assert app.conf.worker_concurrency == 2
    assert app.conf.worker_pool_start_method == "spawn"
    assert app.conf.broker_transport_options["socket_timeout"] == 15
    assert app.conf.result_backend is None
    assert app.conf.accept_content == ["json"]


@pytest.fixture
def evicting(services: Services) -> Iterator[str]:
    url = services.valkey.url_of(0)
    with redis.Redis.from_url(url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        yield url
        client.config_set("maxmemory-policy", "noeviction")


def test_a_broker_that_may_evict_is_refused(evicting: str) -> None:
    with pytest.raises(BrokerRefused, match="maxmemory-policy allkeys-lru"):
        check_broker(evicting)


def test_a_safe_broker_passes(broker_url: str) -> None:
    check_broker(broker_url)


def test_the_worker_says_why_it_refuses(evicting: str, tmp_path: Path) -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "TAGMILL_DATABASE_URL": "postgresql://u:p@127.0.0.1:9/d",
        "TAGMILL_BROKER_URL": evicting,
        "TAGMILL_BLOB_ROOT": str(tmp_path),
        "TAGMILL_MODEL_ROOT": str(tmp_path),
        "TAGMILL_LOG_FORMAT": "json",
    }
    ended = subprocess.run(
        [sys.executable, "-m", "worker.app"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert '"code": "broker_refused"' in ended.stderr
    assert "noeviction" in ended.stderr
    assert evicting not in ended.stderr, "the broker's password is in the log"


def test_parent_crawler_and_maintenance_import_no_torch() -> None:
    code = (
        "import sys, worker.app, worker.tasks, worker.watchdog, worker.maintenance, worker.crawler;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_failpoints_are_refused_in_production(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TAGMILL_FAILPOINTS", "after_claim=/tmp/x")
    with pytest.raises(ValidationError, match="TAGMILL_FAILPOINTS is set, but this is no test build"):
        settings(tmp_path, "postgresql://u:p@h/d")
    assert settings(tmp_path, "postgresql://u:p@h/d", test_build=True).failpoints


def test_failpoints_are_dead_without_a_test_build(tmp_path: Path) -> None:
    code = f"from worker import failpoints; failpoints.hit('after_claim'); open({str(tmp_path / 'lived')!r}, 'w')"
    for build, lives in (("0", True), ("1", False)):
        (tmp_path / "lived").unlink(missing_ok=True)
        environment = {
            "PATH": "/usr/bin:/bin",
            "TAGMILL_FAILPOINTS": f"after_claim={tmp_path / 'marker'}",
            "TAGMILL_TEST_BUILD": build,
        }
        subprocess.run([sys.executable, "-c", code], env=environment, timeout=60, check=False)
        assert (tmp_path / "lived").exists() == lives


def test_a_misspelt_failpoint_is_an_error() -> None:
    with pytest.raises(failpoints.UnknownFailpoint):
        failpoints.parse("after_clam=/tmp/x")


def test_every_failpoint_is_somewhere_in_the_code() -> None:
    source = "".join(path.read_text() for path in Path(failpoints.__file__).parent.glob("*.py"))
    assert [name for name in failpoints.NAMES if f'failpoints.hit("{name}"' not in source] == []


def test_lists_are_read_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DATABASE_URL": "postgresql://u:p@h/d",
        "BLOB_ROOT": "/b",
        "MODEL_ROOT": "/m",
        "ALLOW_CIDRS": "10.0.0.0/8, 127.0.0.0/8",
        "ALLOW_PORTS": "8080,8443",
        "DEVICES": "cuda:0,cuda:1",
    }.items():
        monkeypatch.setenv(f"TAGMILL_{name}", value)
    read = WorkerSettings()
    assert read.allow_cidrs == ["10.0.0.0/8", "127.0.0.0/8"]
    assert read.allow_ports == [8080, 8443]
    assert read.devices == ["cuda:0", "cuda:1"]


def test_every_setting_is_described() -> None:
    assert [name for name, field in WorkerSettings.model_fields.items() if not field.description] == []


def test_an_idle_worker_that_hears_no_waiting_message_is_deaf() -> None:
    ear = Ear(90, now=0)
    assert not ear.deaf(89, busy=False, waiting=3)
    assert ear.deaf(90, busy=False, waiting=3)


def test_busy_quiet_and_listening_workers_are_not_deaf() -> None:
    ear = Ear(90, now=0)
    assert not ear.deaf(100, busy=True, waiting=3)
    assert not ear.deaf(200, busy=False, waiting=0)
    ear.heard(250)
    assert not ear.deaf(300, busy=False, waiting=3)
    assert ear.deaf(340, busy=False, waiting=3)
