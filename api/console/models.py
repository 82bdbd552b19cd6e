"""Models, for operators: versions and what they were measured at, promotion and rollback, trainings and their curves.

Whoever serves pages cannot read weights: a promotion is asked for here, and maintenance carries it out.
"""

from typing import Any, Final, Literal
from urllib.parse import quote
from uuid import UUID

from flask import Response
from markupsafe import Markup
from pydantic import Field

from api.console import charts
from api.console.pages import Form, Nav, PageCall, Pages
from api.console.rendering import fragment, redirect, render
from api.routing import Parameters
from db import datasets, evaluations, model_moves, registry, training, training_log
from db.promotion import Gate
from db.session import Session
from db.states import ANALYSES
from db.tables import Evaluation, ModelVersion, TrainingRun

pages = Pages("models", Nav("Models", "/console/models", icon="model", role="operator", order=60, group="Installation"))
HEADLINES: Final = ("accuracy", "macro_f1", "mean_average_precision", "calibration_error")
PERCENT: Final = ("accuracy", "macro_f1", "mean_average_precision")
RUNS: Final = 20
MATRIX: Final = 40
"""Labels up to which a confusion matrix can be read."""


class VersionQuery(Parameters):
    """Which version, and which of its evaluations."""

    ref: str = Field(min_length=3, max_length=200)
    evaluation: int | None = Field(default=None, ge=1)


class MoveForm(Form):
    """What is to become active. `forced`: why, although the gate is closed."""

    ref: str = Field(min_length=3, max_length=200)
    action: Literal["activate", "rollback"]
    forced: str | None = Field(default=None, max_length=500)


@pages.page("GET", "/console/models", role="operator", title="Models")
def index(call: PageCall) -> Response:
    """All versions by task, the active one first; changes that were asked for; trainings."""
    with call.transaction() as session:
        versions = [_line(session, model) for model in registry.list_models(session)[::-1]]
        moves = model_moves.newest(session, 5)
        runs = training.newest(session, RUNS)
        refs = training.dataset_refs(session, runs)
    by_task = {
        task: sorted((v for v in versions if v["task"] == task), key=lambda v: v["state"] != "active")
        for task in ANALYSES
    }
    waiting = any(move.state == "asked" for move in moves)
    return render(call, "models.html", by_task=by_task, moves=moves, waiting=waiting, runs=runs, datasets=refs)


@pages.page("GET", "/console/models/moves", role="operator")
def moves(call: PageCall) -> Response:
    """The part of the page that changes while a change is under way."""
    with call.transaction() as session:
        found = model_moves.newest(session, 5)
    waiting = any(move.state == "asked" for move in found)
    return fragment(call, "model_changes.html", moves=found, waiting=waiting)


@pages.page("GET", "/console/models/version", role="operator", title="Model", query=VersionQuery)
def version(call: PageCall, query: VersionQuery) -> Response:
    """One version: its card, the gate, and an evaluation with confusion, reliability, curves and slices."""
    with call.transaction() as session:
        model = registry.by_ref(session, query.ref)
        found = evaluations.of_model(session, model.id)
        named = [(row, _data(session, row)) for row in found]
        current = registry.active(session, model.task)
        gate = registry.gate(session, model, current)
        lineage = registry.lineage(session, model)
    chosen = next((row for row in found if row.id == query.evaluation), found[0] if found else None)
    return render(
        call,
        "model.html",
        title=model.ref,
        model=model,
        current=current,
        gate=gate if model.state != "active" else Gate(),
        lineage=lineage,
        named=named,
        chosen=chosen,
        groups=[] if chosen is None else [_group(name, each) for name, each in chosen.report["groups"].items()],
        headlines=HEADLINES,
        href=href,
    )


@pages.page("POST", "/console/models/move", role="operator")
def move(call: PageCall) -> Response:
    """Ask for an activation or a rollback; maintenance looks at the files and the gate, and does it within seconds."""
    asked = call.checked(MoveForm)
    with call.transaction() as session:
        model_moves.ask(
            session, asked.action, asked.ref, actor=call.actor, forced=asked.forced, account_id=call.account_id
        )
    words = "activated" if asked.action == "activate" else "rolled back"
    return redirect(call, "/console/models", f"{asked.ref} is being {words}: its files are looked at first.", "note")


@pages.page("GET", "/console/models/runs/<uuid:run_id>", role="operator", title="Training")
def run(call: PageCall, run_id: UUID) -> Response:
    """One training: where it is, its curves, its log."""
    return render(call, "training.html", **_run(call, run_id))


