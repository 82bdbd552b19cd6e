"""Everything that an account can own, made through the API and the line: what strangers must not find."""

import io
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from sqlalchemy import text

from db import endings
from db.blobs import LocalBlobs, work_key
from db.session import Database
from tests.api.conftest import client_of
from tests.conftest import TestAccount
from tests.db.reviewing import record, sha_of, verdict

WEBHOOK_KEYS = ["k" * 40]
POLICY = "name: {name}\nrules:\n  - {{id: one, when: {{score: Porn, at_least: 0.5}}, then: reject, code: adult}}\n"
PDQ = "0123456789abcdef" * 4
ELSE = "f0e1d2c3b4a5968778695a4b3c2d1e0f" * 2
SINCE = (datetime.now(UTC) - timedelta(days=7)).isoformat()


@dataclass(frozen=True)
class Estate:
    """The ids of what `account` owns; `at`: by the name of a route's parameter."""

    account: TestAccount
    client: FlaskClient
    at: dict[str, str]
    items: tuple[str, ...]
    review_version: int

    def ids(self) -> set[str]:
        """Every id that tells of something of this account, and the names that only it gave."""
        told = {value for name, value in self.at.items() if name != "policy_version"}
        return told | set(self.items)


def made(answer: Any, *wanted: int) -> dict[str, Any]:
    assert answer.status_code in (wanted or (200, 201, 202)), answer.get_data(as_text=True)
    body = answer.get_json()
    assert isinstance(body, dict)
    return body


def estate(app: Flask, db: Database, account: TestAccount, blobs: Path, name: str) -> Estate:
    """One of everything. `name` is part of all names that can be chosen."""
    client = client_of(app, account)
    items = [{"url": f"http://{name}.test/{n}.jpg", "product_id": f"{name}-product"} for n in range(3)]
    job = made(client.post("/v1/jobs", json={"items": items, "name": name}))["id"]
    found = [verdict("reject", code="adult"), verdict("review"), verdict("approve")]
    record(db, account, [(f"{name}-{n}", each) for n, each in enumerate(found)])
    with db.transaction() as session:
        assert endings.finish(session, UUID(job))
    subject = {"user": f"{name}-user"}
    moderation = made(client.post("/v1/moderations", json={"url": f"http://{name}.test/m.jpg", "subject": subject}))
    record(db, account, [(f"{name}-m", verdict("reject", code="adult"))])
    store = LocalBlobs(blobs)
    for n in range(3):
        store.put(work_key(account.id, sha_of(f"{name}-{n}")), _picture())
    ids = tuple(f"{UUID(job).hex}-{n}" for n in range(3))
    appeal = made(client.post(f"/v1/items/{ids[0]}/appeals", json={"text": f"{name} objects"}))
    waiting = made(client.get("/v1/reviews"))["reviews"]
    (review,) = (each for each in waiting if each["item_id"] == ids[1])
    gold = made(client.post("/v1/reviews/gold", json={"item_id": ids[2], "verdict": "approve"}))
    webhook = made(client.post("/v1/webhooks", json={"url": f"https://{name}.example/in"}))
    event = made(client.post(f"/v1/webhooks/{webhook['id']}/ping"))
    replay = made(client.post("/v1/replays", json={"since": SINCE, "policy": "default"}))
    policy = made(client.post("/v1/policies", json={"source": POLICY.format(name=name)}))
    bank = made(client.post("/v1/banks", json={"name": f"{name}-bank", "kind": "block"}))
    entry = made(client.post(f"/v1/banks/{bank['id']}/entries", json={"pdq": PDQ}))
    gone = made(client.post("/v1/erasures", json={"kind": "subject", "target": f"{name}-nobody"}))
    at = {
        "job_id": job, "item_id": ids[0], "product_id": f"{name}-product", "moderation_id": moderation["id"],
        "appeal_id": appeal["id"], "review_id": review["id"], "gold_id": gold["id"], "webhook_id": webhook["id"],
        "event_id": event["id"], "replay_id": replay["id"], "policy_name": policy["name"],
        "policy_version": str(policy["version"]), "bank_id": bank["id"], "entry_id": entry["entry"]["id"],
        "change_id": entry["change"]["id"], "erasure_id": gone["id"],
    }  # fmt: skip
    return Estate(account, client, at, ids, review["version"])


def rows_of(owner_db: Database, account: TestAccount, *, asking: bool = False) -> dict[str, str]:
    """A digest of the account's rows in every table that has any: nothing of it may change by a stranger's hand, and by
    its own (`asking`) nothing but how many requests it has left."""
    tables = text(
        "SELECT c.table_name FROM information_schema.columns c JOIN pg_class t ON t.relname = c.table_name"
        " JOIN pg_namespace n ON n.oid = t.relnamespace AND n.nspname = c.table_schema"
        " WHERE c.column_name = 'account_id' AND c.table_schema = 'public' AND t.relkind IN ('r', 'p')"
        " AND NOT t.relispartition ORDER BY 1"
    )
    with owner_db.transaction() as session:
        found = {}
        for table in session.scalars(tables).all():
            if asking and table == "account_rates":
                continue
            sql = f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} t WHERE account_id = :account"
            found[str(table)] = str(session.scalar(text(sql), {"account": account.id}))
    assert len(found) > 20
    return found


def _picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (32, 24), (200, 30, 30)).save(out, "JPEG")
    return out.getvalue()
