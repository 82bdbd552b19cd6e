"""Pages as data: each declares who may see it, else it does not exist. Every form is checked before its view runs."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, TypeVar, get_origin
from urllib.parse import parse_qsl, quote

from flask import Flask, Response, g, request
from pydantic import BaseModel, ConfigDict, ValidationError
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import HTTPException, NotFound

from api import errors
from api.console import gate
from api.console.rendering import GROUPS, error_page, protect
from api.errors import Problem, faults_of
from api.routing import Call, House, Parameters
from api.small_body import decoded
from api.spool import pieces
from api.storable import Storable
from db.errors import DbError, Unavailable
from db.people import OPERATOR, ROLES, Person
from db.sessions import Visit, resolve

log = logging.getLogger("tagmill.console")
MAX_FORM: Final = 1 << 20
MAX_FIELDS: Final = 5000
View = Callable[..., Response]
FormT = TypeVar("FormT", bound="Form")


class Form(Storable):
    """Base of a form's fields: unknown ones are refused, empty ones are absent."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


@dataclass(frozen=True)
class Nav:
    """An entry of the navigation. `order`: small ones first; `icon`: one of templates/icons.html; `group`: Work,
    Account or Installation."""

    label: str
    href: str
    icon: str
    role: str
    order: int
    group: str = "Work"

    def __post_init__(self) -> None:
        if self.group not in GROUPS:
            raise ValueError(f"unknown group {self.group!r}")


@dataclass(frozen=True)
class Page:
    """A page or a form's target, and who may use it. `role` None: public. `upload`: the view reads the body itself;
    `asset`: the same file for everybody, so nobody is asked for."""

    method: str
    path: str
    role: str | None
    title: str
    view: View
    query: type[Parameters] | None = None
    upload: bool = False
    asset: bool = False
    max_form: int = MAX_FORM

    @property
    def name(self) -> str:
        return f"console_{self.view.__module__.rpartition('.')[2]}_{self.view.__name__}"


@dataclass(frozen=True)
class PageCall(Call):
    """One request of somebody's browser."""

    page: Page
    visit: Visit | None
    token: str = field(repr=False)

    @property
    def person(self) -> Person:
        assert self.visit is not None, "a public page knows nobody"
        return self.visit.person

    @property
    def account_id(self) -> int:
        return self.person.account_id

    @property
    def actor(self) -> str:
        """How logs and decisions name who asks."""
        return self.person.actor

    def may(self, role: str) -> bool:
        """Whether who asks has this role, or a higher one."""
        return self.visit is not None and self.person.may(role)

    @cached_property
    def body(self) -> bytes:
        """The whole body of a form; Problems of `api.spool.pieces`."""
        return b"".join(pieces(request, self.settings, self.page.max_form))

    @cached_property
    def form(self) -> "MultiDict[str, str]":
        """The fields of an urlencoded form."""
        if request.mimetype != "application/x-www-form-urlencoded":
            return MultiDict()
        try:
            return MultiDict(parse_qsl(self.body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS))
        except ValueError:
            raise Problem("invalid_form", "The form is not readable.") from None

    def json(self) -> Any:
        """The JSON value that a script of ours sent; Problems `unsupported_media_type`, `invalid_json`."""
        if request.mimetype != "application/json":
            raise Problem("unsupported_media_type", "Send application/json.")
        return decoded(self.body)

    def checked(self, model: type[FormT]) -> FormT:
        """The form's fields (or the JSON that a script sent) as this model; Problem `invalid_form`."""
        given = self.json() if request.mimetype == "application/json" else _fields(model, self.form)
        try:
            return model.model_validate(given)
        except ValidationError as error:
            raise Problem("invalid_form", "Some fields are wrong.", faults_of(error)) from error


def _fields(model: type[BaseModel], form: "MultiDict[str, str]") -> dict[str, Any]:
    """Empty fields are those that nobody filled in; a browser's line ends are ours."""
    given: dict[str, Any] = {}
    for name in form:
        if name == "csrf":
            continue
        values = [value.replace("\r\n", "\n") for value in form.getlist(name) if value != ""]
        known = model.model_fields.get(name)
        several = known is not None and get_origin(known.annotation) in (list, tuple, set, frozenset)
        if values:
            given[name] = values if several else values[-1]
    return given


class Pages:
    """The pages of one part of the console, and where the navigation leads to it."""

    def __init__(self, name: str, *nav: Nav) -> None:
        self.name = name
        self.nav = nav
        self.pages: list[Page] = []

    def page(
        self,
        method: str,
        path: str,
        *,
        role: str | None,
        title: str = "",
        query: type[Parameters] | None = None,
        upload: bool = False,
        asset: bool = False,
        max_form: int = MAX_FORM,
    ) -> Callable[[View], View]:
        """Declare a view. `role` has no default on purpose: None says *public*."""
        if role is not None and role not in (*ROLES, OPERATOR):
            raise ValueError(f"unknown role {role!r}")
        if not path.startswith("/console"):
            raise ValueError(f"{path!r} is not below /console")

        def declare(view: View) -> View:
            self.pages.append(Page(method, path, role, title, view, query, upload, asset, max_form))
            return view

        return declare


