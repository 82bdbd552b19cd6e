"""The client's calls against the real API: repeated submits, problems in words, formats by a file's ending."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from db.session import Database
from worker import finalise, live
from worker.client import ApiProblem, Client, ClientError, Unreachable, form_of
from worker.job_files import NDJSON
from worker.service import free_port
from worker.url_lists import row


def submit(client: Client, urls: list[str], key: str) -> str:
    answer = client.submit(
        lambda: (row({"url": url}) for url in urls), NDJSON, params={"name": "t"}, idempotency_key=key
    )
    return str(answer["id"])


def test_the_same_submit_again_is_the_same_job(client: Client) -> None:
    first = submit(client, ["http://example.org/1.jpg"], "k1")
    assert submit(client, ["http://example.org/1.jpg"], "k1") == first
    assert [job["id"] for job in client.jobs(10)] == [first]
    with pytest.raises(ApiProblem) as caught:
        submit(client, ["http://example.org/2.jpg"], "k1")
    assert caught.value.code == "idempotency_key_reused"


def test_a_submit_goes_on_after_a_broken_connection(client: Client) -> None:
    """The first body breaks off in the middle; the second try sends it whole, under the same key."""
    calls: list[int] = []

    def body() -> Iterator[bytes]:
        calls.append(1)
        yield row({"url": "http://example.org/1.jpg"})
        if len(calls) == 1:
            raise OSError("the file went away")
        yield row({"url": "http://example.org/2.jpg"})

    with pytest.raises(OSError, match="went away"):
        client.submit(body, NDJSON, params={}, idempotency_key="k")
    assert client.submit(body, NDJSON, params={}, idempotency_key="k")["total"] == 2
    assert len(client.jobs(10)) == 1


def test_problems_name_what_is_wrong(client: Client, api_url: str) -> None:
    with pytest.raises(ApiProblem) as caught:
        submit(client, ["http://example.org/1.jpg", "file:///etc/passwd"], "k")
    assert caught.value.code == "invalid_items"
    assert [(fault["line"], fault["code"]) for fault in caught.value.errors] == [(2, "blocked_scheme")]
    with Client(api_url, "tgm_live_wrong") as stranger, pytest.raises(ApiProblem) as caught:
        stranger.jobs(1)
    assert (caught.value.status, caught.value.code) == (401, "invalid_key")


def test_results_are_saved_whole_in_the_format_of_the_ending(client: Client, db: Database, tmp_path: Path) -> None:
    job = submit(client, ["http://example.org/1.jpg"], "k")
    client.cancel(job)
    finalise.run_once(db)
    assert live.wait(client, job, Console(quiet=True))["progress"]["outcomes"] == {
        "cancelled": 1,
        "done": 0,
        "failed": 0,
    }
    for name in ("o.jsonl", "o.json", "o.csv", "o.parquet"):
        assert client.save_results(job, tmp_path / name) == (tmp_path / name).stat().st_size > 0
    assert json.loads((tmp_path / "o.jsonl").read_text())["url"] == "http://example.org/1.jpg"
    (tmp_path / "kept.csv").write_text("before")
    with pytest.raises(ApiProblem):
        client.save_results("01a20302-5edf-731b-a009-5a6ca95da27a", tmp_path / "kept.csv")
    assert (tmp_path / "kept.csv").read_text() == "before"
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == [
        "kept.csv", "o.csv", "o.json", "o.jsonl", "o.parquet",
    ]  # fmt: skip


def test_nobody_there_is_said_in_words() -> None:
    with Client(f"http://127.0.0.1:{free_port()}", "k") as client:
        assert not client.ready()
        with pytest.raises(Unreachable, match="tagmill up"):
            client.jobs(1)


def test_something_else_there_is_said_in_words(tmp_path: Path) -> None:
    from worker.picture_server import PictureServer

    (tmp_path / "a.jpg").write_text("x")
    with (
        PictureServer([tmp_path / "a.jpg"]) as server,
        Client(f"http://127.0.0.1:{server.port}", "k") as client,
        pytest.raises(ApiProblem, match="404"),
    ):
        client.jobs(1)


def test_title_and_detail_do_not_say_the_same_twice() -> None:
    words = "A job needs at least one item"
    assert str(ApiProblem(422, {"title": words, "detail": f"{words}."})) == f"{words}."
    assert str(ApiProblem(404, {"title": "Not found", "detail": "No item."})) == "Not found. No item."
    assert str(ApiProblem(502, {})) == "HTTP 502."


def test_an_id_stays_one_step_of_the_path(client: Client) -> None:
    """Unquoted, `?` and `#` would ask for the list of jobs, which exists."""
    for wrong in ("?limit=1", "#", "../jobs", "a b", "\udcff"):
        with pytest.raises(ApiProblem) as caught:
            client.job(wrong)
        assert caught.value.status == 404


def test_wrong_endings_and_urls_are_refused() -> None:
    assert form_of(Path("a/B.CSV")) == "csv"
    with pytest.raises(ClientError, match=r"\.parquet"):
        form_of(Path("a.xlsx"))
    with pytest.raises(ClientError, match="TAGMILL_URL"):
        Client("localhost:8080", "k")
    assert os.environ.get("TAGMILL_URL") is None
