#!/bin/sh
# Run by PostgreSQL's image on an empty volume, and by restore.sh again: roles that may no more than they must, with the
# passwords of secrets/, and MLflow's database. Passwords are read by psql itself, so that none stands in a process list.
set -eu
export SECRETS="${SECRETS:-/run/secrets}"
psql --no-psqlrc -v ON_ERROR_STOP=1 --username "${POSTGRES_USER:-headrace}" --dbname "${POSTGRES_DB:-headrace}" <<'SQL'
\set owner `cat "$SECRETS/owner_password"`
\set worker `cat "$SECRETS/worker_password"`
\set mlflow `cat "$SECRETS/mlflow_password"`
SELECT format('CREATE ROLE %I', name) FROM unnest(ARRAY['headrace_worker', 'headrace_reader', 'mlflow']) AS name
  WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
ALTER ROLE CURRENT_USER PASSWORD :'owner';
ALTER ROLE headrace_worker LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'worker';
ALTER ROLE headrace_reader NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
ALTER ROLE mlflow LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'mlflow';
SELECT 'CREATE DATABASE mlflow OWNER mlflow' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'mlflow') \gexec
REVOKE CONNECT ON DATABASE mlflow FROM PUBLIC;
SELECT format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', current_database()) \gexec
SELECT format('GRANT CONNECT ON DATABASE %I TO headrace_worker, headrace_reader', current_database()) \gexec
SQL
