#!/usr/bin/env bash
# release-test.sh: a release of this commit, and one of a clone of it in another folder, are the same bytes; each program says
# its version; each SBOM names its modules; a service's program is small enough for an image of 40 MB.
#   PLATFORMS="linux/amd64"   what to build for; default: this machine
set -euo pipefail
cd "$(dirname "$0")/.."
platform=$(go env GOOS)/$(go env GOARCH)
export PLATFORMS=${PLATFORMS:-$platform}
version=v0.0.0-test
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
die() { echo "release-test: $*" >&2; exit 1; }
bash scripts/release.sh "$version" "$work/one" >/dev/null
git clone -q . "$work/clone"
if [ -n "$(git status --porcelain)" ]; then echo "release-test: what is not committed is compared with itself"; git ls-files -z -co --exclude-standard | xargs -0 cp --parents -t "$work/clone"; fi
TZ=Asia/Tokyo bash "$work/clone/scripts/release.sh" "$version" "$work/two" >/dev/null
diff "$work/one/SHA256SUMS" "$work/two/SHA256SUMS" || die "two builds differ"
(cd "$work/one" && sha256sum -c --quiet SHA256SUMS)
mkdir "$work/unpacked"
tar -xzf "$work/one/catchment_0.0.0-test_${platform/\//_}.tar.gz" -C "$work/unpacked" --strip-components 1
for program in catchment catchment-ingress catchment-processor catchment-archiver; do
  file=$work/unpacked/$program size=$(stat -c %s "$work/unpacked/$program")
  asked=--version
  if [ "$program" = catchment ]; then asked=version; fi
  said=$("$file" "$asked" 2>&1) || die "$program $asked: $said"
  [[ $said == *"$version"* ]] || die "$program says $said"
  if [ "$program" != catchment ] && [ "$size" -gt 39700000 ]; then die "$program has $size bytes"; fi # and the authorities' certificates
  python3 -c 'import json,sys; c=[x["name"] for x in json.load(open(sys.argv[1]))["components"]]; sys.exit("github.com/twmb/franz-go" not in c)' \
    "$work/one/${program}_0.0.0-test.cdx.json" || die "the SBOM of $program"
done
echo "two builds are the same bytes:"
cat "$work/one/SHA256SUMS"
