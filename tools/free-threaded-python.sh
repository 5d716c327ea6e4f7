#!/usr/bin/env bash
# Builds a free-threaded CPython 3.13 from Debian's source tarball, without root,
# and prints the path of it. Does nothing but print where it is there already.
#   free-threaded-python.sh [PREFIX] [--tsan]
# PREFIX: ~/.cache/ctxpool/py313t. --tsan: with ThreadSanitizer.
# Five to six minutes on two cores.
set -euo pipefail
prefix="${1:-${XDG_CACHE_HOME:-$HOME/.cache}/ctxpool/py313t}" tsan="${2:-}"
python="$prefix/bin/python3.13t"

works() {
  "$python" -c 'import sys, ssl, zlib, ctypes, sqlite3; assert not sys._is_gil_enabled()' \
    2>/dev/null
}
if works; then echo "$python"; exit 0; fi

needs=(libssl-dev zlib1g-dev libffi-dev libsqlite3-dev libbz2-dev liblzma-dev
  build-essential curl ca-certificates xz-utils pkg-config)
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null \
    && ! dpkg -s "${needs[@]}" >/dev/null 2>&1; then
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy \
      --no-install-recommends "${needs[@]}"; } >&2
fi

# The mirror that this machine's apt is set up with; or the one named by the caller.
mirror="${DEBIAN_MIRROR:-}"
if [ -z "$mirror" ] && command -v apt-get >/dev/null; then
  # shellcheck disable=SC2016  # apt's own variable
  mirror="$(apt-get indextargets --format '$(SITE)' 2>/dev/null \
    | grep -m1 -E '/debian/?$' || true)"
fi
if [ -z "$mirror" ]; then
  echo "free-threaded-python.sh: apt knows no Debian mirror: name one in DEBIAN_MIRROR" >&2
  exit 1
fi
pool="${mirror%/}/pool/main/p/python3.13"

work="$(mktemp -d)"; trap 'rm -rf "$work"' EXIT; cd "$work"
# What the mirror offers, newest first, where it lets itself be listed; then the
# releases that Debian has had (the stable one's stays for years).
offered="$(curl -fsSL "$pool/" 2>/dev/null \
  | grep -oE 'python3\.13_3\.13\.[0-9]+\.orig\.tar\.xz' | sort -ruV || true)"
for file in $offered python3.13_3.13.{15,5}.orig.tar.xz; do
  if curl -fsSL --retry 2 -o source.tar.xz "$pool/$file"; then break; fi
done
if [ ! -s source.tar.xz ]; then
  echo "free-threaded-python.sh: no source of Python 3.13 at $pool" >&2; exit 1
fi
echo "building $file as $python (some minutes)" >&2
tar xf source.tar.xz; cd Python-3.13*
extra=(--with-ensurepip=install)
if [ "$tsan" = --tsan ]; then extra=(--with-thread-sanitizer --without-ensurepip); fi
{ ./configure -q --prefix="$prefix" --disable-gil --disable-test-modules "${extra[@]}" \
  && make -s -j"$(nproc)" && make -s install; } >"$work/log" 2>&1 \
  || { tail -40 "$work/log" >&2; exit 1; }
works || { echo "free-threaded-python.sh: $python was built and does not work" >&2; exit 1; }
echo "$python"
