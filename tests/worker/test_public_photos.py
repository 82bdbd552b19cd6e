"""The demo with public photos, from a local server in the place of GitHub; and without them, where none answers."""

import csv
import functools
import http.server
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml import shipped_models
from tests.worker import processes
from tests.worker.test_up import clean_environment
from worker import demo_pictures, drawings, public_photos
from worker.home import Home


@pytest.fixture
def host(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on loopback with drawings under the names of the first six listed photos, and its folder."""
    root = tmp_path / "host"
    for path, name in zip(drawings.draw(root, 6), public_photos.listed(6), strict=True):
        path.rename(root / name)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", root
    server.shutdown()
    thread.join()
    server.server_close()


def demo(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    command = [sys.executable, "-m", "worker.cli", "demo", "--public", *options]
    environment = clean_environment(folder / "elsewhere") | {"PATH": "/nowhere"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=170)


def test_the_list_is_of_different_photos_at_one_commit_with_labels_of_the_tagger() -> None:
    listed = public_photos.listed(1000)
    assert len(listed) == 72
    assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.jpg", name) for name in listed)
    assert set(listed.values()) <= {label["name"] for label in shipped_models.card("clothing")["labels"]}
    assert len(set(list(listed.values())[:12])) == 12
    assert re.search(r"/[0-9a-f]{40}/images$", public_photos.BASE)


def test_the_list_agrees_with_the_data_set(shared: Path) -> None:
    with (shared / "data" / "clothing" / "images.csv").open(newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    for name, label in public_photos.listed(1000).items():
        assert (rows[name]["label"], rows[name]["split"]) == (label, "validation")


def test_the_demo_fetches_them_through_the_crawler(tmp_path: Path, host: tuple[str, Path]) -> None:
    ended = demo(tmp_path / "run", "--count", "6", "--mirror", host[0])
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "6 pictures: public photos from 127.0.0.1 (CC0" in ended.stdout
    assert "6 of 6 pictures done" in ended.stdout
    assert re.search(r"[0-6] of 6 photos tagged as their labels say", ended.stdout)
    assert processes.left(tmp_path, 2) == {}


def test_a_host_that_does_not_answer_means_drawings(tmp_path: Path) -> None:
    ended = demo(tmp_path / "run", "--count", "3", "--mirror", "http://127.0.0.1:9")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"no public photos: 127\.0\.0\.1 cannot be reached \(.+\); drawings instead", ended.stdout)
    assert "3 pictures: drawings, made by the demo itself; no photos" in ended.stdout
    assert "3 of 3 pictures done" in ended.stdout


def test_a_host_without_the_photos_is_not_used(tmp_path: Path, host: tuple[str, Path]) -> None:
    said: list[str] = []
    home = Home(tmp_path / "home")
    base = f"{host[0]}/elsewhere"
    chosen = demo_pictures.choose(None, 2, home, tmp_path, public=base, say=said.append)
    assert (chosen.urls, len(chosen.paths)) == ([], 2)
    assert "it answered 404" in said[0]


def test_only_loopback_is_allowed_to_be_fetched_from() -> None:
    assert demo_pictures.allowance(["https://raw.githubusercontent.com/a.jpg"]) == {}
    allowed = demo_pictures.allowance(["http://127.0.0.1:81/a.jpg", "http://127.0.0.1:81/b.jpg"])
    assert allowed == {"TAGMILL_ALLOW_CIDRS": "127.0.0.0/8", "TAGMILL_ALLOW_PORTS": "81"}
