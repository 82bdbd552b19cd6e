"""Each thing that can be wrong with an installation is found, and the remedy named."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from db import policy_assignments, registry, workers
from db.ids import uuid7
from db.session import Database
from ml.artifact import save
from ml.tiny import make_tiny
from tests.conftest import Services, TestAccount
from tests.worker.line import install_models, run_sql
from tests.worker.test_up import clean_environment
from worker import doctor
from worker.doctor_models import models
from worker.doctor_policies import policies
from worker.doctor_roles import roles
from worker.findings import Finding
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


def test_an_installation_where_no_policy_decides(where: Place, owner_db: Database, account: TestAccount) -> None:
    assert one(policies(where)).found == "default decides where nothing else is assigned"
    with owner_db.transaction() as session:
        policy_assignments.assign(session, account.id, None, "default", actor="cli")
        policy_assignments.assign(session, None, "avatar", "default", actor="cli")
        policy_assignments.assign(session, None, None, None, actor="cli")
    found = one(policies(where))
    assert (found.state, "go to people" in found.found) == ("warning", True), "other places do not make up for it"
    assert "tagmill policies assign" in found.remedy


def test_free_disk_is_measured_where_the_blobs_will_be(where: Place) -> None:
    assert "GiB" in one(doctor.disk(where)).found


def test_the_network_libraries_fit(where: Place) -> None:
    found = one(doctor.networks(where))
    assert found.state == "good", found
    assert "torch " in found.found


def test_network_libraries_that_do_not_fit_are_no_crash(
    where: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'RuntimeError: operator torchvision::nms does not exist' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    found = one(doctor.networks(where))
    assert (found.state, "nms" in found.found, "constraints.txt" in found.remedy) == ("broken", True, True)


def test_models_none_there_and_gone(where: Place, shared: Path) -> None:
    assert [(f.state, f.remedy) for f in models(where)] == [("warning", "tagmill models pull")] * 2
    database = Database(where.database_url)
    install(database, store(where.model_root, str(shared / "models")), "imagenet-mobilenet_v2")
    database.dispose()
    assert [f.state for f in models(where)] == ["good", "warning"]
    where.model_root.rename(where.model_root.with_name("moved"))
    assert [f.state for f in models(where)] == ["broken", "warning"]


def test_a_damaged_model_is_found_and_the_remedy_mends_it(
    where: Place, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also weights that fit a card of their own, and so would be left as they are by a plain pull."""
    name, root = "nsfwjs-mobilenet_v2", where.model_root
    monkeypatch.setenv("TAGMILL_MODEL_SOURCE", str(shared / "models"))
    database = Database(where.database_url)
    install(database, store(root), name)
    weights = root / name / "4.3.0" / "model.safetensors"

    def judge() -> Finding:
        (found,) = (f for f in models(where) if f.name == "model: moderation")
        return found

    def appended() -> None:
        weights.write_bytes(weights.read_bytes() + b"more")

    def swapped() -> None:
        other = make_tiny(tmp_path / "tiny", "moderation")
        shutil.rmtree(weights.parent)
        save(weights.parent, other.card, other.state)

    def torn_card() -> None:
        (weights.parent / "card.json").write_text("{")

    for damage in (appended, swapped, torn_card, weights.unlink):
        damage()
        broken = judge()
        assert (broken.state, broken.remedy) == ("broken", f"tagmill models pull {name} --again"), damage
        install(database, store(root), name, again=True)
        assert judge().state == "good", damage
    database.dispose()


