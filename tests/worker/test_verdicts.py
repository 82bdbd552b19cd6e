"""The line decides by policies: with all that they ask for, without a network where none can change anything, and as
they say where a model is missing or late."""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from db import endings, policies, policy_assignments, policy_text, reruns
from db.reruns import Selection
from db.session import Database
from tests.conftest import TestAccount
from tests.worker.line import ingested, install_models, jpeg, rows, run_sql
from tests.worker.test_infer import Stage, models, stage  # noqa: F401  # fixtures

MODERATION = ("moderation",)
NUDITY = {"id": "nudity", "when": {"score": "Porn", "at_least": 0.5}, "then": "reject"}


def decides(
    database: Database, account_id: int, *rules: dict[str, Any], context: str | None = None, **more: Any
) -> str:
    """Let a policy of these rules decide for the account, in a context or in all."""
    name = f"own-{context or 'all'}"
    with database.transaction() as session:
        new = policy_text.written({"name": name, "rules": list(rules), **more})
        row = policies.add(session, account_id, new, actor="cli")
        policies.activate(session, account_id, name, row.version, actor="cli")
        policy_assignments.assign(session, account_id, context, name, actor="cli")
        return row.ref


def moderated(database: Database, job: UUID) -> list[dict[str, Any]]:
    """What the results say, in order."""
    return [
        row.moderation
        for row in rows(database, "SELECT moderation FROM results WHERE job_id = :job ORDER BY seq", job=job)
    ]


def waited(database: Database, job: UUID, seconds: int) -> None:
    """As if the bulk job's pictures had been ready for a model so long ago."""
    run_sql(database, "UPDATE jobs SET created_at = now() - interval '1 day' WHERE id = :job", job=job)
    sql = "UPDATE chunks SET created_at = now() - make_interval(secs => :s) WHERE job_id = :job AND stage = 'infer'"
    run_sql(database, sql, s=seconds, job=job)


@pytest.mark.usefixtures("models")
def test_rules_see_facts_context_account_category_and_tags(
    stage: Stage,  # noqa: F811
    owner_db: Database,
    account: TestAccount,
) -> None:
    decides(
        owner_db,
        account.id,
        {"id": "small", "when": {"fact": "short_side", "below": 17}, "then": "review"},
        {"id": "ours", "when": {"all": [{"account": "acme"}, {"context": "avatar"}]}, "then": "review"},
        {"id": "other-goods", "when": {"category_mismatch": 0.5}, "then": "reject", "text": "It shows something else."},
    )
    job = ingested(
        owner_db,
        stage.blobs,
        account.id,
        [jpeg("red"), jpeg("blue")],
        category="red",
        context="avatar",
        analyses=MODERATION,
    )
    stage.inference().run()
    red, blue = moderated(owner_db, job)
    assert (red["verdict"], [reason["rule"] for reason in red["reasons"]]) == ("review", ["small", "ours"])
    assert red["reasons"][0]["value"] == 16
    assert (blue["verdict"], blue["rule"], blue["policy"]) == ("reject", "other-goods", "own-all@1")
    assert blue["reasons"][-1]["category"] == "red"
    assert blue["reasons"][-1]["text"] == "It shows something else."
    tags = rows(owner_db, "SELECT tags FROM results WHERE job_id = :job", job=job)
    assert [row.tags for row in tags] == [None, None], "the policy's tags are not the job's"


@pytest.mark.usefixtures("models")
def test_what_no_score_can_change_asks_no_network(
    stage: Stage,  # noqa: F811
    owner_db: Database,
    account: TestAccount,
) -> None:
    rule = {"id": "trusted", "when": {"context": "press"}, "then": "approve"}
    decides(owner_db, account.id, rule, NUDITY, mode="first_match")
    stage.before_batch = lambda: pytest.fail("a network was asked")
    job = ingested(owner_db, stage.blobs, account.id, [jpeg("red")], context="press", analyses=MODERATION)
    stage.inference().run()
    (found,) = moderated(owner_db, job)
    assert (found["verdict"], found["rule"], found["model"], found["scores"]) == ("approve", "trusted", None, {})
    stage.before_batch = lambda: None
    other = ingested(owner_db, stage.blobs, account.id, [jpeg("red")], analyses=MODERATION)
    stage.inference().run()
    (scored,) = moderated(owner_db, other)
    assert (scored["verdict"], scored["rule"]) == ("reject", "nudity")
    again = ingested(owner_db, stage.blobs, account.id, [jpeg("red")], context="press")
    stage.inference().run()
    (both,) = moderated(owner_db, again)
    assert (both["verdict"], both["model"]) == ("approve", "tiny-moderation@1"), "scores that are there are shown"


@pytest.mark.parametrize(
    ("on_missing", "verdict"), [("fail_open", "approve"), ("fail_closed", "reject"), ("review", "review")]
)
def test_a_missing_model_fails_as_the_policy_says(
    stage: Stage,  # noqa: F811
    owner_db: Database,
    account: TestAccount,
    on_missing: str,
    verdict: str,
) -> None:
    decides(owner_db, account.id, NUDITY, on_missing=on_missing)
    job = ingested(owner_db, stage.blobs, account.id, [jpeg("red")], analyses=MODERATION)
    stage.inference().run()
    (found,) = moderated(owner_db, job)
    assert (found["verdict"], found["rule"], found["model"]) == (verdict, None, None)
    assert found["reasons"] == [{"code": "no_moderation_model", "verdict": verdict}]


