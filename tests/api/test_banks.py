"""Hash banks over HTTP: banned by hash and by item, listed and worked off, imported and exported, walled by account."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from db.session import Database
from tests.api.conftest import client_of, key_with
from tests.conftest import TestAccount
from tests.db.bank_line import infer, ingest, near, public, submit, verdicts
from tests.db.test_banks import FAR, H, ban, make_bank, surge, work_off


@pytest.fixture
def bank(client: FlaskClient) -> str:
    made = client.post("/v1/banks", json={"name": "stolen", "kind": "block"})
    assert made.status_code == 201
    assert made.headers["Location"].endswith(f"/v1/banks/{made.json['id']}")
    return str(made.json["id"])


def seen(db: Database, account: TestAccount, names: dict[str, str | None], quality: int = 90) -> UUID:
    job = submit(db, account, list(names))
    ingest(db, names, quality)
    infer(db)
    return job


def refused(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json["code"]


def faults(answer: Any) -> list[tuple[str, str | None, int | None]]:
    return [(row["code"], row.get("field"), row.get("line")) for row in answer.json["errors"]]


def test_a_bank_is_made_read_changed_and_removed(client: FlaskClient, bank: str) -> None:
    found = client.get(f"/v1/banks/{bank}").json
    assert (found["distance"], found["quality"], found["enabled"], found["shared"]) == (31, 50, True, False)
    assert found["entries"] == {}
    assert [each["name"] for each in client.get("/v1/banks").json["banks"]] == ["stolen"]
    changed = client.patch(f"/v1/banks/{bank}", json={"distance": 20, "description": "from the police"})
    assert (changed.json["distance"], changed.json["quality"], changed.json["description"]) == (
        20,
        50,
        "from the police",
    )
    assert refused(client.post("/v1/banks", json={"name": "stolen", "kind": "allow"})) == (409, "conflict")
    gone = client.delete(f"/v1/banks/{bank}")
    assert (gone.status_code, gone.json["mode"], gone.json["state"]) == (200, "recheck", "waiting")
    assert refused(client.get(f"/v1/banks/{bank}")) == (404, "not_found")
    assert client.get(f"/v1/banks/{bank}/changes/{gone.json['id']}").json["id"] == gone.json["id"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"kind": "block"}, "name"),
        ({"name": "A b", "kind": "block"}, "name"),
        ({"name": "a", "kind": "deny"}, "kind"),
        ({"name": "a", "kind": "block", "distance": 48}, "distance"),
        ({"name": "a", "kind": "block", "distance": "31"}, "distance"),
        ({"name": "a", "kind": "block", "quality": 101}, "quality"),
        ({"name": "a", "kind": "block", "owner": 1}, "owner"),
        ({"name": "a", "kind": "block", "description": "a\x00"}, "description"),
    ],
)
def test_wrong_banks_are_refused_by_field(client: FlaskClient, body: dict[str, Any], field: str) -> None:
    answer = client.post("/v1/banks", json=body)
    assert refused(answer) == (422, "invalid_body")
    assert [row["field"] for row in answer.json["errors"]] == [field]


def test_a_picture_is_banned_by_its_item(client: FlaskClient, db: Database, account: TestAccount, bank: str) -> None:
    job = seen(db, account, {"same": H, "near": near(H, 25), "other": FAR})
    body = {"item_id": public(job), "reason": "stolen", "expires_at": "2099-01-01T00:00:00+02:00"}
    answer = client.post(f"/v1/banks/{bank}/entries", json=body)
    assert answer.status_code == 201
    entry, matches, change = (answer.json[name] for name in ("entry", "matches", "change"))
    assert (entry["pdq"], entry["state"], entry["reason"]) == (H, "on", "stolen")
    assert entry["expires_at"] == "2098-12-31T22:00:00Z"
    assert entry["added_by"] == f"key:{account.key_id}"
    assert matches["count"] == 2
    assert {(row["item_id"], row["distance"], row["verdict"]) for row in matches["pictures"]} == {
        (public(job, 0), 0, "approve"),
        (public(job, 1), 25, "approve"),
    }
    assert (change["state"], change["mode"], change["entry_id"]) == ("waiting", "match", entry["id"])
    work_off(db)
    done = client.get(f"/v1/banks/{bank}/changes/{change['id']}").json
    assert (done["state"], done["pictures"], done["results"], done["changed"], done["kept"]) == ("done", 2, 2, 2, 0)
    assert done["finished_at"] is not None
    assert verdicts(db, job) == ["reject", "reject", "approve"]
    hits = client.get(f"/v1/banks/{bank}/entries/{entry['id']}/matches").json
    assert {row["verdict"] for row in hits["pictures"]} == {"reject"}
    assert refused(client.post(f"/v1/banks/{bank}/entries", json=body)) == (409, "conflict")
    item = client.get(f"/v1/items/{public(job)}").json
    assert item["moderation"]["verdict"] == "reject"

    gone = client.delete(f"/v1/banks/{bank}/entries/{entry['id']}")
    assert gone.json["mode"] == "recheck"
    work_off(db)
    assert verdicts(db, job) == ["approve"] * 3
    assert refused(client.get(f"/v1/banks/{bank}/entries/{entry['id']}")) == (404, "not_found")


def test_hits_and_entries_come_in_pages(client: FlaskClient, db: Database, account: TestAccount, bank: str) -> None:
    made = [client.post(f"/v1/banks/{bank}/entries", json={"pdq": f"{n:02x}" * 32}).json["entry"] for n in range(1, 6)]
    rows, cursor = [], ""
    while True:
        page = client.get(f"/v1/banks/{bank}/entries?limit=2" + (f"&cursor={cursor}" if cursor else "")).json
        rows += [row["id"] for row in page["entries"]]
        if page["next"] is None:
            break
        cursor = page["next"]
    assert rows == [each["id"] for each in reversed(made)]
    other = client.post("/v1/banks", json={"name": "b", "kind": "allow"}).json["id"]
    assert refused(client.get(f"/v1/banks/{other}/entries?cursor={cursor}")) == (400, "invalid_cursor")

    entry = client.post(f"/v1/banks/{bank}/entries", json={"pdq": H}).json["entry"]["id"]
    seen(db, account, {f"p{n}": near(H, n) for n in range(5)})
    found, cursor = [], ""
    path = f"/v1/banks/{bank}/entries/{entry}/matches"
    for _ in range(3):
        page = client.get(f"{path}?limit=2" + (f"&cursor={cursor}" if cursor else "")).json
        found += [row["distance"] for row in page["pictures"]]
        cursor = page["next"]
    assert (sorted(found), cursor) == ([0, 1, 2, 3, 4], None)
    assert refused(client.get(f"{path}?cursor=aaaa")) == (400, "invalid_cursor")


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, None),
        ({"pdq": H, "item_id": "x"}, None),
        ({"pdq": H[1:]}, "pdq"),
        ({"pdq": H, "share": 1.5}, "share"),
        ({"pdq": H, "expires_at": "2099-01-01T00:00:00"}, "expires_at"),
        ({"pdq": H, "expires_at": 4070908800}, "expires_at"),
        ({"pdq": H, "reason": "a\nb"}, "reason"),
        ({"pdq": H, "external_id": "1"}, "external_id"),
    ],
)
def test_wrong_entries_are_refused(client: FlaskClient, bank: str, body: dict[str, Any], where: str | None) -> None:
    answer = client.post(f"/v1/banks/{bank}/entries", json=body)
    assert refused(answer) == (422, "invalid_body")
    assert [row.get("field") for row in answer.json["errors"]] == [where]


def test_pictures_without_detail_or_hash_are_not_banned_by(
    client: FlaskClient, db: Database, account: TestAccount, bank: str
) -> None:
    weak, none = seen(db, account, {"weak": H}, quality=20), seen(db, account, {"none": None})
    path = f"/v1/banks/{bank}/entries"
    assert refused(client.post(path, json={"item_id": public(weak)})) == (409, "weak_hash")
    assert refused(client.post(path, json={"item_id": public(none)})) == (409, "conflict")
    assert refused(client.post(path, json={"item_id": "nothing"})) == (404, "not_found")


def test_an_entry_is_switched_and_released(client: FlaskClient, db: Database, account: TestAccount, bank: str) -> None:
    entry = client.post(f"/v1/banks/{bank}/entries", json={"pdq": H}).json["entry"]["id"]
    path = f"/v1/banks/{bank}/entries/{entry}"
    off = client.patch(path, json={"enabled": False, "comment": "for now"}).json
    assert (off["entry"]["state"], off["change"]["mode"]) == ("off", "match")
    assert client.patch(path, json={"comment": "for now"}).json["change"] is None
    assert [row["id"] for row in client.get(f"/v1/banks/{bank}/entries?state=off").json["entries"]] == [entry]
    assert client.get(f"/v1/banks/{bank}/entries?state=on").json["entries"] == []
    assert refused(client.post(f"{path}/release")) == (409, "conflict")
    client.patch(path, json={"enabled": True})
    job = surge(db, account, 4, "new")
    work_off(db, surge=3)
    assert verdicts(db, job) == ["review"] * 4
    assert client.get(f"/v1/banks/{bank}").json["entries"] == {"quarantined": 1}
    assert client.get(path).json["state"] == "quarantined"
    assert client.get(path).json["quarantined_at"] is not None
    released = client.post(f"{path}/release").json
    assert (released["entry"]["state"], released["change"]["state"]) == ("on", "waiting")
    work_off(db, surge=3)
    assert verdicts(db, job) == ["reject"] * 4


def test_a_share_that_is_hardly_one_is_none(client: FlaskClient, bank: str) -> None:
    """Postgres' `real` has no number so small."""
    made = client.post(f"/v1/banks/{bank}/entries", json={"pdq": H, "share": 5e-206})
    assert (made.status_code, made.json["entry"]["share"]) == (201, 0.0)
    path = f"/v1/banks/{bank}/entries/{made.json['entry']['id']}"
    assert client.patch(path, json={"share": 0.25}).json["entry"]["share"] == 0.25
    assert client.patch(path, json={"share": 1e-300}).json["entry"]["share"] == 0.0
    listed = client.post(f"/v1/banks/{bank}/import", data=f"pdq,share\n{FAR},1e-200\n", content_type="text/csv")
    assert (listed.status_code, listed.json["added"]) == (200, 1)