def attach(app: Flask, pages: Pages, house: House) -> None:
    """Give the pages their URLs."""
    for page in pages.pages:
        app.add_url_rule(
            page.path,
            page.name,
            _guarded(page, house),
            methods=[page.method],
            provide_automatic_options=False,
        )


def _guarded(page: Page, house: House) -> View:
    def serve(**path: Any) -> Response:
        call = PageCall(house, None, page, None, "")
        try:
            gate.check_transport(request, house.settings)
            if request.method not in gate.SAFE:
                gate.check_origin(request, house.settings)
            call = call if page.asset else _enter(page, house)
            response = _refused(call) or _served(call, path)
        except Exception as error:  # noqa: BLE001 — the top of the console: whatever happens becomes a page
            response = _failed(call, error)
        gate.keep_visitor(response, request, house.settings)
        return protect(response)

    serve.page = page  # type: ignore[attr-defined]
    return serve


def _enter(page: Page, house: House) -> PageCall:
    """Find out who asks: the session's token, else that of a visitor."""
    settings = house.settings
    token = gate.cookie(request, settings, "session")
    if token is not None:
        with house.database.transaction() as session:
            visit = resolve(session, token, idle_hours=settings.console_idle_hours)
        if visit is not None:
            g.key_id = visit.person.actor
            return PageCall(house, None, page, visit, token)
    return PageCall(house, None, page, None, gate.visitor(request, settings))


def _refused(call: PageCall) -> Response | None:
    """The way to the sign-in page; Problems `signed_out`, `missing_role`, `csrf_token`."""
    page = call.page
    if page.role is not None and call.visit is None:
        if request.method in gate.SAFE and not wants_json():
            here = request.full_path.rstrip("?")
            return Response(status=303, headers={"Location": f"/console/sign-in?next={quote(here, safe='')}"})
        raise Problem("signed_out", "Sign in again; the session has ended.")
    if page.role is not None and not call.may(page.role):
        raise Problem("missing_role", f"This needs the role {page.role}.")
    if request.method not in gate.SAFE:
        if page.upload:
            # The body is read as it comes, later: its form's address carries a token for this purpose only.
            given, purpose = request.args.get("token", ""), page.path
        else:
            given, purpose = request.headers.get("X-CSRF-Token") or call.form.get("csrf", ""), "form"
        if not gate.is_signed(given, call.token, "csrf", purpose):
            raise Problem("csrf_token", "The form is too old, or not one of ours. Load the page again.")
    return None


def _served(call: PageCall, path: dict[str, Any]) -> Response:
    if call.page.query is not None:
        path["query"] = _parameters(call.page.query)
    return call.page.view(call, **path)


def _parameters(model: type[Parameters]) -> Parameters:
    """A form that filters sends its empty fields too: they are absent."""
    given = {name: value for name, value in request.args.items() if value != ""}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise Problem("invalid_parameter", "The address is wrong.", faults_of(error)) from error


def wants_json() -> bool:
    """Whether a script of ours asks."""
    best = request.accept_mimetypes.best_match(["text/html", "application/json"], "text/html")
    return best == "application/json"


def _failed(call: PageCall, error: Exception) -> Response:
    """The error as the API would say it, as a page for people."""
    answer = _problem(error)
    if wants_json():
        return answer
    return error_page(call, json.loads(answer.get_data()), answer.status_code)


def _problem(error: Exception) -> Response:
    if isinstance(error, Problem):
        return error.response()
    if isinstance(error, Unavailable):
        return errors.of_outage(error)
    if isinstance(error, DbError):
        return errors.of_db(error)
    if isinstance(error, HTTPException):
        return errors.of_werkzeug(error)
    if isinstance(error, OSError):
        return errors.of_disk(error)
    return errors.of_bug(error)


def nowhere(house: House, error: HTTPException) -> Response:
    """What stands at an address below /console that no page has, or not with this method."""
    page = Page("GET", "/console", None, "", lambda call: Response())
    call = PageCall(house, None, page, None, "")
    try:
        gate.check_transport(request, house.settings)
        call = _enter(page, house)
    except (Problem, DbError) as refused:
        return protect(_failed(call, refused))
    here = Problem("not_found", "There is no page at this address.") if isinstance(error, NotFound) else error
    response = _failed(call, here)
    gate.keep_visitor(response, request, house.settings)
    return protect(response)
