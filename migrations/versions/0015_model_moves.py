"""Activations and rollbacks of models that people ask for in the console, for maintenance to carry out.

Why plain SQL: see 0001.
"""

from alembic import op

revision = "0015"
down_revision = "0014"

TABLE = """
CREATE TABLE model_moves (
  id uuid PRIMARY KEY,
  action text NOT NULL CHECK (action IN ('activate', 'rollback')),
  task text NOT NULL,
  ref text NOT NULL,
  forced text,
  actor text NOT NULL,
  state text NOT NULL DEFAULT 'asked' CHECK (state IN ('asked', 'done', 'refused')),
  attempts smallint NOT NULL DEFAULT 0,
  code text,
  detail text,
  created_at timestamptz NOT NULL DEFAULT now(),
  ended_at timestamptz,
  CHECK ((state = 'asked') = (ended_at IS NULL)),
  CHECK ((state = 'refused') = (code IS NOT NULL))
);
CREATE UNIQUE INDEX model_moves_one_asked ON model_moves (task) WHERE state = 'asked';
"""

# Models and what was measured of them are the installation's: the console shows them to operators only.
GRANTS = """
GRANT SELECT, INSERT ON model_moves TO tagmill_api;
GRANT SELECT, INSERT, UPDATE ON model_moves TO tagmill_worker;
GRANT SELECT ON evaluations TO tagmill_api;
"""


def upgrade() -> None:
    for sql in (TABLE, GRANTS):
        op.get_bind().exec_driver_sql(sql)


def downgrade() -> None:
    op.get_bind().exec_driver_sql("DROP TABLE model_moves; REVOKE SELECT ON evaluations FROM tagmill_api")
