"""What is valid in a policy and yet may not be meant: names that nothing here knows. Changes nothing."""

from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.policy import Policy
from db.policy_conditions import BankHit, Tag
from db.policy_logic import leaves


def warnings(session: Session, account_id: int | None, policy: Policy) -> list[str]:
    """A sentence for each class, tag and hash bank that it names and that does not exist: for this account, or (None)
    for any. Classes and tags are those of the active models; where none is active nothing is said of them."""
    found = [leaf for rule in policy.rules for leaf in leaves(rule.when)]
    tags = dict.fromkeys(leaf.label for leaf in found if isinstance(leaf, Tag))
    banks = dict.fromkeys(leaf.bank for leaf in found if isinstance(leaf, BankHit) and leaf.bank is not None)
    there = set(session.scalars(_BANKS, {"names": list(banks), "account_id": account_id})) if banks else set()
    return [
        *(
            f"{label} is no class of the active moderation model: pictures go to review"
            for label in _strange(session, "moderation", policy.classes)
        ),
        *(
            f"{label} is no tag of the active tagger: the condition holds for no picture"
            for label in _strange(session, "tags", tuple(tags))
        ),
        *(
            f"There is no hash bank named {name}: the condition holds for no picture"
            for name in banks
            if name not in there
        ),
    ]


def _strange(session: Session, task: str, labels: tuple[str, ...]) -> list[str]:
    known = session.scalars(_LABELS, {"task": task}).all() if labels else []
    return [label for label in labels if label not in known] if known else []


_LABELS: Final = text(
    """
    SELECT label ->> 'name' FROM model_versions m, jsonb_array_elements(m.card -> 'labels') AS label
    WHERE m.task = :task AND m.state = 'active'
    """
)
# A policy of the installation also decides for accounts, by their own banks of that name.
_BANKS: Final = text(
    """
    SELECT name FROM hash_banks WHERE name = ANY(:names) AND removed_at IS NULL
      AND (CAST(:account_id AS bigint) IS NULL OR account_id IS NULL OR account_id = :account_id)
    """
)
