#!/usr/bin/env bash
# Tries the packages of a folder in a root of their own: inside.sh, first where nothing runs, then
# under a systemd of its own. Nothing of this system is changed or reached but its mirror, for what the
# packages depend on.
# Usage: clean_root.sh FOLDER [MODULE]   (MODULE: a library module to load, else build/modules/finance)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
debs=$(cd "$1" && pwd)
module=${2:-$here/../../build/modules/finance}

fail() { echo "clean_root: $*" >&2; exit 1; }
[ "$(id -u)" -eq 0 ] || fail "found user $(id -u) (expected root: the root of its own has users and services)."

work=$(mktemp -d /var/tmp/chimera-root-XXXXXX)
group='' init=''
cleanup() {
  [ -z "$init" ] || kill -KILL "$init" 2>/dev/null || true
  if [ -n "$group" ]; then
    # Its processes take a moment to be gone; what systemd made in it goes first.
    for _ in $(seq 50); do
      find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
      sleep 0.1
    done
  fi
  rm -rf --one-file-system "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
root=$work/root

# inside NAMESPACES… -- PHASE: in name spaces of its own, so that no process and no mount stays.
inside() {
  local spaces=()
  while [ "$1" != -- ]; do spaces+=("$1"); shift; done
  unshare --mount --pid "${spaces[@]}" --fork --kill-child \
    "$here/mounts.sh" "$root" chroot /chimera-test/inside.sh "$2"
}

echo "== a root of Debian 12"
private=''
if ! mmdebstrap --variant=minbase --include=ca-certificates,curl,procps,systemd,systemd-sysv \
  bookworm "$root" >"$work/log" 2>&1; then
  tail -n 3 "$work/log" >&2
  echo "no mirror is reached: this system, with what changes kept apart, in its place"
  rm -rf "$root"
  mkdir "$root" "$work/upper" "$work/overlay"  # mounts.sh lays one over the other
  private=1
fi
top=$root
[ -z "$private" ] || top=$work/upper
mkdir -p "$top/chimera-test"
cp "$debs"/*.deb "$here/inside.sh" "$here/../../README.md" "$top/chimera-test"
[ ! -d "$module" ] || cp -r "$module" "$top/chimera-test/library"
[ -n "$private" ] || cp /etc/resolv.conf "$root/etc/resolv.conf"

echo "== without a service manager"
inside -- dependencies
inside --net -- by_hand

echo "== with systemd"
if [ -n "$private" ]; then
  echo "not run: the services of this system would start as well"
  exit 0
fi
group=$("$here/control_group.sh") || { echo "not run: no control groups for a systemd of its own"; exit 0; }
console=$work/console
(
  echo $BASHPID >"$group/cgroup.procs"
  exec unshare --mount --pid --net --uts --ipc --cgroup --fork --kill-child \
    "$here/mounts.sh" "$root" boot
) >"$console" 2>&1 &
first=$!
for _ in $(seq 600); do
  init=$(pgrep -P "$first" || true)
  [ -z "$init" ] || ! nsenter -t "$init" -a test -S /run/systemd/private 2>/dev/null || break
  kill -0 "$first" 2>/dev/null || break
  sleep 0.1
done
[ -n "$init" ] || { cat "$console" >&2; fail "systemd did not start"; }
nsenter -t "$init" -a /chimera-test/inside.sh services
echo "== all of it went well"
