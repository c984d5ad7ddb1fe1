"""Moving a home: rows, files and settings, without the production parts themselves."""

import json
import os
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from headrace.config.settings import Settings
from headrace.errors import InvalidConfig, Unavailable
from headrace.lifecycle.migration.artifacts import Moved
from headrace.lifecycle.migration.databases import in_schema
from headrace.lifecycle.migration.home import copy_home
from headrace.lifecycle.migration.tables import copy_tables
from headrace.lifecycle.migration.there import check_settings, settings_there
from headrace.lifecycle.upkeep.roles import statements

TABLES = """
CREATE TABLE runs (id TEXT PRIMARY KEY, uri TEXT, score FLOAT, good BOOLEAN, tags JSON, at DATETIME);
CREATE TABLE metrics (run TEXT REFERENCES runs(id), value FLOAT);
CREATE TABLE revision (number TEXT);
"""


def database(path: Path, *statements: str) -> str:
    url = f"sqlite:///{path}"
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in [*TABLES.strip().split(";\n"), *statements]:
            connection.execute(text(statement.rstrip(";").replace(":", r"\:")))
    engine.dispose()
    return url


def test_rows_come_over_counted_digested_and_with_new_places(tmp_path: Path) -> None:
    row = """INSERT INTO runs VALUES ('a', '/old/artifacts/x', 1, 1, '{"k": [1, 2]}', '2026-03-01 12:00:00')"""
    old = create_engine(
        database(tmp_path / "old.db", row, "INSERT INTO metrics VALUES ('a', 0.1)", "INSERT INTO revision VALUES ('1')")
    )
    new = create_engine(database(tmp_path / "new.db", "INSERT INTO runs (id) VALUES ('left by a try that broke off')"))
    moved = Moved(Path("/old/artifacts"), "mlflow-artifacts:")
    told: list[tuple[str, int]] = []
    for _ in range(2):
        with old.connect() as source, new.begin() as to:
            found = copy_tables(
                source, to, left_out={"revision"}, change=moved, told=lambda name, rows: told.append((name, rows))
            )
    assert {name: rows.count for name, rows in found.items()} == {"runs": 1, "metrics": 1}
    assert sorted(told) == [("metrics", 1)] * 2 + [("runs", 1)] * 2
    with new.connect() as connection:
        assert connection.execute(text("SELECT uri, score, tags FROM runs")).one() == (
            "mlflow-artifacts:/x", 1.0, '{"k": [1, 2]}',
        )  # fmt: skip
        assert connection.execute(text("SELECT count(*) FROM revision")).scalar() == 0


def test_a_table_or_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    old = create_engine(database(tmp_path / "old.db", "ALTER TABLE runs ADD COLUMN color TEXT"))
    new = create_engine(database(tmp_path / "new.db"))
    with (
        old.connect() as source,
        new.begin() as to,
        pytest.raises(Unavailable, match=r"lack runs\.color"),
    ):
        copy_tables(source, to)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("/home/artifacts", "s:"), ("/home/artifacts/1/a", "s:/1/a"), ("file:///home/artifacts/1", "s:/1"),
        ("/home/artifacts2/1", "/home/artifacts2/1"), ("see /home/artifacts/1", "see /home/artifacts/1"),
    ],
)  # fmt: skip
def test_only_places_below_the_old_one_move(before: str, after: str) -> None:
    assert Moved(Path("/home/artifacts"), "s:")(before) == after


def test_a_home_is_copied_without_what_moves_otherwise_and_records_name_the_new_place(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "models" / "abc").mkdir(parents=True)
    (old / "models" / "abc" / "weights").write_bytes(os.urandom(100))
    (old / "models" / "abc").chmod(0o555)
    (old / "versions" / "digits" / "v1").mkdir(parents=True)
    record = {"model": f"{old}/models/abc", "python": "/state/python", "version": 1}
    (old / "versions" / "digits" / "v1" / "record.json").write_text(json.dumps(record))
    for left_out in ("ledger.db", "ledger.db-wal", "run/control.json", "predictions/digits/manifest.json"):
        (old / left_out).parent.mkdir(parents=True, exist_ok=True)
        (old / left_out).write_text("x")
    first = copy_home(old, new).as_json()
    (new / "models" / "abc").chmod(0o755)
    (new / "models" / "abc" / "weights").write_text("torn")
    assert copy_home(old, new).as_json() == first
    assert (new / "models" / "abc" / "weights").read_bytes() == (old / "models" / "abc" / "weights").read_bytes()
    assert (new / "models" / "abc").stat().st_mode & 0o777 == 0o555
    moved = json.loads((new / "versions" / "digits" / "v1" / "record.json").read_text())
    assert moved == record | {"model": f"{new}/models/abc"}
    assert sorted(path.name for path in new.iterdir()) == ["models", "versions"]
    assert json.loads((old / "versions" / "digits" / "v1" / "record.json").read_text()) == record


def test_the_new_place_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "production.env"
    file.write_text("# there\nexport HEADRACE_HOME='/new'\nHEADRACE_PREDICTIONS_URL=s3://b/p\n\n")
    here = {"HEADRACE_HOME": "/old", "HEADRACE_STATE": "/s", "MLFLOW_TRACKING_URI": "x", "AWS_ACCESS_KEY_ID": "k"}
    assert settings_there(here, file) == {
        "HEADRACE_HOME": "/new", "HEADRACE_STATE": "/s", "HEADRACE_PREDICTIONS_URL": "s3://b/p",
        "AWS_ACCESS_KEY_ID": "k",
    }  # fmt: skip
    file.write_text("HEADRACE_HOME=/new\ncanary-secret\n")
    with pytest.raises(InvalidConfig, match="Line 2") as caught:
        settings_there(here, file)
    assert "canary" not in str(caught.value)


def test_what_is_no_move_from_files_to_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    database = {"HEADRACE_DATABASE_URL": "postgresql://db/h", "HEADRACE_MLFLOW_DATABASE_URL": "postgresql://db/m"}

    def settings(home: str, **variables: str) -> Settings:
        return Settings(tmp_path, tmp_path / home, variables=variables)

    check_settings(settings("home"), settings("new", **database))
    for here, there, told in (
        (settings("home", **database), settings("new", **database), "not one on files"),
        (settings("home"), settings("new"), "has no database"),
        (settings("home"), settings("new", HEADRACE_DATABASE_URL="postgresql://db/h"), "nothing says where they go"),
        (settings("home"), settings("home/inner", **database), "the old one is"),
        (settings("none"), settings("new", **database), "There is no home"),
    ):
        with pytest.raises(InvalidConfig, match=told):
            check_settings(here, there)


def test_a_rehearsals_schema_goes_into_the_url_beside_what_is_there() -> None:
    url = in_schema("postgresql+psycopg://a:p%40ss@h/db?options=-cstatement_timeout%3D5&sslmode=verify-full", "scratch")
    assert "p%40ss@h/db" in url
    assert "sslmode=verify-full" in url
    assert "-cstatement_timeout%3D5+-csearch_path%3Dscratch" in url


def test_workers_may_add_entries_and_nothing_else() -> None:
    sql = statements(worker="w", reader="r")
    granted = [line for line in sql.splitlines() if line.startswith("GRANT") and " entries" in line]
    assert granted == [
        "GRANT SELECT ON ledger_schema, entries, heads, projections TO w, r;",
        "GRANT INSERT ON entries, heads, projections TO w;",
    ]
