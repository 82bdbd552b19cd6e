"""Lists of URLs as NDJSON: right rows on the list's own line numbers; what the API refuses is named."""

import io
import json

import pytest

from worker.client import ClientError
from worker.url_lists import UrlList, WrongLines


def lines_of(text: str, suffix: str = "") -> list[dict[str, str] | None]:
    """The rows of a list, by line; None for a blank line."""
    body = b"".join(UrlList(suffix).ndjson(io.BytesIO(text.encode()))).decode()
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
    body = b"".join(UrlList(".jsonl").ndjson(io.BytesIO(b'{"url": "http://x/1"}\nnot json')))
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


def refusal(text: bytes, suffix: str) -> ClientError:
    with pytest.raises(ClientError) as caught:
        list(UrlList(suffix).ndjson(io.BytesIO(text)))
    return caught.value


def test_rows_with_another_number_of_cells_are_named() -> None:
    """Too many cells are most often a comma in an unquoted URL, too few a missing one: never a guess."""
    error = refusal(b"\nurl,id\nhttp://x/1,a\nhttp://x/2\nhttp://x/a,b.jpg,c\n", ".csv")
    assert isinstance(error, WrongLines)
    assert [(fault["line"], fault["code"]) for fault in error.errors] == [
        (4, "wrong_column_count"),
        (5, "wrong_column_count"),
    ]
    assert "3 cells" in error.errors[1]["detail"]


def test_without_a_header_a_comma_in_a_url_is_not_cut_off() -> None:
    error = refusal(b"http://x/1.jpg\nhttp://x/a,b.jpg\n", ".csv")
    assert isinstance(error, WrongLines)
    assert [fault["line"] for fault in error.errors] == [2]


def test_wrong_rows_can_be_left_out_and_are_counted() -> None:
    urls = UrlList(".csv", skip=True)
    text = b"url,id\nhttp://x/1,a\nhttp://x/2\nhttp://x/3,c\n"
    for _ in range(2):  # a body may be read again
        rows = b"".join(urls.ndjson(io.BytesIO(text))).decode().split("\n")
        assert [bool(line) for line in rows] == [False, True, False, True, False]
        assert urls.skipped == 1


def test_at_most_a_hundred_wrong_rows_are_named() -> None:
    error = refusal(b"url,id\n" + b"http://x/1\n" * 300, ".csv")
    assert isinstance(error, WrongLines)
    assert len(error.errors) == 100


@pytest.mark.parametrize("suffix", [".csv", ".txt"])
def test_bytes_that_are_not_utf8_are_refused_by_line(suffix: str) -> None:
    header = b"url\n" if suffix == ".csv" else b"# mine\n"
    error = refusal(header + b"http://x/1\nhttp://x/caf\xe9.jpg\n", suffix)
    assert (error.code, "Line 3 " in str(error)) == ("invalid_utf8", True)


def test_a_doubled_column_is_refused() -> None:
    error = refusal(b"url,id,ID\nhttp://x/1,a,b\n", ".csv")
    assert (error.code, "id is given twice" in str(error)) == ("invalid_csv", True)


@pytest.mark.parametrize("row", [b'"http://x/1"junk', b'"http://x/1', b"http://x/" + b"1" * 200_000])
def test_broken_csv_is_refused_by_line(row: bytes) -> None:
    error = refusal(b"url\nhttp://x/0\n" + row, ".csv")
    assert (error.code, "Line 3" in str(error)) == ("invalid_csv", True)


def test_columns_that_are_not_sent_are_named_once() -> None:
    said: list[str] = []
    urls = UrlList(".csv", say=said.append)
    for _ in range(2):
        list(urls.ndjson(io.BytesIO(b"url,Price,id,\nhttp://x/1,3,a,\n")))
    assert len(said) == 1
    assert said[0].endswith(": price, (no name)")
    said.clear()
    list(UrlList("", say=said.append).ndjson(io.BytesIO(b"http://x/1,red\n")))
    assert "the first of 2 columns" in said[0]
