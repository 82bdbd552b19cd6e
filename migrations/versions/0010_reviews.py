"""The review queue: tasks, leases and what reviewers said.

Why plain SQL: see 0001.
"""

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
