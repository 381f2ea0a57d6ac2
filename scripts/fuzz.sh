#!/usr/bin/env bash
# Runs every fuzz target of the modules given for the time given: fuzz.sh TIME MODULE…
# Each package is built once, with the fuzzer's instrumentation; what was found interesting is kept in Go's fuzz cache.
set -euo pipefail
time=$1
shift
cache=$(go env GOCACHE)/fuzz
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
status=0
for module in "$@"; do
  cd "$module"
  while read -r package; do
    go test -c -fuzz=. -o "$bin/fuzz.test" "$package"
    path=$(go list "$package")
    for target in $("$bin/fuzz.test" -test.list '^Fuzz'); do
      echo "$path $target"
      (cd "$package" && "$bin/fuzz.test" -test.run '^$' -test.fuzz "^$target\$" -test.fuzztime "$time" -test.fuzzcachedir "$cache/$path") || status=1
    done
  done < <(grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -r -n1 dirname | sort -u)
done
exit $status
