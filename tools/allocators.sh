#!/usr/bin/env bash
# Installs Debian's packages of other allocators, for LD_PRELOAD, where that may be:
# whoever compares does without those that are missing.
#   allocators.sh
set -euo pipefail
missing=()
for package in libmimalloc2.0 libjemalloc2 libtcmalloc-minimal4; do
  dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
if [ ${#missing[@]} = 0 ]; then exit; fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "not installed, and this user may not: ${missing[*]}"; exit
fi
apt-get update -qq || true
for package in "${missing[@]}"; do
  DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends \
    "$package" >/dev/null 2>&1 || echo "$package can't be installed here"
done
