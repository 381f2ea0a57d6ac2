#!/usr/bin/env bash
# What drives a browser in tests: Playwright of the version in scripts/browser/requirements.txt, for the Chromium that is
# installed; it brings none of its own. Installs it once and prints the folder. Needs python3 with venv.
set -euo pipefail
requirements=$(cd "$(dirname "$0")" && pwd)/browser/requirements.txt
dir=${XDG_CACHE_HOME:-$HOME/.cache}/catchment/browser-$(sha256sum "$requirements" | cut -c1-12)
mkdir -p "$(dirname "$dir")"
exec 9>"$dir.lock"
flock 9
if [ ! -e "$dir/done" ]; then
  rm -rf "$dir"
  mkdir -p "$dir"
  {
    python3 -m venv "$dir/venv"
    "$dir/venv/bin/pip" install -q --disable-pip-version-check --no-deps -r "$requirements"
  } >&2
  touch "$dir/done"
fi
echo "$dir"
