#!/usr/bin/env bash
# Every test on a free-threaded CPython 3.13, then the thread tests again and
# again. --require-no-gil: an extension that switched the GIL on is a failure.
#   free-threaded.sh [pytest arguments...]
set -euo pipefail
cd "$(dirname "$0")/.."
python="$(tools/free-threaded-python.sh)"
tools/suite.sh "$python" cp313t --require-no-gil --hypothesis-profile=quick \
  --ignore=tests/build/test_bench.py --ignore=tests/conformance/test_numpy_under_pool.py \
  "$@"
for round in 1 2; do
  echo "--- thread tests, round $round"
  .venv-cp313t/bin/python -m pytest --require-native --require-no-gil -q \
    -p no:cacheprovider -k "thread or threads" "$@"
done
