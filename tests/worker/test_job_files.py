"""What `tagmill submit` makes of lists and folders: right rows, on the file's own line numbers, in bounded pieces."""

import io
import json
import zipfile
from pathlib import Path

import pytest

from worker import job_files
from worker.client import ClientError
from worker.drawings import draw


def lines_of(text: str, suffix: str = "") -> list[dict[str, str] | None]:
    """The rows of a list, by line; None for a blank line."""
    body = b"".join(job_files.ndjson(io.BytesIO(text.encode()), suffix)).decode()
    return [json.loads(line) if line.strip() else None for line in body.split("\n")][: body.count("\n")]


def test_txt_keeps_line_numbers_and_leaves_out_comments() -> None:
    text = "\n# a comment\nhttp://a/1.jpg\n\n  http://a/2,3.jpg  \n"
    assert lines_of(text, ".txt") == [None, None, {"url": "http://a/1.jpg"}, None, {"url": "http://a/2,3.jpg"}]


def test_csv_takes_the_known_columns_by_name() -> None:
    text = "Price,ID,url,product_id\n3,a,http://x/1,p1\n4,,http://x/2,\n"
    assert lines_of(text, ".csv") == [
        None,
        {"id": "a", "url": "http://x/1", "product_id": "p1"},
        {"url": "http://x/2"},
    ]


def test_csv_without_a_header_takes_its_first_column() -> None:
    assert lines_of("http://x/1,red\nhttp://x/2,blue\n", ".csv") == [{"url": "http://x/1"}, {"url": "http://x/2"}]


def test_csv_records_over_several_lines_keep_the_line_numbers() -> None:
    text = 'url,note\nhttp://x/1,"two\nlines"\nhttp://x/2,\n'
    assert lines_of(text, ".csv") == [None, None, {"url": "http://x/1"}, {"url": "http://x/2"}]


def test_csv_without_urls_is_refused() -> None:
    with pytest.raises(ClientError, match="no column named url"):
        lines_of("name,size\nshirt,3\n", ".csv")


def test_jsonl_passes_as_it_is_even_wrong_lines() -> None:
    body = b"".join(job_files.ndjson(io.BytesIO(b'{"url": "http://x/1"}\nnot json'), ".jsonl"))
    assert body == b'{"url": "http://x/1"}\nnot json\n'


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ('{"url": "http://x/1"}\n', {"url": "http://x/1"}),
        ("http://x/1\n", {"url": "http://x/1"}),
        ("\ufeffurl,id\nhttp://x/1,a\n", {"url": "http://x/1", "id": "a"}),
        ("\n\nhttps://x/1", {"url": "https://x/1"}),
    ],
)
def test_stdin_is_recognised_by_its_first_line(text: str, row: dict[str, str]) -> None:
    assert lines_of(text)[-1] == row


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
