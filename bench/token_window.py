"""TokenWindow at every size, beside what people use instead, in one run.

    python bench/token_window.py [--quick] [--only TEXT...] [--json FILE] [--plot FILE]

append, extend from list, int32, array.array and int64, arrays, page faults, worst,
memory: context_tokens.py says how each is measured and where we lose. Contenders take
turns in one process, the order rotating; a ratio is the median of the rounds' own
ratios. numpy-ringbuffer and dvg-ringbuffer come with the extra ``bench-window``.

A full run takes about ten minutes and 3 GB. --quick is for seeing that it works.
"""

import functools

import context_tokens
import pools_plot
from runner import run

AT = "131,072 tokens"
PANELS = {
    f"append, {AT}": "append",
    f"extend 16 from a list, {AT}": "extend by a list of 16",
    f"extend 512 from int32, {AT}": "extend by an int32 array of 512",
    f"extend 65,536 from int32, {AT}": "extend by an int32 array of 65,536",
    f"extend 65,536 from int64, {AT}": "extend by an int64 array of 65,536",
    f"arrays, {AT}": "the window as an array",
}

if __name__ == "__main__":
    draw = functools.partial(pools_plot.draw, panels=PANELS)
    run(__doc__, (context_tokens,), context_tokens.absent(), draw)
