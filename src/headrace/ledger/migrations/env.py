"""What Alembic runs; `schema.migrate` hands it an open transaction."""

from alembic import context

from headrace.ledger.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE
)
context.run_migrations()
