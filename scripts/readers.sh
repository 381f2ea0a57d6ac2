#!/usr/bin/env bash
# What reads the archive besides Catchment, of the versions in archiver/archive/testdata/readers: DuckDB, pyarrow, pandas,
# Polars, and sqlglot, which knows the dialects of Trino and Snowflake. Installs them once and prints their folder. Needs
# python3 with venv.
set -euo pipefail
requirements=$(cd "$(dirname "$0")/../archiver/archive/testdata/readers" && pwd)/requirements.txt
dir=${XDG_CACHE_HOME:-$HOME/.cache}/catchment/readers-$(sha256sum "$requirements" | cut -c1-12)
mkdir -p "$(dirname "$dir")"
exec 9>"$dir.lock"
flock 9
if [ ! -e "$dir/done" ]; then
  rm -rf "$dir"
  mkdir -p "$dir"
  {
    python3 -m venv "$dir/venv"
    "$dir/venv/bin/pip" install -q --disable-pip-version-check -r "$requirements"
  } >&2
  touch "$dir/done"
fi
echo "$dir"
