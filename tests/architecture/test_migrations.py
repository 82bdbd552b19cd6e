"""The migrations: one line of revisions, there and back, and the tables that the code believes in."""

import importlib
import itertools
import re
from collections.abc import Iterator

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from db import migrate
from db.session import psycopg_url
from db.tables import Base
from tests.architecture.source import ROOT
from tests.conftest import Services

for each in sorted((ROOT / "db").glob("*_tables.py")):  # tables of the same metadata
    importlib.import_module(f"db.{each.stem}")

LEAF = re.compile(r"(items|ingests|results)_b\d+")

# Indexes and keys over several columns serve queries and invariants, which are SQL: they stand in the migrations
# only, and `db.tables` does not repeat them. Each is here with what it is for.
ONLY_IN_MIGRATIONS = {
    "console_sessions_person": "somebody's sessions, newest first",
    "people_account": "the people of an account",
    "sign_in_attempts_subject": "the attempts of a name or an address lately",
    "api_keys_account": "the keys of an account",
    "bank_changes_bank": "a bank's changes, newest first",
    "bank_changes_open": "changes to work off, oldest first",
    "bank_rechecks_next": "the pictures of a change that are to be decided again, newest first",
    "hash_banks_name": "a scope has a bank of a name once",
    "hash_entries_expiry": "entries that expire next",
    "hash_entries_external": "the entry that a tombstone of an exchange is about",
    "hash_entries_newest": "a bank's entries, newest first",
    "hash_entries_pdq": "a bank has a hash once",
    "hash_entries_quarantined": "entries in quarantine",
    "hash_entries_revision": "what changed in a bank since a copy in memory was made",
    "hash_entries_wide": "entries that found too much and that nobody has looked at yet",
    "hash_hits_entry": "what an entry hit, newest first",
    "hash_hits_recent": "hits of the last hour, for the quarantine and metrics",
    "appeals_account": "an account's appeals, newest first",
    "appeals_item": "the appeals of an item, newest first",
    "appeals_one_open": "at most one open appeal against a verdict",
    "audit_log_account": "an account's audit entries, newest first",
    "audit_log_batch": "the audit entry that covers a batch of decisions",
    "audit_log_verdicts": "the audit entries that cover verdicts of a job",
    "blob_removals_erasure": "the blobs of an erasure",
    "blob_removals_next": "blobs to remove, oldest first",
    "chunks_hint": "ready infer chunks, for the dispatcher",
    "chunks_job": "the chunks of a job's round: progress and the finaliser",
    "chunks_leased": "leases that ran out, for the reaper",
    "chunks_open": "whether a job has work left, for the finaliser",
    "chunks_ready": "the claim: an account's next ready chunks of a stage",
    "chunks_urgent": "whether anything of the interactive lane is ready",
    "chunks_scored": "infer chunks in the order they were finished, for shadow runs",
    "datasets_name_version_key": "a version of a dataset exists once",
    "decisions_account": "an account's decisions, newest first",
    "decisions_batch": "what was decided at once, for the digest in the audit log",
    "decisions_item": "the decisions on an item, oldest first",
    "decisions_newest": "the newest decision on a picture in a context",
    "deliveries_due": "an endpoint's next deliveries, for the claim",
    "deliveries_event": "the deliveries of an event that is forgotten",
    "deliveries_failed": "deliveries given up of late, for the metrics",
    "deliveries_leased": "deliveries in work, for the bounds of the claim",
    "delivery_attempts_age": "tries of the last hour, for the metrics",
    "drift_history": "the first days of a model at a source, to compare with",
    "erased_items_erasure": "the tombstones of an erasure, for its journal",
    "erased_pictures_erasure": "the pictures of an erasure, to be looked for once more",
    "erasures_account": "an account's erasures, newest first",
    "erasures_open": "erasures to go on with",
    "evaluations_model": "a model's newest evaluation on a dataset, for the promotion gate",
    "idempotency_age": "old keys, to be forgotten",
    "labels_group": "the kind of a label group that no model knows",
    "labels_newest": "what counts for a picture: the newest row of each group",
    "images_age": "pictures older than a retention clock",
    "images_copy": "whether a picture names a working copy",
    "items_product": "the pictures of a product",
    "items_raw": "the items that name an upload",
    "items_same_as": "the items that follow another one's picture",
    "jobs_account": "an account's jobs, newest first",
    "jobs_listed": "an account's jobs but those of uploads, newest first",
    "jobs_settled": "jobs older than a retention clock",
    "jobs_open": "jobs not yet settled, for the claim and the finaliser",
    "moderations_account": "an account's moderations, newest first",
    "moderations_job_id_seq_key": "an item is one moderation's",
    "moderations_picture": "the moderations of a picture that a person decides on",
    "moderations_product": "the moderations of a product, newest first",
    "moderations_state": "an account's moderations in a state, newest first",
    "moderations_user": "the moderations of a subject, newest first",
    "moderations_verdict": "an account's moderations by verdict, newest first",
    "model_moves_one_asked": "one change of a task's model at a time",
    "model_versions_name_version_key": "a version is registered once",
    "model_versions_one_active": "at most one active version a task",
    "outbox_account": "an account's events since a time, to redeliver",
    "outbox_account_id_subject_type_round_key": "one event an account, subject, type and round",
    "outbox_age": "old events, to be forgotten",
    "outbox_waiting": "events not yet fanned out to endpoints",
    "policies_active": "at most one active version of a policy",
    "policies_version_key": "a version of an owner's policy exists once",
    "policy_activations_newest": "which version of a policy was active when",
    "policy_assignments_newest": "what is assigned to an account in a context: the newest row counts",
    "replays_account": "an account's replays, newest first",
    "replays_open": "replays to claim, oldest first",
    "rerun_items_source": "the copies of an item in reruns",
    "reruns_account": "an account's reruns, newest first",
    "results_code": "a job's failures by code",
    "results_failed_picture": "where a picture was seen that failed later",
    "results_picture": "where a picture was seen, for bans and re-decisions",
    "review_comments_task": "the comments on a task, oldest first",
    "review_gold_one": "a picture in a context has one known answer",
    "review_opinions_account": "opinions of a time, for the figures of quality",
    "review_opinions_actor": "a reviewer's last opinions, for undo",
    "review_opinions_taken_back": "whether an opinion was taken back",
    "review_opinions_task": "the opinions on a task, oldest first",
    "review_tasks_account": "an account's tasks, newest first",
    "review_tasks_audits": "the audited verdicts of a time",
    "review_tasks_leased": "what a reviewer has in hand",
    "review_tasks_one_open": "a picture in a context is open once a kind",
    "review_tasks_queue": "the claim: the next tasks of a level, in the order of the queue",
    "results_day": "the results of a day, for drift and suggestions",
    "shadow_runs_one_running": "at most one running shadow run a model",
    "training_runs_name_version_key": "a run makes a version of its own",
    "training_runs_open": "runs to claim, oldest first",
    "webhook_secrets_current": "one current secret an endpoint",
    "webhook_secrets_webhook": "the secrets of an endpoint",
    "validators_age": "what no server has said for long, to be forgotten",
    "webhooks_account": "an account's endpoints, newest first",
}

