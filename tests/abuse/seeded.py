"""A running system with a secret wherever there are any, in which everything has happened that can make a process say
something. It asserts nothing about what was said."""

import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

import httpx2
import psycopg
import pytest
from PIL import Image
from sqlalchemy import text

from db import passwords
from db.session import Database
from tests.api.browsers import somebody
from tests.conftest import TestAccount, make_account
from tests.faults.system import Pictures, Role, System, until
from tests.hostile import HostileServer
from tests.ml.pictures import canonical, encoded
from worker import roles
from worker.service import free_port


def canary(kind: str) -> str:
    """A text that occurs nowhere by itself, and is the same in URLs, JSON and HTML."""
    return f"{kind}{uuid4().hex}"


QUERY, HEADER, HOOK, PASSWORD, LINK = (canary(kind) for kind in ("query", "header", "hook", "sesame", "link"))
LOCATION, WRONG_DATABASE, WRONG_BROKER, BODY = (canary(kind) for kind in ("location", "database", "broker", "body"))
WEBHOOK_KEY, COOKIE = canary("webhookkey"), canary("cookie")
SERIAL, PLACE, WORDS, SCRIPT = (canary(kind) for kind in ("serial", "place", "words", "script"))
CAMERA = (SERIAL, PLACE, WORDS, SCRIPT)


@dataclass
class House:
    """The running system, its API, and what must not be told."""

    system: System
    api: Role
    url: str
    client: httpx2.Client
    secrets: dict[str, str]

    def logs(self) -> dict[str, str]:
        return {path.name: path.read_text(errors="replace") for path in sorted(self.system.folder.glob("*.log"))}


def camera_picture(format: str) -> bytes:
    """A picture with a serial number, a place and words in its metadata, and a script behind its end."""
    exif = Image.Exif()
    exif[0x010F] = SERIAL
    exif[0xA431] = SERIAL
    exif.get_ifd(0x8825)[1] = PLACE
    options: dict[str, Any] = {"exif": exif}
    if format == "JPEG":
        options["comment"] = WORDS.encode()
    if format == "WEBP":
        options["xmp"] = f"<x:xmpmeta>{WORDS}</x:xmpmeta>".encode()
    shade = {"JPEG": (250, 10, 70), "PNG": (10, 10, 250), "WEBP": (90, 90, 90)}[format]
    picture = canonical((96, 64))
    picture.paste(shade, (0, 0, 96, 40))
    return encoded(picture, format, **options) + f"<script>{SCRIPT}</script>".encode()


