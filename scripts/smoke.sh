#!/usr/bin/env bash
# smoke.sh CATCHMENT: runs that program from outside, as a user would: `up`, signed and wrong requests, kill -9, and
# what then lies in Postgres and in the archive (by DuckDB, when the Python named by PYTHON has it). When that Python has
# schemathesis, it looks for answers that schemas/openapi.yaml does not have.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
catchment=$(realpath "$1")
python=${PYTHON:-python3}
dir=$(mktemp -d "${TMPDIR:-/tmp}/catchment-smoke.XXXXXX")
pid=
fail() { echo "smoke: $*" >&2; echo "--- up said:" >&2; tail -30 "$dir/up.log" >&2 || true; exit 1; }
clean() {
  if [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; then kill -INT "$pid"; wait "$pid" || true; fi
  rm -rf "$dir"
}
trap clean EXIT

free_port() {
  local p
  for _ in $(seq 1 50); do
    p=$((31100 + RANDOM % 1600))
    (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null || { echo "$p"; return; }
  done
}
listen=127.0.0.1:$(free_port) ops=127.0.0.1:$(free_port)
tool() { (cd "$dir/node" && "$catchment" "$@"); }

up() {
  "$catchment" up --dir "$dir/node" --listen "$listen" --ops-listen "$ops" </dev/null >>"$dir/up.log" 2>&1 &
  pid=$!
  for _ in $(seq 1 600); do
    if curl -fsS -o /dev/null "http://$ops/readyz" 2>/dev/null; then return; fi
    kill -0 "$pid" 2>/dev/null || fail "up ended"
    sleep 0.2
  done
  fail "up is not ready"
}

# expect STATUS CURL-ARGUMENT…
expect() {
  local want=$1 got; shift
  got=$(curl -sS -o "$dir/answer" -w '%{http_code}' "$@")
  [ "$got" = "$want" ] || fail "want $want, got $got: $* $(cat "$dir/answer")"
}

mkdir "$dir/node"
from=$SECONDS; up; echo "up after $((SECONDS - from)) s"
tool send stripe --count 500 --duplicates 10% 2>&1 | tail -5
for provider in github shopify slack standard-webhooks; do tool send "$provider" --count 50 >/dev/null 2>"$dir/send" || { cat "$dir/send"; fail "send $provider"; }; done

# A body of which every byte counts: its digest must lie in Postgres and in the archive.
printf '{ "id" : "bytes",\t"n": 1.0e+2, "n" : 100, "s": "\\u00e4 \303\244 \\/" }\r\n ' >"$dir/body"
tool send github --type ping --body "$dir/body" >/dev/null

url=http://$listen/webhooks
expect 401 -H 'Stripe-Signature: t=1,v1=00' -d '{"id":"evt_smoke"}' "$url/stripe"
expect 401 -d '{"id":"evt_smoke"}' "$url/stripe"
expect 404 -d '{}' "$url/nobody"
expect 405 "$url/stripe"
expect 415 -H 'Content-Encoding: gzip' -d 'x' "$url/stripe"
head -c 2000000 /dev/zero >"$dir/large"
expect 413 --data-binary "@$dir/large" "$url/stripe"
if tool send stripe --secret whsec_wrong --count 1 >/dev/null 2>&1; then fail "a wrong secret was accepted"; fi
if "$catchment" up --dir "$dir/node" >"$dir/second" 2>&1; then fail "a second up on the same folder"; fi
sed 's/provider: stripe/provider: strip/' "$dir/node/catchment.yaml" >"$dir/node/broken.yaml"
if tool config check --offline --config broken.yaml >"$dir/check" 2>&1; then fail "a wrong provider was accepted"; fi
grep -q 'broken.yaml:[0-9]*:[0-9]*' "$dir/check" || fail "no place in: $(cat "$dir/check")"

kill -9 "$pid"; wait "$pid" 2>/dev/null || true
sed -i 's/^sources:$/sources:\n  open: {provider: none}/' "$dir/node/catchment.yaml"
from=$SECONDS; up; echo "up again after kill -9 after $((SECONDS - from)) s"
tool send stripe --count 100 --seed 7 >/dev/null 2>"$dir/send" || { cat "$dir/send"; fail "send"; }
for seed in 11 12 13 14 15; do # with segments open, and processing under way
  tool send stripe --count 40 --seed "$seed" >/dev/null 2>"$dir/send" || { cat "$dir/send"; fail "send"; }
  kill -9 "$pid"; wait "$pid" 2>/dev/null || true
  up
done

# schemathesis URL ARGUMENT…: not checked is that what the document allows is accepted (the signature decides),
# and that Allow has all of the document's methods (each source has its own).
schemathesis() {
  local to=$1; shift
  (cd "$dir" && "$python" -m schemathesis.cli --config-file st.toml run "$here/../schemas/openapi.yaml" --url "$to" "$@" \
    --exclude-checks positive_data_acceptance,allow_header_conformance --phases examples,coverage,fuzzing \
    --max-examples 10 --generation-deterministic --warnings off --no-color >"$dir/st" 2>&1) ||
    { cat "$dir/st"; fail "schemathesis"; }
  grep 'generated,' "$dir/st" || { cat "$dir/st"; fail "schemathesis tried nothing"; }
}
if "$python" -c 'import schemathesis' 2>/dev/null; then
  for source in open stripe; do
    printf '[parameters]\n"path.source" = "%s"\n' "$source" >"$dir/st.toml"
    schemathesis "http://$listen" --include-path-regex '^/webhooks'
  done
  schemathesis "http://$ops" --exclude-path-regex '^/webhooks'
elif [ "${CATCHMENT_TEST_REAL:-}" = 1 ]; then
  fail "$python has no schemathesis: pip install schemathesis"
else
  echo "schemas/openapi.yaml was not tried: $python has no schemathesis (pip install schemathesis)"
fi

tool status || fail "status says that a promise is at risk"
audit() { tool audit "$@" >"$dir/audit" 2>&1 || { cat "$dir/audit"; fail "the audit finds a fault"; }; tail -1 "$dir/audit"; }
audit --bodies

kill -INT "$pid"; wait "$pid" || fail "exit code $? after Ctrl-C"
pid=
if pgrep -f "$dir/node" >/dev/null; then fail "left running: $(pgrep -af "$dir/node")"; fi
if "$python" -c 'import duckdb, pytz' 2>/dev/null; then
  "$python" "$here/read_archive.py" "$dir/node/catchment-data/archive" 1001 "$dir/body"
elif [ "${CATCHMENT_TEST_REAL:-}" = 1 ]; then
  fail "$python has no duckdb: pip install duckdb pytz"
else
  echo "the archive was not read: $python has no duckdb (pip install duckdb pytz)"
fi
echo "smoke: ok"
