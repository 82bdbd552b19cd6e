"""What `tagmill tune` remembers, for whom, and that workers take it."""

import json
from pathlib import Path

import pytest

from db.session import Database
from ml.choice import Choice
from tests.worker.line import install_models, settings
from tests.worker.test_cli import Cli
from worker.predictors import Predictors
from worker.tuned import Tuned

CPU = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC
flags\t\t: fpu avx512f avx512_bf16
cpu MHz\t\t: 2596.1

processor\t: 1
model name\t: another
"""
VERSIONS = {"openvino": "2026.4", "torch": "2.14"}
SHA, CHOICE = "a" * 64, Choice("openvino", "bf16", 8)


def machine(folder: Path, text: str = CPU, **versions: str) -> Tuned:
    (folder / "cpuinfo").write_text(text)
    return Tuned(folder / "models", cpuinfo=folder / "cpuinfo", versions=VERSIONS | versions)


def test_it_is_remembered_for_the_weights_the_threads_and_the_machine(tmp_path: Path) -> None:
    assert machine(tmp_path).choice(SHA, 1) is None
    machine(tmp_path).remember(SHA, CHOICE, 1, model="shop@1")
    machine(tmp_path).remember("b" * 64, Choice("fused", "fp32", 8), 1)
    assert machine(tmp_path).choice(SHA, 1) == CHOICE
    assert machine(tmp_path).choice(SHA, 2) is None
    assert machine(tmp_path).choice("c" * 64, 1) is None
    assert machine(tmp_path, CPU.replace("2596.1", "4000.0")).choice(SHA, 1) == CHOICE, "the clock is no other machine"
    assert machine(tmp_path, CPU.replace(" avx512_bf16", "")).choice(SHA, 1) is None
    assert machine(tmp_path, CPU.replace("EPYC", "Ryzen")).choice(SHA, 1) is None
    assert machine(tmp_path, openvino="2026.5").choice(SHA, 1) is None
    assert (tmp_path / "models" / ".tuned").stat().st_mode & 0o777 == 0o700
    assert [path.suffix for path in (tmp_path / "models" / ".tuned").iterdir()] == [".json"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"models": []}', json.dumps({"models": {SHA: 3}})])
def test_a_damaged_file_is_no_memory(tmp_path: Path, text: str) -> None:
    tuned = machine(tmp_path)
    tuned.remember(SHA, CHOICE, 1)
    tuned.file.write_text(text)
    assert tuned.choice(SHA, 1) is None
    tuned.remember(SHA, CHOICE, 1)
    assert tuned.choice(SHA, 1) == CHOICE


def test_where_there_is_no_proc_it_works_as_well(tmp_path: Path) -> None:
    tuned = Tuned(tmp_path, cpuinfo=tmp_path / "none", versions=VERSIONS)
    tuned.remember(SHA, CHOICE, 1)
    assert tuned.choice(SHA, 1) == CHOICE


def test_from_the_command_to_the_worker(owner_db: Database, db: Database, database_url: str, tmp_path: Path) -> None:
    root = tmp_path / "models"
    operator = Cli(tmp_path / "none", TAGMILL_DATABASE_URL=database_url, TAGMILL_MODEL_ROOT=str(root))
    assert "tagmill models pull" in operator("tune").stderr
    install_models(owner_db, root)
    said = json.loads(operator("tune", "tiny-tags@1", "--seconds", "0", "--json", "--no-keep").stdout)
    assert not (root / ".tuned").exists()
    (model,) = said["models"]
    assert model["model"] == "tiny-tags@1"
    assert [each["backend"] for each in model["measured"] if each["chosen"]] == [model["chosen"]["backend"]]
    shown = operator("tune", "--seconds", "0")
    assert "tiny-moderation@1" in shown.stdout
    assert "chosen" in shown.stdout
    assert "the card asks for fp32" in shown.stdout or "bf16" not in shown.stdout
    # The file says what is measured; the worker takes what it says.
    tuned = Tuned(root)
    document = json.loads(tuned.file.read_text())
    assert {each["model"] for each in document["models"].values()} == {"tiny-tags@1", "tiny-moderation@1"}
    for each in document["models"].values():
        each.update(family="fused", precision="fp32", batch=8)
    tuned.file.write_text(json.dumps(document))
    assert len(list((root / ".tuned").rglob("network.xml"))) == 2, "what runs fastest on OpenVINO is exported, too"
    loading = Predictors(settings(tmp_path, database_url, backend="auto"), db, "cpu")
    predictor = loading.get({"tags": "tiny-tags@1"})
    assert predictor.backends["tiny-tags@1"].backend.name == "fused-fp32"
    assert "not_found" in operator("tune", "nobody@1", code=1).stderr
