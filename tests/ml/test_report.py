"""The report: hostile names stay text, nothing is loaded from anywhere, the page and the JSON hold the same figures."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from ml import report
from ml.evaluate import Options, evaluate
from ml.evaluation import About, Evaluation, Unread
from ml.manifest import Entry
from ml.markup import Markup, el, join
from ml.metrics import Scored
from ml.scoring import Gathered
from tests.ml.conftest import jpeg
from tests.ml.scored import attributes, exclusive

HOSTILE = "<script>alert(1)</script>\"' onload=x &amp; ]]>"
VOID = {"meta", "img", "line", "rect", "circle", "path", "polyline", "polygon"}


class Page(HTMLParser):
    """The elements and texts of a page; fails where they do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self._seen(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self._seen(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def _seen(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]


def evaluation(label: str = "label", about: str = "tagger@1", unread: tuple[Unread, ...] = ()) -> Evaluation:
    groups: dict[str, Scored] = {}
    for name, scored in (("category", exclusive(80, 3, 0, unknown=0.1)), ("traits", attributes(80, 2, 0))):
        groups[name + label] = replace(scored, labels=tuple(f"{label} {at}" for at in range(len(scored.labels))))
    entries = tuple(
        Entry(f"{label}/{at}.jpg", "0" * 64, dict.fromkeys(groups), "test", {f"who {label}": f"{label} {at % 2}"})
        for at in range(80)
    )
    facts = About(about, "0" * 64, about, "1" * 64, "test", rounds=30)
    return evaluate(Gathered(entries, groups, unread), facts, Options(rounds=30))


def nothing(image: str) -> None:
    return None


def test_a_page_of_hostile_names_is_the_same_page_with_other_texts() -> None:
    unread = (Unread("x" + HOSTILE, HOSTILE, HOSTILE),)
    plain = Page(report.render(evaluation("label", unread=(Unread("x", "y", "z"),)), nothing))
    hostile = Page(report.render(evaluation(HOSTILE, HOSTILE, unread), nothing))
    assert hostile.tags == plain.tags
    assert [(tag, name) for tag, name, _ in hostile.attributes] == [(tag, name) for tag, name, _ in plain.attributes]
    assert "script" not in hostile.tags
    assert any(HOSTILE in text for text in hostile.texts), "shown, and as text"


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    page = Page(report.render(evaluation(), lambda image: "data:image/jpeg;base64,AAAA"))
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in ("href", "action", "srcset"), (tag, name)
        if name == "src":
            assert value.startswith("data:image/jpeg;base64,")
    assert not {"script", "link", "iframe", "object", "form", "a"} & set(page.tags)
    policy = [value for tag, name, value in page.attributes if name == "content" and "default-src" in value]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    style = page.texts[page.texts.index(next(text for text in page.texts if "--ink" in text))]
    assert "url(" not in style
    assert "@import" not in style


def test_every_part_is_on_the_page() -> None:
    found = evaluation()
    page = report.render(found, nothing)
    for heading in ("Labels", "Confusions", "Calibration", "Thresholds", "Slices", "Worst mistakes"):
        assert f"<h3>{heading}</h3>" in page
    for part in (
        "Reliability diagram, bins of equal width",
        "Reliability diagram, bins of equal count",
        "Confusion matrix",
        "label 0 at each threshold",
    ):
        assert f'aria-label="{part}"' in page
    accuracy = found.groups["categorylabel"].figures["accuracy"]
    assert f"{100 * accuracy.value:.1f} %" in page
    assert f"{100 * accuracy.low:.1f} – {100 * accuracy.high:.1f}" in page
    assert "light-dark(" in page
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL).lower()


def test_the_page_warns_before_the_figures() -> None:
    found = evaluation(unread=(Unread("x.jpg", "not_an_image", ""),))
    trained = replace(found, about=replace(found.about, split="train"))
    page = report.render(trained, nothing)
    warning = page.index("the figures flatter it")
    assert warning < page.index("<section>")
    assert page.index("Could not be read: 1 picture,") < page.index("<section>")
    assert "flatter" not in report.render(found, nothing)


def test_json_holds_the_figures_and_no_nan() -> None:
    found = evaluation()
    document = json.loads(report.as_json(found), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    group = document["groups"]["categorylabel"]
    assert group["figures"]["accuracy"]["value"] == found.groups["categorylabel"].figures["accuracy"].value
    assert document["about"]["data_sha256"] == "1" * 64
    assert document["schema"] == 1
    assert len(group["curves"][0]["thresholds"]) == len(group["curves"][0]["precision"]) == 101
    assert sum(map(sum, group["confusion"])) == group["pictures"] == 80 - group["unknown"]


def test_undefined_figures_are_null_and_dashes() -> None:
    scored = exclusive(30, 3, 0)
    truth = np.zeros_like(scored.truth)
    truth[:, 0] = 1
    entries = tuple(Entry(f"{at}.jpg", "0" * 64, {"category": None}, "test", {}) for at in range(30))
    about = About("a@1", "0" * 64, "d@1", "1" * 64, "test")
    gathered = Gathered(entries, {"category": replace(scored, truth=truth)}, ())
    found = evaluate(gathered, about, Options(rounds=10))
    labels = {of["label"]: of for of in found.to_dict()["groups"]["category"]["labels"]}
    assert labels["label 1"]["figures"]["recall"]["value"] is None
    assert "–" in report.render(found, nothing)


def test_thumbnails_are_small_and_ours(tmp_path: Path) -> None:
    (tmp_path / "good.jpg").write_bytes(jpeg((200, 30, 30), (2000, 900)) + b"trailing secret")
    (tmp_path / "bad.jpg").write_bytes(b"<svg onload=alert(1)>")
    thumbnail = report.thumbnails(tmp_path)
    uri = thumbnail("good.jpg")
    assert uri is not None
    assert uri.startswith("data:image/jpeg;base64,/9j/")
    assert len(uri) < 30_000
    assert thumbnail("bad.jpg") is None
    assert thumbnail("missing.jpg") is None


def test_writing_replaces_both_files(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "report"
    for name in ("first@1", "second@1"):
        page, data = report.write(evaluation(about=name), folder, tmp_path)
    assert "second@1" in page.read_text(encoding="utf-8")
    assert json.loads(data.read_text(encoding="utf-8"))["about"]["model"] == "second@1"
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json"]


def test_markup_escapes_what_is_not_markup() -> None:
    assert el("p", "<b>", Markup("<i/>"), None, 3) == "<p>&lt;b&gt;<i/>3</p>"
    assert el("p", title='"x" & y', class_="a", data_of=None) == '<p title="&quot;x&quot; &amp; y" class="a"></p>'
    assert join("a<", el("line", x1=1.0, stroke_width=2.345)) == 'a&lt;<line x1="1" stroke-width="2.35"/>'
