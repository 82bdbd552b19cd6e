"""Training runs over HTTP: queued with checked settings, read, followed, cancelled; walled by their own scopes."""

import json
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient

from db import accounts, datasets, registry, training, training_log
from db.session import Database
from tests.api.conftest import client_of, key_with
from tests.api.rows import count
from tests.conftest import TestAccount

RUNS = "/v1/training-runs"
BODY = {"dataset": "shop", "name": "tagger", "config": {"epochs": 2, "augmentation": {"mixup": 0.2}}}


@pytest.fixture
def dataset(owner_db: Database) -> str:
    with owner_db.transaction() as session:
        for version in ("1", "2"):
            made = datasets.add(
                session, "shop", version, version * 64, manifest_key="k", images_root="/", entries=3, summary={}
            )
    return made.ref


def test_a_run_is_queued_with_every_setting(client: FlaskClient, dataset: str, owner_db: Database) -> None:
    answer = client.post(RUNS, json=BODY)
    assert answer.status_code == 202
    made = answer.json
    assert (made["state"], made["dataset"], made["name"], made["version"]) == ("queued", dataset, "tagger", "1")
    assert answer.headers["Location"] == made["url"]
    assert client.get(made["url"]).json == made
    with owner_db.transaction() as session:
        config = training.get(session, UUID(made["id"])).config
    assert (config["epochs"], config["batch_size"], config["augmentation"]["mixup"]) == (2, 32, 0.2)
    assert client.post(RUNS, json=BODY).json["version"] == "2"
    clash = client.post(RUNS, json=BODY | {"version": "2"})
    assert (clash.status_code, clash.json["code"]) == (409, "conflict")


def test_who_queued_it_is_in_the_audit_log(
    client: FlaskClient, dataset: str, owner_db: Database, account: TestAccount
) -> None:
    made = client.post(RUNS, json=BODY).json
    from tests.worker.line import rows

    (entry,) = rows(owner_db, "SELECT account_id, actor, subject FROM audit_log WHERE action = 'training.enqueue'")
    assert tuple(entry) == (account.id, f"key:{account.key_id}", made["id"])


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"config": {"learning_rate": 1}}, "config.learning_rate", "unknown_field"),
        ({"config": {"augmentation": {"zoom": 1}}}, "config.augmentation.zoom", "unknown_field"),
        ({"config": {"epochs": "8"}}, "config.epochs", "wrong_type"),
        ({"config": {"epochs": True}}, "config.epochs", "wrong_type"),
        ({"config": {"batch_size": 0}}, "config.batch_size", "invalid_value"),
        ({"config": {"label_smoothing": 1.0}}, "config.label_smoothing", "invalid_value"),
        ({"config": {"epochs": 0, "head_epochs": 0}}, "config.epochs", "invalid_value"),
        ({"config": {"architecture": "resnet5"}}, "config.architecture", "invalid_value"),
        ({"config": {"device": "meta"}}, "config.device", "bad_characters"),
        ({"config": {"device": "cuda:1", "devices": 2}}, "config.device", "invalid_value"),
        ({"config": {"augmentation": {"crop_scale": [0.9, 0.1]}}}, "config.augmentation.crop_scale", "invalid_value"),
        ({"config": {"name": "other"}}, "config.name", "unknown_field"),
        ({"init": "/etc/passwd"}, "init", "bad_characters"),
        ({"init": "weights.safetensors"}, "init", "bad_characters"),
        ({"init": "../../x@1"}, "init", "bad_characters"),
        ({"init": "imagenet"}, "init", "bad_characters"),
        ({"init": "nobody@1"}, "init", "invalid_value"),
        ({"dataset": "nothing"}, "dataset", "invalid_value"),
        ({"name": "a/b"}, "name", "bad_characters"),
        ({"version": ".."}, "version", "bad_characters"),
        ({"images_root": "/"}, "images_root", "unknown_field"),
    ],
)
def test_what_is_wrong_is_named(
    client: FlaskClient, dataset: str, owner_db: Database, change: dict[str, object], field: str, code: str
) -> None:
    answer = client.post(RUNS, json=BODY | change)
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_body")
    assert [(fault["field"], fault["code"]) for fault in answer.json["errors"]] == [(field, code)]
    assert count(owner_db, "training_runs") == 0


def test_bodies_that_are_none(client: FlaskClient) -> None:
    assert client.post(RUNS, data="{", content_type="application/json").json["code"] == "invalid_json"
    assert client.post(RUNS, data="a=1").json["code"] == "unsupported_media_type"
    assert client.post(RUNS, json=[1]).json["code"] == "invalid_body"
    empty = client.post(RUNS)
    assert {fault["field"] for fault in empty.json["errors"]} == {"dataset", "name"}
    huge = client.post(RUNS, json=BODY | {"config": {"licence": "x" * 70_000}})
    assert (huge.status_code, huge.json["code"]) == (413, "body_too_large")


