#!/usr/bin/env bash
# release.sh VERSION DIR: makes what a release consists of in DIR: an archive of the programs for each platform, an SBOM of each
# program (CycloneDX), the chart's package, and SHA256SUMS of all. The same commit, version and Go give the same bytes,
# wherever and whenever it runs. Images are made from the same programs: images.sh, .github/workflows/release.yml.
#   PLATFORMS="linux/amd64 …"   what to build for
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# = 2 ] || { echo "usage: release.sh VERSION DIR" >&2; exit 2; }
version=$1
[[ $version =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]] || { echo "release: VERSION=v1.2.3, found $version" >&2; exit 2; }
mkdir -p "$2"; dir=$(cd "$2" && pwd)
[ -z "$(ls -A "$dir")" ] || { echo "release: $dir is not empty" >&2; exit 1; }
read -ra platforms <<<"${PLATFORMS:-linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64}"
when=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# archive NAME FOLDER: a folder of $work as NAME.tar.gz; nothing of this machine or of today goes in
archive() {
  (cd "$work" && find "$2" -print0 | LC_ALL=C sort -z | tar --no-recursion --null -T - --format=ustar --owner=0 --group=0 --numeric-owner \
    --mode='u+rwX,go+rX,go-w' --mtime="@$when" -cf - | gzip -n >"$dir/$1.tar.gz")
}

bash scripts/binaries.sh "$version" "${platforms[@]}"
for platform in "${platforms[@]}"; do
  name=catchment_${version#v}_${platform/\//_}
  mkdir "$work/$name"
  cp LICENSE README.md CHANGELOG.md docs/deploy/compose/catchment.yaml "$work/$name/"
  for program in "bin/${platform/\//-}"/catchment*; do
    # the services run on Linux; elsewhere the tool is what is of use
    case $platform:${program##*/} in
      linux/*:* | *:catchment | *:catchment.exe) install -m 755 "$program" "$work/$name/" ;;
    esac
  done
  archive "$name" "$name"
done

# what each program is made of, as the program itself says; the first platform stands for all
tools=$(bash scripts/tools.sh cyclonedx-gomod)
for program in "bin/${platforms[0]/\//-}"/catchment*; do
  "$tools/cyclonedx-gomod" bin -json -noserial -notimestamp -version "$version" -output "$work/sbom" "$program" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
  python3 -c 'import json,sys
s = json.load(open(sys.argv[1])); s["metadata"].pop("tools", None)
json.dump(s, open(sys.argv[2], "w"), indent=1, sort_keys=True)' "$work/sbom" "$dir/$(basename "$program" .exe)_${version#v}.cdx.json"
done

if [ -f charts/catchment/Chart.yaml ]; then
  cp -r charts/catchment "$work/catchment"
  rm -rf "$work/catchment/ci" "$work/catchment/tests"
  sed -i -E "s/^version:.*/version: ${version#v}/; s/^appVersion:.*/appVersion: \"$version\"/" "$work/catchment/Chart.yaml"
  archive "catchment-chart-${version#v}" catchment
  mv "$dir/catchment-chart-${version#v}.tar.gz" "$dir/catchment-chart-${version#v}.tgz"
fi
(cd "$dir" && sha256sum -- * >"$work/sums" && mv "$work/sums" SHA256SUMS)
cat "$dir/SHA256SUMS"
