"""The pools beside what people use instead, side by side in one run.

    python bench/pools.py [--quick] [--only TEXT...] [--json FILE] [--plot FILE]

objects, sized, touch, shared, echo, receive, pickle, file: each chapter is a module
pools_*.py, whose first lines say how it measures, whom it compares with, and where we
lose. Contenders take turns in one process, the order rotating; a ratio is the median of
the rounds' own ratios. Peers of the object pool come with the extra ``bench-pools``.

A full run takes about ten minutes and 3 GB. --quick is for seeing that it works.
"""

import pools_buffers
import pools_objects
import pools_plot
import pools_postgres
import pools_shared
import pools_sized
import pools_touch
from runner import run

CHAPTERS = (
    pools_objects,
    pools_postgres,
    pools_sized,
    pools_touch,
    pools_shared,
    pools_buffers,
)

if __name__ == "__main__":
    run(__doc__, CHAPTERS, {}, pools_plot.draw)
