"""Training runs: queue, list, read, follow, cancel. A trainer carries them out; nothing is trained here."""

import hashlib
from typing import Any
from uuid import UUID

from flask import Response, request
from pydantic import Field

from api import paging
from api.answers import json_answer
from api.errors import Fault, Problem
from api.routing import Answer, Call, Parameters, Routes
from api.small_body import IDEMPOTENCY_HEADER, checked, idempotency_key, replayed, small_json
from api.training_schemas import TrainingLogOut, TrainingRunIn, TrainingRunOut, TrainingRunsPage, TrainingState
from db import datasets, idempotency, registry, training, training_log
from db.errors import NotFound
from db.session import Session
from db.tables import TrainingRun

routes = Routes("training", "Train models on registered datasets. Runs are the installation's, not an account's.")
_COPIED = (
    "id", "name", "version", "init", "state", "code", "detail", "attempts", "created_at", "started_at", "finished_at",
)  # fmt: skip


def _out(call: Call, run: TrainingRun, dataset: str, *, whole: bool = True) -> TrainingRunOut:
    url = f"{call.settings.public_url}/v1/training-runs/{run.id}"
    return TrainingRunOut.model_validate(
        {
            **{name: getattr(run, name) for name in _COPIED},
            "url": url,
            "dataset": dataset,
            "links": {"log": f"{url}/log", "cancel": f"{url}/cancel"},
            "config": run.config if whole else None,
            "live": run.live if whole else None,
        }
    )


def _one(call: Call, session: Session, run: TrainingRun) -> TrainingRunOut:
    return _out(call, run, training.dataset_refs(session, [run])[run.dataset_id])


@routes.route(
    "POST",
    "/v1/training-runs",
    scope="models:write",
    summary="Queue a training",
    headers=IDEMPOTENCY_HEADER,
    body={"application/json": TrainingRunIn},
    answers={
        202: Answer(
            "Queued: a trainer takes it when it is its turn.",
            TrainingRunOut,
            headers={"Location": "The run.", "Idempotent-Replayed": "`true` when an earlier answer is repeated."},
        )
    },
    errors=(
        "body_incomplete", "body_timeout", "body_too_large", "conflict", "idempotency_in_flight",
        "idempotency_key_reused", "invalid_body", "invalid_idempotency_key", "invalid_json", "unsupported_encoding",
        "unsupported_media_type",
    ),
)  # fmt: skip
def create(call: Call) -> Response:
    """The run makes the model `name`@`version`, which is then a candidate. A version that exists, or that another run
    makes, is a conflict. With an `Idempotency-Key`, the same request again gives the same answer and no second run."""
    key = idempotency_key(request)
    body, data = small_json(call)
    asked = checked(TrainingRunIn, {} if body is None else body)
    fingerprint = hashlib.sha256(b"training-runs\0" + data).digest()
    with call.transaction() as session:
        if key is not None and (stored := idempotency.begin(session, call.account_id, key)) is not None:
            return replayed(stored, fingerprint)
        run = _enqueue(call, session, asked)
        answer = _one(call, session, run).model_dump(mode="json")
        if key is not None:
            idempotency.store(session, call.account_id, key, fingerprint, 202, answer, answer["url"])
    return json_answer(answer, 202, {"Location": answer["url"]}, sort=True)


class RunsQuery(Parameters):
    """Which runs."""

    state: TrainingState | None = Field(default=None, description="Only runs in this state.")
    cursor: str | None = Field(default=None, max_length=100, description="`next` of the page before.")
    limit: int = Field(default=paging.DEFAULT_LIMIT, ge=1, le=paging.MAX_LIMIT, description="Runs of a page.")


