"""The demo from start to end: exit code 0, every picture shown, nothing left running, no foreign settings."""

import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from ml import shipped_models
from ml.artifact import load, save
from ml.tiny import make_tiny
from tests.worker import processes
from tests.worker.test_up import clean_environment
from worker import demo_models, demo_pictures, demo_report, drawings
from worker.client import ClientError
from worker.drawings import draw
from worker.home import Home

DEMO = [sys.executable, "-m", "worker.cli", "demo"]


def test_the_demo_runs_and_stops_cleanly(tmp_path: Path) -> None:
    """In a folder of its own, with no model to be fetched: the verdict is `review`, and it says so."""
    pictures = "my [a] [/b]"
    draw(tmp_path / pictures, 4)
    (tmp_path / pictures / "broken-\udcff.jpg").write_text("<html>no picture</html>")
    # A shell configured for another system, and no way to any model.
    environment = clean_environment(tmp_path / "elsewhere", TAGMILL_DATABASE_URL="postgresql://nobody@127.0.0.1:1/x")
    environment |= {"PATH": "/nowhere", "HTTPS_PROXY": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1"}
    ended = subprocess.run(
        [*DEMO, "--images", pictures], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=170
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"5 pictures: from {pictures}\n" in ended.stdout
    assert "4 of 5 pictures done" in ended.stdout
    # No terminal: lines in place of a bar.
    assert "/5 done" in ended.stdout
    assert "1 failed: not_an_image" in ended.stdout
    assert "4 review" in ended.stdout
    assert "(tags): from the project itself" in ended.stdout
    assert "no nsfwjs-mobilenet_v2" in ended.stdout
    assert ended.stdout.count("drawing-") == 4
    assert processes.left(tmp_path, 2) == {}
    assert not (tmp_path / "elsewhere").exists()


def test_models_of_the_shared_folder_are_installed_and_named(database_url: str, tmp_path: Path, shared: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        demo_models.provide(database_url, tmp_path, shared / "models", said.append)
    assert [line.split(":", 1)[1] for line in said] == [
        " from the project itself",
        f" from folder {(shared / 'models').resolve()}",
        " from the project itself",
        " installed by an earlier demo",
    ]


def test_without_any_source_there_are_tags_and_no_moderation(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what another checkout left under the shipped version is replaced: the demo's database is new."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("TAGMILL_MODEL_SOURCE", raising=False)
    card = shipped_models.card("clothing")
    other = make_tiny(tmp_path / "tiny", "tags")
    stale = tmp_path / "models" / "clothing" / card["version"]
    save(stale, replace(other.card, name="clothing", version=card["version"]), other.state)
    said: list[str] = []
    demo_models.provide(database_url, tmp_path / "models", tmp_path / "none", said.append)
    assert said[0] == f"model clothing@{card['version']} (tags): from the project itself"
    assert load(stale).sha256 == card["weights"]["sha256"]
    assert (said[1].startswith("no nsfwjs-mobilenet_v2: "), said[2]) == (
        True,
        "going on without it: every verdict is review",
    )


def test_pictures_are_the_users_else_photos_else_drawings(tmp_path: Path) -> None:
    home, shared, said = Home(tmp_path / "home"), tmp_path / "shared", list[str]()

    def choose(images: Path | None, count: int) -> demo_pictures.Pictures:
        return demo_pictures.choose(images, count, home, shared, public=None, say=said.append)

    drawn = choose(None, 7)
    assert (drawn.count, drawn.origin) == (7, "drawings, made by the demo itself; no photos")
    assert drawn.labels == {path.name: drawings.drawn(path.name) for path in drawn.paths}
    assert "PHOTOS=public" in " ".join(said)
    photos = draw(shared / "data" / "clothing", 10)
    assert choose(None, 4).paths == [sorted(photos)[n] for n in (0, 2, 5, 7)]
    own = draw(tmp_path / "own", 2)
    assert choose(tmp_path / "own", 200).paths == sorted(own)
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "gone"):
        with pytest.raises(ClientError, match=folder):
            choose(tmp_path / folder, 200)


def test_the_table_shows_tags_then_attributes_and_colours_and_fits() -> None:
    item = {
        "id": "drawing-Undershirt-010.jpg",
        "outcome": "done",
        "tags": [
            {"label": "kids", "group": "kids", "score": 0.97},
            *({"label": name, "group": "category", "score": score} for name, score in
              (("Polo", 0.06), ("Undershirt", 0.81), ("Top", 0.08), ("Dress", 0.05))),
        ],
        "facts": {"colours": [{"name": "navy"}, {"name": "white"}, {"name": "red"}]},
        "moderation": {"verdict": "review", "scores": {"Sexy": 0.7}, "reasons": []},
    }  # fmt: skip
    job = {"progress": {"outcomes": {"done": 1}, "codes": {}}, "total": 1, "models": {"tags": "clothing@1"}}
    assert re.sub(r"\[.*?]", "", demo_report.tags(item, 2)) == "Undershirt 0.81, Top 0.08, kids 0.97"
    for width in (80, 120):
        screen = Console(width=width, record=True, file=io.StringIO())
        demo_report.show(screen, job, [item], 1.0)
        demo_report.agreement(screen, [item], {item["id"]: "Undershirt"}, "drawings tagged as what was drawn")
        shown = screen.export_text()
        # In a narrow terminal a tag's score may stand on the next line.
        words = ("Undershirt", "0.81", "Top", "0.08", "kids", "0.97", "review")
        assert all(word in shown for word in words)
        assert ("Polo" in shown) is (width == 120)
        assert ("navy, white" if width == 120 else "navy") in shown
        assert "1 of 1 drawings tagged as what was drawn" in shown
        assert ("Sexy 0.70" in shown) is (width == 120)
        assert max(map(len, shown.splitlines())) <= width


def test_a_failed_picture_shows_its_code() -> None:
    assert demo_report.verdict({"outcome": "failed", "code": "http_404"}) == ("[red]failed[/]", "http_404")
    assert demo_report.tags({"tags": None}) == "[dim]–[/]"
    assert demo_report.short("a" * 20 + "-end-of-name.jpg") == "a" * 13 + "…f-name.jpg"
