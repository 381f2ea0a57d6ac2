#!/usr/bin/env bash
# kafka-cluster.sh: a real Apache Kafka cluster (KRaft, each process broker and controller) on loopback, for tests and
# measurements. Needs Java 17 or later and, the first time, Maven to fetch Kafka's jars.
#
#   kafka-cluster.sh start   DIR        format (once) and start every broker, wait until all have started
#   kafka-cluster.sh stop    DIR        stop every broker cleanly (SIGTERM; SIGKILL after STOP_S seconds)
#   kafka-cluster.sh kill    DIR N      kill broker N at once (SIGKILL)
#   kafka-cluster.sh stopone DIR N      stop broker N cleanly
#   kafka-cluster.sh restart DIR N      start broker N again (killing it first if it still runs), wait until started
#   kafka-cluster.sh pause   DIR N      SIGSTOP broker N      (resume DIR N: SIGCONT)
#   kafka-cluster.sh fill    DIR N      let every further write of broker N to its disk fail, until it is started again
#   kafka-cluster.sh status  DIR        one line per broker: up/down, pid, port, memory, CPU seconds
#   kafka-cluster.sh brokers DIR        the bootstrap list, alone on a line
#   kafka-cluster.sh wipe    DIR        stop, then remove what this script made in DIR
#   kafka-cluster.sh libs               only fetch the jars; prints their folder
#
# Settings (environment; those that shape the cluster are written to DIR/cluster.env at the first start and kept):
#   BROKERS=3  BASE_PORT=(free ones)  HEAP=384m  HOST=127.0.0.1  PARTITIONS=6
#   KAFKA_VERSION=4.1.0  KAFKA_LIBS=(~/.cache/kafka-VERSION/libs)  JVM_OPTS='-XX:+UseSerialGC'
#   EXTRA_PROPS='a=b;c=d'  START_S=90  STOP_S=30
#   PROPS_FILE=PATH          more lines of server.properties: listeners with TLS, for instance. {n} is the broker's number,
#                            {port} and {controller} its ports, {port+10} to {port+40} more of them; JAVA_ARGS=… for the JVM
#   QUICK=1  for tests that start many brokers and measure none: a start costs a quarter of the CPU, and a broker that is
#            gone is missed after 6 s. The first such start makes an archive of classes beside the jars.
set -u -o pipefail

die() { echo "kafka-cluster: $*" >&2; exit 1; }
usage() { sed -n '2,/^set -u/p' "$0" | sed -n 's/^# \{0,1\}//p' >&2; exit 2; }

KAFKA_VERSION=${KAFKA_VERSION:-4.1.0}
KAFKA_LIBS=${KAFKA_LIBS:-${XDG_CACHE_HOME:-$HOME/.cache}/kafka-$KAFKA_VERSION/libs}
START_S=${START_S:-90}
STOP_S=${STOP_S:-30}
QUICK=${QUICK:-}

