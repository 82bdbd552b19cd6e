"""Each thing that can be wrong with an installation is found, and the remedy named."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from db.session import Database
from tests.conftest import Services
from worker import doctor
from worker.doctor import Finding
from worker.local import Place
from worker.model_setup import install, store


@pytest.fixture
def where(database_url: str, broker_url: str, tmp_path: Path) -> Place:
    return Place(database_url, broker_url, tmp_path / "blobs", tmp_path / "models", "configured")


def one(findings: Iterator[Finding]) -> Finding:
    (finding,) = findings
    assert bool(finding.remedy) == (finding.state != "good")
    return finding


def test_a_good_database(where: Place) -> None:
    assert one(doctor.database(where)).state == "good"


def test_a_database_that_is_away_or_empty(where: Place, services: Services) -> None:
    away = one(doctor.database(replace(where, database_url="postgresql://x:y@127.0.0.1:1/x")))
    assert (away.state, "TAGMILL_DATABASE_URL" in away.remedy) == ("broken", True)
    empty = one(doctor.database(replace(where, database_url=services.postgres.url_of("postgres"))))
    assert (empty.state, empty.remedy) == ("broken", "tagmill migrate")


def test_the_broker_must_not_evict_and_should_keep_a_log(where: Place, services: Services) -> None:
    assert one(doctor.broker(where)).state == "good"
    with redis.Redis.from_url(where.broker_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            evicts = one(doctor.broker(where))
        finally:
            client.config_set("maxmemory-policy", "noeviction")
        client.config_set("appendonly", "no")
        try:
            forgets = one(doctor.broker(where))
        finally:
            client.config_set("appendonly", "yes")
    assert (evicts.state, "noeviction" in evicts.remedy) == ("broken", True)
    assert (forgets.state, "appendonly" in forgets.remedy) == ("warning", True)
    away = one(doctor.broker(replace(where, broker_url="redis://127.0.0.1:1/0")))
    assert (away.state, "TAGMILL_BROKER_URL" in away.remedy) == ("broken", True)


def test_the_blob_store_is_written_and_left_clean(where: Place, tmp_path: Path) -> None:
    assert one(doctor.blob_store(where)).state == "good"
    assert [path for path in where.blob_root.rglob("*") if path.is_file()] == []
    (tmp_path / "file").write_text("")
    assert one(doctor.blob_store(replace(where, blob_root=tmp_path / "file" / "blobs"))).state == "broken"


def test_free_disk_is_measured_where_the_blobs_will_be(where: Place) -> None:
    assert "GiB" in one(doctor.disk(where)).found


def test_the_network_libraries_fit() -> None:
    found = one(doctor.networks())
    assert found.state == "good", found
    assert "torch " in found.found


def test_network_libraries_that_do_not_fit_are_no_crash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'RuntimeError: operator torchvision::nms does not exist' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    found = one(doctor.networks())
    assert (found.state, "nms" in found.found, "constraints.txt" in found.remedy) == ("broken", True, True)


def test_models_none_there_and_gone(where: Place, shared: Path) -> None:
    assert [(f.state, f.remedy) for f in doctor.models(where)] == [("warning", "tagmill models pull")] * 2
    database = Database(where.database_url)
    install(database, store(where.model_root, str(shared / "models")), "imagenet-mobilenet_v2")
    database.dispose()
    assert [f.state for f in doctor.models(where)] == ["good", "warning"]
    where.model_root.rename(where.model_root.with_name("moved"))
    assert [f.state for f in doctor.models(where)] == ["broken", "warning"]


def test_the_sandbox_says_which_walls_stand() -> None:
    assert "walls" in one(doctor.sandbox()).found
