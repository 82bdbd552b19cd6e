"""`tagmill datasets collect` on a running system, and what of a list is refused before anything is fetched."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from db import datasets
from db.blobs import LocalBlobs
from db.session import Database
from ml.errors import DatasetError
from ml.manifest import Manifest
from ml.tables import Column
from tests.conftest import TestAccount
from tests.worker.line import rows
from tests.worker.test_up import TAGMILL, System, clean_environment, system  # noqa: F401  # a fixture
from worker import collecting, manifests
from worker.client import Client, ClientError

COLOUR = {"colour": Column("colour")}


def listed(folder: Path, *lines: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "list.csv").write_text("\n".join(("url,colour,photographer,product_id", *lines)) + "\n")
    return folder / "list.csv"


def read(system: System, ref: str) -> Manifest:  # noqa: F811
    database = Database(system.running.database_url)
    try:
        with database.transaction() as session:
            dataset = datasets.by_ref(session, ref)
        assert dataset.images_root == manifests.IN_STORE
        return manifests.load(LocalBlobs(Path(system.running.blob_root)), dataset)
    finally:
        database.dispose()


@pytest.mark.slow
def test_a_list_is_fetched_and_becomes_a_dataset(system: System, tmp_path: Path) -> None:  # noqa: F811
    urls = system.server.urls
    source = listed(
        tmp_path,
        f"{urls[0]},red,ann,p1",
        f"{urls[1]},green,ann,",
        f"{urls[0].replace('127.0.0.1', 'localhost')},blue,bob,",
        f"{urls[2]}gone,red,bob,",
        "ftp://example.org/1.jpg,red,bob,",
        f"{urls[3]},red,eva,",
        f"{urls[4]},,eva,",
    )
    command = ("datasets", "collect", str(source), "--name", "list", "--label", "colour", "--by", "photographer")
    done = system.tagmill(*command, "--shares", "train=0.5,test=0.5")
    assert "list@1: 3 pictures" in done.stdout
    assert "(http_404)" in done.stderr
    assert "ftp://example.org/1.jpg (blocked_scheme)" in done.stderr
    assert "line 4 has other labels than line 2, which shows the same picture" in done.stderr
    assert "0 leaks between splits" in done.stderr
    manifest = read(system, "list@1")
    assert [entry.labels["colour"] for entry in manifest.entries] == ["red", "green", "red"]
    first, second, third = manifest.entries
    assert (first.columns["url"], first.columns["photographer"], first.columns["host"]) == (urls[0], "ann", "127.0.0.1")
    assert (first.columns["product_id"], first.columns["label_source"]) == ("p1", "list")
    assert first.split == second.split != third.split

    shown = system.tagmill("datasets", "show", "list").stdout
    assert "3 pictures in the blob store" in shown
    job = first.columns["job"]
    assert f"URLs of list.csv, job {job}" in shown
    assert "registered already" in system.tagmill(*command, code=1).stderr, "before anything is fetched"
    # What a job fetched can be taken up without fetching it again.
    again = system.tagmill(*command, "--version", "2", "--job", job)
    assert "list@2: 3 pictures" in again.stdout
    assert {entry.image for entry in read(system, "list@2").entries} == {entry.image for entry in manifest.entries}
    other = listed(tmp_path / "other", f"{urls[1]},red,ann,", f"{urls[0]},green,ann,")
    wrong = system.tagmill(
        "datasets", "collect", str(other), "--name", "x", "--label", "colour", "--job", job, code=1
    )  # fmt: skip
    assert "wrong_job" in wrong.stderr


def test_an_interrupted_collection_says_how_to_go_on(
    api_url: str, database_url: str, owner_db: Database, account: TestAccount, tmp_path: Path
) -> None:
    """An API without a crawler: the job cannot end."""
    source = listed(tmp_path, "http://a.test/1.jpg,red,ann,", "http://a.test/2.jpg,blue,ann,")
    variables = {
        "TAGMILL_URL": api_url,
        "TAGMILL_API_KEY": account.secret,
        "TAGMILL_DATABASE_URL": database_url,
        "TAGMILL_BLOB_ROOT": str(tmp_path / "blobs"),
    }
    process = subprocess.Popen(
        [*TAGMILL, "datasets", "collect", str(source), "--name", "slow", "--label", "colour"],
        env=clean_environment(tmp_path / "none", **variables),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "0/2 done" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    (job,) = rows(owner_db, "SELECT id, state FROM jobs WHERE name = 'dataset slow'")
    assert f"--job {job.id}" in said
    assert job.state == "accepted"


def test_a_list_without_labels_is_refused_with_what_to_do(tmp_path: Path) -> None:
    source = listed(tmp_path, "http://a.test/1.jpg,red,ann,")
    with pytest.raises(ClientError, match="--from-reviews") as refused:
        collecting.pool(source, {}, url="url", split=None, by=None)
    assert refused.value.code == "labels_missing"


@pytest.mark.parametrize(
    ("lines", "columns", "code", "words"),
    [
        (["http://a.test/1.jpg,red,ann"], COLOUR, "table_invalid", "line 2 has not 4 cells"),
        ([",red,ann,"], COLOUR, "table_invalid", "line 2: no URL"),
        (["http://a/1,red,ann,", "http://a/1,blue,ann,"], COLOUR, "table_invalid", "line 3 repeats"),
        (["http://a/1,red,ann,"], {"colour": Column("shade")}, "table_invalid", "no column 'shade'"),
        (["http://a/1,,ann,"], COLOUR, "class_missing", "no label in column 'colour'"),
        (["ftp://a/1,red,ann,"], COLOUR, "dataset_empty", "no URL that can be fetched"),
    ],
)
def test_bad_lists_are_refused_before_anything_is_fetched(
    tmp_path: Path, lines: list[str], columns: dict[str, Column], code: str, words: str
) -> None:
    with pytest.raises(DatasetError) as refused:
        collecting.pool(listed(tmp_path, *lines), columns, url="url", split=None, by=None)
    assert refused.value.code == code
    assert words in refused.value.detail


def test_an_unknown_column_to_split_by_is_refused_but_ours_are_known(tmp_path: Path) -> None:
    source = listed(tmp_path, "http://a.test/1.jpg,red,ann,")
    with pytest.raises(DatasetError, match="no column 'camera'"):
        collecting.pool(source, COLOUR, url="url", split=None, by="camera")
    assert collecting.pool(source, COLOUR, url="url", split=None, by="host").rows[0].line == 2


def test_the_job_names_each_url_by_its_line(tmp_path: Path) -> None:
    source = listed(tmp_path, "http://a.test/1.jpg,red,ann,p7", "nothing,red,ann,", "http://a.test/2.jpg,red,ann,")
    pool = collecting.pool(source, COLOUR, url="url", split=None, by=None)
    assert b"".join(pool.body()).decode() == (
        '{"url": "http://a.test/1.jpg", "id": "2", "product_id": "p7"}\n{"url": "http://a.test/2.jpg", "id": "4"}\n'
    )
    assert list(pool.refused) == [3]


@pytest.mark.parametrize(
    "changed",
    [
        {"id": "job-0", "url": None, "filename": "a.jpg"},  # a job of uploads
        {"id": "9"},
        {"id": "²"},
        {"url": "http://a.test/other.jpg"},
    ],
)
def test_a_job_that_fetched_something_else_is_refused(
    owner_db: Database, tmp_path: Path, changed: dict[str, Any]
) -> None:
    row = {"id": "2", "url": "http://a.test/1.jpg", "filename": None, "item_id": "x-0", "outcome": "done"}

    class Api(Client):
        @contextmanager
        def results(self, job_id: str, form: str) -> Iterator[Iterator[bytes]]:
            yield iter([json.dumps({**row, "code": None, "facts": None, **changed}).encode() + b"\n"])

    pool = collecting.pool(listed(tmp_path, "http://a.test/1.jpg,red,ann,"), COLOUR, url="url", split=None, by=None)
    with Api("http://127.0.0.1:9", "key") as api, pytest.raises(ClientError) as refused:
        collecting.gather(owner_db, LocalBlobs(tmp_path), api, pool, str(uuid4()), name="x", version="1", by=None)
    assert refused.value.code == "wrong_job"
