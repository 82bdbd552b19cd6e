"""The project's Python files, parsed, for the tests of the architecture. Judges nothing."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("api", "db", "ml", "worker", "migrations")


@dataclass(frozen=True)
class Source:
    """One file. `path` is relative to the root; `module` is its dotted name."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.path.parts[0]

    @property
    def module(self) -> str:
        return ".".join(self.path.with_suffix("").parts).removesuffix(".__init__")


@cache
def sources(*packages: str) -> tuple[Source, ...]:
    """The files of these packages, or of all five."""
    found = [path for package in packages or PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    texts = [(path.relative_to(ROOT), path.read_text(encoding="utf-8")) for path in found]
    return tuple(Source(path, text, ast.parse(text, str(path))) for path, text in texts)


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every imported module (dotted, absolute) and its line, at module level, in functions and under conditions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide the package they come from"
            assert node.module is not None
            yield node.module, node.lineno


def strings(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every string constant and its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value, node.lineno
