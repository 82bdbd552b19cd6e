"""The review queue: tasks, what reviewers said of them, known answers, comments, and pictures shown clear.

Why plain SQL: see 0001.
"""

from alembic import op

revision = "0010"
down_revision = "0009"

# A task is a picture in a context that a person shall look at. `kind`: the first opinion, which decides; a second one,
# which only compares; gold, whose answer is known. A lease is an owner and a time; `version` rises with every move, and
# who holds an older one decides nothing. `rank` orders the queue (lowest first, see db/review_queue.py).
TASKS = """
CREATE TABLE review_tasks (
  id uuid PRIMARY KEY,
  account_id bigint NOT NULL,
  sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
  context text NOT NULL DEFAULT '',
  kind text NOT NULL DEFAULT 'first' CHECK (kind IN ('first', 'second', 'gold')),
  level text NOT NULL DEFAULT 'reviewer' CHECK (level IN ('reviewer', 'curator')),
  state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'decided', 'closed')),
  reason text NOT NULL,
  policy text,
  category text,
  risk real NOT NULL CHECK (risk >= 0 AND risk <= 1),
  exposure integer NOT NULL DEFAULT 1 CHECK (exposure >= 1),
  rank double precision NOT NULL,
  job_id uuid NOT NULL,
  seq integer NOT NULL,
  items integer NOT NULL DEFAULT 1,
  also text[] NOT NULL DEFAULT '{}',
  pdq bit(256),
  only_for text,
  not_for text[] NOT NULL DEFAULT '{}',
  skips jsonb NOT NULL DEFAULT '{}',
  version integer NOT NULL DEFAULT 1,
  lease_owner text,
  lease_until timestamptz,
  parent uuid,
  audit_verdict text CHECK (audit_verdict IN ('approve', 'reject')),
  audit_share double precision CHECK (audit_share > 0 AND audit_share <= 1),
  expected text CHECK (expected IN ('approve', 'reject')),
  verdict text CHECK (verdict IN ('approve', 'reject')),
  decided_by text,
  decided_at timestamptz,
  decision_id uuid,
  created_at timestamptz NOT NULL DEFAULT now(),
  CHECK ((lease_owner IS NULL) = (lease_until IS NULL)),
  CHECK ((state = 'decided') = (decided_at IS NOT NULL)),
  CHECK ((audit_verdict IS NULL) = (audit_share IS NULL)),
  CHECK ((kind = 'gold') = (expected IS NOT NULL))
);
CREATE UNIQUE INDEX review_tasks_one_open ON review_tasks (account_id, sha256, context, kind)
  WHERE state = 'open' AND kind <> 'gold';
CREATE INDEX review_tasks_queue ON review_tasks (account_id, level, rank) WHERE state = 'open';
CREATE INDEX review_tasks_leased ON review_tasks (account_id, lease_owner) WHERE lease_owner IS NOT NULL;
CREATE INDEX review_tasks_account ON review_tasks (account_id, id DESC);
CREATE INDEX review_tasks_audits ON review_tasks (account_id, created_at) WHERE audit_verdict IS NOT NULL;
"""

# What each reviewer said, in order; a row without a verdict takes an earlier one back. Agreement and precision are
# counted from here, decisions that hold for pictures are in `decisions`.
OPINIONS = """
CREATE TABLE review_opinions (
  id uuid PRIMARY KEY,
  account_id bigint NOT NULL,
  task_id uuid NOT NULL REFERENCES review_tasks ON DELETE CASCADE,
  sha256 bytea NOT NULL,
  context text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('first', 'second', 'gold')),
  actor text NOT NULL,
  verdict text CHECK (verdict IN ('approve', 'reject')),
  expected text CHECK (expected IN ('approve', 'reject')),
  decision_id uuid,
  takes_back uuid,
  created_at timestamptz NOT NULL DEFAULT now(),
  CHECK ((verdict IS NULL) = (takes_back IS NOT NULL))
);
CREATE INDEX review_opinions_task ON review_opinions (task_id, id);
CREATE INDEX review_opinions_actor ON review_opinions (account_id, actor, id DESC);
CREATE INDEX review_opinions_account ON review_opinions (account_id, created_at);
CREATE INDEX review_opinions_taken_back ON review_opinions (takes_back) WHERE takes_back IS NOT NULL;
CREATE TABLE review_comments (
  id uuid PRIMARY KEY,
  account_id bigint NOT NULL,
  task_id uuid NOT NULL REFERENCES review_tasks ON DELETE CASCADE,
  actor text NOT NULL,
  text text NOT NULL CHECK (text <> ''),
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX review_comments_task ON review_comments (task_id, id);
"""

GOLD = """
CREATE TABLE review_gold (
  id uuid PRIMARY KEY,
  account_id bigint NOT NULL,
  sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
  context text NOT NULL DEFAULT '',
  job_id uuid NOT NULL,
  seq integer NOT NULL,
  reason text NOT NULL,
  verdict text NOT NULL CHECK (verdict IN ('approve', 'reject')),
  added_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  removed_at timestamptz
);
CREATE UNIQUE INDEX review_gold_one ON review_gold (account_id, sha256, context) WHERE removed_at IS NULL;
"""

# A row for each distinct picture that a reviewer saw clear on a day (UTC).
EXPOSURES = """
CREATE TABLE review_exposures (
  account_id bigint NOT NULL,
  actor text NOT NULL,
  day date NOT NULL,
  sha256 bytea NOT NULL,
  verdict text NOT NULL,
  class text NOT NULL,
  shown integer NOT NULL DEFAULT 1,
  PRIMARY KEY (account_id, actor, day, sha256)
);
"""

GRANTS = """
GRANT SELECT, INSERT, UPDATE ON review_tasks, review_gold, review_exposures TO tagmill_api, tagmill_worker;
GRANT SELECT, INSERT ON review_opinions, review_comments TO tagmill_api, tagmill_worker;
"""

POLICY = """
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
CREATE POLICY {table}_api ON {table} TO tagmill_api
  USING (account_id = nullif(current_setting('tagmill.account', true), '')::bigint)
  WITH CHECK (account_id = nullif(current_setting('tagmill.account', true), '')::bigint);
CREATE POLICY {table}_worker ON {table} TO tagmill_worker USING (true) WITH CHECK (true);
"""
WALLED = ("review_tasks", "review_opinions", "review_comments", "review_gold", "review_exposures")


def upgrade() -> None:
    walls = (POLICY.format(table=table) for table in WALLED)
    for sql in (TASKS, OPINIONS, GOLD, EXPOSURES, GRANTS, *walls):
        op.get_bind().exec_driver_sql(sql)


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        "DROP TABLE review_exposures, review_gold, review_comments, review_opinions, review_tasks"
    )
