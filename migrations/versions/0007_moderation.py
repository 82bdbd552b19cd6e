"""Moderation: where a picture is to be shown, what its seller says it is, uploads for moderation, and decisions.

Why plain SQL: see 0001.
"""

from alembic import op

revision = "0007"
down_revision = "0006"

COLUMNS = """
ALTER TABLE jobs ADD COLUMN context text NOT NULL DEFAULT '' CHECK (context ~ '^[a-z0-9_.-]{0,64}$');
ALTER TABLE items ADD COLUMN category text;
"""

# Where else a picture was seen: a ban finds the results of pictures that were accepted long ago.
INDEX = "CREATE INDEX results_picture ON results (account_id, sha256) WHERE outcome = 'done';"

# A decision names the picture (its bytes) and the context, and the item that it was made on. People's decisions hold
# for the picture in that context; `verdict` NULL takes an earlier one back. What re-decides automatically keeps the
# moderation object `before` and `after`.
DECISIONS = """
CREATE TABLE decisions (
  id uuid PRIMARY KEY,
  account_id bigint NOT NULL,
  sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
  context text NOT NULL DEFAULT '',
  job_id uuid NOT NULL,
  seq integer NOT NULL,
  kind text NOT NULL CHECK (kind IN ('policy', 'bank', 'review', 'appeal')),
  verdict text CHECK (verdict IN ('approve', 'review', 'reject')),
  code text,
  text text,
  actor text NOT NULL,
  policy text,
  rule text,
  before jsonb,
  after jsonb,
  takes_back uuid,
  comment text,
  created_at timestamptz NOT NULL DEFAULT now(),
  CHECK (kind IN ('review', 'appeal') OR verdict IS NOT NULL),
  CHECK (kind IN ('policy', 'bank') OR verdict IS DISTINCT FROM 'review')
);
CREATE INDEX decisions_newest ON decisions (account_id, sha256, context, id DESC);
CREATE INDEX decisions_item ON decisions (job_id, seq, id);
CREATE INDEX decisions_account ON decisions (account_id, id DESC);
"""

# The newest word of a person on a picture in a context; nothing where it was taken back.
HUMAN = """
CREATE VIEW human_decisions WITH (security_invoker = true) AS
SELECT d.* FROM decisions d
WHERE d.kind IN ('review', 'appeal') AND d.verdict IS NOT NULL AND NOT EXISTS (
  SELECT FROM decisions n
  WHERE n.account_id = d.account_id AND n.sha256 = d.sha256 AND n.context = d.context
    AND n.kind IN ('review', 'appeal') AND n.id > d.id);
"""

# An upload sent for moderation, one item of a job of its own. What is said of its picture stands here too, so that
# lists by state and verdict are index scans; `db.moderations.refresh` writes it in the transaction that says it.
MODERATIONS = """
CREATE TABLE moderations (
  id uuid PRIMARY KEY,
  account_id bigint NOT NULL,
  job_id uuid NOT NULL REFERENCES jobs ON DELETE CASCADE,
  seq integer NOT NULL DEFAULT 0,
  client_id text,
  subject_user text,
  subject_product text,
  context text NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL DEFAULT now(),
  sha256 bytea CHECK (octet_length(sha256) = 32),
  automatic text CHECK (automatic IN ('approve', 'review', 'reject')),
  human text CHECK (human IN ('approve', 'reject')),
  code text,
  verdict text GENERATED ALWAYS AS (coalesce(human, automatic)) STORED,
  state text NOT NULL GENERATED ALWAYS AS (
    CASE WHEN code IS NOT NULL THEN 'failed' WHEN automatic IS NULL THEN 'pending'
      WHEN coalesce(human, automatic) = 'review' THEN 'in_review' ELSE 'decided' END) STORED,
  changed_at timestamptz,
  events integer NOT NULL DEFAULT 0,
  CHECK (code IS NULL OR automatic IS NULL),
  CHECK (human IS NULL OR automatic IS NOT NULL),
  UNIQUE (job_id, seq)
) WITH (fillfactor = 80);
CREATE INDEX moderations_account ON moderations (account_id, id DESC);
CREATE INDEX moderations_state ON moderations (account_id, state, id DESC);
CREATE INDEX moderations_verdict ON moderations (account_id, verdict, id DESC) WHERE verdict IS NOT NULL;
CREATE INDEX moderations_user ON moderations (account_id, subject_user, id DESC) WHERE subject_user IS NOT NULL;
CREATE INDEX moderations_product ON moderations (account_id, subject_product, id DESC)
  WHERE subject_product IS NOT NULL;
CREATE INDEX moderations_picture ON moderations (account_id, sha256) WHERE sha256 IS NOT NULL;
"""

# What must not wait is looked for ten times a second, in an index that holds nothing else. Uploads are listed as
# moderations, not among the jobs.
URGENT = """
CREATE INDEX chunks_urgent ON chunks (stage, not_before) WHERE state = 'ready' AND urgent;
ALTER TABLE jobs ADD COLUMN listed boolean NOT NULL DEFAULT true;
CREATE INDEX jobs_listed ON jobs (account_id, id DESC) WHERE listed;
"""

# Append-only: nobody but the owner changes or removes a decision.
GRANTS = """
GRANT SELECT, INSERT ON decisions, moderations TO tagmill_api, tagmill_worker;
GRANT SELECT ON human_decisions TO tagmill_api, tagmill_worker;
GRANT UPDATE (moderation) ON results TO tagmill_api;
GRANT UPDATE (sha256, automatic, human, code, changed_at, events) ON moderations TO tagmill_api, tagmill_worker;
"""

POLICY = """
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
CREATE POLICY {table}_api ON {table} TO tagmill_api
  USING (account_id = nullif(current_setting('tagmill.account', true), '')::bigint)
  WITH CHECK (account_id = nullif(current_setting('tagmill.account', true), '')::bigint);
CREATE POLICY {table}_worker ON {table} TO tagmill_worker USING (true) WITH CHECK (true);
"""


def upgrade() -> None:
    walls = (POLICY.format(table=table) for table in ("decisions", "moderations"))
    for sql in (COLUMNS, INDEX, DECISIONS, HUMAN, MODERATIONS, URGENT, GRANTS, *walls):
        op.get_bind().exec_driver_sql(sql)


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        "DROP VIEW human_decisions; DROP TABLE moderations, decisions; DROP INDEX results_picture;"
        "DROP INDEX chunks_urgent, jobs_listed; ALTER TABLE jobs DROP COLUMN listed;"
        "REVOKE UPDATE (moderation) ON results FROM tagmill_api;"
        "ALTER TABLE items DROP COLUMN category; ALTER TABLE jobs DROP COLUMN context"
    )
