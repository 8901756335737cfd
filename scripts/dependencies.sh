# Debian packages that Chimera builds and tests with. Sourced by ./quickstart, ./check and
# scripts/lint.
#
# install_dependencies [PACKAGE...]: installs what is missing of these (CHIMERA_PACKAGES) with
# apt-get (as root or through sudo), says what it does, and does nothing when all is there.

CHIMERA_PACKAGES=(
  g++ cmake ninja-build pkg-config
  libboost-dev libboost-program-options-dev libeigen3-dev
  libyaml-cpp-dev nlohmann-json3-dev libspdlog-dev libfmt-dev
  libzmq3-dev cppzmq-dev
  libpcre2-dev libutf8proc-dev libssl-dev libsodium-dev libseccomp-dev libzstd-dev zstd libedit-dev
  libgtest-dev libgmock-dev
  ccache mold
  python3 python3-zmq python3-jsonschema python3-yaml python3-jinja2 python3-numpy
)

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
  echo "Installing Debian packages: ${missing[*]}"
  "${as_root[@]}" apt-get update -qq &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# build_jobs: one compiler per CPU, but no more than memory allows (about 1.5 GB each).
build_jobs() {
  local cpus mem_gb
  cpus=$(nproc)
  mem_gb=$(awk '/MemAvailable/ {print int($2 / 1572864)}' /proc/meminfo)
  [ "$mem_gb" -lt 1 ] && mem_gb=1
  echo $((cpus < mem_gb ? cpus : mem_gb))
}
