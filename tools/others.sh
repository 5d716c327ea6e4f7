#!/usr/bin/env bash
# Every test of native code on each CPython >= 3.11 of this machine but one (make test has run
# on that) and the free-threaded 3.13 (free-threaded.sh).
#   others.sh BUT_PYTHON [pytest arguments...]
set -euo pipefail
cd "$(dirname "$0")/.."
but_python="$1"; but="$("$1" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')"; shift
failed=()
while read -r tag python; do
  if [ "$tag" = "$but" ] || [ "$tag" = cp313t ]; then continue; fi
  echo "--- $tag: $python"
  # The pure twins run on the oldest CPython and on the free-threaded, newest one.
  tools/suite.sh "$python" "$tag" --hypothesis-profile=quick -k "not pure" \
    --ignore=tests/conformance/test_numpy_under_pool.py \
    --ignore=tests/build/test_bench.py "$@" </dev/null || failed+=("$tag")
done < <("$but_python" tools/pythons.py)
if [ ${#failed[@]} -gt 0 ]; then echo "failed on: ${failed[*]}" >&2; exit 1; fi
