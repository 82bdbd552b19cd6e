"""The quick pattern of usual URLs accepts nothing that the full check refuses."""

from hypothesis import given
from hypothesis import strategies as st

from db import urls


@given(st.from_regex(urls._USUAL, fullmatch=True))
def test_usual_urls_pass_the_full_check(url: str) -> None:
    assert urls.check(url) == urls.examine(url)


@given(st.text(alphabet="htps:/@.a1-[]\\%#? \n:é", max_size=30).map(lambda rest: "http://" + rest))
def test_odd_urls_get_the_full_check(url: str) -> None:
    assert urls.check(url) == urls.examine(url)
