#!/usr/bin/env bash
# chart.sh lint: everything about charts/catchment that needs no cluster. chart.sh test: on a real Kubernetes API, which
# kube-api.sh builds, in 13 minutes, where this user's cache has none yet. Tools, schemas and the API's programs are kept in this
# user's cache; nothing of them stays running.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/catchment
kube_api=scripts/kube-api.sh
work=$(mktemp -d "${TMPDIR:-/tmp}/catchment-chart.XXXXXX")
trap 'rm -rf "$work"' EXIT

PATH=$(bash scripts/tools.sh helm kubeconform helm-unittest):$PATH
export PATH HELM_CACHE_HOME=$work/helm HELM_CONFIG_HOME=$work/helm HELM_DATA_HOME=$work/helm

# Python with PyYAML and the schemas of Kubernetes 1.25 to 1.37.
venv=$cache/chart-venv-1
if [ ! -x "$venv/bin/chart-python" ]; then
  python3 -m venv "$venv" && "$venv/bin/pip" install -q kubernetes-validate==1.37.0 PyYAML==6.0.3
  ln -sf python "$venv/bin/chart-python" # last: only then it is whole
fi
python=$venv/bin/python

# The folders with the CRDs, out of the modules of their projects.
modules() {
  printf 'module local/crds\n\ngo 1.26.0\n' >"$work/go.mod"
  local line dir
  for line in "github.com/prometheus-operator/prometheus-operator@v0.85.0 example/prometheus-operator-crd" \
    "github.com/kedacore/keda/v2@v2.21.0 config/crd/bases" "sigs.k8s.io/gateway-api@v1.5.1 config/crd/standard"; do
    dir=$(cd "$work" && GOWORK=off GOFLAGS=-mod=mod go mod download -json "${line% *}" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    echo "$dir/${line#* }"
  done >"$work/modules"
}

case ${1:-} in
lint)
  modules
  "$python" scripts/chart.py schemas "$work/modules" "$work/schemas"
  "$python" scripts/chart.py lint "$work/schemas"
  helm-unittest --strict charts/catchment
  ;;
test)
  modules
  mkdir -p "$cache/kube/bin" "$work/kube"
  ln -s "$cache/kube/bin" "$work/kube/bin"
  # six free ports in a row, where no connection takes one meanwhile
  read -r port etcd < <("$python" -c 'import random, socket
def free(p):
    with socket.socket() as s: return s.connect_ex(("127.0.0.1", p)) != 0
p = next(p for p in iter(lambda: random.randrange(20000, 30000), 0) if all(map(free, range(p, p + 6))))
print(p, p + 4)')
  export KUBE_DIR=$work/kube KUBE_PORT=$port ETCD_PORT=$etcd
  exec 9>"$cache/kube/.lock"
  if command -v flock >/dev/null; then flock 9; fi
  bash "$kube_api" build >"$work/build.log" 2>&1 || { tail -20 "$work/build.log"; exit 1; }
  exec 9>&-
  trap 'bash "$kube_api" down || true; rm -rf "$work"' EXIT
  bash "$kube_api" up >/dev/null
  "$python" scripts/chart.py test "$work/modules" "$work/kube/kubeconfig" "$port"
  ;;
*) sed -n '2,4p' "$0"; exit 2 ;;
esac
