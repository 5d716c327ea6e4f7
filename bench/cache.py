"""The whole table of the cache: ours, a dict, and the peers, side by side in one run.

    python bench/cache.py [--quick] [--only TEXT...] [--json FILE] [--plot FILE]

Method. Contenders of one operation run in one process, in turns, the order rotating,
with the garbage collector off; a ratio is the median of the rounds' own ratios. The
empty loop is in every figure and stands beside them: nothing is subtracted. Memory
is measured in a process for each contender. Latencies are taken in C around each
single operation. A ! marks a promise that was missed; at the end stands each of them.

Bias. We chose the operations. Peers are called as their documentation shows; the
best peer of an operation is whichever was fastest at it, in this run.

A full run takes about ten minutes and 3 GB. --quick is for seeing that it works.
"""

import cache_calls
import cache_memory
import cache_plot
import cache_table
import cache_tail
import cache_threads
from peers import absent
from runner import run

CHAPTERS = (cache_table, cache_memory, cache_calls, cache_threads, cache_tail)

if __name__ == "__main__":
    run(__doc__, CHAPTERS, absent(), cache_plot.draw)
