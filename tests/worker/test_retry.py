"""Retry decisions, Retry-After and X-Robots-Tag: pure functions, no clock."""

from email.utils import formatdate
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.errors import TRANSIENT, FetchCode, FetchFailure, fetch_failure
from worker.optout import opts_out
from worker.retry import MAX_RETRY_AFTER_S, Again, GiveUp, Later, RetryPolicy, next_step, parse_retry_after

NOW = 1_800_000_000.0
POLICY = RetryPolicy()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("3601", 3600.0),
        ("9" * 5000, 3600.0),
        ("٣", None),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW + 90), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        (formatdate(NOW + 9e6, usegmt=True), 3600.0),
        ("Friday, 15-Jan-27 08:01:30 GMT", 90.0),
        ("Fri Jan 15 08:01:30 2027", 90.0),
        ("Fri, 32 Jan 2027 08:00:00 GMT", None),
        ("Fri, 15 Jan 99999999 08:00:00 GMT", None),
    ],
)
def test_parse_retry_after(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@settings(deadline=None)
@given(st.text(max_size=80))
def test_any_retry_after_header_is_read_without_harm(value: str) -> None:
    wait = parse_retry_after(value, NOW)
    assert wait is None or 0 <= wait <= MAX_RETRY_AFTER_S


def failed(code: FetchCode, **more: float) -> FetchFailure:
    return fetch_failure(code, "", retry_after_s=more.get("retry_after_s"))


@pytest.mark.parametrize("code", sorted(set(get_args(FetchCode)) - TRANSIENT))
def test_lasting_failures_are_never_tried_again(code: FetchCode) -> None:
    assert next_step(failed(code), 1, policy=POLICY) == GiveUp()


@pytest.mark.parametrize("code", sorted(TRANSIENT - {"http_429"}))
def test_passing_failures_are_tried_three_times(code: FetchCode) -> None:
    first, second = (next_step(failed(code), attempt, policy=POLICY) for attempt in (1, 2))
    assert isinstance(first, Again)
    assert isinstance(second, Again)
    assert second.delay_s > first.delay_s > 0
    assert next_step(failed(code), 3, policy=POLICY) == GiveUp()


def test_a_name_that_does_not_exist_is_not_tried_again() -> None:
    missing = fetch_failure("dns_failed", "", retryable=False)
    assert next_step(missing, 1, policy=POLICY) == GiveUp()


def test_too_many_requests_puts_the_item_off_at_once() -> None:
    assert next_step(failed("http_429"), 1, policy=POLICY, chance=0) == Later(POLICY.unasked_s)
    assert next_step(failed("http_429", retry_after_s=90), 1, policy=POLICY, chance=0) == Later(90)
    assert next_step(failed("http_429", retry_after_s=0), 1, policy=POLICY, chance=0) == Later(0)


def test_a_long_retry_after_puts_off_and_a_short_one_is_waited_for() -> None:
    assert next_step(failed("http_5xx", retry_after_s=90), 3, policy=POLICY, chance=0) == Later(90)
    assert next_step(failed("http_5xx", retry_after_s=2), 1, policy=POLICY, chance=0) == Again(2)


def test_deferrals_end() -> None:
    limit = POLICY.max_deferrals
    assert isinstance(next_step(failed("http_429"), 1, policy=POLICY, deferrals=limit - 1), Later)
    assert next_step(failed("http_429"), 1, policy=POLICY, deferrals=limit) == GiveUp()


@settings(deadline=None)
@given(
    st.sampled_from(sorted(TRANSIENT)),
    st.integers(1, 50),
    st.floats(0, 0.999),
    st.none() | st.floats(0, MAX_RETRY_AFTER_S),
)
def test_no_delay_is_shorter_than_asked_or_longer_than_the_cap(
    code: FetchCode, attempt: int, chance: float, asked: float | None
) -> None:
    policy = RetryPolicy(max_attempts=100)
    step = next_step(fetch_failure(code, "", retry_after_s=asked), attempt, policy=policy, chance=chance)
    if isinstance(step, Again):
        assert (asked or 0) <= step.delay_s <= max(1.5 * policy.cap_s, policy.patience_s + policy.base_s)
    else:
        assert isinstance(step, Later)
        assert step.wait_s >= (asked if asked is not None else policy.unasked_s)


@pytest.mark.parametrize(
    "values",
    [
        ["noai"],
        ["NoImageAI"],
        ["noindex, noai"],
        ["all", "noimageai"],
        ["tagmill: noai"],
        ["TAGMILL: noindex, noimageai"],
        ["*: noai"],
        ["max-snippet: 20, noai"],
        ["noai, max-image-preview: large"],
        ["unavailable_after: 25 Jun 2030 15:00:00 PST, noai"],
        ["otherbot: noindex, tagmill: noai"],
        ["  noai  ,,"],
    ],
)
def test_opting_out(values: list[str]) -> None:
    assert opts_out(values, "Tagmill")


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["all"],
        ["noindex, nofollow"],
        ["otherbot: noai"],
        ["otherbot: noindex, noai"],
        ["nonoai"],
        ["noaiX"],
        ["unavailable_after: noai"],
        [":,:"],
    ],
)
def test_not_opting_out(values: list[str]) -> None:
    assert not opts_out(values, "Tagmill")
