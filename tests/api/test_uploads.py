"""Pictures as files: multipart bodies, and archives built to hurt."""

import hashlib
import io
import json
import random
import stat
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from api.uploads import label
from db.session import Database
from tests.api.conftest import Make, client_of
from tests.api.rows import count
from tests.conftest import TestAccount


def stored(database: Database) -> list[tuple[Any, ...]]:
    with database.transaction() as session:
        return [tuple(r) for r in session.execute(text("SELECT seq, filename, raw_key FROM items ORDER BY seq"))]


def blobs(folder: Path) -> list[Path]:
    return [path for path in (folder / "blobs").rglob("*") if path.is_file()]


def form(client: FlaskClient, files: list[tuple[str, bytes]], **fields: Any) -> Any:
    data: dict[str, Any] = {"files": [(io.BytesIO(content), name) for name, content in files], **fields}
    return client.post("/v1/jobs", data=data, content_type="multipart/form-data")


def test_multipart_files_are_stored_under_their_hash(
    client: FlaskClient, owner_db: Database, tmp_path: Path, account: TestAccount
) -> None:
    big = bytes(range(256)) * 20_000
    options = json.dumps({"analyses": ["tags"], "name": "n", "lane": "interactive"})
    answer = form(client, [("a.jpg", b"one"), ("../../etc/b.png", big), ("a.jpg", b"one")], options=options)
    assert (answer.status_code, answer.json["total"]) == (202, 3)
    rows = stored(owner_db)
    assert [name for _, name, _ in rows] == ["a.jpg", "etc/b.png", "a.jpg"]
    digest = hashlib.sha256(big).hexdigest()
    assert rows[1][2] == f"raw/{account.id}/{digest[:2]}/{digest}"
    assert (tmp_path / "blobs" / rows[1][2]).read_bytes() == big
    assert len(blobs(tmp_path)) == 2
    assert client.get(answer.json["url"]).json["analyses"] == ["tags"]


def test_multipart_idempotency_looks_at_the_files_not_at_the_boundary(client: FlaskClient) -> None:
    def send(boundary: str, content: str) -> Any:
        head = 'Content-Disposition: form-data; name="f"; filename="a.jpg"'
        body = f"--{boundary}\r\n{head}\r\n\r\n{content}\r\n--{boundary}--\r\n"
        kind = f"multipart/form-data; boundary={boundary}"
        return client.post("/v1/jobs", data=body, content_type=kind, headers={"Idempotency-Key": "u"})

    first, again, other = send("one", "x"), send("two", "x"), send("one", "y")
    assert (first.status_code, again.status_code, other.status_code) == (202, 202, 422)
    assert again.get_data() == first.get_data()
    assert other.json["code"] == "idempotency_key_reused"


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ("{", 400, "invalid_json"),
        ("[" * 50_000, 400, "invalid_json"),
        ("[]", 422, "invalid_body"),
        ('{"lane": 1}', 422, "invalid_body"),
        ('{"items": []}', 422, "invalid_body"),
        (" " * 70_000 + "{}", 422, "invalid_body"),
        (b'{"name": "\xff"}', 400, "invalid_json"),
    ],
)
def test_bad_options(client: FlaskClient, owner_db: Database, options: Any, status: int, code: str) -> None:
    answer = form(
        client, [("a.jpg", b"x")], options=options if isinstance(options, str) else (io.BytesIO(options), "o.json")
    )
    assert (answer.status_code, answer.json["code"]) == (status, code)
    assert count(owner_db, "jobs") == 0


def test_multipart_with_unknown_fields_or_without_files(client: FlaskClient) -> None:
    assert form(client, [("a.jpg", b"x")], account_id="2").json["errors"][0]["field"] == "account_id"
    assert form(client, []).json["code"] in ("empty_job", "invalid_multipart")
    assert form(client, [], options="{}").json["code"] == "empty_job"


@pytest.mark.parametrize(
    "body",
    [
        b"no boundary here",
        b"--b\r\n\r\n",
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\ncut off',
        b"--b\r\nX: y\r\n\r\nno disposition\r\n--b--\r\n",
        b"--b\r\n" + b"X" * 3_000_000,
        b"x" * 3_000_000,
        b'--b\r\nContent-Disposition: form-data; name="\xff\xfe"; filename="a"\r\n\r\nx\r\n--b--',
    ],
)  # fmt: skip
def test_broken_multipart(client: FlaskClient, owner_db: Database, body: bytes) -> None:
    answer = client.post("/v1/jobs", data=body, content_type="multipart/form-data; boundary=b")
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_multipart")
    assert count(owner_db, "jobs") == 0


