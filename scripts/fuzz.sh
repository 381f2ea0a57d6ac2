#!/usr/bin/env bash
# Runs every fuzz target of the modules given for the time given: fuzz.sh TIME MODULE…
# Each package is built once, with the fuzzer's instrumentation; what was found interesting is kept in Go's fuzz cache.
# What is found is made smaller for a second, not for a minute, which would be most of the time.
set -euo pipefail
time=$1
shift
cache=$(go env GOCACHE)/fuzz
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
# ended_on_time LOG: the only failure is that a worker was still busy when the time was over, which Go's fuzzer sometimes
# takes for a failure of its target (golang/go#48591); there is no input that fails.
ended_on_time() { grep -q '^    context deadline exceeded$' "$1" && ! grep -qE 'Failing input|seed corpus' "$1"; }

status=0
for module in "$@"; do
  cd "$module"
  while read -r package; do
    go test -c -fuzz=. -o "$bin/fuzz.test" "$package"
    path=$(go list "$package")
    for target in $("$bin/fuzz.test" -test.list '^Fuzz'); do
      echo "$path $target"
      (cd "$package" && "$bin/fuzz.test" -test.run '^$' -test.fuzz "^$target\$" -test.fuzztime "$time" -test.fuzzminimizetime 1s -test.fuzzcachedir "$cache/$path") 2>&1 |
        tee "$bin/log" || ended_on_time "$bin/log" || status=1
    done
  done < <(grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -r -n1 dirname | sort -u)
done
exit $status
