"""Policies: versions, drafts and where they apply.

Why plain SQL: see 0001.
"""

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
