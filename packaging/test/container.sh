#!/usr/bin/env bash
# Builds the second stage of the Containerfile on a Debian made by mmdebstrap, with packages that are
# there already in the place of the first stage, and runs it: healthy, one request, a stop that ends
# well. Needs root, buildah, mmdebstrap and a mirror; no registry. Usage: container.sh FOLDER
set -euo pipefail
tree=$(cd "$(dirname "$0")/../.." && pwd)
debs=$(cd "$1" && pwd)

if [ "${2:-}" != inside ]; then
  # Processes and port 8080 of its own. The network of the build comes first.
  work=$(mktemp -d /var/tmp/chimera-container-XXXXXX)
  trap 'rm -rf "$work"' EXIT
  export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot work
  store() { buildah --root "$work/store" --runroot "$work/run" "$@"; }
  mkdir -p "$work/tree/scripts" "$work/tree/debs"
  mmdebstrap --variant=minbase bookworm "$work/base.tar" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
  base=$(store from scratch)
  store add -q "$base" "$work/base.tar" / >/dev/null
  store commit -q "$base" localhost/debian:12 >/dev/null
  cp -r "$tree/Containerfile" "$tree/packaging" "$work/tree"
  cp "$debs"/*.deb "$work/tree/debs"
  # What the first stage asks for.
  printf '#!/bin/sh\nset -eu\n[ "$*" = "--no-lintian --out /debs" ]\nmkdir /debs\ncp debs/*.deb /debs\n' \
    >"$work/tree/scripts/package"
  chmod +x "$work/tree/scripts/package"
  store bud -q --format docker --build-arg DEBIAN=localhost/debian:12 \
    --build-arg SLIM=localhost/debian:12 -t chimera "$work/tree" >"$work/log" 2>&1 ||
    { tail -n 20 "$work/log" >&2; exit 1; }
  unshare --net --pid --mount-proc --fork --kill-child "$0" "$debs" inside
  exit
fi

run() { buildah --root "$work/store" --runroot "$work/run" run --user chimera "$container" "$@"; }
fail() { echo "container: $*" >&2; cat "$work/log" >&2; exit 1; }
ip link set lo up
container=$(buildah --root "$work/store" --runroot "$work/run" from chimera)
run /usr/libexec/chimera/start >"$work/log" 2>&1 &
running=$!
for _ in $(seq 60); do
  ! run /usr/libexec/chimera/healthy 2>/dev/null || break
  kill -0 "$running" 2>/dev/null || fail "it ended"
  sleep 1
done
run /usr/libexec/chimera/healthy || fail "not healthy within a minute"
key=$(run cat /var/lib/chimera/gateway/admin.key)
curl -sf http://127.0.0.1:8080/v1/completions -H "Authorization: Bearer $key" \
  -H 'Content-Type: application/json' -d '{"model": "demo:legal", "prompt": "The", "max_tokens": 4}' |
  grep -q '"completion_tokens":4' || fail "no answer"
! pgrep -u 0 -x chimerad || fail "the daemon runs as root"
pkill -TERM -x -f '/bin/bash /usr/libexec/chimera/start'
wait "$running" || fail "it ended with $?"
! run /usr/libexec/chimera/healthy 2>/dev/null || fail "healthy after its end"
echo "container: built, healthy, answered, ended well"