libs() {
  if compgen -G "$KAFKA_LIBS/kafka_2.13-*.jar" >/dev/null && compgen -G "$KAFKA_LIBS/log4j-slf4j-impl-*.jar" >/dev/null; then return 0; fi
  command -v mvn >/dev/null || die "no Kafka jars in $KAFKA_LIBS and no mvn to fetch them"
  local tmp lock; mkdir -p "$KAFKA_LIBS" || die "cannot make $KAFKA_LIBS"
  lock="$KAFKA_LIBS/.lock"; exec 9>"$lock"; command -v flock >/dev/null && flock 9
  if ! compgen -G "$KAFKA_LIBS/log4j-slf4j-impl-*.jar" >/dev/null; then
    tmp=$(mktemp -d) || die "mktemp"
    cat >"$tmp/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>local</groupId><artifactId>kafka-libs</artifactId><version>1</version>
<dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$KAFKA_VERSION</version></dependency>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$KAFKA_VERSION</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.24.3</version></dependency>
</dependencies></project>
POM
    local try ok=
    for try in 1 2 3; do
      if mvn -q -B -f "$tmp/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$tmp/libs" >&2; then ok=1; break; fi
      sleep $((try * 3))
    done
    [ -n "$ok" ] || { rm -rf "$tmp"; die "mvn could not fetch the jars"; }
    cp "$tmp"/libs/*.jar "$KAFKA_LIBS"/ || die "copy of jars"
    rm -rf "$tmp"
  fi
  exec 9>&-
}

# Fills JVM_OPTS and EXTRA_PROPS. The archive holds the classes that a broker has loaded when it ends; a JVM that does
# not like it goes on without.
quick() {
  local jsa tmp; jsa="$(dirname "$KAFKA_LIBS")/classes-$(java -version 2>&1 | cksum | cut -d' ' -f1).jsa"
  JVM_OPTS='-XX:+UseSerialGC -XX:TieredStopAtLevel=1'
  if [ ! -s "$jsa" ]; then
    tmp=$(mktemp -d) || die "mktemp"
    if env -u QUICK -u BASE_PORT -u PROPS_FILE -u JAVA_ARGS BROKERS=1 JVM_OPTS="$JVM_OPTS -XX:ArchiveClassesAtExit=$tmp/classes.jsa" bash "$0" start "$tmp/cluster" >"$tmp/log" 2>&1 &&
      STOP_S=60 bash "$0" stop "$tmp/cluster" >>"$tmp/log" 2>&1 && [ -s "$tmp/classes.jsa" ]; then
      mv -f "$tmp/classes.jsa" "$jsa.$$" && mv -f "$jsa.$$" "$jsa"
    else
      echo "kafka-cluster: no archive of classes was made, so brokers start more slowly: $(tail -1 "$tmp/log")" >&2
    fi
    rm -rf "$tmp"
  fi
  JVM_OPTS+=" -XX:SharedArchiveFile=$jsa"
  EXTRA_PROPS='broker.session.timeout.ms=6000;broker.heartbeat.interval.ms=1000'
}

port_open() { (exec 3<>"/dev/tcp/$HOST/$1") 2>/dev/null; }

# A base from which the brokers' and the controllers' ports are free, below the range that systems hand out themselves.
free_base() {
  local base n try
  for try in $(seq 1 50); do
    base=$((20000 + RANDOM % 110 * 100))
    for n in $(seq 0 $((BROKERS - 1))); do
      if port_open $((base + n)) || port_open $((base + 50 + n)); then continue 2; fi
    done
    echo "$base"; return
  done
  die "no free ports after $try tries"
}

cmd=${1:-}; [ -n "$cmd" ] || usage
if [ "$cmd" = libs ]; then libs; echo "$KAFKA_LIBS"; exit 0; fi
DIR=${2:-}; [ -n "$DIR" ] || usage
N=${3:-}
mkdir -p "$DIR" || die "cannot make $DIR"
DIR=$(cd "$DIR" && pwd)
ENVF="$DIR/cluster.env"
# shellcheck source=/dev/null
if [ -f "$ENVF" ]; then . "$ENVF"; fi
BROKERS=${BROKERS:-3}; BASE_PORT=${BASE_PORT:-}; HEAP=${HEAP:-384m}; HOST=${HOST:-127.0.0.1}
PARTITIONS=${PARTITIONS:-6}; JVM_OPTS=${JVM_OPTS:--XX:+UseSerialGC}; EXTRA_PROPS=${EXTRA_PROPS:-}
PROPS_FILE=${PROPS_FILE:-}; JAVA_ARGS=${JAVA_ARGS:-}
case "$HOST" in 127.*|localhost) ;; *) die "HOST must be a loopback address" ;; esac
[ "$cmd" = start ] || [ -f "$ENVF" ] || die "no cluster in $DIR"
RF=$(( BROKERS < 3 ? BROKERS : 3 )); ISR=$(( RF > 1 ? RF - 1 : 1 ))
port()  { echo $((BASE_PORT + $1 - 1)); }
cport() { echo $((BASE_PORT + 50 + $1 - 1)); }
bdir()  { echo "$DIR/b$1"; }
all()   { seq 1 "$BROKERS"; }
check_n() { if [[ "$N" =~ ^[0-9]+$ ]] && [ "$N" -ge 1 ] && [ "$N" -le "$BROKERS" ]; then return 0; fi; die "broker number 1..$BROKERS wanted, got '$N'"; }

# The pid in b N's pid file, only if it is really that broker (a pid may have been given to another program since).
pid_of() {
  local f p; f="$(bdir "$1")/pid"; [ -s "$f" ] || return 1
  p=$(cat "$f"); [ -r "/proc/$p/cmdline" ] || return 1
  tr '\0' ' ' <"/proc/$p/cmdline" 2>/dev/null | grep -qF "kafka.Kafka $(bdir "$1")/server.properties" || return 1
  echo "$p"
}
write_conf() {
  local n=$1 d i v=; d=$(bdir "$n"); mkdir -p "$d"
  for i in $(all); do v+="${v:+,}$i@$HOST:$(cport "$i")"; done
  # On loopback a segment has up to 64 KiB. With Kafka's buffers of 64 and 100 KB the window is then often smaller than a
  # segment, and TCP waits for 200 ms before it goes on: the system's own buffers have no such pauses.
  cat >"$d/server.properties" <<P
process.roles=broker,controller
node.id=$n
controller.quorum.voters=$v
listeners=PLAINTEXT://$HOST:$(port "$n"),CONTROLLER://$HOST:$(cport "$n")
advertised.listeners=PLAINTEXT://$HOST:$(port "$n")
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$d/data
num.partitions=$PARTITIONS
default.replication.factor=$RF
min.insync.replicas=$ISR
socket.receive.buffer.bytes=-1
socket.send.buffer.bytes=-1
replica.socket.receive.buffer.bytes=1048576
unclean.leader.election.enable=false
offsets.topic.replication.factor=$RF
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=$RF
transaction.state.log.min.isr=$ISR
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=$RF
share.coordinator.state.topic.min.isr=$ISR
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=1
message.max.bytes=26214400
replica.fetch.max.bytes=26214400
log.segment.bytes=134217728
log.index.size.max.bytes=1048576
log.cleaner.dedupe.buffer.size=16777216
P
  [ -z "$EXTRA_PROPS" ] || tr ';' '\n' <<<"$EXTRA_PROPS" >>"$d/server.properties"
  if [ -n "$PROPS_FILE" ]; then
    local p; p=$(port "$n")
    sed -e "s/{n}/$n/g; s/{port}/$p/g; s/{controller}/$(cport "$n")/g; s/{port+10}/$((p + 10))/g; s/{port+20}/$((p + 20))/g; s/{port+30}/$((p + 30))/g; s/{port+40}/$((p + 40))/g" \
      "$PROPS_FILE" >>"$d/server.properties" || die "cannot read $PROPS_FILE"
  fi
  cat >"$d/log4j2.properties" <<P
status=error
appender.c.type=Console
appender.c.name=C
appender.c.layout.type=PatternLayout
appender.c.layout.pattern=%d{ISO8601} %p %m (%c)%n
rootLogger.level=INFO
rootLogger.appenderRef.c.ref=C
P
}

format() {
  local n=$1 d; d=$(bdir "$n")
  [ -f "$d/data/meta.properties" ] && return 0
  java -Xmx96m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile="$d/log4j2.properties" -cp "$KAFKA_LIBS/*" \
    kafka.tools.StorageTool format -t "$CLUSTER_ID" -c "$d/server.properties" >"$d/format.log" 2>&1 ||
    { tail -5 "$d/format.log" >&2; die "format of broker $n"; }
}

launch() {
  local n=$1 d; d=$(bdir "$n")
  if pid_of "$n" >/dev/null; then return 0; fi
  # A killed broker's sockets may outlive its command line by a moment.
  local t=$((SECONDS + 30))
  while port_open "$(port "$n")" || port_open "$(cport "$n")"; do
    [ $SECONDS -lt $t ] || die "port $(port "$n") or $(cport "$n") is in use"
    sleep 0.2
  done
  [ -f "$d/log" ] && mv -f "$d/log" "$d/log.1"
  # shellcheck disable=SC2086 # JVM_OPTS and JAVA_ARGS are lists
  # setsid: a broker must outlive the shell that started it.
  setsid java -Xms128m -Xmx"$HEAP" $JVM_OPTS $JAVA_ARGS -Djava.awt.headless=true -Dlog4j2.configurationFile="$d/log4j2.properties" \
    -cp "$KAFKA_LIBS/*" kafka.Kafka "$d/server.properties" </dev/null >"$d/log" 2>&1 &
  echo $! >"$d/pid"; disown
}

wait_up() {
  local n=$1 d t; d=$(bdir "$n"); t=$((SECONDS + START_S))
  # 'Kafka Server started' comes only after the broker was unfenced: from there on it takes records.
  until grep -q 'Kafka Server started' "$d/log" 2>/dev/null && port_open "$(port "$n")"; do
    # (a moment of grace: right after the fork the process is not yet named java)
    if ! pid_of "$n" >/dev/null; then sleep 0.5; pid_of "$n" >/dev/null || { tail -15 "$d/log" >&2; die "broker $n ended while starting"; }; fi
    [ $SECONDS -lt $t ] || { tail -15 "$d/log" >&2; die "broker $n not up after $START_S s"; }
    sleep 0.2
  done
}

sig() { local p; p=$(pid_of "$1") || return 1; kill -"$2" "$p"; }
# Gone is a process without files: a zombie has closed them, one that is exiting (no command line any more) has not.
running() { local s; s=$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null) && [ -n "$s" ] && [ "$s" != Z ] && [ "$s" != X ]; }
gone() {
  local t=$((SECONDS + $2)) p
  p=$(cat "$(bdir "$1")/pid" 2>/dev/null) || return 0
  { [ -n "$p" ] && [ -d "/proc/$p" ]; } || return 0
  case $(tr '\0' ' ' <"/proc/$p/cmdline" 2>/dev/null) in '' | *"kafka.Kafka $(bdir "$1")/"*) ;; *) return 0 ;; esac
  while running "$p"; do [ $SECONDS -lt $t ] || return 1; sleep 0.1; done
}
stop_wait() { local p; gone "$1" "$STOP_S" || { sig "$1" CONT; sig "$1" KILL; gone "$1" 10 || die "broker $1 does not end"; }; rm -f "$(bdir "$1")/pid"; }

status() {
  local n p rss cpu hz; hz=$(getconf CLK_TCK)
  for n in $(all); do
    if p=$(pid_of "$n"); then
      rss=$(awk '/VmRSS/{printf "%d", $2/1024}' "/proc/$p/status")
      cpu=$(awk -v hz="$hz" '{sub(/.*\) /,""); printf "%.1f", ($12+$13)/hz}' "/proc/$p/stat")
      echo "broker $n up pid $p port $(port "$n") rss ${rss}MiB cpu ${cpu}s"
    else echo "broker $n down"; fi
  done
}

case "$cmd" in
start)
  command -v java >/dev/null || die "no java"
  libs
  if [ ! -f "$ENVF" ]; then
    [ -z "$QUICK" ] || quick
    BASE_PORT=${BASE_PORT:-$(free_base)} || exit 1
    # 16 random bytes in URL-safe base64, as Kafka's own random-uuid makes them
    CLUSTER_ID=$(head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | tr -d '=')
    { for v in BROKERS BASE_PORT HEAP HOST PARTITIONS JVM_OPTS EXTRA_PROPS PROPS_FILE JAVA_ARGS CLUSTER_ID; do printf '%s=%q\n' "$v" "${!v}"; done; } >"$ENVF"
  fi
  t0=$(date +%s.%N)
  for n in $(all); do write_conf "$n"; done
  for n in $(all); do format "$n" & done; wait || die "format"
  for n in $(all); do [ -f "$(bdir "$n")/data/meta.properties" ] || die "broker $n was not formatted"; done
  for n in $(all); do launch "$n"; done
  for n in $(all); do wait_up "$n"; done
  echo "started in $(awk -v a="$t0" -v b="$(date +%s.%N)" 'BEGIN{printf "%.1f", b-a}') s"
  status ;;
stop) for n in $(all); do sig "$n" CONT; sig "$n" TERM; done 2>/dev/null; for n in $(all); do stop_wait "$n"; done; echo stopped ;;
kill) check_n; sig "$N" KILL || die "broker $N is not running"; gone "$N" 10 || die "broker $N does not end"; rm -f "$(bdir "$N")/pid"; echo "killed broker $N" ;;
stopone) check_n; sig "$N" TERM || die "broker $N is not running"; stop_wait "$N"; echo "stopped broker $N" ;;
restart)
  check_n; libs
  if pid_of "$N" >/dev/null; then sig "$N" CONT; sig "$N" KILL; gone "$N" 10 || die "broker $N does not end"; fi
  t0=$(date +%s.%N); write_conf "$N"; format "$N"; launch "$N"; wait_up "$N"
  echo "broker $N started in $(awk -v a="$t0" -v b="$(date +%s.%N)" 'BEGIN{printf "%.1f", b-a}') s" ;;
pause)  check_n; sig "$N" STOP || die "broker $N is not running" ;;
resume) check_n; sig "$N" CONT || die "broker $N is not running" ;;
fill)   check_n; p=$(pid_of "$N") || die "broker $N is not running"; prlimit --pid "$p" --fsize=0: ;;
status) status ;;
brokers) l=; for n in $(all); do l+="${l:+,}$HOST:$(port "$n")"; done; echo "$l" ;;
wipe)
  for n in $(all); do sig "$n" CONT; sig "$n" KILL; done 2>/dev/null; for n in $(all); do gone "$n" 10; rm -rf "$(bdir "$n")"; done; rm -f "$ENVF"; echo wiped ;;
*) usage ;;
esac
