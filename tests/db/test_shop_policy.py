"""The policy for a shop of clothes in docs/policies: it is valid, and its scores alone reject nothing."""

from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from db import migrate, policy, policy_text
from db.policy import Evidence, Hit, Policy
from tests.conftest import Services

FILE = Path(__file__).resolve().parents[2] / "docs" / "policies" / "default-2.yaml"
CLASSES = ("Drawing", "Hentai", "Neutral", "Porn", "Sexy")
ENTRY = UUID(int=7)


@pytest.fixture(scope="module")
def shop() -> Policy:
    return policy_text.read(FILE.read_text(encoding="utf-8")).policy


def scores(**given: float) -> dict[str, float]:
    return {**dict.fromkeys(CLASSES, 0.0), **given}


@given(st.lists(st.floats(0, 1) | st.just(float("nan")), min_size=5, max_size=5))
def test_no_scores_reject(shop: Policy, values: list[float]) -> None:
    found = policy.decide(shop, Evidence(dict(zip(CLASSES, values, strict=True))))
    assert found.verdict in ("approve", "review")


@pytest.mark.parametrize(
    ("given", "verdict", "rule"),
    [
        ({"Neutral": 1.0}, "approve", None),
        ({"Porn": 0.49, "Neutral": 0.51}, "approve", None),
        ({"Porn": 0.25, "Hentai": 0.25, "Neutral": 0.5}, "review", "explicit"),
        ({"Porn": 1.0}, "review", "explicit"),
        ({"Sexy": 0.79, "Neutral": 0.21}, "approve", None),
        ({"Sexy": 0.5, "Porn": 0.25, "Hentai": 0.125, "Neutral": 0.125}, "review", "suggestive"),
        ({"Porn": float("nan")}, "review", None),
    ],
)
def test_what_goes_to_people(shop: Policy, given: dict[str, float], verdict: str, rule: str | None) -> None:
    found = policy.decide(shop, Evidence(scores(**given)))
    assert found.verdict == verdict
    if rule is not None:
        assert found.rule == rule
        assert found.reasons[0]["text"]


def test_banks_decide_before_any_score(shop: Policy) -> None:
    block, allow = (Hit("b", kind, ENTRY, 3) for kind in ("block", "allow"))
    for hits, verdict in (((block,), "reject"), ((allow,), "approve"), ((allow, block), "reject")):
        settled = policy.settled_by(shop, Evidence(None, hits=hits))
        assert settled is not None
        assert settled.verdict == verdict


def test_no_model_is_no_approval(shop: Policy) -> None:
    assert policy.decide(shop, Evidence(None)).verdict == "review"


def test_new_installations_begin_with_it(services: Services, template: str) -> None:
    """The migration says the same as the file, and activates it where nothing was ever decided."""
    name = "begins_with_it"
    with psycopg.connect(services.postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = services.postgres.url_of(name)
    migrate.upgrade(url)
    written = policy_text.read(FILE.read_text(encoding="utf-8")).document
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT version, state, document FROM policies ORDER BY version").fetchall()
        pinned = connection.execute("SELECT version FROM policy_activations ORDER BY id DESC LIMIT 1").fetchone()
    assert [row[:2] for row in rows] == [(1, "retired"), (2, "active")]
    assert rows[1][2] == {**written, "version": 2}
    assert pinned == (2,)
    migrate.downgrade(url, "0015")
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT version, state FROM policies").fetchall() == [(1, "active")]
        account = connection.execute("INSERT INTO accounts (name) VALUES ('a') RETURNING id").fetchone()
        assert account is not None
        connection.execute(
            "INSERT INTO jobs (id, account_id, lane, analyses, bucket, policy)"
            " SELECT gen_random_uuid(), %s, 'bulk', '{tags}', max(id), '{}' FROM buckets", account,
        )  # fmt: skip
    migrate.upgrade(url)
    with psycopg.connect(url) as connection:
        states = connection.execute("SELECT version, state FROM policies ORDER BY version").fetchall()
    assert states == [(1, "active"), (2, "draft")], "who has decided already keeps what it decides by"
    with psycopg.connect(services.postgres.url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
