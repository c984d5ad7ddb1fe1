"""MLflow's own tables in a database of the user's: made where there are none, at the revision that MLflow knows."""

from sqlalchemy import Engine

from headrace.registry.mlflow import told

#: The table with the schema's revision; each database has its own.
REVISION_TABLE = "alembic_version"


def create_tables(url: str) -> str:
    """Make MLflow's tables where they are absent, and return their revision. Raises Unavailable."""
    with told("making its tables"):
        from mlflow.store.db import utils

        engine: Engine = utils.create_sqlalchemy_engine(url)
        try:
            if not utils._all_tables_exist(engine):
                utils._initialize_tables(engine)
            return str(utils._get_schema_version(engine))
        finally:
            engine.dispose()
