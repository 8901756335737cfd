# Long steps as one line with the time that is left. Sourced by dependencies.sh.
#
# On a terminal the line is rewritten in place and never wider than the terminal; in a file or a pipe
# a line is printed at each quarter, without control characters. What the step itself prints goes to
# a log and is shown when the step fails.

# duration SECONDS: 95 -> 1 min 35 s
duration() {
  if [ "$1" -lt 60 ]; then echo "$1 s"; else echo "$(($1 / 60)) min $(($1 % 60)) s"; fi
}

# time_left SECONDS: nothing that pretends to be exact
time_left() {
  if [ "$1" -lt 10 ]; then echo "a few seconds left"
  elif [ "$1" -lt 90 ]; then echo "about $((($1 + 9) / 10 * 10)) s left"
  else echo "about $((($1 + 45) / 60)) min left"; fi
}

# progress_begin TITLE
progress_begin() {
  progress_title=$1 progress_start=$SECONDS progress_last=-1
  progress_width=$(tput cols 2>/dev/null) || progress_width=80
  [ -t 1 ] && progress_tty=1 || progress_tty=
  if [ -n "$progress_tty" ]; then printf '%s' "$1"; else echo "$1"; fi
}

# progress DONE TOTAL
progress() {
  local percent=$(($1 * 100 / $2)) elapsed=$((SECONDS - progress_start)) text
  # On a terminal at most once a second, elsewhere once a quarter.
  if [ -n "$progress_tty" ]; then
    [ "$progress_last" = "$SECONDS" ] && return
    progress_last=$SECONDS
  else
    [ $((percent / 25)) -le "$progress_last" ] || [ $((percent / 25)) -eq 0 ] && return
    progress_last=$((percent / 25))
  fi
  text="$progress_title: $percent %"
  if [ "$elapsed" -ge 5 ] && [ "$1" -gt 0 ] && [ "$percent" -ge 3 ] && [ "$1" -lt "$2" ]; then
    text+=", $(time_left $((elapsed * ($2 - $1) / $1)))"
  fi
  if [ -n "$progress_tty" ]; then
    printf '\r\033[K%s' "${text:0:$((progress_width - 1))}"
  else
    echo "$text"
  fi
}

# progress_end: the line becomes "TITLE: done in 3 min 20 s"
progress_end() {
  [ -z "$progress_tty" ] || printf '\r\033[K'
  echo "$progress_title: done in $(duration $((SECONDS - progress_start)))"
}

# progress_fail LOG WHAT: what the step said at its end
progress_fail() {
  [ -z "$progress_tty" ] || printf '\n'
  { grep -v '^@' "$1" | tail -n 60; echo "chimera: $2; everything it said is in $1"; } >&2
}

# configure PRESET: prepares the build folder. A new one compiles sources in batches, as all of them
# are to be compiled; one that is there stays as it was configured.
configure() {
  local dir=build options=()
  [ "$1" = release ] || dir=build-$1
  mkdir -p "$dir"
  [ -e "$dir/CMakeCache.txt" ] || options=(-DCHIMERA_UNITY=ON)
  if ! cmake --preset "$1" "${options[@]}" >"$dir/configure.log" 2>&1; then
    progress_tty='' progress_fail "$dir/configure.log" "preparing the build failed"
    return 1
  fi
}

# build DIR [TARGET…]
build() {
  local dir=$1 log=$1/build.log targets=() line
  shift
  [ $# -eq 0 ] || targets=(--target "$@")
  progress_begin "Building"
  # Numbers of steps first; small totals are CMake looking for changed files.
  if NINJA_STATUS='@%f/%t@' cmake --build "$dir" --parallel "$(build_jobs)" "${targets[@]}" 2>&1 |
    while IFS= read -r line; do
      printf '%s\n' "$line"
      if [[ $line =~ ^@([0-9]+)/([0-9]+)@ ]] && [ "${BASH_REMATCH[2]}" -gt 9 ]; then
        progress "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" >&3
      fi
    done 3>&1 >"$log"; then
    progress_end
  else
    progress_fail "$log" "the build failed"
    return 1
  fi
}
