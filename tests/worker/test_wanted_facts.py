"""Which facts a job can leave out, and which others rely on."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from db.chunks import Chunk
from worker.wanted_facts import may_leave_out_hashes, wanted_facts

ID = UUID(int=1)
TAGS: tuple[str, ...] = ("tags",)
BOTH = ("tags", "moderation")
CHUNK = Chunk(
    *(1, 1, ID, 0, 1, "ingest", 0, 9, None, ID, 1, 1, 0, "bulk", TAGS, {}, {}, {}, 0, "", "shop", 0.0),
)
RULE = {"rules": [{"when": {"all": [{"fact": "sharpness", "below": 30}, {"tag": "dress"}]}, "verdict": "review"}]}
HASH_RULE = {"rules": [{"when": {"not": {"fact": "pdq_quality", "below": 50}}, "verdict": "review"}]}


def facts(asked: list[str] | None, analyses: tuple[str, ...] = TAGS, banks: bool = False, policy: Any = None) -> str:
    options = {} if asked is None else {"facts": asked}
    chunk = replace(CHUNK, options=options, analyses=analyses, policy=policy or {})
    return " ".join(wanted_facts(chunk, banks=banks))


def test_all_facts_are_computed_unless_some_are_named() -> None:
    assert facts(None) == facts(None, BOTH, banks=True) == "pdq colours sharpness"
    assert facts(["colours"]) == "colours"
    assert facts(["sharpness", "pdq"]) == "pdq sharpness"
    assert facts([]) == ""


def test_a_hash_that_moderation_or_a_bank_may_ask_for_is_never_left_out() -> None:
    assert facts([], BOTH) == facts([], ("moderation",)) == facts([], banks=True) == "pdq"


def test_what_the_policy_compares_is_measured() -> None:
    assert facts([], policy=RULE) == "sharpness"
    assert facts([], policy=HASH_RULE) == "pdq"
    assert facts(["colours"], BOTH, policy=RULE) == "pdq colours sharpness"


@pytest.mark.parametrize(("asked", "wanted"), [(None, False), ([], True), (["pdq"], False), (["colours"], True)])
def test_banks_are_looked_for_only_where_they_matter(asked: list[str] | None, wanted: bool) -> None:
    chunk = replace(CHUNK, options={} if asked is None else {"facts": asked})
    assert may_leave_out_hashes(chunk) is wanted
