"""Run a script where nothing was freed before: memory is measured in a new process."""

import subprocess
import sys
from pathlib import Path

__all__ = ["in_a_new_process"]

RESIDENT = """
import gc, sys, psutil
sys.path.insert(0, {here!r})
import operations
def resident():
    gc.collect()
    return psutil.Process().memory_info().rss
def report(*figures):
    print("figures:", *figures)
{body}
"""


def in_a_new_process(body: str) -> list[float]:
    """The numbers that the script reports; ``operations``, ``resident`` and ``report``
    are there for it. What an import writes is not among them.

    Raises
    ------
    subprocess.CalledProcessError
        It failed; its own words are on stderr.
    """
    script = RESIDENT.format(here=str(Path(__file__).parent), body=body)
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [
        float(word)
        for line in done.stdout.splitlines()
        if line.startswith("figures: ")
        for word in line.split()[1:]
    ]