def test_a_list_is_imported_and_its_wrong_lines_are_named(client: FlaskClient, bank: str) -> None:
    csv = f"pdq,reason,share\n{H},one,1\nxyz,two,1\n{FAR},three,7\n{'ab' * 32},four,0.5\n"
    path = f"/v1/banks/{bank}/import"
    done = client.post(path, data=csv, content_type="text/csv")
    assert done.status_code == 200
    assert [done.json[name] for name in ("added", "known", "removed", "failed")] == [2, 0, 0, 2]
    assert faults(done) == [("invalid_pdq", "pdq", 3), ("invalid_value", "share", 4)]
    assert done.json["change"]["entry_id"] is None
    again = client.post(path, data=csv, content_type="text/csv; charset=utf-8").json
    assert (again["added"], again["known"], again["change"]) == (0, 2, None)
    lines = client.post(path, data=f"pdq {FAR}\nvpdq {FAR}\n", content_type="text/plain")
    assert lines.json["added"] == 1
    assert faults(lines) == [("unsupported_signal", None, 2)]
    update = {
        "id": "7",
        "indicator": "cd" * 32,
        "type": "HASH_PDQ",
        "should_delete": False,
        "descriptors": {"data": []},
    }
    threat = client.post(path, json={"data": [update]}).json
    assert threat["added"] == 1
    gone = client.post(path, json={"data": [{**update, "should_delete": True}, 5]}).json
    assert (gone["removed"], gone["failed"], gone["errors"][0]["item"]) == (1, 1, 1)
    xml = f'<queryResult><images><image><member id="1"/><id>a</id><fingerprints><pdq>{"ef" * 32}</pdq></fingerprints></image></images></queryResult>'  # noqa: E501
    assert client.post(path, data=xml, content_type="application/xml").json["added"] == 1
    states = client.get(f"/v1/banks/{bank}").json["entries"]
    assert states == {"on": 4}


