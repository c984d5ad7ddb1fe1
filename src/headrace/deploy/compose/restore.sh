#!/bin/sh
# ./restore.sh FOLDER puts back what ./backup.sh kept, in place of what these containers have now.
set -eu
from="$(cd "${1:?./restore.sh FOLDER}" && pwd)"
(cd "$from" && sha256sum --check --quiet SHA256SUMS)   # A damaged backup is refused before anything is touched.
tar -xf "$from/secrets.tar"
docker compose stop control train monitor serve mlflow
docker compose up -d postgres s3
until docker compose exec -T postgres pg_isready --quiet --username headrace; do sleep 1; done
for database in headrace mlflow; do
  docker compose exec -T postgres pg_restore --username headrace --clean --if-exists --exit-on-error \
    --single-transaction --dbname "$database" < "$from/$database.dump"
done
docker compose exec -T s3 sh -c 'rm -rf /data/* && tar -C /data -xf -' < "$from/objects.tar"
docker compose run --rm -T --no-deps control sh -c 'chmod -R u+w /data/home; rm -rf /data/home/*; tar -C /data -xf -' < "$from/home.tar"
docker compose up -d
echo "restored from $from"
