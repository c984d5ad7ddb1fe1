#!/bin/sh
# ./restore.sh FOLDER puts back what ./backup.sh kept, in place of what these containers have now.
set -eu
from="$(cd "${1:?./restore.sh FOLDER}" && pwd)"
compose() { if docker compose version >/dev/null 2>&1; then docker compose "$@"; else docker-compose "$@"; fi; }
(cd "$from" && sha256sum --check --quiet SHA256SUMS)   # A damaged backup is refused before anything is touched.
tar -xf "$from/secrets.tar"
compose stop door control train monitor serve mlflow
compose up -d --force-recreate postgres s3             # With the secrets of the backup.
until compose exec -T postgres pg_isready --quiet --host 127.0.0.1 --username headrace; do sleep 1; done
compose exec -T postgres sh /docker-entrypoint-initdb.d/10-headrace.sh
for database in headrace mlflow; do
  compose exec -T postgres pg_restore --username headrace --clean --if-exists --exit-on-error \
    --single-transaction --dbname "$database" < "$from/$database.dump"
done
compose exec -T s3 sh -c 'rm -rf /data/* && tar -C /data -xf -' < "$from/objects.tar"
compose run --rm -T --no-deps control sh -c \
  'chmod -R u+w /data/home /data/state; rm -rf /data/home/* /data/state/installations /data/state/environments; tar -C /data -xf -' < "$from/home.tar"
compose up -d
echo "restored from $from"