@routes.route(
    "GET",
    "/v1/training-runs",
    scope="models:read",
    summary="List training runs",
    query=RunsQuery,
    answers={200: Answer("A page, newest first.", TrainingRunsPage)},
    errors=("invalid_cursor", "invalid_parameter"),
)
def index(call: Call, query: RunsQuery) -> Response:
    """All runs of the installation, those of the command line too."""
    before = paging.run_of(query.cursor) if query.cursor is not None else None
    with call.transaction() as session:
        found = training.page(session, state=query.state, before=before, limit=query.limit + 1)
        refs = training.dataset_refs(session, found)
    shown = found[: query.limit]
    more = paging.after_run(shown[-1].id) if len(found) > len(shown) else None
    runs = [_out(call, run, refs[run.dataset_id], whole=False) for run in shown]
    return json_answer(TrainingRunsPage(runs=runs, next=more))


@routes.route(
    "GET",
    "/v1/training-runs/<uuid:run_id>",
    scope="models:read",
    summary="Read a training run",
    answers={200: Answer("The run.", TrainingRunOut)},
    errors=("not_found",),
)
def read(call: Call, run_id: UUID) -> Response:
    """State, settings, and where it is: step, loss, rate, time to go, epochs. The trainer tells every few seconds."""
    with call.transaction() as session:
        return json_answer(_one(call, session, training.get(session, run_id)))


class LogQuery(Parameters):
    """Which entries."""

    after: int = Field(default=0, ge=0, lt=2**31, description="Only entries behind this number: `last` of before.")
    limit: int = Field(default=training_log.KEPT, ge=1, le=training_log.KEPT, description="Most entries.")


@routes.route(
    "GET",
    "/v1/training-runs/<uuid:run_id>/log",
    scope="models:read",
    summary="Follow a training run",
    query=LogQuery,
    answers={200: Answer("Entries.", TrainingLogOut)},
    errors=("not_found", "invalid_parameter"),
)
def log(call: Call, run_id: UUID, query: LogQuery) -> Response:
    """What happened: starts, epochs, checkpoints, skipped pictures, halved batches, the end. To follow a run, ask every
    few seconds with `after` until its state is an end."""
    with call.transaction() as session:
        run = training.get(session, run_id)
        entries = training_log.after(session, run_id, query.after, query.limit)
    shown = [entry._asdict() for entry in entries]
    last = entries[-1].seq if entries else query.after
    return json_answer(TrainingLogOut.model_validate({"state": run.state, "entries": shown, "last": last}))


@routes.route(
    "POST",
    "/v1/training-runs/<uuid:run_id>/cancel",
    scope="models:write",
    summary="Cancel a training run",
    answers={200: Answer("The run, cancelled.", TrainingRunOut)},
    errors=("not_found", "conflict"),
)
def cancel(call: Call, run_id: UUID) -> Response:
    """Its trainer stops within seconds. Cancelling twice changes nothing; a run that has ended is a conflict."""
    with call.transaction() as session:
        run = training.cancel(session, run_id, actor=call.actor, account_id=call.account_id)
        return json_answer(_one(call, session, run))


def _enqueue(call: Call, session: Session, asked: TrainingRunIn) -> TrainingRun:
    version = asked.version or training.next_version(session, asked.name)
    faults = []
    dataset: Any = None
    try:
        dataset = datasets.by_ref(session, asked.dataset)
    except NotFound as error:
        faults.append(Fault("invalid_value", error.detail, field="dataset"))
    try:
        if asked.init is not None:
            _fits(registry.by_ref(session, asked.init).card, asked, faults)
    except NotFound as error:
        faults.append(Fault("invalid_value", error.detail, field="init"))
    if faults:
        raise Problem("invalid_body", "See `errors`.", faults)
    return training.enqueue(
        session, dataset.id, asked.name, version,
        {**asked.config.model_dump(mode="json"), "name": asked.name, "version": version},
        init=asked.init, actor=call.actor, account_id=call.account_id,
    )  # fmt: skip


def _fits(card: dict[str, Any], asked: TrainingRunIn, faults: list[Fault]) -> None:
    architecture = card.get("architecture")
    if architecture != asked.config.architecture:
        what = f"{asked.init} is a {architecture}, not a {asked.config.architecture}."
        faults.append(Fault("invalid_value", what, field="init"))
