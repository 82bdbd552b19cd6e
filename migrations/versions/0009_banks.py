"""Hash banks: their entries and what they hit.

Why plain SQL: see 0001.
"""

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
