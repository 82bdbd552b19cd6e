"""Policies, as pages: read them, write them, see what differs, activate them, say where they decide."""

from difflib import SequenceMatcher
from typing import Any, Final, Literal
from urllib.parse import urlencode

from flask import Response
from pydantic import ConfigDict, Field

from api.console.pages import Form, Nav, PageCall, Pages
from api.console.rendering import redirect, render
from api.policy_schemas import ContextName, PolicyName
from api.routing import Parameters
from db import policies, policy, policy_assignments, policy_text, policy_warnings
from db.policy_rules import PolicyError, PolicyFault
from db.policy_tables import PolicyVersion
from db.policy_text import MAX_CHARACTERS, Written
from db.session import Session

HERE: Final = "/console/policies"
NEW: Final = f"{HERE}/+new"  # no policy's name has a plus
AROUND: Final = 3  # lines of a difference that are the same on both sides
STATES: Final = {"active": "good", "draft": "warn", "retired": "off"}
BLANK: Final = """\
name: my-policy
description: What it is for.
mode: first_match
rules:
  - id: banned
    when: {bank_kind: block}
    then: reject
    text: This picture was banned.
  - id: allowed
    when: {bank_kind: allow}
    then: approve
  - id: explicit
    when: {sum: [Porn, Hentai], at_least: 0.5}
    then: review
    text: Somebody will look at this picture.
otherwise: approve
on_missing: review
"""

pages = Pages("policies", Nav("Policies", HERE, icon="policy", role="viewer", order=40))


@pages.page("GET", HERE, role="viewer", title="Policies")
def index(call: PageCall) -> Response:
    """The policies that the account reads, and which decides where."""
    with call.transaction() as session:
        rows = policies.page(session, call.account_id, limit=1000)
        places = policy_assignments.current(session, call.account_id)
        past = policy_assignments.history(session, call.account_id, limit=20)
        about = {row.name: str(row.document.get("description", "")) for row in rows}
    active = [row.name for row in rows if row.state == "active"]
    return render(
        call, "policies.html", policies=rows, about=about, places=places, past=past, active=active, states=STATES
    )


class AssignForm(Form):
    """Where a policy decides; no context: in all. `nowhere`: nothing more is assigned there."""

    policy: PolicyName | None = None
    context: ContextName | None = None
    only: Literal["all", "none", "one"] = "all"


@pages.page("POST", f"{HERE}/+assign", role="curator")
def assign(call: PageCall) -> Response:
    """From now on; without a policy, what was assigned there is taken back."""
    asked = call.checked(AssignForm)
    context = {"all": None, "none": "", "one": asked.context or ""}[asked.only]
    with call.transaction() as session:
        policy_assignments.assign(session, call.account_id, context, asked.policy, actor=call.actor)
    said = f"{asked.policy} decides there from now on." if asked.policy else "Nothing of yours is assigned there."
    return redirect(call, HERE, said)


class EditorQuery(Parameters):
    """The version to begin with."""

    name: str | None = Field(default=None, max_length=64)
    version: int | None = Field(default=None, ge=0, lt=2**31)


@pages.page("GET", NEW, role="curator", title="Write a policy", query=EditorQuery)
def editor(call: PageCall, query: EditorQuery) -> Response:
    """An empty policy, or the text of a version: what is saved is the next one."""
    text = BLANK
    if query.name is not None:
        with call.transaction() as session:
            text = policies.source(policies.get(session, call.account_id, query.name, query.version))
    return _editor(call, text)


class SourceForm(Form):
    """The text; `act` check: only say whether it is a policy."""

    model_config = ConfigDict(str_strip_whitespace=False)  # indentation means something here

    source: str = Field(default="", max_length=2 * MAX_CHARACTERS)
    act: Literal["check", "save"] = "save"


@pages.page("POST", NEW, role="curator", title="Write a policy")
def save(call: PageCall) -> Response:
    """Save a draft. What is wrong is shown beside its line, and nothing that was written is lost."""
    asked = call.checked(SourceForm)
    text = asked.source
    try:
        new = policy_text.read(text)
    except PolicyError as error:
        return _editor(call, text, error.faults)
    with call.transaction() as session:
        warnings = policy_warnings.warnings(session, call.account_id, new.policy)
        if asked.act == "check":
            return _editor(call, text, checked=new, warnings=warnings)
        row = policies.add(session, call.account_id, new, actor=call.actor)
        ref, address = row.ref, _address(row)
    return redirect(call, address, f"{ref} is saved; it decides once it is activated.")


