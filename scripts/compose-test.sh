#!/usr/bin/env bash
# compose-test.sh: `docker compose up --wait` for real, on images of this tree: sends signed events, kills a broker's
# container in between, and looks for every event in orders, in the S3 server's segments, in an audit, and in what Prometheus
# (profile observability) has counted. Needs a Docker engine with compose, the images that docker-compose.yml names, and Go.
# Every step says how long it took.
#   DOCKER=docker              the client with the compose plugin
#   IMAGES=built               the four images are there already
set -euo pipefail
cd "$(dirname "$0")/.."
docker=${DOCKER:-docker}
version=compose-test
export COMPOSE_PROJECT_NAME=catchment-test
export INGRESS_IMAGE=catchment-ingress:$version PROCESSOR_IMAGE=catchment-processor:$version ARCHIVER_IMAGE=catchment-archiver:$version CATCHMENT_IMAGE=catchment:$version
compose() { "$docker" compose "$@"; }
down() { compose --profile '*' down --volumes --timeout "$1" >/dev/null 2>&1; }
tool() { "$docker" compose --profile tool run --rm -T --no-deps tool "$@"; }
step() { printf '%4d s  %s\n' "$SECONDS" "$*"; }
die() { echo "compose-test: $*" >&2; compose ps -a >&2 || true; compose logs --tail 12 >&2 || true; exit 1; }
sql() { compose exec -T postgres psql -U catchment -d catchment -Atc "$1"; }
# await SECONDS WHAT COMMAND…: until the command succeeds
await() {
  local end=$((SECONDS + $1)) what=$2; shift 2
  until "$@"; do [ "$SECONDS" -lt "$end" ] || die "$what: not in time"; sleep 1; done
}

events=${EVENTS:-600}
log=$(mktemp)
trap 'down 5 || true; rm -f "$log"' EXIT

if [ "${IMAGES:-}" != built ]; then bash scripts/images.sh "$version"; step "the images are built"; fi
compose --profile '*' config --quiet
compose up --wait --wait-timeout 400 --pull never --no-build -d >"$log" 2>&1 || { tail -5 "$log" >&2; die "docker compose up"; }
step "everything is up"

# what a busy machine refuses is sent again, as a provider would
first() { tool send stripe --count "$events" --seed 1 >/dev/null 2>&1; }
await 300 "send" first
step "$events events were acknowledged"
counted() { [ "$(sql 'SELECT count(*) FROM catchment.identities')" = "$1" ]; }
await 180 "events in Postgres" counted "$events"

# a broker dies while events come in; what is refused meanwhile is sent again, as a provider would
tool send stripe --count "$events" --seed 2 --rate 100 >/dev/null 2>&1 &
sender=$!
sleep 1
compose kill -s KILL kafka-2 >/dev/null 2>&1
step "broker 2 was killed"
wait "$sender" || true # what was not acknowledged is sent again
again() { tool send stripe --count "$events" --seed 2 >/dev/null 2>&1; }
await 300 "send without a broker" again
step "$events more events were acknowledged without it"
await 180 "events in Postgres" counted $((2 * events))
orders=$(sql 'SELECT count(*) FROM orders')
[ "$orders" -gt 0 ] || die "no order was written"
[ "$(sql "SELECT count(*) FROM catchment.results WHERE operation = 'order-status' AND outcome NOT IN ('succeeded', 'superseded')")" = 0 ] || die "an operation failed"
step "$((2 * events)) events in Postgres, $orders orders"

whole() { tool audit --output json 2>/dev/null | python3 -c 'import json,sys; r=json.load(sys.stdin); sys.exit(not r["ok"] or r["total"]["archived"] < int(sys.argv[1]))' "$((2 * events))"; }
await 300 "an audit" whole
tool archive verify --allow-unsigned >/dev/null || die "archive verify"
step "each lies in one segment; audit and archive verify pass"
tool status >/dev/null || die "status: a promise is at risk"

# the Prometheus of the profile observability: every target is up, every rule is loaded, and it has counted what was sent
prometheus() { curl -fsS --max-time 10 "http://127.0.0.1:${PROMETHEUS_PORT:-29090}/api/v1/$1"; }
watched() {
  prometheus targets | python3 -c 'import json,sys; t=json.load(sys.stdin)["data"]["activeTargets"]; sys.exit(len(t) != 4 or any(x["health"] != "up" for x in t))' &&
    prometheus rules | python3 -c 'import json,sys; r=[x for g in json.load(sys.stdin)["data"]["groups"] for x in g["rules"]]; sys.exit(len(r) != int(sys.argv[1]) or any(x["health"] != "ok" for x in r))' "$rules" &&
    prometheus 'query?query=sum(catchment_ingress_requests_total%7Boutcome="accepted"%7D)' | python3 -c 'import json,sys; r=json.load(sys.stdin)["data"]["result"]; sys.exit(not r or float(r[0]["value"][1]) < int(sys.argv[1]))' "$((2 * events))"
}
rules=$(grep -c -- '- alert:' charts/catchment/files/alerts.yaml)
compose up --wait --wait-timeout 180 --pull never --no-build -d prometheus >"$log" 2>&1 || { tail -5 "$log" >&2; die "docker compose up prometheus"; }
await 180 "Prometheus" watched
step "Prometheus: 4 targets are up, $rules rules are loaded and evaluated, and what was sent is counted"
down 20
step "everything is down"
