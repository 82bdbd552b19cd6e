"""Shadow runs: what a candidate says beside the active model, apart from every result.

Why plain SQL: see 0001.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

# A run belongs to the installation, as models do; its pictures belong to their accounts. The index on chunks lets a run
# find what was finished since it last looked, without reading all chunks.
TABLES = """
CREATE TABLE shadow_runs (
  id uuid PRIMARY KEY,
  task text NOT NULL CHECK (task IN ('tags', 'moderation')),
  model text NOT NULL,
  against text NOT NULL,
  state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'finished', 'stopped', 'failed')),
  reason text,
  code text,
  detail text,
  share double precision NOT NULL CHECK (share > 0 AND share <= 1),
  pictures integer CHECK (pictures > 0),
  until timestamptz,
  seen_at timestamptz NOT NULL DEFAULT now(),
  seen_chunk bigint NOT NULL DEFAULT 0,
  owner uuid,
  fence integer NOT NULL DEFAULT 0,
  lease_until timestamptz,
  attempts smallint NOT NULL DEFAULT 0,
  not_before timestamptz NOT NULL DEFAULT now(),
  worked_at timestamptz,
  compared integer NOT NULL DEFAULT 0 CHECK (compared >= 0),
  failed integer NOT NULL DEFAULT 0 CHECK (failed >= 0),
  agreed jsonb NOT NULL DEFAULT '{}',
  active_s double precision NOT NULL DEFAULT 0,
  candidate_s double precision NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT now(),
  ended_at timestamptz,
  CHECK (pictures IS NOT NULL OR until IS NOT NULL),
  CHECK (pictures IS NULL OR compared + failed <= pictures),
  CHECK ((owner IS NULL) = (lease_until IS NULL)),
  CHECK (state = 'running' OR owner IS NULL),
  CHECK ((state = 'running') = (ended_at IS NULL)),
  CHECK ((state = 'finished') = (reason IS NOT NULL)),
  CHECK (state <> 'failed' OR code IS NOT NULL)
);
CREATE UNIQUE INDEX shadow_runs_one_running ON shadow_runs (model) WHERE state = 'running';

CREATE TABLE shadow_pictures (
  run_id uuid NOT NULL REFERENCES shadow_runs ON DELETE CASCADE,
  account_id bigint NOT NULL,
  sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
  job_id uuid NOT NULL,
  seq integer NOT NULL,
  active real[],
  candidate real[],
  side text CHECK (side IN ('picture', 'active', 'candidate')),
  code text,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (run_id, account_id, sha256),
  CHECK ((code IS NULL) = (active IS NOT NULL)),
  CHECK ((code IS NULL) = (candidate IS NOT NULL)),
  CHECK ((code IS NULL) = (side IS NULL))
);

CREATE INDEX chunks_scored ON chunks (finished_at, id) WHERE stage = 'infer' AND state = 'done';
"""

# As tagmill_metrics: sums over all accounts, of the runs that go on.
METRICS = """
CREATE FUNCTION tagmill_shadow_metrics() RETURNS TABLE (name text, labels jsonb, value double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT 'shadow_pictures', jsonb_build_object('model', model, 'outcome', o.outcome), o.pictures::float8
    FROM shadow_runs, LATERAL (VALUES ('compared', compared), ('failed', failed)) AS o(outcome, pictures)
    WHERE state = 'running'
  UNION ALL
  SELECT 'shadow_agreement_ratio', jsonb_build_object('model', model, 'group', a.key), a.value::float8 / compared
    FROM shadow_runs, jsonb_each_text(agreed) AS a WHERE state = 'running' AND compared > 0
$$;
REVOKE ALL ON FUNCTION tagmill_shadow_metrics() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tagmill_shadow_metrics() TO tagmill_api, tagmill_worker;
"""

GRANTS = """
GRANT SELECT, INSERT, UPDATE ON shadow_runs TO tagmill_worker;
GRANT SELECT ON shadow_pictures TO tagmill_api;
GRANT SELECT, INSERT, DELETE ON shadow_pictures TO tagmill_worker;
"""

POLICY = """
ALTER TABLE shadow_pictures ENABLE ROW LEVEL SECURITY;
CREATE POLICY shadow_pictures_api ON shadow_pictures TO tagmill_api
  USING (account_id = nullif(current_setting('tagmill.account', true), '')::bigint)
  WITH CHECK (account_id = nullif(current_setting('tagmill.account', true), '')::bigint);
CREATE POLICY shadow_pictures_worker ON shadow_pictures TO tagmill_worker USING (true) WITH CHECK (true);
"""


def upgrade() -> None:
    for sql in (TABLES, METRICS, GRANTS, POLICY):
        op.get_bind().exec_driver_sql(sql)


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        "DROP FUNCTION tagmill_shadow_metrics(); DROP INDEX chunks_scored; DROP TABLE shadow_pictures, shadow_runs"
    )
