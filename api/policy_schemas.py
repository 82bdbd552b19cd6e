"""The shapes of policies on the wire, as pydantic models. No behaviour."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from api.schemas import Sent
from db.policy_document import NAME
from db.policy_text import MAX_CHARACTERS

PolicyState = Literal["draft", "active", "retired"]
PolicyName = Annotated[str, Field(pattern=f"^{NAME}$", max_length=64)]
ContextName = Annotated[str, Field(pattern=r"^[a-z0-9_.-]{0,64}$")]


class PolicyIn(Sent):
    """A policy, as text or as an object: one of the two."""

    source: str | None = Field(
        default=None, max_length=MAX_CHARACTERS, description="The text, YAML or JSON. Faults name its lines."
    )
    document: dict[str, Any] | None = Field(default=None, description="The document, as an object.")


class AssignmentIn(Sent):
    """Which policy decides on the account's pictures."""

    context: ContextName | None = Field(
        default=None, description="In this context; empty: where jobs name none; null: in all that have none assigned."
    )
    policy: PolicyName | None = Field(description="The policy's name; null takes back what was assigned.")


class PolicyVersionOut(BaseModel):
    """A version of a policy, without its text."""

    name: str
    version: int
    state: PolicyState
    owner: Literal["account", "installation"]
    created_at: datetime
    created_by: str = Field(description="`key:` and the id of an API key, `user:` and a person's id, cli, or system.")
    activated_at: datetime | None
    retired_at: datetime | None


class PolicyOut(PolicyVersionOut):
    """A version of a policy. `source` is its text, comments and all."""

    url: str
    description: str
    source: str
    document: dict[str, Any]
    classes: list[str] = Field(description="The classes that its rules read.")
    warnings: list[str] = Field(description="What is valid and yet may not be meant.")


class ActivationOut(BaseModel):
    """A version became active, or (`version` null) the active one was retired."""

    version: int | None
    replaced: int | None
    actor: str
    created_at: datetime


class PolicyHistoryOut(BaseModel):
    """All versions of a policy, newest first, and which was active since when."""

    name: str
    versions: list[PolicyVersionOut]
    activations: list[ActivationOut]


class PoliciesPage(BaseModel):
    """Policies by name: of each the active version, else the newest. `next` is null at the end."""

    policies: list[PolicyVersionOut]
    next: str | None


class CheckedOut(BaseModel):
    """A policy that is valid."""

    name: str
    rules: int
    classes: list[str]
    warnings: list[str]


class AssignmentOut(BaseModel):
    """Where a policy decides: `context` null stands for all contexts."""

    context: str | None
    policy: str | None
    owner: Literal["account", "installation"] = Field(description="Who assigned it. The account's comes first.")
    actor: str
    created_at: datetime


class AssignmentsOut(BaseModel):
    """What counts now, the most specific first, and what was before, newest first (at most 100)."""

    assignments: list[AssignmentOut]
    history: list[AssignmentOut]
