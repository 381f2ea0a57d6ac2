#!/usr/bin/env bash
# kube-api.sh build|up|down: a real Kubernetes control plane on loopback, with no container and no image: API server, controllers and
# scheduler built from their Go module, Debian's etcd, and kwok, which says of pods what a kubelet would. No pod runs code; all
# else (validation, admission, rollouts, budgets, `helm --wait`) is real. To build it takes 13 minutes on two cores, once.
#   KUBE_DIR    where everything is kept, the programs in bin/; up leaves a kubeconfig there
#   KUBE_PORT ETCD_PORT    where it listens, and on the next three ports, or the next one
set -euo pipefail
dir=${KUBE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/catchment/kube} bin=
mkdir -p "$dir/bin"; dir=$(cd "$dir" && pwd); bin=$dir/bin
port=${KUBE_PORT:-36443} etcd_port=${ETCD_PORT:-32379}
kubernetes=1.37.0 kwok=v0.8.0
url=https://127.0.0.1:$port

build() {
  local program module settings
  mkdir -p "$dir/src"; cd "$dir/src"
  if [ ! -x "$bin/kube-scheduler" ]; then
    printf 'module local/kube\n\ngo 1.26.0\n' >go.mod
    module=$(GOWORK=off go mod download -json "k8s.io/kubernetes@v$kubernetes" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    # its own parts, which its go.mod takes from folders beside it, are released as v0.37.0
    awk -v v="v$kubernetes" -v parts="v0.${kubernetes#1.}" 'BEGIN {print "module local/kube\n\ngo 1.26.0\n\nrequire k8s.io/kubernetes " v "\n\nreplace ("}
      $2 == "=>" && $3 ~ /staging/ {print "\t" $1 " => " $1 " " parts} END {print ")"}' "$module/go.mod" >go.mod
    { echo 'package kube'; for program in kube-apiserver kube-controller-manager kube-scheduler; do echo "import _ \"k8s.io/kubernetes/cmd/$program\""; done; } >tools.go
    GOWORK=off go mod tidy
    settings="-s -w -X k8s.io/component-base/version.gitVersion=v$kubernetes -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37"
    for program in kube-apiserver kube-controller-manager kube-scheduler; do
      if [ ! -x "$bin/$program" ]; then GOWORK=off go build -ldflags "$settings" -o "$bin/$program" "k8s.io/kubernetes/cmd/$program"; fi
    done
  fi
  if [ ! -x "$bin/kwok" ]; then GOWORK=off GOBIN=$bin go install -ldflags='-s -w' "sigs.k8s.io/kwok/cmd/kwok@$kwok"; fi
  # what becomes of nodes and pods by themselves, as kwok's own module has it
  GOWORK=off go mod download "sigs.k8s.io/kwok@$kwok"
  module=$(go env GOMODCACHE)/sigs.k8s.io/kwok@$kwok/kustomize/stage
  for settings in "$module"/node/fast/node-*.yaml "$module"/node/heartbeat-with-lease/node-*.yaml "$module"/pod/fast/pod-*.yaml; do echo ---; cat "$settings"; done >"$dir/stages.yaml"
  if ! command -v etcd >/dev/null; then apt-get install -y -q --no-install-recommends etcd-server >/dev/null; fi
}

# start NAME PROGRAM ARGUMENT…: in the background; its log and process ID are kept
start() { local name=$1; shift; setsid nohup "$@" >"$dir/$name.log" 2>&1 </dev/null & echo $! >"$dir/$name.pid"; }

api() { curl -sk --max-time 10 -H 'Authorization: Bearer admintoken' -H 'Content-Type: application/yaml' "$@"; }

up() {
  down; cd "$dir"; rm -rf etcd certs; mkdir certs
  openssl genrsa -out sa.key 2048 2>/dev/null; openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
  echo 'admintoken,admin,admin,system:masters' >tokens.csv
  cat >kubeconfig <<END
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "$url", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: admintoken}}]
contexts: [{name: c, context: {cluster: c, user: u, namespace: default}}]
current-context: c
END
  local etcd=http://127.0.0.1:$etcd_port peer=http://127.0.0.1:$((etcd_port + 1)) as=("--kubeconfig=$dir/kubeconfig" "--cert-dir=$dir/certs" --bind-address=127.0.0.1 --leader-elect=false) n zone
  start etcd etcd --data-dir "$dir/etcd" --listen-client-urls "$etcd" --advertise-client-urls "$etcd" --listen-peer-urls "$peer" \
    --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" --unsafe-no-fsync
  start apiserver "$bin/kube-apiserver" --etcd-servers="$etcd" --secure-port="$port" --bind-address=127.0.0.1 --advertise-address=127.0.0.1 --cert-dir="$dir/certs" \
    --service-account-key-file=sa.pub --service-account-signing-key-file=sa.key --service-account-issuer="$url" --service-cluster-ip-range=10.0.0.0/24 \
    --authorization-mode=RBAC --token-auth-file=tokens.csv --allow-privileged=true --endpoint-reconciler-type=none
  for n in {1..180}; do
    if [ "$(api "$url/readyz" 2>/dev/null)" = ok ]; then break; fi
    if [ "$n" = 180 ] || ! kill -0 "$(cat etcd.pid)" || ! kill -0 "$(cat apiserver.pid)"; then tail -n 5 etcd.log apiserver.log >&2; exit 1; fi
    sleep 1
  done
  start controllers "$bin/kube-controller-manager" "${as[@]}" --authentication-kubeconfig="$dir/kubeconfig" --authorization-kubeconfig="$dir/kubeconfig" \
    --service-account-private-key-file=sa.key --root-ca-file="$dir/certs/apiserver.crt" --secure-port=$((port + 1))
  start scheduler "$bin/kube-scheduler" "${as[@]}" --authentication-kubeconfig="$dir/kubeconfig" --authorization-kubeconfig="$dir/kubeconfig" --secure-port=$((port + 2))
  start kwok "$bin/kwok" --kubeconfig="$dir/kubeconfig" --manage-all-nodes=true --cidr=10.64.0.0/16 --node-ip=127.0.0.1 --node-lease-duration-seconds=40 \
    --server-address=127.0.0.1:$((port + 3)) --config="$dir/stages.yaml"
  for zone in a b c; do
    api -X POST "$url/api/v1/nodes" --data-binary @- >/dev/null <<END
apiVersion: v1
kind: Node
metadata: {name: node-$zone, labels: {kubernetes.io/hostname: node-$zone, topology.kubernetes.io/zone: zone-$zone, kubernetes.io/os: linux, kubernetes.io/arch: amd64}, annotations: {kwok.x-k8s.io/node: fake}}
status: {allocatable: {cpu: "32", memory: 256Gi, pods: "110"}, capacity: {cpu: "32", memory: 256Gi, pods: "110"}}
END
  done
}

down() {
  local name process
  for name in kwok scheduler controllers apiserver etcd; do
    [ -f "$dir/$name.pid" ] || continue
    process=$(cat "$dir/$name.pid")
    kill "$process" 2>/dev/null || true
    for _ in {1..100}; do kill -0 "$process" 2>/dev/null || break; sleep 0.1; done
    rm -f "$dir/$name.pid"
  done
}

case ${1:-} in build | up | down) "$1" ;; *) sed -n '2,6p' "$0"; exit 2 ;; esac
