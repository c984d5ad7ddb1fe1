#!/bin/sh
# ./backup.sh FOLDER keeps all that these containers keep. Workers pause, so that nothing is decided meanwhile;
# endpoints go on answering, and what they log stays on their disk until it is shipped.
set -eu
umask 077
to="${1:?./backup.sh FOLDER}"
part="$to.part"
[ ! -e "$to" ] || { echo "$to is there already; name another folder" >&2; exit 1; }
rm -rf "$part"
mkdir -p "$part"
trap 'docker compose unpause control train monitor serve >/dev/null 2>&1 || true' EXIT
docker compose pause control train monitor
docker compose exec -T postgres pg_dump --username headrace --format custom headrace > "$part/headrace.dump"
docker compose exec -T postgres pg_dump --username headrace --format custom mlflow > "$part/mlflow.dump"
# Objects after the databases: they are only ever added, so all that the rows name is there.
docker compose exec -T s3 tar -C /data -cf - . > "$part/objects.tar"
docker compose exec -T serve tar -C /data -cf - home state/keys > "$part/home.tar"
tar -cf "$part/secrets.tar" secrets
(cd "$part" && sha256sum headrace.dump mlflow.dump objects.tar home.tar secrets.tar > SHA256SUMS)
mv "$part" "$to"
echo "kept in $to"
