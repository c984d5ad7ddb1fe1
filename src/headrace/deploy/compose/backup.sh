#!/bin/sh
# ./backup.sh FOLDER keeps all that these containers keep. Workers and the store pause, so that nothing is decided or
# shipped meanwhile; endpoints go on answering, and what they log stays on their disk until it is shipped.
set -eu
umask 077
to="${1:?./backup.sh FOLDER}"
part="$to.part"
compose() { if docker compose version >/dev/null 2>&1; then docker compose "$@"; else docker-compose "$@"; fi; }
[ ! -e "$to" ] || { echo "$to is there already; name another folder" >&2; exit 1; }
rm -rf "$part"
mkdir -p "$part"
trap 'compose unpause control train monitor s3 >/dev/null 2>&1 || true' EXIT
compose pause control train monitor s3
for database in headrace mlflow; do
  compose exec -T postgres pg_dump --username headrace --format custom "$database" > "$part/$database.dump"
done
compose run --rm -T --no-deps --entrypoint tar s3 -C /data -cf - . > "$part/objects.tar"
# Under the locks of the prediction logs, so that none is rolled. Endpoints append to journals meanwhile: a file that
# grew while it was read (tar's 1) is no failure.
compose exec -T serve sh -c 'set -- tar -C /data -cf - home state/keys state/installations state/environments
for lock in /data/home/predictions/*/.lock; do [ ! -e "$lock" ] || set -- flock "$lock" "$@"; done
"$@" || [ $? = 1 ]' > "$part/home.tar"
tar -cf "$part/secrets.tar" secrets
(cd "$part" && sha256sum headrace.dump mlflow.dump objects.tar home.tar secrets.tar > SHA256SUMS)
mv "$part" "$to"
echo "kept in $to"
