"""A GPU host has little but torch: `ml` must load there."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(f"ml.{path.stem}" for path in (ROOT / "ml").glob("*.py") if path.stem != "__init__")
FOREIGN = (
    "pydantic flask celery sqlalchemy psycopg aiohttp redis kombu structlog typer openvino yarl httpx2 db worker api"
)


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_ml_loads_without_the_rest_of_the_project() -> None:
    blocked = f"import sys; sys.modules.update(dict.fromkeys({FOREIGN.split()!r}))"
    run(f"{blocked}; import {', '.join(MODULES)}")


@pytest.mark.parametrize("module", ["ml.images", "ml.facts", "ml.card", "ml.errors"])
def test_what_crawlers_and_cli_need_loads_without_torch(module: str) -> None:
    run(f"import sys; sys.modules.update(dict.fromkeys(['torch', 'torchvision'])); import {module}")


def test_without_openvino_auto_takes_torch(tmp_path: Path) -> None:
    run(
        f"""
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "openvino" else real(name, package)
from pathlib import Path
from ml.predictor import Predictor
from ml.errors import BackendError
from ml.tiny import make_tiny
model = make_tiny(Path({str(tmp_path)!r}), "tags")
(chosen,) = Predictor([model]).backends.values()
assert chosen.backend.name == "fused-fp32", chosen
try:
    Predictor([model], backend="openvino")
except BackendError as error:
    assert error.code == "backend_unavailable", error
else:
    raise AssertionError("openvino was found")
"""
    )
