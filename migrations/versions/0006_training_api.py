"""Training over the API: runs and datasets readable and runs writable by it, how far a run is, and its log.

Why plain SQL: see 0001.
"""

from alembic import op

revision = "0006"
down_revision = "0005"

# `progress` is what a successor can build on and starts the count of attempts anew; `live` is for who watches.
TABLES = """
ALTER TABLE training_runs ADD COLUMN live jsonb NOT NULL DEFAULT '{}';
CREATE TABLE training_log (
  run_id uuid NOT NULL REFERENCES training_runs ON DELETE CASCADE,
  seq integer NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  event jsonb NOT NULL,
  PRIMARY KEY (run_id, seq)
);
"""

# Runs, datasets and logs are the installation's, like models: the scopes models:read and models:write wall them.
GRANTS = """
GRANT SELECT ON datasets, training_runs, training_log TO tagmill_api;
GRANT INSERT ON training_runs TO tagmill_api;
GRANT UPDATE (state, owner, lease_until, finished_at) ON training_runs TO tagmill_api;
GRANT SELECT, INSERT, DELETE ON training_log TO tagmill_worker;
"""


def upgrade() -> None:
    for sql in (TABLES, GRANTS):
        op.get_bind().exec_driver_sql(sql)


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        "DROP TABLE training_log; ALTER TABLE training_runs DROP COLUMN live;"
        "REVOKE ALL ON training_runs FROM tagmill_api;"
        "REVOKE UPDATE (state, owner, lease_until, finished_at) ON training_runs FROM tagmill_api;"
        "REVOKE SELECT ON datasets FROM tagmill_api"
    )
