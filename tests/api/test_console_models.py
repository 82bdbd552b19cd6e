"""The console's models: for operators only, with what was measured; promotion and rollback are asked for."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from db import datasets, evaluations, registry, training
from db.session import Database
from tests.api.browsers import Browser
from tests.ml.test_report import evaluation

Browse = Callable[..., Browser]
NASTY = "\"><script>alert(1)</script>'{{7*7}}"


def card(version: str, **more: Any) -> dict[str, Any]:
    labels = [{"name": name, "group": "category"} for name in ("dress", NASTY)]
    base = {"name": "tagger", "version": version, "task": "tags", "head": "softmax", "architecture": "mobilenet_v2"}
    return {**base, "labels": labels, "licence": NASTY, "source": "here", **more}


@pytest.fixture
def models(owner_db: Database) -> None:
    """tagger@1 and @2 with evaluations on the same data: 2 is active and better, 3 was never measured."""
    with owner_db.transaction() as session:
        data = datasets.add(
            session, "clothes", "1", "1" * 64, manifest_key="m", images_root="/x", entries=80, summary={}
        )
        for version, accuracy in (("1", 0.5), ("2", 0.9), ("3", None)):
            model = registry.install_model(session, card(version), version * 64)
            if accuracy is not None:
                report = evaluation(label=NASTY if version == "1" else "label", about=model.ref).to_dict()
                metrics = {"overall/category/accuracy": accuracy}
                evaluations.record(session, model.id, data.id, "test", images=80, metrics=metrics, report=report)
        registry.activate(session, "tagger", "1")
        registry.activate(session, "tagger", "2")
        training.enqueue(session, data.id, "tagger", "9", {"architecture": "mobilenet_v2"})


@pytest.mark.usefixtures("models")
def test_operators_see_versions_their_figures_and_their_evaluations(browse: Browse) -> None:
    operator = browse("admin", operator=True)
    page = operator.page("/console/models")
    assert {"tagger@1", "tagger@2", "tagger@3", "tagger@9"} <= {link.text.strip() for link in page.all("a")}
    assert "clothes@1, test" in page.text
    shown = operator.page("/console/models/version?ref=tagger%402")
    for wanted in ("Reliability", "Confusion", "Slices", "Precision", "mobilenet_v2"):
        assert wanted in shown.text, wanted
    assert "Promote" not in shown.text, "it is active"
    assert operator.page("/console/models/version?ref=nobody%401", 404)


@pytest.mark.usefixtures("models")
def test_names_of_labels_and_licences_are_text(browse: Browse) -> None:
    page = browse("admin", operator=True).page("/console/models/version?ref=tagger%401")
    assert NASTY in page.text
    assert not [each for each in page.all("script") if "src" not in each.attributes]


@pytest.mark.usefixtures("models")
def test_the_pages_are_for_operators(browse: Browse) -> None:
    admin = browse("admin")
    for address in ("/console/models", "/console/models/version?ref=tagger%401", "/console/models/moves"):
        assert admin.get(address).status_code == 403, address
    assert admin.post("/console/models/move", {"action": "activate", "ref": "tagger@3"}).status_code == 403
    assert "/console/models" not in {link.attributes["href"] for link in admin.page("/console/own").all("a")}


@pytest.mark.usefixtures("models")
def test_a_promotion_is_asked_for_past_a_closed_gate_with_a_reason(browse: Browse, owner_db: Database) -> None:
    operator = browse("admin", operator=True)
    shown = operator.page("/console/models/version?ref=tagger%401")
    assert "the gate is closed" in shown.text
    answer = operator.post(
        "/console/models/move", {"action": "activate", "ref": "tagger@1", "forced": "the old one knew hats"}
    )
    assert answer.status_code == 303
    page = operator.page("/console/models")
    assert "under way" in page.text
    with owner_db.transaction() as session:
        move = session.execute(text("SELECT action, ref, task, forced, actor, state FROM model_moves")).one()
    assert operator.person is not None
    assert tuple(move) == (
        "activate", "tagger@1", "tags", "the old one knew hats", operator.person.actor, "asked",
    )  # fmt: skip
    again = operator.post("/console/models/move", {"action": "rollback", "ref": "tagger@2"})
    assert again.status_code == 409
    for wrong in ({"action": "burn", "ref": "tagger@1"}, {"action": "activate"}):
        assert operator.post("/console/models/move", wrong).status_code == 422


def test_a_training_shows_its_curves_and_is_cancelled(browse: Browse, owner_db: Database) -> None:
    with owner_db.transaction() as session:
        data = datasets.add(
            session, "clothes", "1", "1" * 64, manifest_key="m", images_root="/x", entries=80, summary={}
        )
        run = training.enqueue(session, data.id, "tagger", "9", {"architecture": "mobilenet_v2"})
        session.execute(
            text("UPDATE training_runs SET live = CAST(:live AS jsonb) WHERE id = :id"),
            {
                "id": run.id,
                "live": '{"epoch": 1, "epochs": 4, "step": 60, "steps_per_epoch": 40, "loss": 0.5, "rate": 12.5,'
                ' "history": [{"epoch": 0, "loss": 0.9, "metrics": {"category/accuracy": 0.6}}]}',
            },
        )
    operator = browse("admin", operator=True)
    address = f"/console/models/runs/{run.id}"
    page = operator.page(address)
    assert re.search(r"Done\s*3[78]\s?%", page.text), "60 of 160 steps"
    assert [each for each in page.all("svg") if "Mean loss of each epoch" in (each.attributes.get("aria-label") or "")]
    assert operator.get(address + "/live").status_code == 200
    assert operator.post(address + "/cancel").status_code == 303
    assert "cancelled" in operator.page(address).text
    assert operator.post(address + "/cancel").status_code == 303
    assert browse("curator").get(address).status_code == 403
