#!/usr/bin/env bash
# Every test of native code on each CPython >= 3.11 of this machine but one (make test
# has run on that) and the free-threaded 3.13 (free-threaded.sh).
#   others.sh BUT_PYTHON [pytest arguments...]
set -euo pipefail
cd "$(dirname "$0")/.."
but_python="$1"; but="$("$1" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')"; shift
mapfile -t others < <("$but_python" tools/pythons.py | grep -vE "^($but|cp313t) ")
failed=()
for other in "${others[@]}"; do
  read -r tag python <<<"$other"
  echo "--- $tag: $python"
  # The pure twins and the commands run on the oldest CPython and on the free-threaded
  # one; wheels are made on the oldest and on the newest.
  but_these=(tests/conformance/test_numpy_under_pool.py tests/build/test_bench.py
    tests/cli)
  if [ "$other" != "${others[-1]}" ]; then but_these+=(tests/build); fi
  tools/suite.sh "$python" "$tag" --hypothesis-profile=quick -k "not pure" \
    "${but_these[@]/#/--ignore=}" "$@" || failed+=("$tag")
done
if [ ${#failed[@]} -gt 0 ]; then echo "failed on: ${failed[*]}" >&2; exit 1; fi