def test_a_version_that_only_a_folder_has_is_asked_of_that_folder(
    where: Place, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --from, the public source would bring another version, and jobs of this one would wait for ever."""
    monkeypatch.delenv("TAGMILL_MODEL_SOURCE", raising=False)
    database = Database(where.database_url)
    install(database, store(where.model_root, str(shared / "models")), "imagenet-mobilenet_v2")
    database.dispose()
    where.model_root.rename(where.model_root.with_name("moved"))
    (found, _) = models(where)
    assert found.remedy.startswith("tagmill models pull imagenet-mobilenet_v2 --again --from ")


def test_the_shipped_model_is_mended_from_the_project_and_older_ones_are_not(where: Place, owner_db: Database) -> None:
    shipped = install(owner_db, store(where.model_root), "clothing")
    (shipped.folder / "model.safetensors").write_bytes(b"")
    (found, _) = models(where)
    assert (found.state, found.remedy) == ("broken", "tagmill models pull clothing --again")
    install(owner_db, store(where.model_root), "clothing", again=True)
    assert next(models(where)).state == "good"
    earlier = make_tiny(where.model_root / "clothing" / "0", "tags")
    with owner_db.transaction() as session:
        registry.install_model(session, {**earlier.card.to_dict(), "name": "clothing", "version": "0"}, "0" * 64)
        registry.activate(session, "clothing", "0")
    (found, _) = models(where)
    assert (found.state, found.remedy.startswith("put clothing@0 back")) == ("broken", True)


def test_a_model_of_ones_own_is_not_asked_of_sources(where: Place, owner_db: Database) -> None:
    install_models(owner_db, where.model_root, ("tags",))
    (where.model_root / "tiny-tags" / "1" / "model.safetensors").write_bytes(b"")
    (found, _) = models(where)
    assert (found.state, found.remedy.startswith("put tiny-tags@1 back")) == ("broken", True)


def test_what_a_worker_cannot_load_is_told_with_its_reason(where: Place, owner_db: Database) -> None:
    entry = {"models": ["gone@2"], "code": "not_found", "reason": "No model gone@2 is registered."}
    with owner_db.transaction() as session:
        workers.beat(session, uuid7(), "worker", "there", 1, {"not_loaded": [entry]})
    found = list(models(where))[-1]
    assert found.state == "broken"
    assert found.found == "the worker on there cannot load gone@2: No model gone@2 is registered. (not_found)"


def test_the_sandbox_says_which_walls_stand(where: Place) -> None:
    assert "walls" in one(doctor.sandbox(where)).found


# --- whatever is wrong, the report is whole --------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the checks that need neither server and take seconds."""
    kept = tuple(check for check in doctor.CHECKS if check.name not in ("torch", "sandbox"))
    monkeypatch.setattr(doctor, "CHECKS", kept)


def report(where: Place) -> dict[str, Finding]:
    found = {finding.name: finding for finding in doctor.examine(where)}
    assert all(bool(finding.remedy) == (finding.state != "good") for finding in found.values()), found
    return found


@pytest.mark.usefixtures("quick")
def test_an_empty_database_does_not_end_the_report(where: Place, services: Services) -> None:
    empty = replace(where, database_url=services.postgres.url_of("postgres"))
    for place, state in ((empty, "broken"), (replace(empty, origin="embedded, in x"), "warning")):
        found = report(place)
        assert (found["database"].state, found["database"].remedy) == (state, "tagmill migrate")
        assert (found["models"].state, found["models"].remedy) == ("warning", "tagmill migrate")
        assert found["free disk"].state != "broken"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("name", "wrong", "variable"),
    [
        ("database", {"database_url": "nonsense"}, "TAGMILL_DATABASE_URL"),
        ("database", {"database_url": "postgresql://h:port/x"}, "TAGMILL_DATABASE_URL"),
        ("broker", {"broker_url": "junk"}, "TAGMILL_BROKER_URL"),
        ("broker", {"broker_url": "redis://h:port/0"}, "TAGMILL_BROKER_URL"),
    ],
)
def test_a_url_that_is_none_does_not_end_the_report(
    where: Place, name: str, wrong: dict[str, str], variable: str
) -> None:
    found = report(replace(where, **wrong))  # type: ignore[arg-type]
    assert (found[name].state, variable in found[name].remedy) == ("broken", True)
    assert [finding.name for finding in found.values() if finding.state == "broken"] == [name]
    assert {"blob store", "free disk"} < found.keys()


def test_a_broken_torch_is_one_finding(where: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing else of the report may need it: also the models are looked at."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    program = (
        "import sys; from pathlib import Path; from worker import doctor; from worker.local import Place\n"
        "a, b, root = sys.argv[1:]\n"
        "for f in doctor.examine(Place(a, b, Path(root) / 'blobs', Path(root) / 'models', 'configured')):\n"
        "    print(f.name, f.state, f.found, sep='|')"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, where.database_url, where.broker_url, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(doctor.__file__).parents[1]}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    rows = [line.split("|") for line in ran.stdout.splitlines()]
    assert [(name, found) for name, state, found in rows if state == "broken"] == [
        ("torch", "RuntimeError: operator torchvision::nms does not exist")
    ]
    assert {"model: tags", "roles"} < {name for name, _, _ in rows}


