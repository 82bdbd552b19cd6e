"""`tagmill up` as a user runs it: one command, a whole system, the client's commands on it, faults, a clean stop."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pyarrow.parquet as parquet
import pytest

from tests.worker import processes
from worker.drawings import draw
from worker.home import Home, Running
from worker.picture_server import PictureServer

TAGMILL = [sys.executable, "-m", "worker.cli"]
PICTURES = 6


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TAGMILL_")}
    return {**kept, "TAGMILL_HOME": str(home), **more}


@dataclass
class System:
    """A running `tagmill up` and the home folder it owns."""

    home: Home
    process: "subprocess.Popen[str]"
    server: PictureServer

    @property
    def running(self) -> Running:
        found = self.home.running()
        assert found is not None
        return found

    def tagmill(self, *words: str, stdin: str | None = None, code: int = 0) -> "subprocess.CompletedProcess[str]":
        ended = subprocess.run(
            [*TAGMILL, *words],
            env=clean_environment(self.home.root),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended

    def pids(self) -> dict[str, int]:
        return {path.stem: int(json.loads(path.read_text())["pid"]) for path in self.home.run.glob("*.pid")}


def until(seen: Callable[[], object], patience_s: float = 60.0) -> None:
    deadline = time.monotonic() + patience_s
    while not seen():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def answers(home: Home) -> bool:
    running = home.running()
    try:
        return running is not None and httpx2.get(f"{running.url}/readyz", timeout=5).status_code == 200
    except httpx2.TransportError:
        return False


def start(folder: Path, **settings: str) -> "tuple[Home, subprocess.Popen[str]]":
    home = Home(folder)
    process = subprocess.Popen(
        [*TAGMILL, "up", "--port", "0", "--workers", "1"],
        env=clean_environment(folder, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until(lambda: answers(home) or process.poll() is not None)
    assert process.poll() is None, process.communicate()[0]
    return home, process


def end(process: "subprocess.Popen[str]", number: signal.Signals, patience_s: float = 70) -> str:
    process.send_signal(number)
    output, _ = process.communicate(timeout=patience_s)
    return output


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system without models: what has none to judge it is for review."""
    folder = tmp_path_factory.mktemp("up")
    with PictureServer(draw(folder / "pictures", PICTURES)) as server:
        allowed = {"TAGMILL_ALLOW_CIDRS": "127.0.0.0/8", "TAGMILL_ALLOW_PORTS": str(server.port)}
        home, process = start(folder / "home", **allowed)
        yield System(home, process, server)
        output = end(process, signal.SIGINT)
    assert process.returncode == 0, output
    assert "Tagmill is up" in output
    assert "stopped" in output
    assert processes.left(home.root, 2) == {}


def test_urls_in_a_file_come_back_as_rows(system: System, tmp_path: Path) -> None:
    urls = tmp_path / "urls.txt"
    urls.write_text("# pictures\n" + "\n".join([*system.server.urls, system.server.urls[0] + "x"]))
    ended = system.tagmill("submit", str(urls), "--wait", "--out", str(tmp_path / "out.csv"))
    assert f"{PICTURES} done" in ended.stderr
    assert "1 failed (http_404 1)" in ended.stderr
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [row["url"] for row in rows] == [*system.server.urls, system.server.urls[0] + "x"]
    assert [row["outcome"] for row in rows] == ["done"] * PICTURES + ["failed"]
    assert {json.loads(row["moderation"])["verdict"] for row in rows[:-1]} == {"review"}

    job = ended.stdout.strip()
    shown = system.tagmill("status", job).stdout
    assert "finished" in shown
    assert "1 × http_404" in shown
    assert job in system.tagmill("status").stdout
    # A second `wait`, as after a restart of the first, ends at once with the same.
    assert "1 failed" in system.tagmill("wait", job).stderr
    lines = system.tagmill("results", job).stdout.splitlines()
    assert [json.loads(line)["outcome"] for line in lines] == [row["outcome"] for row in rows]
    assert "1 picture put back" in system.tagmill("retry", job, "--only", "http_404", "--wait").stderr
    assert "finished" in system.tagmill("cancel", job, code=1).stderr