@pytest.mark.usefixtures("models")
def test_a_late_picture_waits_no_longer_for_a_model(
    stage: Stage,  # noqa: F811
    owner_db: Database,
    account: TestAccount,
) -> None:
    """The model's files are gone: the picture waits for them as long as the policy allows, and no longer."""
    decides(owner_db, account.id, NUDITY, on_late="fail_closed", late_after_s=600)
    job = ingested(owner_db, stage.blobs, account.id, [jpeg("red")], analyses=MODERATION)
    (stage.folder / "models").rename(stage.folder / "gone")
    inference = stage.inference(model_retry_s=0.01)
    inference.run()
    assert moderated(owner_db, job) == []
    waited(owner_db, job, 601)
    run_sql(owner_db, "UPDATE chunks SET not_before = now() WHERE job_id = :job", job=job)
    stage.inference().run()
    (found,) = moderated(owner_db, job)
    assert (found["verdict"], found["reasons"]) == ("reject", [{"code": "moderation_late", "verdict": "reject"}])


@pytest.mark.usefixtures("models")
def test_lateness_takes_neither_tags_nor_scores_that_are_there(
    stage: Stage,  # noqa: F811
    owner_db: Database,
    account: TestAccount,
) -> None:
    decides(owner_db, account.id, NUDITY, on_late="fail_open", late_after_s=600)
    job = ingested(owner_db, stage.blobs, account.id, [jpeg("red")])
    waited(owner_db, job, 601)
    stage.inference().run()
    (row,) = rows(owner_db, "SELECT tags, moderation FROM results WHERE job_id = :job", job=job)
    assert row.tags[0]["label"] == "red"
    assert (row.moderation["verdict"], row.moderation["reasons"][0]["code"]) == ("approve", "moderation_late")
    in_time = ingested(owner_db, stage.blobs, account.id, [jpeg("red")])
    stage.inference().run()
    assert moderated(owner_db, in_time)[0]["verdict"] == "reject"
    late = ingested(owner_db, stage.blobs, account.id, [jpeg("red")])
    waited(owner_db, late, 601)
    stage.inference().run()
    assert moderated(owner_db, late)[0]["verdict"] == "reject", "scores of an earlier job are used, however late"


@pytest.mark.usefixtures("models")
def test_a_rerun_decides_by_the_policy_of_each_results_context(
    stage: Stage,  # noqa: F811
    owner_db: Database,
    account: TestAccount,
    tmp_path: Path,
) -> None:
    strict = {"id": "strict", "when": {"score": "Porn", "at_most": 1}, "then": "reject"}
    decides(owner_db, account.id, {**NUDITY, "then": "review"}, context="listing", on_late="fail_open", late_after_s=1)
    decides(owner_db, account.id, strict, context="avatar")
    jobs = [
        ingested(owner_db, stage.blobs, account.id, [jpeg(colour)], context=context, analyses=MODERATION)
        for colour, context in (("red", "listing"), ("blue", "avatar"), ("blue", ""))
    ]
    stage.inference().run()
    with owner_db.transaction() as session:
        for job in jobs:
            assert endings.finish(session, job)
    decides(owner_db, account.id, {**NUDITY, "then": "reject"}, context="listing")
    with owner_db.transaction() as session:
        rerun = reruns.start(session, account.id, "tiny-moderation@1", Selection(all=True)).job_id
    waited(owner_db, rerun, 100)
    stage.inference().run()
    found = [(each["policy"], each["verdict"]) for each in moderated(owner_db, rerun)]
    assert found == [("own-listing@2", "reject"), ("own-avatar@1", "reject"), ("default@1", "approve")]


@pytest.mark.usefixtures("models")
def test_a_policy_that_reads_tags_gets_them_in_a_rerun_too(
    stage: Stage,  # noqa: F811
    owner_db: Database,
    account: TestAccount,
) -> None:
    job = ingested(owner_db, stage.blobs, account.id, [jpeg("red")], analyses=MODERATION)
    stage.inference().run()
    with owner_db.transaction() as session:
        assert endings.finish(session, job)
    decides(owner_db, account.id, {"id": "red", "when": {"tag": "red", "at_least": 0.5}, "then": "review"})
    with owner_db.transaction() as session:
        rerun = reruns.start(session, account.id, "tiny-moderation@1", Selection(all=True)).job_id
    stage.inference().run()
    (found,) = moderated(owner_db, rerun)
    assert (found["verdict"], found["rule"]) == ("review", "red")


def test_without_any_model_a_job_of_tags_and_verdicts_still_ends(
    stage: Stage,  # noqa: F811
    owner_db: Database,
    account: TestAccount,
    tmp_path: Path,
) -> None:
    install_models(owner_db, tmp_path / "models", ("tags",))
    decides(owner_db, account.id, {"id": "red", "when": {"tag": "red", "at_least": 0.5}, "then": "reject"}, NUDITY)
    job = ingested(owner_db, stage.blobs, account.id, [jpeg("red"), jpeg("blue")])
    stage.inference().run()
    red, blue = moderated(owner_db, job)
    assert (red["verdict"], red["rule"]) == ("reject", "red"), "what is known decides"
    assert (blue["verdict"], blue["reasons"][0]["code"]) == ("review", "no_moderation_model")