# --- roles -------------------------------------------------------------------------------------------------------


def test_a_role_that_is_missing_or_silent_is_broken_while_the_system_runs(where: Place, owner_db: Database) -> None:
    running = replace(where, runs=True)
    with owner_db.transaction() as session:
        for role in ("crawler", "worker"):
            workers.beat(session, uuid7(), role, "here", 1, {})
    # One has just started: the others may be on their way.
    assert {f.name: f.state for f in roles(running)} == {
        "role: crawler": "good", "role: worker": "good", "role: maintenance": "warning", "role: trainer": "good",
    }  # fmt: skip
    run_sql(owner_db, "UPDATE workers SET started_at = now() - interval '1 hour'")
    run_sql(owner_db, "UPDATE workers SET last_seen_at = now() - interval '31 s' WHERE role = 'worker'")
    found = {f.name: f for f in roles(running)}
    assert {name: f.state for name, f in found.items()} == {
        "role: crawler": "good", "role: worker": "broken", "role: maintenance": "broken", "role: trainer": "good",
    }  # fmt: skip
    assert "31 s ago" in found["role: worker"].found
    assert "tagmill maintenance" in found["role: maintenance"].remedy


def test_roles_where_nothing_need_run(where: Place, owner_db: Database) -> None:
    assert list(roles(replace(where, runs=False))) == []
    missing = {f.name: f.state for f in roles(replace(where, runs=True))}
    assert missing.pop("role: trainer") == "good"  # nothing waits for one
    assert set(missing.values()) == {"broken"}
    (unknown,) = roles(where)
    assert unknown.state == "warning"
    with owner_db.transaction() as session:
        workers.beat(session, uuid7(), "crawler", "elsewhere", 1, {})
    run_sql(owner_db, "UPDATE workers SET started_at = now() - interval '1 hour'")
    assert [f.state for f in roles(where)] == ["good", "broken", "broken", "good"]


def test_a_training_that_waits_wants_a_trainer(where: Place, owner_db: Database) -> None:
    with owner_db.transaction() as session:
        workers.beat(session, uuid7(), "worker", "here", 1, {})
    run_sql(
        owner_db,
        "INSERT INTO datasets (id, name, version, sha256, manifest_key, images_root, entries) VALUES"
        " (1, 'd', '1', repeat('a', 64), 'k', '/', 1)",
    )
    run_sql(
        owner_db,
        "INSERT INTO training_runs (id, dataset_id, name, version, config, created_at) VALUES"
        " (gen_random_uuid(), 1, 'm', '1', '{}', now() - interval '1 hour')",
    )
    (trainer,) = (f for f in roles(replace(where, runs=True)) if f.name == "role: trainer")
    assert trainer.state == "warning"
    assert "1 training run waits" in trainer.found


# --- the command -------------------------------------------------------------------------------------------------


def tagmill_doctor(home: Path, **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "worker.cli", "doctor"],
        env=clean_environment(home, **settings),
        capture_output=True,
        text=True,
        timeout=150,
    )


def test_the_command_on_a_fresh_home_says_migrate(tmp_path: Path) -> None:
    ended = tagmill_doctor(tmp_path / "home")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "→ tagmill migrate" in ended.stdout
    assert "sandbox" in ended.stdout


def test_the_command_with_urls_that_are_none(tmp_path: Path) -> None:
    ended = tagmill_doctor(tmp_path / "home", TAGMILL_DATABASE_URL="nonsense", TAGMILL_BROKER_URL="junk")
    assert (ended.returncode, ended.stderr) == (1, "")
    assert "2 broken" in ended.stdout
    assert "correct TAGMILL_DATABASE_URL" in ended.stdout
    assert "correct TAGMILL_BROKER_URL" in ended.stdout


def test_the_command_where_no_folder_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = tagmill_doctor(tmp_path / "file" / "home")
    assert (ended.returncode, ended.stderr) == (1, "")
    assert "→ mend what is said here" in ended.stdout
