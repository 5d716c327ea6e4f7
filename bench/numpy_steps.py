"""Time the steps of each workload in this process, as JSON on stdout.

    python bench/numpy_steps.py SIDE[,SIDE] TURNS [TEXT]

SIDE is ``plain`` (NumPy's own handler, over the malloc of this process) or ``pool``.
Sides take turns; the first two steps of a turn are not counted.
"""

import gc
import json
import resource
import sys
import time
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy_cases import WORKLOADS, Workload

import ctxpool

__all__ = ["measured"]

LEAD = 2


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def measured(workload: Workload, sides: list[str], turns: int) -> dict[str, Any]:
    """By side: ns of each step in order, and the page faults of all of them."""
    contexts: dict[str, Any] = {
        side: ctxpool.numpy_pool("1GiB") if side == "pool" else nullcontext()
        for side in sides
    }
    steps = {}
    for side, context in contexts.items():
        with context:
            steps[side] = workload.make()
    found = {side: {"ns": [], "faults": 0} for side in sides}
    out = np.zeros(workload.steps, np.int64)
    gc.collect()
    gc.disable()
    for turn in range(turns + 1):  # the first is for warming up
        for side in sides if turn % 2 else sides[::-1]:
            step, now = steps[side], time.perf_counter_ns
            with contexts[side]:
                for _ in range(LEAD):
                    step()
                before = faults()
                for i in range(workload.steps):
                    start = now()
                    step()
                    out[i] = now() - start
                after = faults()
            if turn:
                found[side]["ns"].extend(out.tolist())
                found[side]["faults"] += after - before
    gc.enable()
    return found


def main() -> None:
    sides, turns = sys.argv[1].split(","), int(sys.argv[2])
    only = sys.argv[3] if len(sys.argv) > 3 else ""
    json.dump(
        {
            workload.name: measured(workload, sides, turns)
            for workload in WORKLOADS
            if only in workload.name
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
