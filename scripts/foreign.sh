#!/usr/bin/env bash
# foreign.sh FOLDER: installs what others wrote for a test, once for each version of the folder's requirements.txt (Python, into a
# venv) and package.json (Node, if there is one), and prints where. Needs python3 with venv, and npm for the latter.
#   archiver/archive/testdata/readers  what reads the archive: DuckDB, pyarrow, pandas, Polars, and sqlglot for Trino and Snowflake
#   archiver/archive/testdata/readers-s3  DuckDB with its extension for S3, which other versions of DuckDB get from their own server
#   pkg/provider/testdata/sdks         the providers' own SDKs
#   scripts/browser                    what drives the Chromium that is installed: Playwright, which brings no browser of its own here
set -euo pipefail
cd "$1"
name=$(basename "$PWD")
files=(requirements.txt)
if [ -e package.json ]; then files+=(package.json); fi
dir=${XDG_CACHE_HOME:-$HOME/.cache}/catchment/$name-$(cat "${files[@]}" | sha256sum | cut -c1-12)
mkdir -p "$(dirname "$dir")"
exec 9>"$dir.lock"
flock 9
if [ ! -e "$dir/done" ]; then
  rm -rf "$dir"
  mkdir -p "$dir"
  cp "${files[@]}" "$dir/"
  {
    python3 -m venv "$dir/venv"
    "$dir/venv/bin/pip" install -q --disable-pip-version-check -r requirements.txt
    if [ -e package.json ]; then (cd "$dir" && npm install --no-audit --no-fund --ignore-scripts --loglevel=error); fi
  } >&2
  touch "$dir/done"
fi
echo "$dir"
