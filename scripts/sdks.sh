#!/usr/bin/env bash
# The providers' own SDKs, of the versions in pkg/provider/testdata/sdks: installs them once and prints their folder.
# Needs python3 with venv, and node with npm.
set -euo pipefail
cd "$(dirname "$0")/../pkg/provider/testdata/sdks"
sum=$(cat requirements.txt package.json | sha256sum | cut -c1-12)
dir=${XDG_CACHE_HOME:-$HOME/.cache}/catchment/sdks-$sum
mkdir -p "$(dirname "$dir")"
exec 9>"$dir.lock"
flock 9
if [ ! -e "$dir/done" ]; then
  rm -rf "$dir"
  mkdir -p "$dir"
  cp package.json "$dir/"
  {
    python3 -m venv "$dir/venv"
    "$dir/venv/bin/pip" install -q --disable-pip-version-check -r requirements.txt
    (cd "$dir" && npm install --no-audit --no-fund --ignore-scripts --loglevel=error)
  } >&2
  touch "$dir/done"
fi
echo "$dir"