def test_multipart_limits(make_app: Make, account: TestAccount, owner_db: Database, tmp_path: Path) -> None:
    client = client_of(make_app(max_picture_bytes=100, max_files_per_upload=3, max_multipart_bytes=100_000), account)
    answer = form(client, [("ok.jpg", b"x"), ("big.jpg", b"x" * 101)])
    assert (answer.status_code, answer.json["code"]) == (413, "file_too_large")
    assert (answer.json["errors"][0]["file"], answer.json["errors"][0]["item"]) == ("big.jpg", 1)
    assert form(client, [("a", b"x")] * 4, options="{}").json["code"] == "too_many_files"
    assert form(client, [("a", b"x")] * 3, options="{}").status_code == 202
    assert form(client, [("a", b"x" * 200_000)]).json["code"] in ("body_too_large", "file_too_large")
    assert count(owner_db, "jobs") == 1
    assert not list((tmp_path / "blobs" / "tmp").iterdir())


def test_ten_thousand_and_one_parts(client: FlaskClient, owner_db: Database) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="f"; filename=""\r\n\r\n\r\n'
    body = part * 10_002 + b"--b--\r\n"
    answer = client.post("/v1/jobs", data=body, content_type="multipart/form-data; boundary=b")
    assert (answer.status_code, answer.json["code"]) == (413, "too_many_files")


@given(st.text(max_size=400))
def test_labels_are_never_paths(name: str) -> None:
    made = label(name)
    assert 0 < len(made) <= 255
    assert not {"", ".", ".."} & set(made.split("/"))
    assert "\\" not in made
    made.encode()
    assert not any(ord(c) < 32 or c in "\u202e\u2066\x7f" for c in made)


def files(folder: Path) -> list[Path]:
    """Every file of the blob store."""
    return [path for path in (folder / "blobs").rglob("*") if path.is_file()]


def test_a_refused_upload_leaves_nothing(
    make_app: Make, account: TestAccount, owner_db: Database, tmp_path: Path
) -> None:
    client = client_of(make_app(max_picture_bytes=100), account)
    assert form(client, [("kept.jpg", b"kept")]).status_code == 202
    kept = files(tmp_path)
    assert len(kept) == 1
    good = ("kept.jpg", b"kept"), ("new.jpg", b"new")
    assert form(client, [*good, ("big.jpg", b"x" * 101)]).status_code == 413
    assert form(client, [*good], options='{"lane": 1}').status_code == 422
    broken = zipped(("new.jpg", b"new"), ("c.jpg", b"c" * 50), method=zipfile.ZIP_STORED).replace(b"c" * 50, b"d" * 50)
    answer = client.post("/v1/jobs", data=broken, content_type="application/zip")
    assert (answer.status_code, answer.json["code"]) == (422, "zip_corrupt")
    cut = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\nnew\r\n--b\r\ncut'
    assert client.post("/v1/jobs", data=cut, content_type="multipart/form-data; boundary=b").status_code == 400
    assert files(tmp_path) == kept
    assert kept[0].read_bytes() == b"kept"


def test_a_key_used_for_another_upload_stores_nothing(client: FlaskClient, owner_db: Database, tmp_path: Path) -> None:
    def send(content: bytes) -> int:
        data = {"f": (io.BytesIO(content), "a.jpg")}
        return client.post("/v1/jobs", data=data, headers={"Idempotency-Key": "u"}).status_code

    assert [send(b"one"), send(b"one"), send(b"two")] == [202, 202, 422]
    assert [path.read_bytes() for path in files(tmp_path)] == [b"one"]
    assert count(owner_db, "jobs") == 1


# --- archives ---------------------------------------------------------------------------------------------