def test_start_weights_are_a_registered_model_of_the_same_architecture(
    client: FlaskClient, dataset: str, owner_db: Database
) -> None:
    card = {"name": "base", "version": "1", "task": "tags", "architecture": "resnet18"}
    with owner_db.transaction() as session:
        registry.install_model(session, card, "a" * 64)
    other = client.post(RUNS, json=BODY | {"init": "base@1"})
    assert other.json["errors"][0]["detail"] == "base@1 is a resnet18, not a mobilenet_v2."
    made = client.post(RUNS, json=BODY | {"init": "base@1", "config": {"architecture": "resnet18"}})
    assert (made.status_code, made.json["init"]) == (202, "base@1")


def test_a_repeated_request_makes_one_run(client: FlaskClient, dataset: str, owner_db: Database) -> None:
    headers = {"Idempotency-Key": "again"}
    first, second = (client.post(RUNS, json=BODY, headers=headers) for _ in range(2))
    assert first.get_data() == second.get_data()
    assert second.headers["Idempotent-Replayed"] == "true"
    assert second.headers["Location"] == first.headers["Location"]
    other = client.post(RUNS, json=BODY | {"name": "x"}, headers=headers)
    assert (other.status_code, other.json["code"]) == (422, "idempotency_key_reused")
    assert count(owner_db, "training_runs") == 1


def test_runs_are_listed_in_pages(client: FlaskClient, dataset: str) -> None:
    ids = [client.post(RUNS, json=BODY).json["id"] for _ in range(3)]
    client.post(f"{RUNS}/{ids[0]}/cancel")
    first = client.get(f"{RUNS}?limit=2").json
    second = client.get(f"{RUNS}?limit=2&cursor={first['next']}").json
    assert [run["id"] for run in first["runs"] + second["runs"]] == ids[::-1]
    assert second["next"] is None
    assert first["runs"][0]["config"] is None
    assert [run["id"] for run in client.get(f"{RUNS}?state=cancelled").json["runs"]] == ids[:1]
    assert client.get(f"{RUNS}?cursor=x").json["code"] == "invalid_cursor"


def test_a_run_is_followed_and_cancelled(client: FlaskClient, dataset: str, db: Database) -> None:
    run_id = client.post(RUNS, json=BODY).json["id"]
    with db.transaction() as session:
        run = training.claim(session, UUID(int=5), 60)
        assert run is not None
        live = {"step": 7, "epochs": 3, "rate": 4.5, "history": [{"epoch": 0, "loss": 1.5, "metrics": {"score": 0.5}}]}
        assert training.beat(session, run, 60, live=live)
        training_log.append(session, run.id, [{"event": "started"}, {"event": "epoch", "epoch": 0}])
    seen = client.get(f"{RUNS}/{run_id}").json
    assert (seen["state"], seen["live"]["step"], seen["live"]["history"][0]["loss"]) == ("running", 7, 1.5)
    log = client.get(f"{RUNS}/{run_id}/log").json
    assert (log["state"], log["last"]) == ("running", 2)
    assert [entry["event"]["event"] for entry in log["entries"]] == ["started", "epoch"]
    assert client.get(f"{RUNS}/{run_id}/log?after=2").json["entries"] == []
    assert client.post(f"{RUNS}/{run_id}/cancel").json["state"] == "cancelled"
    assert client.post(f"{RUNS}/{run_id}/cancel").status_code == 200
    with db.transaction() as session:
        assert not training.beat(session, run, 60), "the trainer hears it"
    nobody = UUID(int=9)
    for path in (f"{RUNS}/{nobody}", f"{RUNS}/{nobody}/log"):
        assert client.get(path).status_code == 404
    assert client.post(f"{RUNS}/{nobody}/cancel").status_code == 404


def test_a_run_that_has_ended_is_not_cancelled(client: FlaskClient, dataset: str, db: Database) -> None:
    run_id = client.post(RUNS, json=BODY).json["id"]
    with db.transaction() as session:
        run = training.claim(session, UUID(int=5), 60)
        assert run is not None
        training.fail(session, run, "loss_not_finite", "the loss is nan at step 9")
    answer = client.post(f"{RUNS}/{run_id}/cancel")
    assert (answer.status_code, answer.json["code"]) == (409, "conflict")
    assert client.get(f"{RUNS}/{run_id}").json["code"] == "loss_not_finite"


def test_ordinary_keys_neither_see_nor_start_runs(app: Flask, account: TestAccount, owner_db: Database) -> None:
    plain = key_with(owner_db, account, *accounts.CLIENT_SCOPES)
    reader = key_with(owner_db, account, "models:read")
    client = app.test_client()
    assert client.get(RUNS, headers=plain).json["code"] == "missing_scope"
    assert client.post(RUNS, json=BODY, headers=plain).json["code"] == "missing_scope"
    assert client.get(RUNS, headers=reader).status_code == 200
    assert client.post(RUNS, json=BODY, headers=reader).json["code"] == "missing_scope"


def test_every_account_with_the_scope_sees_the_same_runs(
    app: Flask, client: FlaskClient, other: TestAccount, dataset: str
) -> None:
    """Models belong to the installation; the scope is an operator's to give."""
    run_id = client.post(RUNS, json=BODY).json["id"]
    assert json.loads(client_of(app, other).get(RUNS).get_data())["runs"][0]["id"] == run_id