_numbers = itertools.count(1)


@pytest.fixture
def empty_url(services: Services) -> Iterator[str]:
    """The owner's URL of a database without any table."""
    name = f"unmigrated_{next(_numbers)}"
    with psycopg.connect(services.postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield services.postgres.url_of(name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_there_is_one_head_and_one_line_of_revisions() -> None:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    scripts = ScriptDirectory.from_config(config)
    revisions = list(scripts.walk_revisions())
    assert scripts.get_heads() == [migrate.head()]
    assert [r.revision for r in reversed(revisions)] == [f"{n:04d}" for n in range(1, len(revisions) + 1)]
    assert not any(r.is_merge_point or r.is_branch_point for r in revisions)


def test_up_down_and_up_again(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    first = _catalog(empty_url)
    migrate.upgrade(empty_url)
    assert _catalog(empty_url) == first, "a second upgrade changed something"
    migrate.downgrade(empty_url, "base")
    assert _catalog(empty_url) == ["TABLE alembic_version"]
    migrate.upgrade(empty_url)
    assert _catalog(empty_url) == first


def _catalog(url: str) -> list[str]:
    """Everything in the schema that a migration can leave behind, by kind and name."""
    query = """
      SELECT CASE relkind WHEN 'r' THEN 'TABLE' WHEN 'p' THEN 'TABLE' ELSE relkind::text END || ' ' || relname
        FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S')
        AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = pg_class.oid AND d.deptype = 'i')
      UNION ALL SELECT 'FUNCTION ' || proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
      UNION ALL SELECT 'TYPE ' || typname FROM pg_type
        WHERE typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd')
      UNION ALL SELECT 'POLICY ' || polname FROM pg_policy
      ORDER BY 1
    """
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute(query)]


def test_the_tables_in_the_code_are_those_of_the_database(database_url: str) -> None:
    """Tables, columns, types, nullability, foreign keys and single-column keys; both ways."""
    differences = [d for d in _compare(database_url) if not _is_index(d)]
    assert differences == []


def test_every_index_of_the_database_is_known(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT indexname, tablename FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname"
        ).fetchall()
    own = {index for index, table in rows if not LEAF.fullmatch(table) and table != "alembic_version"}
    keys = {f"{table.name}_pkey" for table in Base.metadata.sorted_tables}
    single = {f"{t.name}_{c.name}_key" for t in Base.metadata.sorted_tables for c in t.columns if c.unique}
    assert own == keys | single | ONLY_IN_MIGRATIONS.keys()


def _compare(url: str) -> list[object]:
    engine = create_engine(psycopg_url(url))
    try:
        with engine.connect() as connection:
            context = MigrationContext.configure(
                connection,
                opts={"compare_type": True, "include_name": lambda name, kind, _: kind != "table" or not _leaf(name)},
            )
            return list(compare_metadata(context, Base.metadata))
    finally:
        engine.dispose()


def _leaf(name: str | None) -> bool:
    return name is not None and LEAF.fullmatch(name) is not None


def _is_index(difference: object) -> bool:
    """Whether it is about an index or a key of several columns, which the next test looks after."""
    if not isinstance(difference, tuple) or difference[0] not in ("remove_index", "remove_constraint"):
        return False
    return difference[1].name is None or difference[1].name in ONLY_IN_MIGRATIONS