@pytest.fixture(scope="module")
def module_url(services: Any, template: str) -> Iterator[str]:
    with psycopg.connect(services.postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE leaks TEMPLATE {template}")
    yield services.postgres.url_of("leaks")
    with psycopg.connect(services.postgres.url, autocommit=True) as connection:
        connection.execute("DROP DATABASE leaks WITH (FORCE)")


@pytest.fixture(scope="module")
def house(services: Any, module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Everything has happened already that can make a process say something."""
    folder = tmp_path_factory.mktemp("leaks")
    owner = Database(module_url)
    account = make_account(owner, "acme")
    files = {f"{format.lower()}.jpg": camera_picture(format) for format in ("JPEG", "PNG", "WEBP")}
    listen = roles.Listen(port=free_port(), workers=1, threads=4)
    with HostileServer(files=files) as server:
        system = System(folder, module_url, services.valkey.url_of(201), account.id, server, Pictures(), owner)
        system.install_models()
        hooks = {"TAGMILL_WEBHOOK_KEYS": WEBHOOK_KEY + "x" * 10, "TAGMILL_WEBHOOK_HTTP": "1",
                 "TAGMILL_WEBHOOK_CIDRS": "127.0.0.0/8", "TAGMILL_WEBHOOK_PORTS": str(server.port),
                 "TAGMILL_LOG_FORMAT": "json", "TAGMILL_FETCH_TIMEOUT_S": "6",
                 "TAGMILL_MAX_DEFERRALS": "0", "TAGMILL_FETCH_ATTEMPTS": "1"}  # fmt: skip
        try:
            for name in ("crawler", "worker", "maintenance"):
                system.start(name, **hooks)
            api = system.start("api", roles.command("api", listen), **hooks, TAGMILL_DATABASE_ROLE="tagmill_api",
                               TAGMILL_BODY_IDLE_S="0.5", TAGMILL_METRICS_OPEN="1")  # fmt: skip
            url = f"http://127.0.0.1:{listen.port}"
            client = httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {account.secret}"}, timeout=120)
            until(lambda: _ready(client), 120, "the API")
            secrets = {
                "key": account.secret.rpartition("_")[2],
                "database password": str(urlsplit(module_url).password),
                "broker password": str(urlsplit(system.broker_url).password),
                "query of a picture's URL": QUERY, "query of a redirect": LOCATION, "key in a header": HEADER,
                "query of a webhook": HOOK, "password of a person": PASSWORD, "token of a link": LINK,
                "password of a wrong database URL": WRONG_DATABASE, "password of a wrong broker URL": WRONG_BROKER,
                "text of a body": BODY, "key of webhook secrets": WEBHOOK_KEY, "cookie": COOKIE,
            }  # fmt: skip
            built = House(system, api, url, client, secrets)
            live(built, account)
            yield built
        finally:
            system.close()
            owner.dispose()


def _ready(client: httpx2.Client) -> bool:
    with suppress(httpx2.HTTPError):
        return bool(client.get("/healthz").status_code == 200)
    return False


def live(house: House, account: TestAccount) -> None:
    """Good and bad work of every kind, each with a secret in it."""
    client, server = house.client, house.system.server
    hook = client.post("/v1/webhooks", json={"url": server.url(f"status/500?token={HOOK}")}).json()
    house.secrets["secret of a webhook"] = hook["secret"].removeprefix("whsec_")
    client.post("/v1/webhooks", json={"url": server.url(f"status/410?token={HOOK}")})
    client.post("/v1/webhooks", json={"url": server.url(f"reset?token={HOOK}")})
    good = [server.url(f"{name}?token={QUERY}") for name in server.files]
    first = client.post("/v1/jobs", json={"items": [{"url": url} for url in good]}).json()["id"]
    paths = ["status/404", "status/500", "reset", "bad-status", "html", "truncated", "big-header", "drip-body",
             "hang-up", "noai", "not-http", "loop"]  # fmt: skip
    urls = [server.url(f"{path}?token={QUERY}") for path in paths]
    urls += [server.url(f"redirect?to=http%3A//10.0.0.5/%3Ftoken%3D{LOCATION}&token={QUERY}")]
    urls += [f"https://127.0.0.1:{server.port}/?token={QUERY}", f"http://127.0.0.1:22/?token={QUERY}"]
    urls += [f"http://nowhere.invalid/?token={QUERY}", f"http://127.0.0.1:{server.port + 1}/?token={QUERY}"]
    until(lambda: client.get(f"/v1/jobs/{first}").json()["state"] == "finished", 180, "the good job to end")
    job = client.post("/v1/jobs", json={"items": [{"url": url} for url in urls]}).json()["id"]
    uploaded = client.post(
        "/v1/moderations", content=camera_picture("JPEG"), headers={"Content-Type": "image/jpeg"}
    ).json()["id"]
    abuse(house, account)
    sign_in(house, account)
    for wrong in (
        {"TAGMILL_DATABASE_URL": _with_password(house.system.database_url, WRONG_DATABASE)},
        {"TAGMILL_BROKER_URL": _with_password(house.system.broker_url, WRONG_BROKER)},
        {"TAGMILL_BROKER_URL": f"redis:/:{WRONG_BROKER}@nowhere/0", "TAGMILL_DATABASE_URL": f"pg://{WRONG_DATABASE}@/"},
    ):
        for name in ("crawler", "worker", "maintenance"):
            house.system.start(name, **wrong)
    until(lambda: house.client.get(f"/v1/jobs/{job}").json()["state"] == "finished", 240, "the job to end")
    until(
        lambda: client.get(f"/v1/moderations/{uploaded}").json()["state"] != "pending", 120, "the upload to be judged"
    )
    cut_connections(house)
    sql = "SELECT count(*) FROM delivery_attempts"
    until(lambda: house.system.count(sql) >= 3, 120, "the webhooks to be tried")
    refused = "password authentication failed"
    until(lambda: any(refused in told for told in house.logs().values()), 60, "Postgres to refuse the wrong password")
    time.sleep(1)  # what is still being written into logs


def _with_password(url: str, password: str) -> str:
    given = urlsplit(url).password
    assert given
    return url.replace(quote(given, safe=""), password).replace(given, password)


def abuse(house: House, account: TestAccount) -> None:
    """Requests that go wrong, each with a secret somewhere."""
    client, secret = house.client, account.secret
    for path in ("/v1/jobs", "/v1/nothing", "/v1/jobs/x", "/console/jobs", "/healthz", "/openapi.json"):
        client.get(f"{path}?key={secret}&token={QUERY}")
    client.get("/v1/jobs", headers={"Authorization": f"Bearer tgm_live_abcdefgh_{HEADER}"})
    client.get("/v1/jobs", headers={"Authorization": f"Basic {HEADER}", "Cookie": f"tagmill-session={COOKIE}"})
    client.get("/v1/jobs", headers={"X-Request-Id": f"{HEADER}?{'x' * 100}", "X-Token": HEADER})
    for kind, body in (("application/json", f'{{"items": [{{"url": "{BODY}'), ("text/csv", f"url,{BODY}\n1,2,3\n"),
                       ("application/zip", f"PK{BODY}"), ("application/x-ndjson", f"{BODY}\n")):  # fmt: skip
        client.post("/v1/jobs", content=body.encode(), headers={"Content-Type": kind, "Idempotency-Key": BODY[:40]})
    host, port = urlsplit(house.url).hostname, urlsplit(house.url).port
    for raw in (
        f"GET /v1/jobs?key={secret} HTTP/9.9\r\nAuthorization: Bearer {secret}\r\n\r\n",
        f"GET /v1/jobs?key={secret}\r\n\r\n",
        f"POST /v1/jobs?token={QUERY} HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\nX: {HEADER}\r\n\r\n{BODY}",
        f"POST /v1/jobs?token={QUERY} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n"
        f"Content-Type: application/json\r\nContent-Length: 5000\r\n\r\n{BODY}",
        f"G\x01T /{QUERY} HTTP/1.1\r\nBroken {HEADER}\r\n\r\n",
        f"GET /{QUERY} HTTP/1.1\r\nHost: x\r\nX: {HEADER * 500}\r\n\r\n",
    ):
        with socket.create_connection((host, port), timeout=60) as connection, suppress(OSError):
            connection.sendall(raw.encode())
            connection.settimeout(2)
            connection.recv(4096)


def sign_in(house: House, account: TestAccount) -> None:
    """A person signs in, well and badly, and somebody tries a link."""
    somebody(house.system.owner, account, "anna", "admin", password_hash=passwords.hashed(PASSWORD))
    with httpx2.Client(base_url=house.url, headers={"Sec-Fetch-Site": "same-origin"}, timeout=120) as browser:
        page = browser.get("/console/sign-in").text
        found = re.search(r'name="csrf" value="([^"]+)"', page) or re.search(r'value="([^"]+)" name="csrf"', page)
        assert found is not None
        for password in (PASSWORD + "x", PASSWORD):
            fields = {"csrf": found[1], "name": "anna", "password": password}
            told = browser.post("/console/sign-in", data=fields)
        assert told.status_code == 303
        token = next(cookie.value for cookie in browser.cookies.jar if "session" in cookie.name)
        house.secrets["token of a session"] = str(token)
        assert browser.get("/console/own").status_code == 200
        browser.get(f"/console/link/{LINK}?token={LINK}")
        browser.post("/console/link", data={"csrf": found[1], "token": LINK})


def cut_connections(house: House) -> None:
    """Postgres cuts everybody off in the middle of their work: all of them say so, in the words of its driver."""
    for _ in range(3):
        with house.system.owner.transaction() as session, suppress(Exception):
            session.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND pid <> pg_backend_pid()"
                )
            )
        for _ in range(5):
            house.client.get(f"/v1/jobs?token={QUERY}")
        time.sleep(0.3)


def leaks(told: dict[str, str], secrets: dict[str, str]) -> list[str]:
    """Which secret stands where."""
    return [
        f"{what} in {where}" for where, text_ in told.items() for what, secret in secrets.items() if secret in text_
    ]
