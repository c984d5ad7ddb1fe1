#!/bin/sh
# Run once by PostgreSQL's image, on an empty volume: roles that may no more than they must, and MLflow's database.
# Passwords are read by psql itself, so that none stands in a process list.
set -eu
export SECRETS="${SECRETS:-/run/secrets}"
psql --no-psqlrc -v ON_ERROR_STOP=1 --username "${POSTGRES_USER:-headrace}" --dbname "${POSTGRES_DB:-headrace}" <<'SQL'
\set worker `cat "$SECRETS/worker_password"`
\set mlflow `cat "$SECRETS/mlflow_password"`
CREATE ROLE headrace_worker LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'worker';
CREATE ROLE headrace_reader NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
CREATE ROLE mlflow LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'mlflow';
CREATE DATABASE mlflow OWNER mlflow;
REVOKE CONNECT ON DATABASE mlflow FROM PUBLIC;
SELECT format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', current_database()) \gexec
SELECT format('GRANT CONNECT ON DATABASE %I TO headrace_worker, headrace_reader', current_database()) \gexec
SQL