@pages.page("GET", "/console/models/runs/<uuid:run_id>/live", role="operator")
def live(call: PageCall, run_id: UUID) -> Response:
    """The part of the page that changes while it is looked at."""
    return fragment(call, "training_live.html", **_run(call, run_id))


@pages.page("POST", "/console/models/runs/<uuid:run_id>/cancel", role="operator")
def cancel(call: PageCall, run_id: UUID) -> Response:
    """Its trainer stops within seconds."""
    with call.transaction() as session:
        training.cancel(session, run_id, actor=call.actor, account_id=call.account_id)
    return redirect(call, f"/console/models/runs/{run_id}", "The training is cancelled.")


def href(ref: str) -> str:
    """The page of a version."""
    return f"/console/models/version?ref={quote(ref, safe='')}"


def _line(session: Session, model: ModelVersion) -> dict[str, Any]:
    found = evaluations.of_model(session, model.id)
    newest = found[0] if found else None
    figures = {}
    if newest is not None:
        for group in newest.report.get("groups", {}).values():
            for name in HEADLINES:
                value = (group["figures"].get(name) or {}).get("value")
                if value is not None and name not in figures:
                    figures[name] = value
    return {
        "ref": model.ref,
        "href": href(model.ref),
        "task": model.task,
        "state": model.state,
        "created_at": model.created_at,
        "activated_at": model.activated_at,
        "architecture": model.card.get("architecture", ""),
        "labels": len(model.card.get("labels", ())),
        "figures": figures,
        "on": "" if newest is None else _data(session, newest),
        "replaced": model.replaced is not None,
    }


def _data(session: Session, row: Evaluation) -> str:
    """Which pictures, as people name them."""
    pixels = row.report.get("about", {}).get("pixels", "")
    ref = datasets.by_id(session, row.dataset_id).ref
    return f"{ref}, {row.split}" + (f", {pixels}" if pixels == "original" else "")


def _group(name: str, group: dict[str, Any]) -> dict[str, Any]:
    """A label group of a report with its drawings."""
    labels = [label["label"] for label in group["labels"]]
    bins = [each for each in group["reliability"] if each["count"]]
    drawn: dict[str, Markup | None] = {"matrix": None, "reliability": None}
    if group["confusion"] and len(labels) <= MATRIX:
        drawn["matrix"] = charts.matrix(
            labels, group["confusion"], label=f"Confusion of {name}", rows="is", columns="was said"
        )
    if bins:
        drawn["reliability"] = charts.line(
            {
                "came true": [(each["confidence"], each["accuracy"]["value"]) for each in bins],
                "as it should be": [(0.0, 0.0), (1.0, 1.0)],
            },
            label=f"Reliability of {name}: confidence against how many came true",
            high=1.0,
        )
    return {
        "name": name,
        "kind": group["kind"],
        "pictures": group["pictures"],
        "figures": {key: value for key, value in group["figures"].items() if value.get("value") is not None},
        "labels": group["labels"],
        "slices": sorted(group["slices"], key=lambda each: (not each["flagged"], -each["count"]))[:20],
        **drawn,
    }


def _run(call: PageCall, run_id: UUID) -> dict[str, Any]:
    with call.transaction() as session:
        found = training.get(session, run_id)
        refs = training.dataset_refs(session, [found])
        entries = training_log.last(session, run_id, 30)
    history = found.live.get("history", [])
    losses = {"loss": [(float(each["epoch"]), each["loss"]) for each in history]}
    names = sorted({name for each in history for name in each["metrics"] if name.rsplit("/")[-1] in PERCENT})
    scores = {name: [(float(each["epoch"]), each["metrics"].get(name)) for each in history] for name in names[:6]}
    return {
        "title": f"{found.name}@{found.version}",
        "run": found,
        "dataset": refs[found.dataset_id],
        "entries": entries[::-1],
        "losses": charts.line(losses, label="Mean loss of each epoch") if history else None,
        "scores": charts.line(scores, label="Validation by epoch", high=1.0) if history and names else None,
        "share": _share(found),
        "href": href,
    }


def _share(run: TrainingRun) -> float | None:
    """How far it is, 0…1."""
    now = run.live
    steps = (now.get("epochs") or 0) * (now.get("steps_per_epoch") or 0)
    return min(1.0, (now.get("step") or 0) / steps) if steps else None
