"""Charts: the marks stand for the numbers, names of strangers are text, and nothing breaks on odd input."""

import math
import re

import pytest

from api.console import charts, formats
from tests.api.browsers import Page

NASTY = '"><script>alert(1)</script>'


def numbers(pattern: str, svg: str) -> list[float]:
    return [float(each) for each in re.findall(pattern, svg)]


def test_a_lines_points_are_where_its_numbers_are() -> None:
    svg = charts.line({"loss": [(0, 0.0), (1, 5.0), (2, 10.0)]}, label="Loss", height=200)
    x, y = numbers(r'cx="([\d.]+)"', svg), numbers(r'cy="([\d.]+)"', svg)
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.1)
    assert y[0] - y[1] == pytest.approx(y[1] - y[2], abs=0.1)
    assert y[0] > y[2], "more is higher"


def test_a_missing_number_breaks_the_line() -> None:
    svg = charts.line({"a": [(0, 1.0), (1, None), (2, 2.0), (3, 3.0)]}, label="A")
    path = re.search(r'd="([^"]+)"', svg)
    assert path is not None
    assert (path[1].count("M"), path[1].count("L")) == (2, 1)


def test_a_bars_length_is_its_share_of_the_greatest() -> None:
    svg = charts.bars({"few": 25, "many": 100}, label="Some")
    assert numbers(r'width="([\d.]+)%" height="14" rx="4"/></svg>', svg) == [100.0, 25.0]
    whole = charts.bars({"half": 0.5}, label="Scores", top=1.0)
    assert numbers(r'width="([\d.]+)%" height="14" rx="4"/></svg>', whole) == [50.0]


def test_what_is_beyond_the_limit_is_one_bar() -> None:
    page = Page(charts.bars({f"n{n}": n for n in range(1, 21)}, label="Many", limit=5))
    assert len(page.all("li")) == 5
    assert "16 more" in page.text
    assert str(sum(range(1, 17))) in page.text


def test_columns_stack_their_parts() -> None:
    svg = charts.columns([("mon", {"a": 1, "b": 3}), ("tue", {"b": 4})], label="Days")
    heights = numbers(r'class="bar s\d" x="[\d.]+" y="[\d.]+" width="[\d.]+" height="([\d.]+)"', svg)
    assert heights[0] + heights[1] == pytest.approx(heights[2], abs=0.2)
    assert heights[1] == pytest.approx(3 * heights[0], abs=0.3)
    assert re.findall(r'class="bar (s\d)" x', svg) == ["s0", "s1", "s1"], "a part has its colour in every row"


def test_a_stacked_bars_parts_fill_it() -> None:
    svg = charts.stacked({"a": (1, "good"), "b": (3, "bad"), "c": (0, "off")}, label="Shares")
    widths = numbers(r'class="part k-\w+" x="[\d.]+" width="([\d.]+)"', svg)
    assert sum(widths) == pytest.approx(charts.WIDTH, abs=0.2)
    assert widths[1] == pytest.approx(3 * widths[0], abs=0.2)


def test_a_matrix_shades_by_the_share_of_its_row() -> None:
    page = Page(charts.matrix(["a", "b"], [[9, 1], [0, 0]], label="Confusion", rows="is", columns="said"))
    assert [each.attributes["class"] for each in page.all("td")[1:]] == ["m9", "m1", "m0", "m0"]


@pytest.mark.parametrize(
    "drawn",
    [
        charts.line({NASTY: [(0, 1.0)]}, label=NASTY),
        charts.bars({NASTY: 1.0}, label=NASTY, links={NASTY: NASTY}),
        charts.columns([(NASTY, {NASTY: 1.0, "x": 1.0})], label=NASTY),
        charts.stacked({NASTY: (1.0, "good")}, label=NASTY),
        charts.matrix([NASTY], [[1.0]], label=NASTY, rows=NASTY, columns=NASTY),
    ],
)
def test_names_are_text(drawn: str) -> None:
    assert "alert(1)" in drawn
    assert not Page(drawn).all("script")
    assert "style=" not in drawn


def test_nothing_and_little_can_be_drawn() -> None:
    for empty in (
        charts.line({}, label="x"), charts.line({"a": []}, label="x"), charts.line({"a": [(0, None)]}, label="x"),
        charts.bars({}, label="x"), charts.columns([], label="x"), charts.columns([("a", {"b": 0})], label="x"),
        charts.matrix([], [], label="x", rows="r", columns="c"),
    ):  # fmt: skip
        assert "nothing yet" in empty
    for flat in (
        charts.line({"a": [(5, 0.0)]}, label="x"), charts.line({"a": [(0, 7.0), (1, 7.0)]}, label="x", low=None),
        charts.bars({"a": 0}, label="x"), charts.stacked({"a": (0, "good")}, label="x"),
    ):  # fmt: skip
        assert "nan" not in flat
        assert "inf" not in flat


def test_ticks_are_round_and_cover_the_numbers() -> None:
    for low, high in ((0, 1), (0, 97), (3, 4.4), (-2, 2), (0, 1e9), (0.001, 0.004), (5, 5)):
        ticks = charts._ticks(low, high)
        assert ticks[0] <= low
        assert ticks[-1] >= high
        assert 2 <= len(ticks) <= 8
        step = ticks[1] - ticks[0]
        assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in (1, 2, 5)


def test_numbers_as_people_read_them() -> None:
    thin = "\u202f"
    assert [formats.number(each) for each in (None, 0, 12, 1234567, 1.25, 123.4)] == [
        "–", "0", "12", f"1{thin}234{thin}567", "1.2", "123",
    ]  # fmt: skip
    assert [formats.size(each) for each in (None, 0, 999, 1500, 2.5e9)] == [
        "–", f"0{thin}B", f"999{thin}B", f"1.5{thin}kB", f"2.5{thin}GB",
    ]  # fmt: skip
    assert [formats.duration(each) for each in (None, 0.2, 5, 65, 3600, 3 * 86400)] == [
        "–", f"under 1{thin}s", f"5{thin}s", f"1{thin}min 5{thin}s", f"1{thin}h", "3 days",
    ]  # fmt: skip
    assert formats.percent(0.1234) == f"12.3{thin}%"
