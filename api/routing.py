"""Routes as data: each declares its scope, its shapes and its errors, else it does not exist. Knows no resource."""

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final

from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ConfigDict, ValidationError

from api.auth import authenticate, require
from api.errors import ERRORS, Fault, Problem, faults_of
from api.seats import Seats
from api.settings import ApiSettings
from api.storable import Storable
from db.accounts import SCOPES, Principal
from db.blob_store import Blobs
from db.session import Database, Session

View = Callable[..., Response]
PATH_PARAMETER: Final = re.compile(r"<(?:(\w+):)?(\w+)>")


class Parameters(Storable):
    """Base of a route's query parameters: unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class House:
    """What all requests of this process share."""

    settings: ApiSettings
    database: Database
    blobs: Blobs
    seats: Seats
    waits: Seats
    registry: CollectorRegistry
    description: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One request, as a view sees it: who asks, and the house."""

    house: House
    principal: Principal | None

    @property
    def settings(self) -> ApiSettings:
        return self.house.settings

    @property
    def account_id(self) -> int:
        assert self.principal is not None, "a public route serves no account"
        return self.principal.account_id

    @property
    def actor(self) -> str:
        """How logs and decisions name who asks."""
        assert self.principal is not None, "a public route knows nobody"
        return f"key:{self.principal.key_id}"

    def transaction(self) -> AbstractContextManager[Session]:
        """The account's transaction: row-level security shows its rows only."""
        return self.house.database.transaction(self.account_id)


@dataclass(frozen=True)
class Answer:
    """One successful answer of an operation: a model, or a content type with a schema of its own."""

    description: str
    model: type[BaseModel] | None = None
    content: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Operation:
    """A route and everything that is promised about it. `scope` None: public."""

    method: str
    path: str
    scope: str | None
    summary: str
    view: View
    answers: Mapping[int, Answer]
    query: type[Parameters] | None = None
    body: Mapping[str, type[BaseModel] | Mapping[str, Any]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    open_by: str | None = None

    @property
    def name(self) -> str:
        return f"{self.view.__module__.rpartition('.')[2]}_{self.view.__name__}"


class Routes:
    """The operations of one module, in the order in which they are documented."""

    def __init__(self, tag: str, about: str) -> None:
        self.tag = tag
        self.about = about
        self.operations: list[Operation] = []

    def route(
        self,
        method: str,
        path: str,
        *,
        scope: str | None,
        summary: str,
        answers: Mapping[int, Answer],
        query: type[Parameters] | None = None,
        body: Mapping[str, type[BaseModel] | Mapping[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
        errors: tuple[str, ...] = (),
        open_by: str | None = None,
    ) -> Callable[[View], View]:
        """Declare a view. `scope` has no default on purpose: None says *public*. `open_by` names the setting that
        makes a scoped route public."""
        if scope is not None and scope not in SCOPES:
            raise ValueError(f"unknown scope {scope!r}")
        if unknown := set(errors) - ERRORS.keys():
            raise ValueError(f"unknown error codes {unknown}")

        def declare(view: View) -> View:
            self.operations.append(
                Operation(
                    method=method,
                    path=path,
                    scope=scope,
                    summary=summary,
                    view=view,
                    answers=answers,
                    query=query,
                    body=body or {},
                    headers=headers or {},
                    errors=errors,
                    open_by=open_by,
                )
            )
            return view

        return declare


def attach(app: Flask, routes: Routes, house: House) -> None:
    """Give the operations their URLs. A view runs only after its scope and its parameters were checked."""
    for operation in routes.operations:
        app.add_url_rule(
            operation.path,
            operation.name,
            _guarded(operation, house),
            methods=[operation.method],
            provide_automatic_options=False,
        )


def _guarded(operation: Operation, house: House) -> View:
    opened = operation.open_by is not None and getattr(house.settings, operation.open_by)

    def serve(**path: Any) -> Response:
        principal = None
        if operation.scope is not None and not opened:
            principal, g.rate = authenticate(house.database, request, house.settings.requests_per_minute)
            g.key_id = principal.key_id
            require(principal, operation.scope)
        if operation.query is not None:
            path["query"] = _parameters(operation.query)
        return operation.view(Call(house, principal), **path)

    serve.operation = operation  # type: ignore[attr-defined]
    return serve


def _parameters(model: type[Parameters]) -> Parameters:
    given: dict[str, str] = {}
    for name, values in request.args.lists():
        if len(values) > 1:
            fault = Fault("duplicate_field", "Give the parameter once.", field=name[:100])
            raise Problem("invalid_parameter", "A parameter is given twice.", [fault])
        given[name] = values[0]
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise Problem("invalid_parameter", "See `errors`.", faults_of(error)) from error
