#!/usr/bin/env bash
# The template, copied to an empty folder, builds with one command against the installed headers
# alone and passes the checker at level strict.
# Usage: template_test.sh CMAKE BUILD_DIR TEMPLATE_DIR CHECKER
set -euo pipefail
cmake=$1 build=$2 template=$3 checker=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$cmake" --install "$build" --component plugin-api --prefix "$work/prefix" >/dev/null
cp -r "$template" "$work/expert"
cd "$work/expert"
CMAKE_PREFIX_PATH=$work/prefix "$cmake" --workflow --preset default
grep -q "CHIMERA_INCLUDE_DIR:PATH=$work/prefix/include" build/CMakeCache.txt
"$checker" build/module --level strict --seed 1
