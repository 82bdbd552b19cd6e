"""What people say is in a picture: corrections and decisions that outrank the model and teach the next one.

Why plain SQL: see 0001.
"""

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
