#!/usr/bin/env bash
# Runs the Python tests on one interpreter, against an installed wheel (not the
# checkout), in an environment of its own that is kept for the next time.
#   suite.sh PYTHON NAME [pytest arguments...]
# NAME: the environment is .venv-NAME, the build folder build/NAME.
# INSTALL_ARGS: more arguments for the build. RUN: what to put before python.
set -euo pipefail
cd "$(dirname "$0")/.."
python="$1" name="$2"; shift 2
venv=".venv-$name"

if ! cmp -s pyproject.toml "$venv/.made"; then
  "$python" -m venv --clear "$venv"
  pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet)
  "${pip[@]}" --upgrade "pip>=25.1"
  # Wheels only: of each package the newest release that has one here.
  "${pip[@]}" --only-binary :all: --group build --group test psutil
  tools/optional.sh "$venv/bin/python"
  cp pyproject.toml "$venv/.made"
fi
export PATH="$PWD/$venv/bin:$PATH"
read -ra install_args <<<"${INSTALL_ARGS:-}"
CTXPOOL_NATIVE=1 python -m pip --disable-pip-version-check install --quiet \
  --no-build-isolation --no-deps --force-reinstall \
  -Cbuild-dir="build/$name" "${install_args[@]}" .
read -ra run <<<"${RUN:-}"
"${run[@]}" python -m pytest --require-native -p no:cacheprovider \
  -n logical --maxprocesses 4 --dist loadgroup --durations=10 "$@"
