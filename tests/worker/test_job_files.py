"""What `tagmill submit` makes of folders: bounded pieces, names that a ZIP takes, and a word on what is not sent."""

import io
import os
import zipfile
from pathlib import Path

import pytest

from worker import job_files
from worker.client import Client, ClientError
from worker.drawings import draw


def test_stdin_can_be_read_only_once() -> None:
    (upload,) = job_files.uploads("-", io.BytesIO(b"http://x/1\n"))
    assert not upload.again
    assert b"".join(upload.body()) == b'{"url": "http://x/1"}\n'


def test_a_folder_becomes_the_same_zip_each_time(tmp_path: Path) -> None:
    draw(tmp_path / "sub", 3)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden").mkdir()
    draw(tmp_path / ".hidden", 1)
    (upload,) = job_files.uploads(str(tmp_path), io.BytesIO())
    first, second = b"".join(upload.body()), b"".join(upload.body())
    assert first == second
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(f"sub/{p.name}" for p in (tmp_path / "sub").iterdir())


def test_a_big_folder_goes_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path, 5)
    monkeypatch.setattr(job_files, "PART_FILES", 2)
    uploads = job_files.uploads(str(tmp_path), io.BytesIO())
    names = []
    for upload in uploads:
        with zipfile.ZipFile(io.BytesIO(b"".join(upload.body()))) as archive:
            names.append(archive.namelist())
    assert [len(part) for part in names] == [2, 2, 1]
    assert len({name for part in names for name in part}) == 5
    assert [upload.label for upload in uploads] == [f"{tmp_path.name} {n}/3" for n in (1, 2, 3)]


def test_missing_and_empty_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match=r"gone\.txt"):
        job_files.uploads(str(tmp_path / "gone.txt"), io.BytesIO())
    with pytest.raises(ClientError, match="no pictures"):
        job_files.uploads(str(tmp_path), io.BytesIO())


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    draw(tmp_path, 2)
    for name in ("a.txt", "b.txt", "c.PDF", "noend", ".hidden.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "burst.mpo").write_bytes(b"x")
    said: list[str] = []
    (upload,) = job_files.uploads(str(tmp_path), io.BytesIO(), say=said.append)
    assert said == ["4 files left out, without a known picture ending: 2 .txt, 1 .pdf, 1 with none"]
    assert "burst.mpo" in members(upload)


NAMES = [b"caf\xe9.jpg", b"back\\slash.jpg", b"new\nline.jpg", b"C:drive.jpg", "gr\u00fcn [a].jpg".encode()]
SENT = ["caf%E9.jpg", "back%5Cslash.jpg", "new%0Aline.jpg", "C%3Adrive.jpg", "gr\u00fcn [a].jpg"]


def test_names_that_a_zip_cannot_hold_are_sent_under_others(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    said: list[str] = []
    (upload,) = job_files.uploads(str(tmp_path), io.BytesIO(), say=said.append)
    assert sorted(members(upload)) == sorted(SENT)
    assert len(said) == 4
    assert any("new\\nline.jpg is sent as new%0Aline.jpg" in line for line in said)
    assert all("\n" not in line and line.isascii() for line in said)


def test_such_a_name_takes_nobody_elses(tmp_path: Path) -> None:
    for name in (b"a\\b.jpg", b"a%5Cb.jpg"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    (upload,) = job_files.uploads(str(tmp_path), io.BytesIO())
    assert sorted(members(upload)) == ["%a%5Cb.jpg", "a%5Cb.jpg"]


def test_the_api_takes_such_names(client: Client, tmp_path: Path) -> None:
    (tmp_path / "my\n[a]").mkdir()
    for name in NAMES:
        (tmp_path / "my\n[a]" / os.fsdecode(name)).write_bytes(b"x")
    (upload,) = job_files.uploads(str(tmp_path / "my\n[a]"), io.BytesIO())
    params = {"name": upload.label}
    job = client.submit(upload.body, upload.content_type, params=params, idempotency_key="k")["id"]
    assert sorted(item["filename"] for item in client.items(job, 10)) == sorted(SENT)


@pytest.mark.parametrize("name", ["x" * 250, "bytes-\udcff", "bell-\x07"])
def test_a_folders_name_can_name_a_job(tmp_path: Path, name: str) -> None:
    draw(tmp_path / name, 1)
    (upload,) = job_files.uploads(str(tmp_path / name), io.BytesIO())
    assert 0 < len(upload.label) <= 200
    assert upload.label.isprintable()


def test_here_is_a_folder_with_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path, 1)
    monkeypatch.chdir(tmp_path)
    (upload,) = job_files.uploads(".", io.BytesIO())
    assert upload.label == tmp_path.name


def members(upload: job_files.Upload) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(b"".join(upload.body()))) as archive:
        return archive.namelist()
