#!/usr/bin/env bash
# In the clean root: installs the packages, uses and removes them, and says what they leave. Usage:
# inside.sh dependencies   the only phase with a network
# inside.sh by_hand        without a service manager
# inside.sh services       under systemd
set -euo pipefail
cd /chimera-test
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 SYSTEMD_PAGER=
endpoints=(--endpoint ipc:///run/chimera/serve.sock --control ipc:///run/chimera/control.sock)
names=(chimera chimera-demo libchimera-client-dev chimera-plugin-dev python3-chimera-client)

step() { echo "-- $*"; }
fail() {
  echo "inside: $*" >&2
  journalctl --no-pager -q -n 40 -u chimerad -u chimera-gateway >&2 2>/dev/null || true
  exit 1
}
# quiet COMMAND…: what it says is shown when it fails
quiet() { "$@" >log 2>&1 || { cat log >&2; fail "$* failed"; }; }
apt() { quiet apt-get -q -y --no-install-recommends "$@"; }
# expect TEXT WHAT COMMAND…
expect() {
  local wanted=$1 what=$2 found
  shift 2
  found=$("$@" 2>&1) || true
  [ "$found" = "$wanted" ] || fail "$what: found $found (expected $wanted)"
}
# until_done COMMAND…: for a minute
until_done() {
  for _ in $(seq 600); do
    "$@" >/dev/null 2>&1 && return
    sleep 0.1
  done
  fail "not within a minute: $*"
}
serves() { curl -sf http://127.0.0.1:8080/readyz; }

# Every file where packages put some, but those of the package manager, of logs and of the accounts.
list() {
  find /boot /etc /opt /srv /usr /var -xdev \( -path /var/tmp -o -path /var/lib/dpkg -o -path /var/lib/apt \
    -o -path /var/cache -o -path /var/log -o -path '/etc/*-' -o -path /var/lib/systemd \) -prune -o -print |
    sort
}
# leftovers: what is there that was not
leftovers() { list | comm -13 before -; }

kept="/etc/chimera
/etc/chimera/chimerad.yaml
/etc/chimera/clients.d
/etc/chimera/clients.d/gateway.yaml
/etc/chimera/clients.d/root.yaml
/etc/chimera/gateway.yaml
/var/lib/chimera
/var/lib/chimera-gateway"

remove_and_purge() {
  local left
  step "removed: configuration and state stay"
  apt remove "${names[@]}"
  left=$(leftovers)
  echo "$left" | sed 's/^/   /'
  [ "$(echo "$left" | grep -v '^/var/lib/chimera[a-z-]*/')" = "$kept" ] || fail "left other files than configuration and state"
  step "purged: nothing stays"
  quiet dpkg --purge chimera
  expect "" "after purge" leftovers
}

# The README's lines for the packages, from START on; its other lines are those of a shell as well.
readme_lines() {
  sed -n '/^apt install/,/^```/p' README.md | grep -v '^```' >lines.sh
  [ "$(grep -c curl lines.sh)" -ge 3 ] || fail "README: found no three curl lines"
  [ "$1" = all ] || sed -i '/^apt install\|^systemctl/d' lines.sh
  sed 's/^/   $ /' lines.sh
  (cd /chimera-test/here && bash -euo pipefail ../lines.sh) >answers || fail "a line of README failed"
  grep -q '"demo:legal"' answers || fail "README: models: $(cat answers)"
  grep -q '"completion_tokens"' answers || fail "README: completion: $(cat answers)"
  grep '^{' answers | cut -c 1-150 | sed 's/^/   /'
}

dependencies() {
  step "what the packages depend on, so that the rest is theirs"
  apt-get -q update >log 2>&1 || echo "   no mirror is reached: it has to be here"
  mkdir -p here/build/debs
  cp ./*.deb here/build/debs
  apt-get -s --no-install-recommends install ./*.deb | sed -n 's/^Inst \([^ ]*\).*/\1/p' |
    grep -vxF "$(printf '%s\n' "${names[@]}")" >needed || true
  # shellcheck disable=SC2046  # words, one for each package
  apt install $(cat needed)
  list >before
}

by_hand() {
  local user
  step "installed"
  apt install ./*.deb
  cat log >installed
  for user in chimera chimera-gateway; do
    expect "700 $user $user" "/var/lib/$user" stat -c '%a %U %G' "/var/lib/$user"
  done
  expect "" "services run" pgrep -l '^chimera'
  expect chimera "group of the gateway" sh -c 'id -Gn chimera-gateway | cut -d" " -f2'
  expect "Chimera daemon" "python" python3 -c 'import chimera_client; print("Chimera daemon")'
  step "run by hand, as the users of the services"
  install -d -o chimera -g chimera -m 0750 /run/chimera
  as chimera chimerad --config /etc/chimera/chimerad.yaml
  as chimera-gateway chimera-gateway --config /etc/chimera/gateway.yaml
  until_done serves
  readme_lines curl
  people
  quiet pkill -TERM -x chimera-gateway
  quiet pkill -TERM -x chimerad
  until_done sh -c '! pgrep "^chimera"'
  rm -rf /run/chimera
  remove_and_purge
}
as() { setpriv --reuid "$1" --regid "$1" --init-groups --reset-env "${@:2}" >"$1.log" 2>&1 & }

# Who may ask the daemon: root; who is in the group and listed; nobody else.
people() {
  step "root may, others may when they are listed and in the group"
  chimera "${endpoints[@]}" modules >modules || fail "root: $(cat modules)"
  grep -q '^legal ' modules || fail "modules: $(cat modules)"
  useradd -M guest
  ! ask_as_guest || fail "a user outside of the group was served"
  usermod -aG chimera guest
  ! ask_as_guest || fail "a user who is not listed was served"
  printf 'chimera: clients/1\nclients:\n  - {name: guest, uid: %s, roles: [use], modules: [legal]}\n' \
    "$(id -u guest)" >/etc/chimera/clients.d/guest.yaml
  until_done ask_as_guest
  ! setpriv --reuid guest --regid guest --init-groups chimera "${endpoints[@]}" unload legal 2>/dev/null ||
    fail "a user with the role use changed something"
  ! setpriv --reuid guest --regid guest --init-groups ls /var/lib/chimera 2>/dev/null ||
    fail "the state is open to the group"
  rm /etc/chimera/clients.d/guest.yaml
  userdel guest 2>/dev/null
}
ask_as_guest() {
  timeout 20 setpriv --reuid guest --regid guest --init-groups chimera "${endpoints[@]}" \
    generate "The Borrower shall" --max-tokens 4 >/dev/null 2>&1
}

services() {
  local main
  until_done sh -c 'systemctl is-system-running | grep -qE "running|degraded"'
  step "installed: enabled, started, and README's lines"
  readme_lines all
  for unit in chimerad chimera-gateway; do
    expect enabled "$unit" systemctl is-enabled "$unit"
    expect active "$unit" systemctl is-active "$unit"
    main=$(systemctl show -P MainPID "$unit")
    expect "1 2 0000000000000000" "privileges, seccomp, capabilities of $unit" \
      awk '/^NoNewPrivs|^Seccomp:|^CapBnd/ {v[$1] = $2} END {print v["NoNewPrivs:"], v["Seccomp:"], v["CapBnd:"]}' \
      "/proc/$main/status"
  done
  expect "750 chimera chimera" /run/chimera stat -c '%a %U %G' /run/chimera
  people
  library
  killed
  upgraded
  without_model
  step "removed while it runs"
  systemctl start chimerad chimera-gateway
  remove_and_purge
  expect "" "services run" pgrep -l '^chimera'
  expect "" "units" sh -c 'ls /etc/systemd/system/*/chimera* 2>/dev/null'
}

library() {
  if [ ! -d library ]; then
    step "no library module here: its process is not tried"
    return
  fi
  step "an expert that is code, in its own process inside the service"
  cp -r library /opt/finance-library
  quiet chimera "${endpoints[@]}" load /opt/finance-library
  chimera "${endpoints[@]}" --json modules >modules
  grep -q 'landlock' modules && grep -q 'seccomp (' modules || fail "sandbox: $(cat modules)"
  ! grep -q 'off:' modules || fail "part of the sandbox is off: $(cat modules)"
  quiet chimera "${endpoints[@]}" generate "Participants noted that" --modules finance --max-tokens 8
  quiet chimera "${endpoints[@]}" load /usr/share/chimera/demo/finance
  rm -r /opt/finance-library
}

killed() {
  step "killed: it comes back with what was acknowledged"
  quiet chimera "${endpoints[@]}" unload bio
  systemctl kill -s KILL chimerad
  until_done serves
  until_done chimera "${endpoints[@]}" health
  chimera "${endpoints[@]}" modules >modules
  ! grep -q '^bio ' modules || fail "modules: $(cat modules)"
}

# The same packages under the next version.
upgraded() {
  local deb before
  step "upgraded: restarted, the administrator's changes stay"
  before=$(systemctl show -P MainPID chimerad)
  echo "# mine" >>/etc/chimera/chimerad.yaml
  systemctl disable -q chimera-gateway
  mkdir next
  for deb in chimera_*.deb; do
    dpkg-deb -R "$deb" next/tree
    sed -i 's/^Version: \(.*\)/Version: \1.1/' next/tree/DEBIAN/control
    dpkg-deb -b next/tree "next/$deb" >/dev/null
    rm -r next/tree
  done
  rm /etc/chimera/clients.d/gateway.yaml
  apt install ./next/*.deb
  expect "# mine" "chimerad.yaml" tail -n 1 /etc/chimera/chimerad.yaml
  [ ! -e /etc/chimera/clients.d/gateway.yaml ] || fail "the gateway was let in again"
  expect active chimerad systemctl is-active chimerad
  [ "$(systemctl show -P MainPID chimerad)" != "$before" ] || fail "chimerad was not restarted"
  expect disabled chimera-gateway systemctl is-enabled chimera-gateway
  # As it was, for what follows.
  apt purge chimera
  apt install ./chimera_*.deb
}

without_model() {
  step "without the demo: it does not start, and says what to do"
  systemctl stop chimera-gateway chimerad
  apt remove chimera-demo
  ! systemctl start chimerad 2>/dev/null || fail "chimerad started without a model"
  journalctl -q --no-pager -u chimerad | grep -q "Install chimera-demo, or let backbone.path" ||
    fail "no word on what to do"
  apt install ./chimera-demo_*.deb
  systemctl reset-failed chimerad
}

"$1"
