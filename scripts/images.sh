#!/usr/bin/env bash
# images.sh VERSION [build|prebuilt]: builds the four images for this machine's architecture with the Docker engine that
# the environment names. prebuilt (default) takes the programs of binaries.sh; build compiles in $GO_IMAGE, with no Go here.
#   IMAGE_PREFIX=registry/   before each name        DOCKER=docker   the client        BUILD_FLAGS   more for `docker build`
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { echo "usage: images.sh VERSION [build|prebuilt]" >&2; exit 2; }
version=$1 binary=${2:-prebuilt} docker=${DOCKER:-docker}
export DOCKER_BUILDKIT=1
arch=$("$docker" version --format '{{.Server.Arch}}')
if [ "$binary" = prebuilt ]; then bash scripts/binaries.sh "$version" "linux/$arch"; fi
for folder in ingress processor archiver cmd/catchment; do
  name=catchment-$folder
  if [ "$folder" = cmd/catchment ]; then name=catchment; fi
  # shellcheck disable=SC2086
  "$docker" build -q -f "$folder/Dockerfile" -t "${IMAGE_PREFIX:-}$name:$version" ${BUILD_FLAGS:-} \
    --build-arg BINARY="$binary" --build-arg VERSION="$version" --build-arg TARGETARCH="$arch" \
    --build-arg REVISION="$(git rev-parse HEAD 2>/dev/null || echo unknown)" ${GO_IMAGE:+--build-arg GO_IMAGE="$GO_IMAGE"} . >/dev/null
  size=$("$docker" image inspect -f '{{.Size}}' "${IMAGE_PREFIX:-}$name:$version")
  printf '%-22s %s\n' "$name:$version" "$(awk '{printf "%.1f MB", $1/1e6}' <<<"$size")"
  # a service is small: a node that has never run it starts it within seconds
  if [ "$folder" != cmd/catchment ] && [ "$size" -gt 40000000 ]; then echo "images: $name has more than 40 MB" >&2; exit 1; fi
done
