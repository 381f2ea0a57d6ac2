#!/usr/bin/env bash
# parts.sh: what Catchment runs on, for tests and measurements, on loopback and free ports: a real Kafka of three
# brokers, Postgres, versitygw as S3 server, and Redis.
#
#   parts.sh start DIR [kafka] [postgres] [s3] [redis]    start these (no name: all) and print `export` lines
#   parts.sh env   DIR                                    print the `export` lines again:  eval "$(parts.sh env DIR)"
#   parts.sh stop  DIR                                    stop them and remove what was made in DIR
#
# Redis is Debian's redis-server, or Valkey. Kafka needs Java and (for the first fetch of its jars) Maven; Postgres its programs on PATH or in
# /usr/lib/postgresql; versitygw is built with `go install` when it is not there (tools.sh).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
die() { echo "parts: $*" >&2; exit 1; }

[ $# -ge 2 ] || { sed -n '2,/^set -/p' "$0" | sed -n 's/^# \{0,1\}//p' >&2; exit 2; }
cmd=$1 dir=$2; shift 2
mkdir -p "$dir"; dir=$(cd "$dir" && pwd)

free_port() {
  local p
  for _ in $(seq 1 50); do
    p=$((31100 + RANDOM % 1600))
    (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null || { echo "$p"; return; }
  done
  die "no free port"
}

# Postgres refuses root: another user then runs it.
as_user() {
  if [ "$(id -u)" != 0 ]; then "$@"; return; fi
  local user=nobody; if getent passwd postgres >/dev/null; then user=postgres; fi
  chown -R "$user" "$dir/postgres"
  (cd / && setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups env HOME="$dir/postgres" "$@")
}

postgres_bin() {
  local p
  if p=$(command -v initdb); then dirname "$p"; return; fi
  # shellcheck disable=SC2012
  p=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
  [ -n "$p" ] || die "no Postgres programs"
  echo "$p"
}

start_kafka() {
  mkdir -p "$dir/kafka"
  QUICK=1 bash "$here/kafka-cluster.sh" start "$dir/kafka/shared" >&2
  {
    echo "export CATCHMENT_TEST_KAFKA=$(bash "$here/kafka-cluster.sh" brokers "$dir/kafka/shared")"
    echo "export CATCHMENT_TEST_KAFKA_DIR=$dir/kafka"
  } >>"$dir/env"
}

stop_kafka() {
  local c
  for c in "$dir"/kafka/*/; do
    if [ -f "$c/cluster.env" ]; then bash "$here/kafka-cluster.sh" wipe "${c%/}" >&2 || return 1; fi
  done
}

start_postgres() {
  local bin port; bin=$(postgres_bin); port=$(free_port)
  mkdir -p "$dir/postgres"; chmod 755 "$dir"
  as_user "$bin/initdb" -D "$dir/postgres/data" -U postgres -A trust -E UTF8 --locale=C >"$dir/postgres.log"
  as_user "$bin/pg_ctl" start -w -s -D "$dir/postgres/data" -l "$dir/postgres/log" \
    -o "-p $port -k '$dir/postgres' -c listen_addresses=127.0.0.1 -c max_connections=300 -c shared_buffers=128MB" >&2 ||
    { tail -5 "$dir/postgres/log" >&2; die "Postgres does not start"; }
  echo "export CATCHMENT_TEST_DATABASE_URL='postgres://postgres@127.0.0.1:$port/postgres?sslmode=disable'" >>"$dir/env"
}

stop_postgres() {
  [ -d "$dir/postgres/data" ] || return 0
  as_user "$(postgres_bin)/pg_ctl" stop -m immediate -s -D "$dir/postgres/data" >&2 || return 1
}

start_s3() {
  local bin port; port=$(free_port)
  bin=$(bash "$here/tools.sh" versitygw)
  mkdir -p "$dir/s3/buckets" "$dir/s3/meta"
  setsid "$bin/versitygw" --quiet --port "127.0.0.1:$port" --access catchment --secret catchment-test-secret \
    posix --sidecar "$dir/s3/meta" "$dir/s3/buckets" </dev/null >"$dir/s3/log" 2>&1 &
  echo $! >"$dir/s3/pid"
  for _ in $(seq 1 100); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "export CATCHMENT_TEST_S3=http://catchment:catchment-test-secret@127.0.0.1:$port" >>"$dir/env"
      return
    fi
    sleep 0.1
  done
  cat "$dir/s3/log" >&2; die "versitygw does not start"
}

stop_s3() {
  [ -f "$dir/s3/pid" ] || return 0
  local pid; pid=$(cat "$dir/s3/pid")
  # the number may have been given to another program since
  if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$dir/s3/buckets"; then kill "$pid"; fi
}

start_redis() {
  local bin port; port=$(free_port)
  bin=$(command -v redis-server || command -v valkey-server) || die "neither redis-server nor valkey-server"
  mkdir -p "$dir/redis"
  setsid "$bin" --port "$port" --bind 127.0.0.1 --save '' --appendonly no --dir "$dir/redis" --pidfile "$dir/redis/pid" \
    </dev/null >"$dir/redis/log" 2>&1 &
  for _ in $(seq 1 100); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "export CATCHMENT_TEST_REDIS=redis://127.0.0.1:$port/0" >>"$dir/env"
      return
    fi
    sleep 0.1
  done
  cat "$dir/redis/log" >&2; die "Redis does not start"
}

stop_redis() {
  [ -f "$dir/redis/pid" ] || return 0
  local pid; pid=$(cat "$dir/redis/pid")
  # the number may have been given to another program since; a server's folder is its own
  if [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$dir/redis" ]; then kill "$pid"; fi
}

case $cmd in
  start)
    [ ! -f "$dir/env" ] || die "$dir is in use: parts.sh stop $dir"
    trap '[ $? = 0 ] || mv "$dir/env" "$dir/env.incomplete"' EXIT
    : >"$dir/env"
    [ $# -gt 0 ] || set -- postgres s3 redis kafka
    for part in "$@"; do
      case $part in
        kafka | postgres | s3 | redis) "start_$part" ;;
        *) die "no part '$part'" ;;
      esac
    done
    cat "$dir/env" ;;
  env) [ -f "$dir/env" ] || die "nothing runs in $dir"; cat "$dir/env" ;;
  stop)
    failed=
    for part in kafka postgres s3 redis; do "stop_$part" || failed+=" $part"; done
    [ -z "$failed" ] || die "not stopped:$failed (see $dir)"
    rm -rf "$dir/env" "$dir/env.incomplete" "$dir/kafka" "$dir/postgres" "$dir/postgres.log" "$dir/s3" "$dir/redis"
    rmdir "$dir" 2>/dev/null || true ;;
  *) die "no command '$cmd'" ;;
esac