def test_an_export_is_imported_elsewhere(client: FlaskClient, bank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from api import bank_lists

    monkeypatch.setattr(bank_lists, "PAGE", 2)
    for n in range(1, 6):
        client.post(f"/v1/banks/{bank}/entries", json={"pdq": f"{n:02x}" * 32, "reason": f"=r,{n}", "share": 0.5})
    exported = client.get(f"/v1/banks/{bank}/export")
    assert exported.content_type == "text/csv; charset=utf-8"
    assert exported.headers["Content-Disposition"] == 'attachment; filename="stolen.csv"'
    assert len(exported.text.splitlines()) == 6
    other = client.post("/v1/banks", json={"name": "copy", "kind": "block"}).json["id"]
    done = client.post(f"/v1/banks/{other}/import", data=exported.data, content_type="text/csv").json
    assert (done["added"], done["failed"]) == (5, 0)
    copied = client.get(f"/v1/banks/{other}/entries").json["entries"]
    assert {(row["pdq"], row["reason"], row["share"]) for row in copied} == {
        (f"{n:02x}" * 32, f"=r,{n}", 0.5) for n in range(1, 6)
    }
    signals = client.get(f"/v1/banks/{bank}/export?format=signals")
    assert signals.text.splitlines()[0] == "pdq " + "05" * 32
    assert refused(client.get(f"/v1/banks/{bank}/export?format=xml")) == (400, "invalid_parameter")


def test_what_is_no_list_is_refused(client: FlaskClient, bank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"/v1/banks/{bank}/import"
    broken = client.post(path, data="hash\n", content_type="text/csv")
    assert refused(broken) == (422, "invalid_hash_list")
    assert broken.json["errors"][0]["line"] == 1
    assert refused(client.post(path, data=b"PK", content_type="application/zip")) == (415, "unsupported_media_type")
    monkeypatch.setattr("api.bank_lists.MAX_ENTRIES", 1)
    many = f"pdq {H}\npdq {FAR}\n"
    assert refused(client.post(path, data=many, content_type="text/plain")) == (422, "too_many_items")
    monkeypatch.setattr("api.bank_lists.MAX_BYTES", 10)
    assert refused(client.post(path, data=many, content_type="text/plain")) == (413, "body_too_large")
    assert client.get(f"/v1/banks/{bank}").json["entries"] == {}


def test_a_hash_and_an_item_are_looked_up(client: FlaskClient, db: Database, account: TestAccount, bank: str) -> None:
    entry = client.post(f"/v1/banks/{bank}/entries", json={"pdq": H, "enabled": False}).json["entry"]["id"]
    ban(db, None, make_bank(db, None, "shared"))
    found = client.get(f"/v1/banks/look-up?pdq={near(H, 3).upper()}").json
    assert [(row["entry"]["id"], row["bank"], row["distance"], row["counts"]) for row in found["entries"]] == [
        (entry, "stolen", 3, False)
    ]
    assert (found["quality"], found["shared_hits"]) == (None, 0)
    job = seen(db, account, {"near": near(H, 4)})
    item = client.get(f"/v1/banks/look-up?item_id={public(job)}").json
    assert (item["pdq"], item["quality"], item["shared_hits"]) == (near(H, 4), 90, 1)
    assert client.get(f"/v1/banks/look-up?pdq={FAR}").json["entries"] == []
    for query in ("", f"?pdq={H}&item_id=x", "?pdq=xyz"):
        assert refused(client.get(f"/v1/banks/look-up{query}")) == (400, "invalid_parameter")


def test_banks_of_others_are_not_there_and_shared_ones_are_closed(
    app: Flask,
    client: FlaskClient,
    db: Database,
    owner_db: Database,
    account: TestAccount,
    other: TestAccount,
    bank: str,
) -> None:
    shared = str(make_bank(db, None, "shared"))
    secret = str(ban(db, None, UUID(shared)))
    entry = client.post(f"/v1/banks/{bank}/entries", json={"pdq": FAR}).json
    rival = client_of(app, other)
    assert [(row["name"], row["shared"], row["entries"]) for row in rival.get("/v1/banks").json["banks"]] == [
        ("shared", True, None)
    ]
    assert rival.get(f"/v1/banks/{shared}").json["created_by"] is None
    for id_, one in ((bank, entry["entry"]["id"]), (shared, secret), (str(uuid4()), str(uuid4()))):
        path = f"/v1/banks/{id_}"
        calls = [
            *(
                (rival.get, p)
                for p in ("/entries", f"/entries/{one}", f"/entries/{one}/matches", "/export", "/changes")
            ),
            (rival.get, f"/changes/{entry['change']['id']}"),
            *((rival.delete, p) for p in ("", f"/entries/{one}")),
            (rival.post, f"/entries/{one}/release"),
        ]
        for method, part in calls:
            assert refused(method(path + part)) == (404, "not_found"), part
        assert refused(rival.patch(path, json={"enabled": False})) == (404, "not_found")
        assert refused(rival.patch(f"{path}/entries/{one}", json={"enabled": False})) == (404, "not_found")
        assert refused(rival.post(f"{path}/entries", json={"pdq": H})) == (404, "not_found")
        assert refused(rival.post(f"{path}/import", data="pdq\n", content_type="text/csv")) == (404, "not_found")
    job = seen(db, account, {"mine": FAR})
    theirs = rival.post("/v1/banks", json={"name": "stolen", "kind": "block"}).json["id"]
    assert refused(rival.post(f"/v1/banks/{theirs}/entries", json={"item_id": public(job)})) == (404, "not_found")
    narrow = key_with(owner_db, account, "banks:read")
    plain = app.test_client()
    assert plain.get(f"/v1/banks/{bank}", headers=narrow).status_code == 200
    assert refused(plain.delete(f"/v1/banks/{bank}", headers=narrow)) == (403, "missing_scope")


def test_the_metrics_count_hits_and_quarantined_entries(
    client: FlaskClient, db: Database, account: TestAccount, bank: str
) -> None:
    client.post(f"/v1/banks/{bank}/entries", json={"pdq": H})
    surge(db, account, 3, "new")
    text_ = client.get("/metrics").text
    assert 'tagmill_bank_hits_last_hour{kind="block"} 3.0' in text_
    assert "tagmill_bank_entries_quarantined 0.0" in text_
    with db.transaction() as session:
        session.execute(text("UPDATE hash_entries SET quarantined_at = now()"))
    text_ = client.get("/metrics").text
    assert "tagmill_bank_entries_quarantined 1.0" in text_
    assert "tagmill_bank_oldest_change_seconds" in text_


def test_an_entry_that_found_too_much_is_wide_until_it_is_released(
    client: FlaskClient, db: Database, account: TestAccount, bank: str
) -> None:
    job = seen(db, account, {f"p{n}": near(H, n) for n in range(4)})
    added = client.post(f"/v1/banks/{bank}/entries", json={"pdq": H}).json["entry"]
    assert (added["state"], added["wide"]) == ("on", None)
    work_off(db, surge=3)
    path = f"/v1/banks/{bank}/entries/{added['id']}"
    found = client.get(path).json
    assert (found["state"], found["enabled"], found["wide"]) == ("wide", True, 4)
    assert client.get(f"/v1/banks/{bank}").json["entries"] == {"wide": 1}
    assert [row["id"] for row in client.get(f"/v1/banks/{bank}/entries?state=wide").json["entries"]] == [added["id"]]
    assert "tagmill_bank_entries_wide 1.0" in client.get("/metrics").text
    released = client.post(f"{path}/release").json
    assert (released["entry"]["state"], released["entry"]["wide"], released["change"]) == ("on", None, None)
    assert "tagmill_bank_entries_wide 0.0" in client.get("/metrics").text
    assert refused(client.post(f"{path}/release")) == (409, "conflict")
    assert verdicts(db, job) == ["reject"] * 4
