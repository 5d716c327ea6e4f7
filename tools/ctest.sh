#!/usr/bin/env bash
# Builds the C core alone and runs its unit tests.
#   ctest.sh BUILD_DIR [cmake arguments...]
set -euo pipefail
cd "$(dirname "$0")/.."
dir="$1"; shift
cmake -S csrc -B "$dir" -G Ninja -DCMAKE_BUILD_TYPE=Debug "$@" >/dev/null
cmake --build "$dir"
ctest --test-dir "$dir" --output-on-failure --no-tests=error