@pages.page("GET", f"{HERE}/<policy_name>", role="viewer", title="Policy")
def show(call: PageCall, policy_name: str) -> Response:
    """The version that decides, else the newest."""
    with call.transaction() as session:
        return _version(call, session, policies.get(session, call.account_id, policy_name), None)


class VersionQuery(Parameters):
    """The version to compare with."""

    against: int | None = Field(default=None, ge=0, lt=2**31)


@pages.page("GET", f"{HERE}/<policy_name>/<int:policy_version>", role="viewer", title="Policy", query=VersionQuery)
def show_version(call: PageCall, query: VersionQuery, policy_name: str, policy_version: int) -> Response:
    """One version: its text, or what differs from another one."""
    with call.transaction() as session:
        row = policies.get(session, call.account_id, policy_name, policy_version)
        return _version(call, session, row, query.against)


@pages.page("POST", f"{HERE}/<policy_name>/<int:policy_version>/activate", role="curator")
def activate(call: PageCall, policy_name: str, policy_version: int) -> Response:
    """It decides on new jobs from now on, where the policy is assigned."""
    with call.transaction() as session:
        row = policies.activate(session, call.account_id, policy_name, policy_version, actor=call.actor)
        ref, address = row.ref, _address(row)
    return redirect(call, address, f"{ref} is active.")


@pages.page("POST", f"{HERE}/<policy_name>/<int:policy_version>/retire", role="curator")
def retire(call: PageCall, policy_name: str, policy_version: int) -> Response:
    """Retire it, or drop a draft; it can be activated again."""
    with call.transaction() as session:
        row = policies.retire(session, call.account_id, policy_name, policy_version, actor=call.actor)
        ref, address = row.ref, _address(row)
    return redirect(call, address, f"{ref} is retired.")


def _version(call: PageCall, session: Session, row: PolicyVersion, against: int | None) -> Response:
    rows = policies.versions(session, call.account_id, row.name)
    places = [each for each in policy_assignments.current(session, call.account_id) if each.policy == row.name]
    other = None if against is None else policies.get(session, call.account_id, row.name, against)
    before = next((each.version for each in rows if each.version < row.version), None)
    values: dict[str, Any] = {
        "row": row,
        "rules": policy.validate(row.document),
        "warnings": policy_warnings.warnings(session, call.account_id, policy.validate(row.document)),
        "lines": policies.source(row).splitlines(),
        "versions": rows,
        "history": policies.history(session, call.account_id, row.name, limit=20),
        "places": places,
        "own": row.account_id == call.account_id,
        "before": before,
        "other": other,
        "difference": None if other is None else difference(policies.source(other), policies.source(row)),
        "edit": f"{NEW}?{urlencode({'name': row.name, 'version': row.version})}",
        "states": STATES,
    }
    return render(call, "policy.html", title=row.ref, **values)


def difference(old: str, new: str) -> list[tuple[str, int | None, int | None, str]]:
    """The lines of two texts that differ, and a few around: (sign, line in the old, line in the new, text). The sign
    is `-`, `+`, a space, or `…` where lines that are the same are left out."""
    ours, theirs = old.splitlines(), new.splitlines()
    found: list[tuple[str, int | None, int | None, str]] = []
    for group in SequenceMatcher(None, ours, theirs, autojunk=False).get_grouped_opcodes(AROUND):
        if group[0][1] > 0 and not (found and found[-1][0] == "…"):
            found.append(("…", None, None, ""))
        for kind, begin, end, its_begin, its_end in group:
            if kind == "equal":
                shift = its_begin - begin
                found += [(" ", n + 1, n + 1 + shift, ours[n]) for n in range(begin, end)]
                continue
            found += [("-", n + 1, None, ours[n]) for n in range(begin, end)]
            found += [("+", None, n + 1, theirs[n]) for n in range(its_begin, its_end)]
        if group[-1][2] < len(ours):
            found.append(("…", None, None, ""))
    return found


def _editor(
    call: PageCall,
    text: str,
    faults: tuple[PolicyFault, ...] = (),
    *,
    checked: Written | None = None,
    warnings: list[str] | None = None,
) -> Response:
    wrong: dict[int, list[PolicyFault]] = {}
    for fault in faults:
        wrong.setdefault(fault.line or 1, []).append(fault)
    return render(
        call,
        "policy_edit.html",
        422 if faults else 200,
        source=text,
        lines=text.splitlines() if faults else [],
        wrong=wrong,
        faults=faults,
        checked=checked,
        warnings=warnings or [],
        most=MAX_CHARACTERS,
    )


def _address(row: PolicyVersion) -> str:
    return f"{HERE}/{row.name}/{row.version}"
