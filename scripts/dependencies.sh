# Debian packages that Chimera builds and tests with. Sourced by ./quickstart, ./check, scripts/package
# and scripts/lint.
#
# install_dependencies [PACKAGE...]: installs what is missing of these (CHIMERA_PACKAGES) with
# apt-get (as root or through sudo), says what it does, and does nothing when all is there.

. "$(dirname "${BASH_SOURCE[0]}")/progress.sh"

CHIMERA_PACKAGES=(
  g++ cmake ninja-build pkg-config
  libboost-dev libboost-program-options-dev libeigen3-dev
  libyaml-cpp-dev nlohmann-json3-dev libspdlog-dev libfmt-dev
  libzmq3-dev cppzmq-dev
  libpcre2-dev libutf8proc-dev libssl-dev libsodium-dev libseccomp-dev libzstd-dev zstd libedit-dev
  prometheus-cpp-dev
  libgtest-dev libgmock-dev
  ccache mold curl
  minisign
  python3 python3-zmq python3-jsonschema python3-yaml python3-jinja2 python3-numpy
)

# What ./check needs besides: packages are packed and looked into, completion is tried.
CHIMERA_TEST_PACKAGES=(dpkg-dev fish libczmq4 python3-pip python3-setuptools python3-wheel zsh)

# What scripts/package needs besides: to pack and judge, and with --test.
CHIMERA_PACKAGING_PACKAGES=(dpkg-dev git)
CHIMERA_PACKAGE_LINT_PACKAGES=(lintian)
CHIMERA_CLEAN_ROOT_PACKAGES=(iproute2 mmdebstrap procps)

# What scripts/lint needs besides.
CHIMERA_LINT_PACKAGES=(clang-14 clang-tidy-14 clang-format-14 git)

install_dependencies() {
  local missing=() package
  [ $# -gt 0 ] || set -- "${CHIMERA_PACKAGES[@]}"
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' ||
      missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0

  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "chimera: packages missing: ${missing[*]} (expected root or sudo to install them)." >&2
      echo "Run as root: apt-get install ${missing[*]}" >&2
      return 1
    fi
    as_root=(sudo)
  fi
  echo "Debian packages that are missing: ${missing[*]}" | fold -s -w 79
  local log
  log=$(mktemp)
  progress_begin "Installing ${#missing[@]} packages"
  # What apt and debconf say goes to the log; apt's own account of its progress to descriptor 3,
  # which the root shell opens itself, as sudo closes those it is given.
  if "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive LOG="$log" sh -c '
      exec 3>&1 >>"$LOG" 2>&1 &&
      apt-get update -q &&
      exec apt-get install -y -q --no-install-recommends -o APT::Status-Fd=3 "$@"' \
      apt "${missing[@]}" </dev/null | show_apt; then
    progress_end
    rm -f "$log"
  else
    progress_fail "$log" "installing packages failed"
    return 1
  fi
}

# Reads "dlstatus:1:12.5:…" (percent of the download, taken as a third of the work) and
# "pmstatus:name:12.5:…" (percent of unpacking and configuring).
show_apt() {
  local kind percent _
  while IFS=: read -r kind _ percent _; do
    percent=${percent%%.*}
    [[ $percent =~ ^[0-9]+$ ]] || continue
    case "$kind" in
      dlstatus) progress $((percent / 3)) 100 ;;
      pmstatus) progress $((33 + percent * 2 / 3)) 100 ;;
    esac
  done
}

# build_jobs: one compiler per CPU, but no more than memory allows (about 1.5 GB each).
build_jobs() {
  local cpus mem_gb
  cpus=$(nproc)
  mem_gb=$(awk '/MemAvailable/ {print int($2 / 1572864)}' /proc/meminfo)
  [ "$mem_gb" -lt 1 ] && mem_gb=1
  echo $((cpus < mem_gb ? cpus : mem_gb))
}
