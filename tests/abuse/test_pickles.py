"""A pickle that would run code, wherever bytes of strangers are read: nobody ever unpickles it. As a model's file it is
in tests/worker/test_model_import.py and test_model_store.py, as a message of the broker in tests/faults."""

import ast
import base64
import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from db.session import Database
from tests.abuse.estate import WEBHOOK_KEYS, estate
from tests.abuse.test_tenants import address
from tests.api.conftest import Make, client_of
from tests.api.test_routes import operations
from tests.architecture.source import ROOT
from tests.conftest import TestAccount

# Whatever turns bytes into objects of any class.
UNPICKLERS = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle"}


class Gadget:
    """Touches a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def pickles(canary: Path) -> list[bytes]:
    """In every protocol; the first is all ASCII."""
    return [pickle.dumps(Gadget(canary), protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]


def test_the_gadget_works(canary: Path, pickles: list[bytes]) -> None:
    for each in pickles:
        pickle.loads(each)
        assert canary.exists()
        canary.unlink()


def test_no_route_unpickles_anything(
    make_app: Make, db: Database, account: TestAccount, tmp_path: Path, canary: Path, pickles: list[bytes]
) -> None:
    """As every body in every type, as cookie, cursor, key, name of a file and file."""
    app = make_app(webhook_keys=WEBHOOK_KEYS, events_max_s=0.1, events_poll_s=0.02)
    known = estate(app, db, account, tmp_path / "blobs", "acme")
    client = client_of(app, account)
    kinds = (
        "application/json", "application/octet-stream", "application/x-ndjson", "text/csv", "application/zip",
        "application/x-python-serialize", "application/vnd.apache.parquet", "multipart/form-data; boundary=b",
    )  # fmt: skip
    for op in operations(app):
        path = address(op, {**known.at, "run_id": known.at["job_id"]})
        for each in (pickles[0], pickles[-1]):
            if op.method != "GET":
                for kind in (*kinds, *op.body):
                    assert client.open(path, method=op.method, data=each, content_type=kind).status_code < 500, op.path
            cursor = base64.urlsafe_b64encode(each).decode().rstrip("=")
            assert client.open(path, method=op.method, query_string={"cursor": cursor}).status_code < 500, op.path
    for each in pickles:
        text = base64.b64encode(each).decode()
        for header in ("Idempotency-Key", "X-Request-Id", "Authorization", "If-None-Match"):
            prefix = "Bearer " if header == "Authorization" else ""
            assert client.post("/v1/jobs", headers={header: (prefix + text)[:4000]}).status_code < 500
        form = {"file": (io.BytesIO(each), "model.pkl", "application/x-pickle")}
        assert client.post("/v1/moderations", data=form, content_type="multipart/form-data").status_code < 500
    assert not canary.exists()


def test_no_cookie_is_unpickled(app: Flask, canary: Path, pickles: list[bytes]) -> None:
    for each in pickles:
        for value in (base64.b64encode(each).decode(), base64.urlsafe_b64encode(each).decode().rstrip("=")):
            browser = app.test_client()
            for name in ("tagmill-session-80", "tagmill-visitor-80", "session"):
                browser.set_cookie(name, value, domain="localhost")
            assert browser.get("/console").status_code == 303
            assert browser.post("/console/sign-in", data={"csrf": value, "name": "a"}).status_code in (400, 401, 403)
    assert not canary.exists()


def test_nothing_of_ours_can_unpickle() -> None:
    """By the source: no module that unpickles, no `torch.load` that may, no YAML loader that makes objects."""
    looked = 0
    for path in (path for folder in ("api", "db", "ml", "worker") for path in (ROOT / folder).rglob("*.py")):
        looked += 1
        wrong = [line for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) for line in may_unpickle(node)]
        assert wrong == [], path
    assert looked > 200


@pytest.mark.parametrize(
    "source",
    [
        *("import pickle", "from pickle import loads", "import joblib.memory", "torch.load(f)"),
        *("torch.load(f, weights_only=0)", "np.load(f, allow_pickle=True)", "yaml.load(t)", "yaml.unsafe_load(t)"),
    ],
)
def test_the_look_at_the_source_finds_what_can(source: str) -> None:
    assert [line for node in ast.walk(ast.parse(source)) for line in may_unpickle(node)]


def may_unpickle(node: ast.AST) -> list[str]:
    """What in this node may make objects of any class from bytes."""
    names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
    names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    found = [name for name in names if name.partition(".")[0] in UNPICKLERS]
    if isinstance(node, ast.Call):
        called, given = ast.unparse(node.func), {each.arg: ast.unparse(each.value) for each in node.keywords}
        unsafe = (
            (called == "torch.load" and given.get("weights_only") != "True")
            or (called in ("np.load", "numpy.load") and given.get("allow_pickle", "False") != "False")
            or called in ("yaml.load", "yaml.unsafe_load", "yaml.full_load")
        )
        found += [called] if unsafe else []
    return found