def zipped(*files: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of duplicate names, which we want
        with zipfile.ZipFile(out, "w", method) as archive:
            for name, data in files:
                archive.writestr(name, data, compress_type=method)
    return out.getvalue()


def special(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def patched(archive: bytes, entry_at: int, local_at: int | None, value: bytes) -> bytes:
    """The archive with bytes of the first directory entry (and its local header) replaced."""
    changed = bytearray(archive)
    start = archive.index(b"PK\x01\x02") + entry_at
    changed[start : start + len(value)] = value
    if local_at is not None:
        changed[local_at : local_at + len(value)] = value
    return bytes(changed)


def raw_archive(entries: list[tuple[bytes, bytes, int, int, int]], overlap: bool = False) -> bytes:
    """An archive by hand: (name, packed data, crc, size claimed, packed size claimed); all share one body if asked."""
    out, directory = b"", b""
    for index, (name, data, crc, size, packed) in enumerate(entries):
        offset = 0 if overlap else len(out)
        header = struct.pack("<5H3L2H", 20, 0, 8, 0, 0, crc, packed, size, len(name), 0)
        if not overlap or index == 0:
            out += b"PK\x03\x04" + header + name + data
        directory += b"PK\x01\x02" + struct.pack("<H", 20) + header + struct.pack("<3H2L", 0, 0, 0, 0, offset) + name
    n = len(entries)
    return out + directory + b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, n, n, len(directory), len(out), 0)


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def send_zip(client: FlaskClient, data: bytes) -> Any:
    return client.post("/v1/jobs", data=data, content_type="application/zip")


BIG = random.Random(7).randbytes(3_000_000)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
CRC, PACKED = zlib.crc32(PNG), deflated(PNG)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_good_archive(client: FlaskClient, owner_db: Database, tmp_path: Path, method: int) -> None:
    files: list[tuple[str | zipfile.ZipInfo, bytes]] = [
        ("shirts/", b""), ("shirts/ä.png", PNG), ("__MACOSX/shirts/._ä.png", b"junk"), (".DS_Store", b"junk"),
        ("b.jpg", b""), ("shirts/Thumbs.db", b"junk"), ("c.jpg", BIG),
    ]  # fmt: skip
    answer = send_zip(client, zipped(*files, method=method))
    assert (answer.status_code, answer.json["total"]) == (202, 3), answer.json
    rows = stored(owner_db)
    assert [row[:2] for row in rows] == [(0, "shirts/ä.png"), (1, "b.jpg"), (2, "c.jpg")]
    assert (tmp_path / "blobs" / rows[2][2]).read_bytes() == BIG


def test_a_zip64_archive(client: FlaskClient) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, archive.open("a.png", "w", force_zip64=True) as member:
        member.write(PNG)
    assert send_zip(client, out.getvalue()).json["total"] == 1


ENCRYPTED = patched(zipped(("a.jpg", PNG)), 8, 6, b"\x01\x00")
TOO_BIG = 64 * 1024 * 1024
ATTACKS: dict[str, tuple[bytes, str]] = {
    "not a zip": (b"not a zip at all", "zip_corrupt"),
    "empty body": (b"", "zip_corrupt"),
    "cut off": (zipped(("a.jpg", PNG))[:-30], "zip_corrupt"),
    "cut off in front": (zipped(("a.jpg", PNG))[10:], "zip_corrupt"),
    "no members": (zipped(), "empty_job"),
    "only folders and junk": (zipped(("a/", b""), ("__MACOSX/x", b"y")), "empty_job"),
    "encrypted": (ENCRYPTED, "zip_encrypted"),
    "masked directory": (patched(zipped(("a.jpg", PNG)), 8, 6, b"\x00\x20"), "zip_encrypted"),
    "step up": (zipped(("../../etc/passwd", PNG)), "zip_path"),
    "step up inside": (zipped(("a/../../b", PNG)), "zip_path"),
    "absolute": (zipped(("/etc/passwd", PNG)), "zip_path"),
    "drive": (zipped(("C:/x.jpg", PNG)), "zip_path"),
    "backslash": (zipped(("a\\..\\b.jpg", PNG)), "zip_path"),
    "control character": (zipped(("a\n.jpg", PNG)), "zip_path"),
    "symlink": (zipped((special("a.jpg", stat.S_IFLNK | 0o777), b"/etc/passwd")), "zip_symlink"),
    "device": (zipped((special("a.jpg", stat.S_IFCHR | 0o666), b"")), "zip_symlink"),
    "nested by name": (zipped(("inner.zip", PNG)), "zip_nested"),
    "nested by bytes": (zipped(("inner.jpg", zipped(("a", PNG)))), "zip_nested"),
    "nested gzip": (zipped(("inner.jpg", b"\x1f\x8b\x08" + PNG)), "zip_nested"),
    "duplicate name": (zipped(("a.jpg", PNG), ("a.jpg", PNG + b"x")), "zip_duplicate_name"),
    "method": (zipped(("a.jpg", PNG), method=zipfile.ZIP_BZIP2), "zip_method"),
    "checksum": (patched(zipped(("a.jpg", PNG)), 16, 14, b"\0\0\0\0"), "zip_corrupt"),
    "claims less": (raw_archive([(b"a", PACKED, zlib.crc32(PNG[:9]), 9, len(PACKED))]), "zip_lying_size"),
    "claims more": (raw_archive([(b"a", PACKED, CRC, 20_000, len(PACKED))]), "zip_lying_size"),
    "claims less, is a bomb": (
        raw_archive([(b"a", deflated(bytes(TOO_BIG)), 0, 1000, len(deflated(bytes(TOO_BIG))))]),
        "zip_lying_size",
    ),
    "stored sizes differ": (patched(zipped(("a", PNG), method=0), 24, 22, b"\x01\0\0\0"), "zip_lying_size"),
    "packed to nothing": (raw_archive([(b"a", b"", 0, 500, 0)]), "zip_lying_size"),
    "packed longer than the file": (raw_archive([(b"a", PACKED, CRC, len(PNG), 1 << 30)]), "zip_bomb"),
    "ratio": (zipped(("a.bmp", bytes(20 << 20))), "zip_bomb"),
    "file too large": (zipped(("a.bmp", bytes(TOO_BIG))), "file_too_large"),
    "overlap": (
        raw_archive([(b"%03d" % i, PACKED, CRC, len(PNG), len(PACKED)) for i in range(300)], True),
        "zip_bomb",
    ),
    "garbage after the data": (
        raw_archive([(b"a", PACKED + b"xyz", CRC, len(PNG), len(PACKED) + 3)]),
        "zip_corrupt",
    ),
    "directory elsewhere": (patched(zipped(("a.jpg", PNG)), 42, None, b"\xff\xff\0\0"), "zip_bomb"),
    "another local name": (patched(zipped(("a.jpg", PNG)), 46, None, b"b"), "zip_corrupt"),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_archives(client: FlaskClient, owner_db: Database, tmp_path: Path, attack: str) -> None:
    data, code = ATTACKS[attack]
    answer = send_zip(client, data)
    assert (answer.status_code, answer.json["code"]) in ((422, code), (413, code)), answer.json
    assert count(owner_db, "jobs") == 0
    assert not list((tmp_path / "blobs" / "tmp").iterdir()), "a scratch file was left behind"


def test_archive_limits(make_app: Make, account: TestAccount) -> None:
    client = client_of(make_app(max_files_per_upload=3, max_zip_unpacked_bytes=len(PNG) * 2), account)
    assert send_zip(client, zipped(*[(f"{n}", b"x") for n in range(3)])).status_code == 202
    four = zipped(*[(f"{n}", b"x") for n in range(4)])
    assert send_zip(client, four).json["code"] == "zip_too_many_members"
    # The end record lies about how many there are.
    lying = bytearray(four)
    lying[-12:-10] = b"\x01\0"
    assert send_zip(client, bytes(lying)).json["code"] == "zip_too_many_members"
    answer = send_zip(client, zipped(*[(f"{n}", PNG) for n in range(3)]))
    assert (answer.status_code, answer.json["code"]) == (413, "zip_too_large")


def test_a_million_entries_are_refused_before_they_are_read(client: FlaskClient) -> None:
    entry = b"PK\x01\x02" + bytes(42) + b""
    directory = entry * 1_000_000
    end = b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 10_000, 10_000, len(directory), 0, 0)
    assert send_zip(client, directory + end).json["code"] in ("zip_corrupt", "zip_too_many_members")


@given(st.binary(max_size=200), st.integers(0, 400))
def test_mutated_archives_are_answers_not_crashes(garbage: bytes, at: int) -> None:
    from api import archives
    from api.errors import Problem
    from api.settings import ApiSettings

    good = zipped(("a.png", PNG[:200]), ("b/c.png", PNG[:100]))
    data = bytearray(good)
    data[at : at + len(garbage)] = garbage
    settings = ApiSettings(database_url="postgresql://x/x", blob_root=Path("x"), model_root=Path("x"))
    file = io.BytesIO(bytes(data))
    try:
        for member in archives.members(file, settings):
            assert sum(map(len, archives.unpack(file, member))) == member.size
    except Problem:
        pass
