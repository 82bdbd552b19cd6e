"""Drift: the daily figures of scores and tags by model and source.

Why plain SQL: see 0001.
"""

from alembic import op

revision = "0005"
down_revision = "0004"

# A day's results are found without reading the others: they are written in the order of their time, so a block range
# index, of a few pages, does; a B-tree would cost every COPY.
INDEX = "CREATE INDEX results_day ON results USING brin (created_at)"

TABLES = """
CREATE TABLE drift (
  day date NOT NULL,
  account_id bigint NOT NULL,
  model text NOT NULL,
  source text NOT NULL,
  pictures integer NOT NULL CHECK (pictures > 0),
  figures jsonb NOT NULL,
  level text NOT NULL CHECK (level IN ('unknown', 'ok', 'watch', 'drifted')),
  reason text,
  psi double precision,
  baseline jsonb,
  measures jsonb NOT NULL,
  PRIMARY KEY (day, account_id, model, source),
  CHECK ((level = 'unknown') = (reason IS NOT NULL))
);
CREATE INDEX drift_history ON drift (model, account_id, source, day);

CREATE TABLE drift_days (
  day date PRIMARY KEY,
  computed_at timestamptz NOT NULL DEFAULT now()
);
"""

GRANTS = """
GRANT SELECT ON drift, drift_days TO tagmill_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON drift, drift_days TO tagmill_worker;
"""

POLICY = """
ALTER TABLE drift ENABLE ROW LEVEL SECURITY;
CREATE POLICY drift_api ON drift TO tagmill_api
  USING (account_id = nullif(current_setting('tagmill.account', true), '')::bigint)
  WITH CHECK (account_id = nullif(current_setting('tagmill.account', true), '')::bigint);
CREATE POLICY drift_worker ON drift TO tagmill_worker USING (true) WITH CHECK (true);
"""

# As tagmill_metrics: sums over all accounts, of the newest day that was computed.
METRICS = """
CREATE FUNCTION tagmill_drift_metrics() RETURNS TABLE (name text, labels jsonb, value double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT 'drift_sources', jsonb_build_object('model', model, 'level', level), count(*)::float8
    FROM drift WHERE day = (SELECT max(day) FROM drift_days) GROUP BY model, level
  UNION ALL
  SELECT 'drift_day_seconds', '{}'::jsonb, extract(epoch FROM now() - (max(day) + 1)::timestamptz)::float8
    FROM drift_days HAVING max(day) IS NOT NULL
$$;
REVOKE ALL ON FUNCTION tagmill_drift_metrics() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tagmill_drift_metrics() TO tagmill_api, tagmill_worker;
"""


def upgrade() -> None:
    for sql in (INDEX, TABLES, GRANTS, POLICY, METRICS):
        op.get_bind().exec_driver_sql(sql)


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        "DROP FUNCTION tagmill_drift_metrics(); DROP TABLE drift, drift_days; DROP INDEX results_day"
    )
