"""Limits of an account: requests a minute, items a day, and what it has used of them.

Why plain SQL: see 0001.
"""

from alembic import op

revision = "0020"
down_revision = "0019"

# NULL: as the settings say for everybody; 0: no limit.
OWN = """
ALTER TABLE accounts ADD COLUMN requests_per_minute integer CHECK (requests_per_minute >= 0);
ALTER TABLE accounts ADD COLUMN items_per_day bigint CHECK (items_per_day >= 0);
"""

# Not logged: written at every request, and after a crash of Postgres every bucket may as well be full. No foreign key:
# its look at the account's row would wait for claims, which lock that.
RATES = """
CREATE UNLOGGED TABLE account_rates (
  account_id bigint PRIMARY KEY,
  spent_until timestamptz NOT NULL
) WITH (fillfactor = 50);
"""

DAYS = """
CREATE TABLE account_days (
  account_id bigint NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
  day date NOT NULL,
  items bigint NOT NULL CHECK (items >= 0),
  PRIMARY KEY (account_id, day)
) WITH (fillfactor = 70);
"""

GRANTS = """
GRANT SELECT, INSERT, UPDATE ON account_rates, account_days TO tagmill_api, tagmill_worker;
"""

POLICY = """
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
CREATE POLICY {table}_api ON {table} TO tagmill_api
  USING (account_id = nullif(current_setting('tagmill.account', true), '')::bigint)
  WITH CHECK (account_id = nullif(current_setting('tagmill.account', true), '')::bigint);
CREATE POLICY {table}_worker ON {table} TO tagmill_worker USING (true) WITH CHECK (true);
"""
WALLED = ("account_rates", "account_days")

BACK = """
DROP TABLE account_days, account_rates;
ALTER TABLE accounts DROP COLUMN items_per_day;
ALTER TABLE accounts DROP COLUMN requests_per_minute;
"""


def upgrade() -> None:
    for sql in (OWN, RATES, DAYS, GRANTS, *(POLICY.format(table=table) for table in WALLED)):
        op.get_bind().exec_driver_sql(sql)


def downgrade() -> None:
    op.get_bind().exec_driver_sql(BACK)
