"""A role's process is restarted with growing pauses, stops with all its children, and leftovers are ended."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from worker import leashed
from worker.rolelog import RoleLog
from worker.roleprocess import RoleProcess, end_leftovers, pause_before_restart

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RoleLog]:
    made = RoleLog(tmp_path / "log")
    yield made
    made.close()


def make(code: str, log: RoleLog, tmp_path: Path) -> RoleProcess:
    return RoleProcess("thing", [sys.executable, "-u", "-c", code], {}, log=log, run=tmp_path)


def until(seen: Callable[[], bool], patience_s: float = 10.0) -> None:
    deadline = time.monotonic() + patience_s
    while not seen():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_pauses_grow_and_stay_bounded() -> None:
    assert [pause_before_restart(n) for n in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert pause_before_restart(10_000) == 30


def test_a_role_that_ends_is_started_again_after_its_pause(log: RoleLog, tmp_path: Path) -> None:
    role = make("print('hello'); raise SystemExit(7)", log, tmp_path)
    role.launch()
    until(lambda: role.pid is None)
    now = time.monotonic()
    assert "ended with code 7" in (role.watch(now) or "")
    assert role.watch(now + 0.4) is None
    assert role.watch(now + 0.6) == "thing started again"
    assert role.restarts == 1
    until(lambda: role.pid is None)
    # Twice in a row: the pause is longer.
    assert "in 1 s" in (role.watch(time.monotonic()) or "")


def test_a_role_that_refuses_at_its_first_start_is_told_from_one_that_fails(log: RoleLog, tmp_path: Path) -> None:
    role = make("print('not with this broker'); raise SystemExit(2)", log, tmp_path)
    role.launch()
    until(lambda: role.pid is None)
    now = time.monotonic()
    assert "ended with code 2" in (role.watch(now) or "")
    assert role.refused
    # Its last words are in the log by the time that it is known to have ended.
    assert "not with this broker" in log.path.read_text()
    role.watch(now + 1)
    until(lambda: role.pid is None)
    role.watch(time.monotonic())
    assert not role.refused, "that was no first start: work may be under way"
    failing = make("raise SystemExit(1)", log, tmp_path)
    failing.launch()
    until(lambda: failing.pid is None)
    failing.watch(time.monotonic())
    assert not failing.refused


def test_the_log_that_is_spoken_of_is_named(log: RoleLog, tmp_path: Path) -> None:
    role = make("raise SystemExit(7)", log, tmp_path)
    role.launch()
    until(lambda: role.pid is None)
    assert str(log.path) in (role.watch(time.monotonic()) or "")


def test_a_killed_role_is_named_by_its_signal(log: RoleLog, tmp_path: Path) -> None:
    role = make("import os; os.kill(os.getpid(), 9)", log, tmp_path)
    role.launch()
    until(lambda: role.pid is None)
    assert "killed by SIGKILL" in (role.watch(time.monotonic()) or "")


def test_lines_carry_the_role(log: RoleLog, tmp_path: Path) -> None:
    role = make("print('one'); import sys; print('two', file=sys.stderr); print('no newline', end='')", log, tmp_path)
    role.launch()
    until(lambda: log.path.read_text().count("thing") == 3)
    assert log.path.read_text() == "thing       │ one\nthing       │ two\nthing       │ no newline\n"


def test_a_grown_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.rolelog._ROTATE_BYTES", 10)
    (tmp_path / "t.log").write_text("old, old, old lines\n")
    RoleLog(tmp_path / "t.log").close()
    assert (tmp_path / "t.log.1").read_text().startswith("old")
    assert (tmp_path / "t.log").read_text() == ""


def test_stop_ends_the_children_of_a_stubborn_role(log: RoleLog, tmp_path: Path) -> None:
    stubborn = (
        "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"child = subprocess.Popen({SLEEP!r}); print(child.pid); child.wait()"
    )
    role = make(stubborn, log, tmp_path)
    role.launch()
    pid = role.pid
    until(lambda: "│ " in log.path.read_text())
    child = int(log.path.read_text().split("│")[1])
    role.ask_to_stop()
    role.stop(time.monotonic() + 0.3)
    assert leashed.command_line(pid or 0) is None
    assert leashed.wait_gone(child, 5)
    assert "killed" in log.path.read_text()


def test_a_role_that_ends_leaves_no_children(log: RoleLog, tmp_path: Path) -> None:
    role = make(f"import subprocess; print(subprocess.Popen({SLEEP!r}).pid)", log, tmp_path)
    role.launch()
    until(lambda: role.pid is None)
    role.watch(time.monotonic())
    assert leashed.wait_gone(int(log.path.read_text().split("│")[1]), 5)


def test_leftovers_are_ended_and_strangers_are_not(tmp_path: Path) -> None:
    left = subprocess.Popen(SLEEP, start_new_session=True)
    stranger = subprocess.Popen(SLEEP, start_new_session=True)
    try:
        (tmp_path / "a.pid").write_text(json.dumps({"pid": left.pid, "command": SLEEP}))
        (tmp_path / "b.pid").write_text(json.dumps({"pid": stranger.pid, "command": ["another", "program"]}))
        (tmp_path / "c.pid").write_text("{")
        until(lambda: (leashed.command_line(left.pid) or "").startswith(sys.executable))
        end_leftovers(tmp_path)
        assert left.wait(5) == -signal.SIGKILL
        assert stranger.poll() is None
        assert list(tmp_path.glob("*.pid")) == []
    finally:
        for process in (left, stranger):
            process.kill()
            process.wait()
