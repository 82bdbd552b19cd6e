"""Whoever changes a stored verdict leaves a decision with what was there before: so few places write either."""

import re

from tests.architecture.source import sources

VERDICTS = re.compile(r"UPDATE results\b[^;\"]*?\bmoderation\b|UPDATE results r SET \{column\}")
DECISIONS = re.compile(r"INSERT INTO decisions\b")
AUDIT = re.compile(r"INSERT INTO audit_(log|seals|unsealed)\b")


def _writers(pattern: re.Pattern[str]) -> set[str]:
    packages = ("api", "db", "worker")
    return {str(s.path) for package in packages for s in sources(package) if pattern.search(s.text)}


def test_stored_verdicts_are_changed_in_two_places() -> None:
    """And taken away in one, where an item is erased."""
    assert _writers(VERDICTS) == {"db/redecide.py", "db/publishing.py", "db/erased_items.py"}


def test_decisions_are_written_with_their_digest_only() -> None:
    assert _writers(DECISIONS) == {"db/decisions.py", "db/publishing.py"}


def test_audit_entries_are_written_with_their_place_in_the_queue_only() -> None:
    assert _writers(AUDIT) == {"db/audit.py", "db/audit_chain.py"}
