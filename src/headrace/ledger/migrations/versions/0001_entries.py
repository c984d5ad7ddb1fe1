"""Entries, the heads of their chains, and the outbox of aliases."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "entries",
        sa.Column("component", sa.String(63), primary_key=True),
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", sa.String(40), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False, unique=True),
        sa.Column("stage", sa.String(32)),
        sa.Column("version", sa.Integer),
        sa.Column("from_version", sa.Integer),
        sa.Column("baseline", sa.String(64), nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.create_index("entries_by_stage", "entries", ["component", "stage", "sequence"])
    op.create_table(
        "heads",
        sa.Column("component", sa.String(63), primary_key=True),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.create_table(
        "projections",
        sa.Column("component", sa.String(63), primary_key=True),
        sa.Column("stage", sa.String(32), primary_key=True),
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("version", sa.Integer),
        sa.Column("is_written", sa.Boolean, nullable=False),
    )
