"""bench.compare's own bookkeeping: who is asked what, what a turn cost, and which ratio lands in which table."""

import sys
from pathlib import Path

import pytest

from bench import report
from bench.peers.process import Failed, Peer, Turn
from bench.peers.protocol import Round
from bench.systems import GOALS, SYSTEMS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
ASKED = Round("http://127.0.0.1:1", ["a.jpg", "b.jpg"], 3, "r0")
BURNS = """
import time
from bench.peers.protocol import Result, serve

def work(asked):
    print("this must not reach the answers")
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    return Result(len(asked.urls), parts={"steady": 7.0})

serve(work, decoder="none")
"""


def test_no_two_pictures_of_a_run_are_the_same() -> None:
    again = Round(ASKED.base, ASKED.names, ASKED.count, "r1")
    assert len({*ASKED.urls, *again.urls}) == 6


def test_a_turn_counts_results_and_the_processors_time() -> None:
    with Peer([sys.executable, "-c", BURNS]) as peer:
        assert peer.about == {"decoder": "none"}
        with peer.awake():
            first = peer.turn(ASKED)
        with peer.awake():
            second = peer.turn(ASKED)
    assert first.done == first.count == 3
    assert first.parts == {"steady": 7.0}
    for turn in (first, second):
        assert 0.25 <= turn.cpu_s < 3
        assert turn.cpu_ms == pytest.approx(1000 * turn.cpu_s / 3)


def test_a_system_that_ends_says_why() -> None:
    with pytest.raises(Failed, match="no such model"):
        Peer([sys.executable, "-c", "import sys; sys.exit('no such model')"])


def test_ratios_are_taken_round_by_round_and_compared_with_their_goals() -> None:
    turns = {
        "line": [Turn(100, 100, 1.0, 1.0), Turn(100, 100, 2.0, 1.0), Turn(100, 100, 1.0, 1.0)],
        "loop-same": [Turn(100, 100, 0.5, 0.5), Turn(100, 100, 1.8, 0.9), Turn(100, 100, 0.9, 0.9)],
        "crawl": [Turn(100, 100, 1.0, 0.5)],
        "img2dataset": [Turn(100, 100, 1.0, 3.0, {"start_cpu_s": 2.0})],
    }
    found = report.Found(turns, {"ray": "not installed: no wheel"}, 3, 100, "a machine", 60.0)
    rows = {row[0]: row[1:] for row in report.goals(found)[2]}
    assert rows["Tagmill : the loop that does the same work"] == (
        "≥ 0.8", "0.90 (0.50–0.90)", "0.90 (0.50–0.90)", "yes",
    )  # fmt: skip
    assert rows["Tagmill : the bare loop"] == ("≥ 0.55", report.NONE, report.NONE, "")
    assert rows["the crawler alone : img2dataset"][2] == "6.00 (6.00–6.00)"
    assert rows["the crawler alone : img2dataset without its start"][1:] == ("", "2.00 (2.00–2.00)", "**no**")
    assert ("Ray Data, 2 actors, with its start", "not installed: no wheel", report.NONE, "") in report.systems(found)[
        2
    ]


def test_the_page_has_a_place_for_every_table(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    found = report.Found({"line": [Turn(10, 10, 2.0, 1.0)]}, {}, 1, 10, "a machine", 60.0)
    report.write(page, found)
    once = page.read_text(encoding="utf-8")
    assert "| Tagmill | 5 (5–5) | 100.00 (100.00–100.00) | 10 |" in once
    report.write(page, found)
    assert page.read_text(encoding="utf-8") == once


def test_every_goal_is_about_systems_that_take_part() -> None:
    assert {name for goal in GOALS for name in (goal.ours, goal.other)} <= set(SYSTEMS)


def test_the_peers_as_their_examples_have_them_are_a_comparison_of_their_own(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    turns = {"line": [Turn(20, 20, 1.0, 1.0)], "mosec-stock": [Turn(4, 4, 1.0, 1.0)]}
    found = report.Found(turns, {"ray-stock": "not installed: no wheel"}, 1, 20, "a machine", 60.0, stock=True)
    assert [row[0] for row in report.goals(found)[2]] == [
        f"Tagmill : {peer}, stock" for peer in ("mosec, 2 + 2", "LitServe", "Ray Data with its start")
    ]
    report.write(page, found)
    text = page.read_text(encoding="utf-8")
    assert "| Tagmill : mosec, 2 + 2, stock | ≥ 3.2 | 5.00 (5.00–5.00) | 5.00 (5.00–5.00) | yes |" in text
    before = PAGE.read_text(encoding="utf-8")
    of_today = before[before.index("<!-- end-to-end") : before.index("<!-- end of end-to-end")]
    assert of_today in text, "the other comparison's tables are left alone"
