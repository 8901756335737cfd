#!/usr/bin/env bash
# Makes a control group (version 2) for a systemd, and prints its folder; fails where that cannot be.
set -euo pipefail
mounted=$(awk '$3 == "cgroup2" {print $2; exit}' /proc/self/mounts)
[ -n "$mounted" ]
mktemp -d "$mounted/chimera-XXXXXX"
