"""Codes of items: the ones that the code can write, the table in db/codes.py and the documentation are one list."""

import ast
from typing import get_args

import pytest

from api.errors import ERRORS, FAULTS
from db.codes import CODES
from db.urls import check
from tests.architecture.pages import table
from tests.architecture.source import Source, sources
from worker.errors import TRANSIENT, DeferralCode, FetchCode

# Whose code ends up in an item's row: class → place of the code among its positional arguments.
WRITERS = {
    "IngestOutcome": 2, "InferOutcome": 4, "FetchFailure": 0, "fetch_failure": 0, "NormaliseFailure": 0,
    "UrlRefused": 0, "ImageError": 0,
}  # fmt: skip
# Methods of ours that take a code: worker.infer_work.Work.fail(sha256, code, detail).
METHODS = {"fail": 1}
# Codes inside the line that never reach a row: a busy host is only a queue.
INTERNAL = {"host_busy"}


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def written(source: Source) -> set[tuple[str, int]]:
    """The literal codes that a file gives to the writers above, by keyword or by place."""
    found = set()
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        name = _name(node)
        place = WRITERS.get(name, METHODS.get(name) if isinstance(node.func, ast.Attribute) else None)
        if place is None:
            continue
        given = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
        given += node.args[place : place + 1]
        for value in given:
            parts = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
            found |= {
                (part.value, part.lineno)
                for part in parts
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            }
    return found


def test_every_code_that_is_written_is_in_the_table() -> None:
    codes = [(s.path, code, line) for s in sources("ml", "worker", "db") for code, line in written(s)]
    assert len({code for _, code, _ in codes}) > 15, "the search finds too little to be believed"
    unknown = [f"{path}:{line} {code}" for path, code, line in codes if code not in CODES]
    assert not unknown


def test_the_fetchers_codes_are_in_the_table() -> None:
    assert set(get_args(FetchCode)) <= CODES.keys()
    assert set(get_args(FetchCode)) >= TRANSIENT
    assert set(get_args(DeferralCode)) - INTERNAL <= CODES.keys()


def test_what_passes_within_seconds_may_be_worth_a_retry() -> None:
    assert {code for code in TRANSIENT if not CODES[code].retryable} == set()


def test_error_classes_that_reach_rows_have_known_codes() -> None:
    """`code = "…"` in classes that the stages turn into outcomes."""
    from db.errors import BlobMissing
    from worker.errors import AddressRefused, PortRefused
    from worker.infer import BlobAltered

    assert {each.code for each in (BlobMissing, BlobAltered, AddressRefused, PortRefused)} <= CODES.keys()


def test_no_code_is_only_in_the_table() -> None:
    """A code that nothing writes is a promise to nobody: every one stands as a literal outside the table."""
    literals = {
        node.value
        for source in sources("db", "ml", "worker")
        if source.module != "db.codes"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    made = {"cancelled", "http_4xx", "http_5xx"} | {f"http_{status}" for status in (401, 403, 404, 410, 429)}
    assert CODES.keys() - literals - made == set()


@pytest.mark.parametrize(
    "url", ["", "x", "file:///etc/passwd", "http://user@host/", "http://", "http://a b/", "http://host:0/"]
)
def test_the_submission_refuses_urls_by_codes_of_the_table(url: str) -> None:
    assert check(url) in CODES


def test_the_table_reads_well() -> None:
    for code, entry in CODES.items():
        assert code == code.lower().replace("-", "_")
        assert entry.meaning.endswith("."), code
        assert entry.meaning[0].isupper(), code


def test_the_documentation_has_the_same_codes() -> None:
    rows = {row[0].strip("`"): row[1:] for row in table("docs/codes.md", "item-codes")}
    assert rows == {code: [entry.meaning, "yes" if entry.retryable else ""] for code, entry in CODES.items()}


def test_the_documentation_has_the_apis_codes() -> None:
    problems = {row[0].strip("`"): (int(row[1]), row[2]) for row in table("docs/codes.md", "problem-codes")}
    assert problems == ERRORS
    assert {row[0].strip("`"): row[1] for row in table("docs/codes.md", "fault-codes")} == FAULTS


def test_the_api_makes_problems_of_known_codes_only() -> None:
    """Every literal given to Problem is in ERRORS, every one given to Fault in FAULTS or a URL's code."""
    wrong = []
    for source in sources("api"):
        for node in ast.walk(source.tree):
            if not (isinstance(node, ast.Call) and _name(node) in ("Problem", "Fault") and node.args):
                continue
            code = node.args[0]
            known = ERRORS if _name(node) == "Problem" else FAULTS | CODES
            if isinstance(code, ast.Constant) and code.value not in known:
                wrong.append(f"{source.path}:{node.lineno} {code.value}")
    assert not wrong
