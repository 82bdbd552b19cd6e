"""The states: one table of moves in the code, the same in the diagrams of the documentation and in the constraints."""

import re
from collections.abc import Iterable
from typing import get_args

import pytest
from sqlalchemy import text

from api import schemas
from db import states
from db.session import Database
from tests.architecture.source import ROOT
from worker.sandbox_frames import FACTS

DIAGRAM = re.compile(r"```mermaid\nstateDiagram-v2\n(?P<body>.*?)```", re.DOTALL)
MOVE = re.compile(r"^\s*(\w+) --> (\w+)(?: : .*)?$", re.MULTILINE)
PAGES = ("README.md", "docs/architecture.md")

# table.column → the states that its CHECK constraint must allow, and no other.
COLUMNS = {
    ("jobs", "state"): states.JOB_STATES,
    ("jobs", "lane"): states.LANES,
    ("jobs", "analyses"): states.ANALYSES,
    ("chunks", "state"): states.CHUNK_STATES,
    ("chunks", "stage"): states.STAGES,
    ("results", "outcome"): states.OUTCOMES,
    ("ingests", "outcome"): ("done", "failed"),
    ("model_versions", "state"): states.MODEL_STATES,
    ("model_versions", "task"): states.ANALYSES,
    ("reruns", "state"): states.RERUN_STATES,
    ("reruns", "task"): states.ANALYSES,
    ("training_runs", "state"): states.TRAINING_STATES,
    ("policies", "state"): states.POLICY_STATES,
    ("shadow_runs", "state"): states.SHADOW_STATES,
    ("shadow_runs", "task"): states.ANALYSES,
    ("deliveries", "state"): states.DELIVERY_STATES,
    ("webhooks", "state"): states.WEBHOOK_STATES,
    ("webhooks", "reason"): states.WEBHOOK_REASONS,
    ("review_tasks", "state"): states.REVIEW_STATES,
    ("appeals", "state"): states.APPEAL_STATES,
}


def _moves(page: str) -> list[frozenset[tuple[str, str]]]:
    """The moves of each state diagram on a page; the start mark `[*]` is no state."""
    body = (ROOT / page).read_text(encoding="utf-8")
    return [frozenset(MOVE.findall(found["body"])) for found in DIAGRAM.finditer(body)]


def test_the_architecture_page_draws_jobs_and_chunks() -> None:
    assert _moves("docs/architecture.md") == [states.JOB_MOVES, states.CHUNK_MOVES]


def test_every_diagram_anywhere_agrees_with_the_code() -> None:
    for page in PAGES:
        for moves in _moves(page):
            assert moves in (states.JOB_MOVES, states.CHUNK_MOVES), page


def test_moves_name_known_states_and_leave_none_unreachable() -> None:
    def check(moves: Iterable[tuple[str, str]], known: tuple[str, ...]) -> None:
        reached = {to for _, to in moves}
        assert {state for move in moves for state in move} == set(known)
        assert reached | {known[0]} == set(known), "a state that nothing leads to"

    check(states.JOB_MOVES, states.JOB_STATES)
    check(states.CHUNK_MOVES, states.CHUNK_STATES)
    assert set(states.OPEN_JOB_STATES) <= set(states.JOB_STATES)


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_check_constraints_allow_exactly_the_states(owner_db: Database, table: str, column: str) -> None:
    with owner_db.transaction() as session:
        definitions = session.scalars(
            text(
                "SELECT pg_get_constraintdef(c.oid) FROM pg_constraint c"
                " WHERE c.conrelid = CAST(:table AS regclass) AND c.contype = 'c' AND c.conkey ="
                " ARRAY[(SELECT attnum FROM pg_attribute WHERE attrelid = c.conrelid AND attname = :column)]"
            ),
            {"table": table, "column": column},
        ).all()
    lists = [set(re.findall(r"'(\w+)'::text", definition)) for definition in definitions]
    assert lists == [set(COLUMNS[table, column])]


def test_the_invariants_of_states_are_constraints_too(owner_db: Database) -> None:
    """A finished job is settled, an open one is not; exactly a leased chunk has an owner and a lease; and so on."""
    wanted = {
        "jobs": [
            "((state <> 'finished'::text) OR (settled_at IS NOT NULL))",
            "(state <> ALL (ARRAY['accepted'::text, 'running'::text])) OR (settled_at IS NULL)",
            "((state = 'cancelled'::text) = (cancelled_at IS NOT NULL))",
        ],
        "chunks": [
            "((state = 'leased'::text) = (owner IS NOT NULL))",
            "((state = 'leased'::text) = (lease_until IS NOT NULL))",
            "((state = 'done'::text) = (finished_at IS NOT NULL))",
        ],
        "results": ["((outcome = 'done'::text) = (code IS NULL))"],
        "ingests": ["((outcome = 'done'::text) = (code IS NULL))", "((outcome = 'done'::text) = (sha256 IS NOT NULL))"],
    }
    with owner_db.transaction() as session:
        for table, parts in wanted.items():
            found = " ".join(
                session.scalars(
                    text("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = CAST(:t AS regclass)"),
                    {"t": table},
                )
            )
            for part in parts:
                assert part in found, (table, part, found)


def test_the_wire_has_the_same_states() -> None:
    """The API's literals repeat them for type checkers' sake."""
    assert get_args(schemas.JobState) == states.JOB_STATES
    assert get_args(schemas.Outcome) == states.OUTCOMES
    assert get_args(schemas.Lane) == states.LANES
    assert get_args(schemas.Analysis) == states.ANALYSES
    assert get_args(schemas.Verdict) == states.VERDICTS
    assert get_args(schemas.Fact) == FACTS
