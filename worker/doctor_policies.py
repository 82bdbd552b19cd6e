"""The doctor's look at policies: whether one decides where no account and no context has its own."""

from collections.abc import Iterator

from db import policy_assignments
from worker.findings import Finding
from worker.local import Place


def policies(where: Place) -> Iterator[Finding]:
    """One finding: the policy that is assigned for the whole installation, or a warning that none is."""
    with where.database() as at, at.transaction() as session:
        name = policy_assignments.deciding_name(session, None, None)
    if name is None:
        found = "none is assigned for the whole installation: pictures without an assignment of their own go to people"
        yield Finding("policies", "warning", found, "tagmill policies assign default, or another policy")
    else:
        yield Finding("policies", "good", f"{name} decides where nothing else is assigned")
