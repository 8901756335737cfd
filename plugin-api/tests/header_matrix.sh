#!/usr/bin/env bash
# Compiles every public header alone, and a plugin that uses all of them, with every compiler and
# language standard that the ABI promises, pedantic and with warnings as errors.
# Usage: header_matrix.sh INCLUDE_DIR C_COMPILER CXX_COMPILER
set -uo pipefail
include=$1 cc=$2 cxx=$3
here=$(dirname "$0")
warnings=(-Wall -Wextra -Wpedantic -pedantic-errors -Wshadow -Wconversion -Werror -fsyntax-only)
failed=0 compiled=0

try() {  # try COMPILER LANGUAGE STANDARD FILE
  compiled=$((compiled + 1))
  if ! "$1" -x "$2" -std="$3" "${warnings[@]}" -I "$include" "$4"; then
    echo "header matrix: $4 does not compile as $3 with $1" >&2
    failed=1
  fi
}

compilers_c=("$cc") compilers_cxx=("$cxx")
command -v clang >/dev/null && compilers_c+=(clang)
command -v clang++ >/dev/null && compilers_cxx+=(clang++)

probe=$(mktemp -d)
trap 'rm -rf "$probe"' EXIT
number=0
while read -r header; do
  number=$((number + 1))
  file=$probe/header$number
  # Twice: the guard has to work.
  printf '#include "%s"\n#include "%s"\n' "$header" "$header" >"$file"
  for c in "${compilers_c[@]}"; do
    [[ $header == *.hpp ]] || for s in c11 c17; do try "$c" c "$s" "$file"; done
  done
  for c in "${compilers_cxx[@]}"; do
    for s in c++17 c++20; do try "$c" c++ "$s" "$file"; done
  done
done < <(cd "$include" && find chimera -name '*.h' -o -name '*.hpp' | sort)

for c in "${compilers_c[@]}"; do
  for s in c11 c17; do try "$c" c "$s" "$here/every_header.c"; done
done
for c in "${compilers_cxx[@]}"; do
  for s in c++17 c++20; do
    try "$c" c++ "$s" "$here/every_header.c"
    try "$c" c++ "$s" "$here/wrapper.cc"
  done
done
# A reflow once ran the legend of tags together: each tag begins its own line.
for tag in control worker any; do
  grep -q "^ \*   \[$tag\] " "$include/chimera/expert.h" ||
    { echo "header matrix: expert.h explains [$tag] nowhere at the beginning of a line" >&2; failed=1; }
done
[ "$number" -ge 14 ] || { echo "header matrix: found $number headers (expected 14 or more)" >&2; exit 1; }
echo "$number headers, $compiled compilations"
exit $failed
