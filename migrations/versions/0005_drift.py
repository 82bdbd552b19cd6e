"""Drift: the daily figures of scores and tags by model and source.

Why plain SQL: see 0001.
"""

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
