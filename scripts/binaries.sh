#!/usr/bin/env bash
# binaries.sh VERSION OS/ARCH...: builds the four programs into bin/OS-ARCH, static and reproducible: the same sources,
# version and Go give the same bytes. Beside the programs for linux lies ca-certificates.crt, which images need.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 2 ] || { echo "usage: binaries.sh VERSION OS/ARCH..." >&2; exit 2; }
version=$1; shift
mapfile -t flags < <(sh scripts/goflags.sh | tr " " "\n")
declare -A programs=([ingress]=./cmd/ingress [processor]=./cmd/processor [archiver]=./cmd/archiver [cmd/catchment]=.)
for platform in "$@"; do
  os=${platform%/*} arch=${platform#*/} out=$PWD/bin/${platform/\//-}
  mkdir -p "$out"
  for module in "${!programs[@]}"; do
    name=catchment-$module suffix=''
    if [ "$module" = cmd/catchment ]; then name=catchment; fi
    if [ "$os" = windows ]; then suffix=.exe; fi
    echo "$platform $name"
    # the workspace is left out, so that each module's own go.sum says what is linked
    (cd "$module" && CGO_ENABLED=0 GOWORK=off GOOS=$os GOARCH=$arch go build "${flags[@]}" -buildvcs=false \
      -ldflags "-s -w -X github.com/catchment-dev/catchment/pkg/run.Version=$version" -o "$out/$name$suffix" "${programs[$module]}")
  done
  if [ "$os" = linux ]; then cp /etc/ssl/certs/ca-certificates.crt "$out/"; fi
done
