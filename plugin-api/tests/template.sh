#!/usr/bin/env bash
# An author's first steps: install the headers, copy the template to an empty folder, build it with
# one command. Usage: template.sh CMAKE BUILD_DIR CHIMERA_MODULE
set -euo pipefail
cmake=$1 build=$2 module=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$cmake" --install "$build" --component plugin-api --prefix "$work/prefix" >/dev/null
cp -r "$work/prefix/share/chimera/template" "$work/my-plugin"
cd "$work/my-plugin"
export CMAKE_PREFIX_PATH=$work/prefix
"$cmake" --workflow --preset default

fail() { echo "template: $*" >&2; exit 1; }
exported=$(nm -D --defined-only build/module/my_expert.so | awk '{print $3}')
[ "$exported" = chimera_expert_entry_v1 ] || fail "exports $exported (expected its entry alone)"
readelf -dW build/module/my_expert.so | grep -q 'BIND_NOW' || fail "not linked with -z now"
readelf -lW build/module/my_expert.so | grep -q 'GNU_RELRO' || fail "not linked with -z relro"
readelf -lW build/module/my_expert.so | grep 'GNU_STACK' | grep -q 'RWE' && fail "executable stack"
readelf -dW build/module/my_expert.so | grep -q 'TEXTREL' && fail "text relocations"
"$module" verify build/module
rm -rf "$build/modules/template"
mkdir -p "$build/modules"
cp -r build/module "$build/modules/template"
