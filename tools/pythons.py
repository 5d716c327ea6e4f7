"""List the CPython interpreters of this machine that ctxpool supports.

One line each: a tag ("cp312", "cp313t"), a space, the path. One interpreter per
tag, the newest patch release of it. Runs on any Python 3.
"""

import glob
import os
import re
import subprocess
import sys

FIND = """
import sys, sysconfig
free = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
sys.implementation.name == "cpython" and sys.version_info[:2] >= (3, 11) and print(
    "cp%d%d%s" % (*sys.version_info[:2], free), sys.version_info[2], sys.executable
)
"""


def candidates():
    """Paths that may be interpreters: PATH, pyenv, uv and our own cache."""
    home = os.path.expanduser("~")
    folders = os.environ.get("PATH", "").split(os.pathsep)
    folders += glob.glob(os.path.join(home, ".pyenv/versions/*/bin"))
    folders += glob.glob(os.path.join(home, ".local/share/uv/python/*/bin"))
    folders += glob.glob(os.path.join(home, ".cache/ctxpool/*/bin"))
    seen = set()
    for folder in folders:
        if f"{os.sep}shims" in folder or os.path.exists(f"{folder}/../pyvenv.cfg"):
            continue  # a shim is one of the others; so is an environment's python
        for path in sorted(glob.glob(os.path.join(glob.escape(folder), "python3.*"))):
            if re.fullmatch(r"python3\.\d+t?", os.path.basename(path)):
                real = os.path.realpath(path)
                if real not in seen:
                    seen.add(real)
                    yield path


def main():
    best = {}
    for path in candidates():
        try:
            found = subprocess.run(
                [path, "-I", "-c", FIND], capture_output=True, text=True, timeout=30
            ).stdout.split(None, 2)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if found:
            tag, patch, executable = found[0], int(found[1]), found[2].strip()
            if tag not in best or patch > best[tag][0]:
                best[tag] = (patch, executable)
    for tag in sorted(best, key=lambda t: (int(t[3:].rstrip("t")), t)):
        print(tag, best[tag][1])
    return 0 if best else "no CPython >= 3.11 found"


if __name__ == "__main__":
    sys.exit(main())
