#!/usr/bin/env bash
# One wheel per CPython >= 3.11 of this machine: built, repaired for the
# manylinux tag it deserves, installed in a fresh environment and smoke-tested.
#   wheels.sh PYTHON        (auditwheel and patchelf are on PATH)
set -euo pipefail
cd "$(dirname "$0")/.."
work=build/wheels
rm -rf "$work" wheelhouse; mkdir -p "$work" wheelhouse
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ONLY_BINARY=numpy CTXPOOL_NATIVE=1
while read -r tag python; do
  echo "--- $tag: $python"
  "$python" -m venv "$work/$tag"
  "$work/$tag/bin/python" -m pip wheel -q --no-deps -w "$work/$tag/raw" . </dev/null
  auditwheel -v repair -w wheelhouse "$work/$tag/raw"/*.whl >"$work/$tag/log" 2>&1 \
    || { cat "$work/$tag/log" >&2; exit 1; }
  # [ml]: manylinux, musllinux or linux follows, not the "cp313t" of "cp313-cp313t".
  "$work/$tag/bin/python" -m pip install -q wheelhouse/*-"$tag"-[ml]*.whl </dev/null
  (cd "$work/$tag" && bin/python ../../../tools/smoke.py </dev/null)
done < <("$1" tools/pythons.py)
ls -1 wheelhouse
