#!/usr/bin/env bash
# Two threads at once on each primitive, under ThreadSanitizer: on a free-threaded
# CPython that is built with it (once, then cached), as preloading the library into
# another one reports races that are none.
#   tsan.sh
set -euo pipefail
cd "$(dirname "$0")/.."
prefix="${XDG_CACHE_HOME:-$HOME/.cache}/ctxpool/py313t-tsan"
plain="$(tools/free-threaded-python.sh)"
python="$(tools/free-threaded-python.sh "$prefix" --tsan)"
export TSAN_OPTIONS="exitcode=66 history_size=4"

# The tools run on the plain interpreter: they are slow under the sanitizer.
rm -rf .venv-tsan build/tsan; mkdir -p build/tsan
"$plain" -m venv .venv-tsan/tools
pip=(.venv-tsan/tools/bin/python -m pip --disable-pip-version-check)
"${pip[@]}" install --quiet --upgrade "pip>=25.1"
"${pip[@]}" install --quiet --only-binary :all: --group build
"$python" -m venv --without-pip .venv-tsan/run
into=("${pip[@]}" --python .venv-tsan/run/bin/python install --quiet)
"${into[@]}" --only-binary :all: --group build psutil
PATH="$PWD/.venv-tsan/tools/bin:$PATH" CTXPOOL_NATIVE=1 "${into[@]}" \
  --no-build-isolation --no-deps -Cbuild-dir=build/tsan \
  -Ccmake.build-type=Debug -Ccmake.define.CTXPOOL_SANITIZE=thread .
.venv-tsan/run/bin/python tests/isolated/races.py
