"""The console's pages of webhooks: for administrators, the secret once, hostile texts inert, another account's 404."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from db import webhook_secrets
from db.delivery_queue import Tried
from db.session import Database
from tests.api.browsers import Browser, Page, signed_in, somebody
from tests.api.conftest import Make, client_of
from tests.api.test_webhooks import DELIVERED, FAILED, happened
from tests.conftest import TestAccount

Browse = Callable[..., Browser]
HERE = "/console/webhooks"
URL = "https://hooks.example/in?token=hush"
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


@pytest.fixture
def app(make_app: Make) -> Flask:
    return make_app(webhook_keys=["k" * 40])


def made(browser: Browser, **more: Any) -> tuple[str, str]:
    """A new endpoint: its page and its secret."""
    answer = browser.post(HERE, {"url": URL, **more})
    assert answer.status_code == 200, answer.text[-1500:]
    page = Page(answer.text)
    at = str(page.all("form", method="get")[0].attributes["action"])
    return at, page.all("pre")[0].text


def test_an_endpoint_is_made_changed_rotated_and_deleted(browse: Browse) -> None:
    admin = browse("admin")
    assert "No webhooks yet" in admin.page(HERE).text
    at, secret = made(admin, types="job.finished", description="the shop")
    assert 24 <= len(webhook_secrets.read(secret)) <= 64
    page = admin.page(at)
    assert secret not in page.text, "it is shown once"
    assert page.all("h1")[0].text.strip() == "hooks.example"
    chosen = [each.attributes["value"] for each in page.all("input", name="types") if "checked" in each.attributes]
    assert chosen == ["job.finished"]
    assert "the shop" in admin.page(HERE).text
    assert admin.post(at, {"url": URL, "types": ["item.failed", "job.finished"]}).status_code == 303
    assert "item.failed, job.finished" in admin.page(HERE).text
    rotated = Page(admin.post(f"{at}/rotate").text)
    assert rotated.all("pre")[0].text != secret
    assert "The secret before signs until" in rotated.text
    assert admin.post(f"{at}/disable").status_code == 303
    assert "disabled" in admin.page(at).text
    assert admin.post(f"{at}/ping").status_code == 409
    assert admin.post(f"{at}/enable").status_code == 303
    assert admin.post(f"{at}/delete").status_code == 303
    assert admin.get(at).status_code == 404


def test_the_log_and_sending_again(browse: Browse, db: Database, account: TestAccount) -> None:
    admin = browse("admin")
    at, _ = made(admin)
    failed, delivered = happened(db, account, FAILED, DELIVERED)
    page = admin.page(at)
    assert "given up" in page.text
    assert "http_5xx" in page.text
    assert f"{at}/deliveries/{delivered}" not in admin.get(f"{at}?state=failed").text
    one = admin.page(f"{at}/deliveries/{failed}")
    assert "A status from 500 to 599." in one.text
    assert '"job": "j"' in one.text
    assert admin.post(f"{at}/deliveries/{failed}/redeliver").status_code == 303
    assert "Next try" in admin.page(f"{at}/deliveries/{failed}").text
    happened(db, account, Tried("http_4xx", 404, 0.1, again_s=None))
    again = admin.post(f"{at}/redeliver", {"since": "2020-01-01T00:00"})
    assert again.status_code == 303
    assert "1 delivery will be sent again." in admin.page(at).text
    assert admin.post(f"{at}/redeliver", {"since": "soon"}, json=True).get_json()["code"] == "invalid_form"
    pinged = admin.post(f"{at}/ping")
    assert "webhook.ping" in admin.page(pinged.headers["Location"]).text


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"url": "http://hooks.example/"}, "url"),
        ({"url": "https://10.0.0.1/"}, "url"),
        ({"url": "javascript:alert(1)"}, "url"),
        ({"url": URL, "types": "job.finish"}, "types"),
        ({"url": URL, "secret": "x"}, "secret"),
    ],
)
def test_wrong_forms_name_the_field(browse: Browse, fields: dict[str, str], field: str) -> None:
    admin = browse("admin")
    refused = admin.post(HERE, fields, json=True)
    assert (refused.status_code, refused.get_json()["code"]) == (422, "invalid_form")
    assert [fault["field"].split(".")[0] for fault in refused.get_json()["errors"]] == [field]
    assert admin.post(HERE, fields).content_type.startswith("text/html")


def test_texts_are_inert_wherever_they_stand(browse: Browse, db: Database, account: TestAccount) -> None:
    admin = browse("admin")
    at, _ = made(admin, description=HOSTILE, url="https://hooks.example/%3Cscript%3E?'\"><script>".replace(">", "%3E"))
    from db import delivery_queue, outbox
    from db.ids import uuid7

    with db.transaction() as session:
        outbox.emit(session, account.id, "job.finished", str(uuid7()), {HOSTILE: HOSTILE})
        delivery_queue.fan_out(session)
    event = admin.page(at).all("a")
    delivery = next(str(each.attributes["href"]) for each in event if "/deliveries/" in str(each.attributes["href"]))
    for path in (HERE, at, delivery):
        page = admin.page(path)
        assert {each.attributes.get("src", "") for each in page.all("script")} == {
            each.attributes["src"] for each in admin.page("/console/own").all("script")
        }
        assert not [each for each in page.elements if any(name.startswith("on") for name in each.attributes)]
        assert HOSTILE in page.text or path == delivery


def test_only_administrators_of_the_account(
    browse: Browse, app: Flask, db: Database, other: TestAccount, account: TestAccount
) -> None:
    admin = browse("admin")
    at, _ = made(admin)
    (event,) = happened(db, account, FAILED)
    curator = browse("curator")
    assert curator.get(HERE).status_code == curator.get(at).status_code == 403
    assert HERE not in curator.get("/console/jobs").text
    theirs = client_of(app, other).post("/v1/webhooks", json={"url": URL}).json["id"]
    for path in (f"{HERE}/{theirs}", f"{HERE}/{theirs}/deliveries/{event}"):
        assert admin.get(path).status_code == 404
    for act in ("rotate", "disable", "enable", "ping", "delete", f"deliveries/{event}/redeliver"):
        assert admin.post(f"{HERE}/{theirs}/{act}").status_code == 404, act
    assert admin.post(f"{HERE}/{theirs}", {"url": URL}).status_code == 404
    assert admin.post(f"{HERE}/{theirs}/redeliver", {"since": "2020-01-01T00:00"}).status_code == 404
    assert admin.client.post(f"{at}/delete", headers=admin.headers).status_code == 403, "no token"
    assert admin.get(at).status_code == 200


def test_without_a_key_the_page_says_so(make_app: Make, owner_db: Database, account: TestAccount) -> None:
    admin = signed_in(make_app(), owner_db, somebody(owner_db, account, "anna", "admin"))
    page = admin.page(HERE)
    assert "TAGMILL_WEBHOOK_KEYS" in page.text
    assert not page.all("input", name="url")
    assert admin.post(HERE, {"url": URL}, json=True).get_json()["code"] == "webhooks_off"
