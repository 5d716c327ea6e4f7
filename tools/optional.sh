#!/usr/bin/env bash
# Installs the packages that only some tests use, each where it has a wheel.
#   optional.sh PYTHON
set -euo pipefail
cd "$(dirname "$0")/.."
list='import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["optional"], sep="\n")'
"$1" -c "$list" | while read -r package; do
  "$1" -m pip --disable-pip-version-check install --quiet --only-binary :all: "$package" \
    </dev/null 2>/dev/null || echo "$package has no wheel here: its tests are skipped"
done
