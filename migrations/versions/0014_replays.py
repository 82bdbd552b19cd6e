"""Replays: a policy over stored evidence, to see what it would change (what-if) or to decide a window again.

Why plain SQL: see 0001.
"""

from alembic import op

revision = "0014"
down_revision = "0013"

# Without an account a replay goes over all of them. `reached`: what is not older than this is done (redecide).
TABLE = """
CREATE TABLE replays (
  id uuid PRIMARY KEY,
  account_id bigint,
  kind text NOT NULL CHECK (kind IN ('what_if', 'redecide')),
  policy text NOT NULL,
  document jsonb NOT NULL,
  since timestamptz NOT NULL,
  until timestamptz NOT NULL,
  selection jsonb NOT NULL DEFAULT '{}',
  state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'finished', 'failed', 'cancelled')),
  actor text NOT NULL,
  owner uuid,
  fence integer NOT NULL DEFAULT 0,
  lease_until timestamptz,
  attempts smallint NOT NULL DEFAULT 0,
  reached timestamptz,
  analyses bigint NOT NULL DEFAULT 0 CHECK (analyses >= 0),
  changed bigint NOT NULL DEFAULT 0 CHECK (changed >= 0),
  result jsonb,
  code text,
  detail text,
  created_at timestamptz NOT NULL DEFAULT now(),
  started_at timestamptz,
  ended_at timestamptz,
  CHECK (since < until),
  CHECK ((state = 'running') = (owner IS NOT NULL)),
  CHECK ((state = 'running') = (lease_until IS NOT NULL)),
  CHECK ((state IN ('finished', 'failed', 'cancelled')) = (ended_at IS NOT NULL)),
  CHECK ((state = 'failed') = (code IS NOT NULL)),
  CHECK (state <> 'finished' OR result IS NOT NULL)
);
CREATE INDEX replays_account ON replays (account_id, id DESC);
CREATE INDEX replays_open ON replays (id) WHERE state IN ('queued', 'running');
"""

GRANTS = """
GRANT SELECT, INSERT ON replays TO tagmill_api;
GRANT UPDATE (state, owner, lease_until, ended_at) ON replays TO tagmill_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON replays TO tagmill_worker;
"""

POLICY = """
ALTER TABLE replays ENABLE ROW LEVEL SECURITY;
CREATE POLICY replays_api ON replays TO tagmill_api
  USING (account_id = nullif(current_setting('tagmill.account', true), '')::bigint)
  WITH CHECK (account_id = nullif(current_setting('tagmill.account', true), '')::bigint);
CREATE POLICY replays_worker ON replays TO tagmill_worker USING (true) WITH CHECK (true);
"""


def upgrade() -> None:
    for sql in (TABLE, GRANTS, POLICY):
        op.get_bind().exec_driver_sql(sql)


def downgrade() -> None:
    op.get_bind().exec_driver_sql("DROP TABLE replays")
