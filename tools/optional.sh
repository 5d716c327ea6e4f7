#!/usr/bin/env bash
# Installs the packages of an extra or a dependency group, each where it has a wheel:
# whoever uses them does without those that have none.
#   optional.sh PYTHON [NAME]
set -euo pipefail
cd "$(dirname "$0")/.."
name="${2:-optional}"
list='import sys, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))
named = project["project"]["optional-dependencies"] | project["dependency-groups"]
print(*named[sys.argv[1]], sep="\n")'
"$1" -c "$list" "$name" | while read -r package; do
  "$1" -m pip --disable-pip-version-check install --quiet --only-binary :all: "$package" \
    </dev/null 2>/dev/null || echo "$package has no wheel here: $name does without it"
done
