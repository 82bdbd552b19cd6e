"""Files and functions stay readable: split by noun before they grow past these lines."""

import ast

from tests.architecture.source import sources

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers", "base"}

# File → why it may be longer.
LONG_FILES = {
    "db/tables.py": "a list: the tables of the line and of learning; those around them are in db/*_tables.py",
    "migrations/versions/0001_the_line.py": "one migration is one step: all its DDL stands in one place",
}


def test_no_file_is_too_long() -> None:
    long = {str(s.path): n for s in sources() if (n := s.text.count("\n")) > MAX_FILE_LINES}
    assert long.keys() - LONG_FILES.keys() == set(), {path: n for path, n in long.items() if path not in LONG_FILES}


def test_no_exception_outlives_its_reason() -> None:
    short = [str(s.path) for s in sources() if str(s.path) in LONG_FILES and s.text.count("\n") <= MAX_FILE_LINES]
    gone = LONG_FILES.keys() - {str(s.path) for s in sources()}
    assert not short
    assert not gone


def test_no_function_is_too_long() -> None:
    long = [
        f"{source.path}:{node.lineno} {node.name}: {length} lines"
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert not long, "\n".join(long)


def test_modules_are_named_by_nouns_of_the_field() -> None:
    wrong = [str(s.path) for s in sources() if FORBIDDEN_NAMES & {*s.path.parts[:-1], s.path.stem}]
    assert not wrong


def test_every_module_says_what_it_is_for() -> None:
    silent = [str(s.path) for s in sources() if s.tree.body and ast.get_docstring(s.tree) is None]
    assert not silent


def test_no_exception_is_caught_without_a_name() -> None:
    """No bare `except:`; `except Exception` only with a comment that says at the top of which stage it stands."""
    wrong = []
    for source in sources():
        lines = source.text.splitlines()
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            if node.type is None:
                wrong.append(f"{source.path}:{node.lineno} bare except")
            elif isinstance(node.type, ast.Name) and node.type.id == "Exception":
                near = lines[node.lineno - 1] + (lines[node.lineno] if node.lineno < len(lines) else "")
                if "#" not in near:
                    wrong.append(f"{source.path}:{node.lineno} except Exception without its reason")
    assert not wrong, "\n".join(wrong)
