"""An index for what is asked all the time: the newest entries of some actions."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_index("entries_by_action", "entries", ["component", "action", "sequence"])
