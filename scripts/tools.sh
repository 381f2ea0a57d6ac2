#!/usr/bin/env bash
# tools.sh NAME...: makes sure that these tools are there in their pinned versions, and prints their folder.
# They are built once into a cache of this user; several runs at a time do not disturb one another.
set -euo pipefail

module() {
  case $1 in
    golangci-lint) echo github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 ;;
    versitygw) echo github.com/versity/versitygw/cmd/versitygw@v1.8.0 ;;
    actionlint) echo github.com/rhysd/actionlint/cmd/actionlint@v1.7.12 ;;
    cyclonedx-gomod) echo github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0 ;;
    helm) echo helm.sh/helm/v3/cmd/helm@v3.22.0 ;;
    kubeconform) echo github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0 ;;
    helm-unittest) echo github.com/helm-unittest/helm-unittest/cmd/helm-unittest@v1.1.2 ;;
    *) echo "tools: no tool '$1'" >&2; return 1 ;;
  esac
}

# Its module replaces another one, so that `go install` refuses it: it is built as a dependency.
replaced() {
  local m=${1%@*}
  m=${m%/cmd/*}
  printf 'module local/tool\n\ngo 1.26.0\n\nrequire %s %s\n\nreplace github.com/vmware-labs/yaml-jsonpath v0.3.2 => github.com/helm-unittest/yaml-jsonpath v0.4.0\n' "$m" "${1##*@}" >go.mod
  printf '//go:build tools\n\npackage tool\n\nimport _ "%s"\n' "${1%@*}" >tool.go
  go mod tidy && go build -ldflags='-s -w' -o "$2" "${1%@*}"
}

bin=${XDG_CACHE_HOME:-$HOME/.cache}/catchment/bin
mkdir -p "$bin"
for name in "$@"; do
  want=$(module "$name")
  have() { [ -x "$bin/$name" ] && go version -m "$bin/$name" 2>/dev/null | awk '$1 == "mod" {print $3}' | grep -qx "${want##*@}"; }
  if have; then continue; fi
  exec 9>"$bin/.$name.lock"
  if command -v flock >/dev/null; then flock 9; fi
  if have; then continue; fi # another run has built it meanwhile
  echo "tools: building $name ${want##*@}" >&2
  tmp=$(mktemp -d "$bin/.$name.XXXXXX")
  if ! (
    export GOWORK=off GOFLAGS='' CGO_ENABLED=0
    if [ "$name" = helm-unittest ]; then cd "$tmp" && replaced "$want" "$name"; else cd / && GOBIN="$tmp" go install -ldflags='-s -w' "$want"; fi
  ) >&2; then
    rm -rf "$tmp"
    echo "tools: $name does not build" >&2
    exit 1
  fi
  mv -f "$tmp/$name" "$bin/$name"
  rm -rf "$tmp"
  exec 9>&-
done
echo "$bin"
