"""Secrets are seeded wherever there are any, everything is run, and then they are looked for where none may be: in the
logs of all processes, the metrics, the audit log, events and deliveries. And what a camera or a joker wrote into a
picture is looked for in all that is made of it and told of it."""

import io
import re
from collections.abc import Iterator

import pytest
from PIL import Image
from sqlalchemy import text

from tests.abuse.seeded import CAMERA, HOOK, QUERY, SCRIPT, SERIAL, House, house, leaks, module_url

__all__ = ["house", "module_url"]


def test_the_secrets_were_really_used(house: House) -> None:
    """They went where they belong: else nothing below says anything."""
    asked = b"\n".join(each.raw for each in house.system.server.log)
    assert asked.count(QUERY.encode()) >= 5
    assert asked.count(HOOK.encode()) >= 3
    wrong = [told for told in house.logs().values() if len(told) > 100]
    said = "\n".join(house.logs().values())
    assert len(wrong) >= 6, "everybody has said something"
    assert "password authentication failed" in said
    assert all(len(secret) > 15 for secret in house.secrets.values())


def test_no_log_holds_a_secret(house: House) -> None:
    assert leaks(house.logs(), house.secrets) == []


def test_what_is_looked_for_would_be_found(house: House) -> None:
    line = house.logs() | {"planted": f"GET /v1/jobs?token={QUERY} refused"}
    assert leaks(line, house.secrets) == ["query of a picture's URL in planted"]


def test_no_metric_holds_a_secret_or_a_name(house: House) -> None:
    metrics = house.client.get("/metrics").text
    assert "tagmill" in metrics
    assert leaks({"metrics": metrics}, house.secrets | {"name of the account": "acme"}) == []


@pytest.mark.parametrize("table", ["audit_log", "outbox", "deliveries", "delivery_attempts", "workers", "chunks"])
def test_no_table_that_is_kept_or_told_holds_a_secret(house: House, table: str) -> None:
    with house.system.owner.transaction() as session:
        rows = "\n".join(session.scalars(text(f"SELECT t::text FROM {table} t")))
    assert rows
    assert leaks({table: rows}, house.secrets) == []


def test_no_image_bytes_in_a_log(house: House) -> None:
    for name, told in house.logs().items():
        assert not re.search(r"\\x[0-9a-f]{2}(?:\\x[0-9a-f]{2}){8}|[A-Za-z0-9+/]{200,}", told), name


def everything_told(house: House) -> Iterator[tuple[str, bytes]]:
    """What the API says and gives of every item, in every form."""
    client = house.client
    jobs = [job["id"] for job in client.get("/v1/jobs").json()["jobs"]]
    moderations = [each["id"] for each in client.get("/v1/moderations").json()["moderations"]]
    for job in jobs:
        for form in ("json", "ndjson", "csv", "parquet"):
            yield f"results {form}", client.get(f"/v1/jobs/{job}/results?format={form}").content
        items = client.get(f"/v1/jobs/{job}/items").json()["items"]
        for item in items:
            for part in ("", "/thumbnail", "/labels", "/statement"):
                yield f"item{part}", client.get(f"/v1/items/{item['id']}{part}").content
            yield "clear thumbnail", client.post(f"/v1/items/{item['id']}/thumbnail").content
    for moderation in moderations:
        yield "moderation", client.get(f"/v1/moderations/{moderation}").content
        yield "statement", client.get(f"/v1/moderations/{moderation}/statement").content
    for path in ("/v1/audit", "/v1/reviews", "/v1/jobs"):
        yield path, client.get(path).content


def test_nothing_a_camera_wrote_is_told_or_kept(house: House) -> None:
    """Neither by the API, nor in a working copy, nor in any table, nor in a log."""
    files = house.system.server.files
    assert all(SERIAL.encode() in data and SCRIPT.encode() in data for data in files.values())
    pictures = 0
    for what, told in everything_told(house):
        pictures += told.startswith((b"\xff\xd8\xff", b"\x89PNG", b"RIFF"))
        assert not [secret for secret in CAMERA if secret.encode() in told], what
    assert pictures >= 6, "thumbnails were looked at"
    copies = [path for path in (house.system.folder / "blobs" / "work").rglob("*") if path.is_file()]
    assert len(copies) >= 3
    for path in copies:
        assert not [secret for secret in (*CAMERA, "script", "Exif") if secret.encode() in path.read_bytes()], path
    with house.system.owner.transaction() as session:
        tables = session.scalars(
            text("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
        ).all()
        for table in tables:
            rows = "\n".join(session.scalars(text(f"SELECT t::text FROM {table} t")))
            assert leaks({table: rows}, {secret: secret for secret in CAMERA}) == []
    assert leaks(house.logs(), {secret: secret for secret in CAMERA}) == []


def test_a_polyglot_is_given_as_a_picture_only(house: House) -> None:
    """Whatever else the bytes are, what comes out is a JPEG of ours, and the browser is told to take it for one."""
    job = house.client.get("/v1/jobs").json()["jobs"][-1]["id"]
    done = [item for item in house.client.get(f"/v1/jobs/{job}/items").json()["items"] if item["outcome"] == "done"]
    assert len(done) == 3
    for item in done:
        answer = house.client.post(f"/v1/items/{item['id']}/thumbnail")
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        with Image.open(io.BytesIO(answer.content)) as picture:
            assert picture.format == "JPEG"
            assert not picture.getexif()
