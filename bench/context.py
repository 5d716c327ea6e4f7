"""The context memory beside what people use instead, side by side in one run.

    python bench/context.py [--quick] [--only TEXT...] [--json FILE] [--plot FILE]

window, overflow, compression, retrieval, memory, prefix, chat: each chapter is a module
context_*.py, whose first lines say how it measures, whom it compares with, and where we
lose.
Contenders take turns in one process, the order rotating; a ratio is the median of the
rounds' own ratios. Peers come with the extra ``bench-context``; one that is not
installed is named, and its rows are left out.

A full run takes about fifteen minutes. --quick is for seeing that it works.
"""

import importlib.util

import context_chat
import context_compression
import context_memory
import context_overflow
import context_plot
import context_prefix
import context_retrieval
import context_window
from runner import run

CHAPTERS = (
    context_window,
    context_overflow,
    context_compression,
    context_retrieval,
    context_memory,
    context_prefix,
    context_chat,
)
PEERS = {
    "langchain-core": "langchain_core",
    "rs-bpe": "rs_bpe",
    "networkx": "networkx",
    "usearch": "usearch",
    "rank-bm25": "rank_bm25",
    "diskcache": "diskcache",
}


def absent() -> dict[str, str]:
    """The peers that are not here."""
    return {
        name: "not installed"
        for name, module in PEERS.items()
        if importlib.util.find_spec(module) is None
    }


if __name__ == "__main__":
    run(__doc__, CHAPTERS, absent(), context_plot.draw)