def test_a_folder_is_uploaded_and_saved_as_parquet(system: System, tmp_path: Path) -> None:
    draw(tmp_path / "pictures", 3)
    (tmp_path / "pictures" / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    system.tagmill("submit", str(tmp_path / "pictures"), "--out", str(tmp_path / "out.parquet"))
    rows = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    outcomes = {row["filename"]: row["outcome"] for row in rows}
    assert outcomes == {
        p.name: "failed" if p.name == "broken.jpg" else "done" for p in (tmp_path / "pictures").iterdir()
    }


def test_stdin_and_a_wrong_line(system: System, tmp_path: Path) -> None:
    lines = f"{system.server.urls[0]}\n\nftp://example.org/a.jpg\n"
    refused = system.tagmill("submit", "-", stdin=lines, code=1)
    assert "line 3" in refused.stderr
    assert "blocked_scheme" in refused.stderr
    taken = system.tagmill("submit", "-", "--skip-invalid", "--out", str(tmp_path / "o.jsonl"), stdin=lines)
    assert "1 wrong line left out" in taken.stderr
    (row,) = map(json.loads, (tmp_path / "o.jsonl").read_text().splitlines())
    assert row["outcome"] == "done"


def test_a_bad_out_is_refused_before_anything_is_sent(system: System) -> None:
    assert "out.xls" in system.tagmill("submit", "-", "--out", "out.xls", stdin="", code=1).stderr


def test_a_second_start_on_the_folder_is_refused(system: System) -> None:
    refused = system.tagmill("up", "--port", "0", code=1)
    assert "already runs" in refused.stderr
    assert system.running.url in refused.stderr
    assert answers(system.home)


def test_keys_open_and_close_the_api(system: System) -> None:
    def status(key: str) -> int:
        return httpx2.get(f"{system.running.url}/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code

    made = system.tagmill("keys", "create", "shop", "--account", "acme", "--scope", "jobs:read")
    key = made.stdout.strip()
    assert status(key) == 200
    key_id = key.split("_")[2]
    assert key_id in system.tagmill("keys", "list", "--account", "acme").stdout
    system.tagmill("keys", "revoke", key_id, "--account", "acme")
    assert status(key) == 401
    assert "no account" in system.tagmill("keys", "list", "--account", "nobody", code=1).stderr
    assert "unknown" in system.tagmill("keys", "create", "x", "--scope", "root", code=2).stderr


def test_doctor_finds_nothing_broken(system: System) -> None:
    report = system.tagmill("doctor").stdout
    assert "nothing is broken" in report
    assert f"running at {system.running.url}" in report
    assert "tagmill models pull" in report


@pytest.mark.faults
@pytest.mark.parametrize("role", ["api", "crawler", "worker", "maintenance", "trainer"])
def test_a_killed_role_comes_back(system: System, role: str) -> None:
    before = system.pids()[role]
    os.killpg(before, signal.SIGKILL)
    until(lambda: system.pids()[role] != before)
    until(lambda: answers(system.home))


@pytest.mark.faults
@pytest.mark.parametrize("server", ["postgres", "valkey"])
def test_a_killed_server_comes_back_on_its_port(system: System, server: str, tmp_path: Path) -> None:
    port = (system.home.root / server / "port").read_text()
    program = {"postgres": "bin/postgres -D", "valkey": "valkey-server"}[server]

    def serving() -> list[int]:
        return [pid for pid, command in processes.of(system.home.root).items() if program in command]

    before = serving()
    assert len(before) == 1
    os.kill(before[0], signal.SIGKILL)
    until(lambda: serving() not in ([], before))
    until(lambda: answers(system.home))
    urls = tmp_path / "urls.txt"
    urls.write_text("\n".join(system.server.urls))
    assert f"{PICTURES} done" in system.tagmill("submit", str(urls), "--wait").stderr
    assert (system.home.root / server / "port").read_text() == port


@pytest.mark.faults
def test_nothing_survives_a_sigkill_and_the_next_start_is_whole(tmp_path: Path) -> None:
    home, process = start(tmp_path / "home")
    key = home.saved_key()
    assert len(processes.of(home.root)) >= 6
    end(process, signal.SIGKILL)
    assert processes.left(home.root, 20) == {}
    assert home.running() is None
    home, process = start(tmp_path / "home")
    assert home.saved_key() == key
    assert end(process, signal.SIGTERM)
    assert process.returncode == 0
    assert processes.left(home.root, 2) == {}


def test_without_a_system_the_commands_say_so(tmp_path: Path) -> None:
    ended = subprocess.run([*TAGMILL, "status"], env=clean_environment(tmp_path), capture_output=True, text=True)
    assert ended.returncode == 1
    assert "tagmill up" in ended.stderr
    assert "Traceback" not in ended.stderr
