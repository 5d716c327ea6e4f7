"""``ctxpool bench``: measurements that are of use to users, too."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["add_command"]

_HITRATIO = """\
Play access traces against each policy of ctxpool.Cache at several sizes, and show
the hit ratios beside LRU's and the optimum's (Belady: it knows the future).

Without --traces the traces are synthetic: zipf, scan, shift, loop. A folder's may be
  NAME.trace[.gz]  a number a line; lines of * are skipped
  NAME.arc[.gz]    first block, number of blocks, and two more columns
  NAME.trace.xz    big-endian 32-bit integers
Where a trace has no more keys than a cache holds, there is nothing to compare.
"""


def _sizes(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(p.isascii() and p.isdecimal() and int(p) > 0 for p in parts):
        raise argparse.ArgumentTypeError(
            f"must be positive whole numbers with commas between, not {text!r}"
        )
    return sorted({int(part) for part in parts})


def add_command(commands: "Commands", epilog: str) -> None:
    """Add ``bench`` to the program's commands."""
    bench = commands.add_parser(
        "bench",
        help="measurements: hitratio",
        description="Measure one thing.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    things = bench.add_subparsers(metavar="WHAT", required=True)
    parser = things.add_parser(
        "hitratio",
        help="hit ratios of the cache policies on access traces",
        description=_HITRATIO,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=_hitratio)
    parser.add_argument("--traces", metavar="FOLDER", help="a folder of traces")
    parser.add_argument(
        "--sizes",
        type=_sizes,
        default="500,1000,2000",
        metavar="N,N...",
        help="entries of the caches (%(default)s)",
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures; - is stdout")
    parser.add_argument("--plot", metavar="FILE", help="draw them: .png, .svg or .html")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def _hitratio(arguments: argparse.Namespace) -> int:
    from . import hitratio

    return hitratio.run(
        arguments.traces,
        arguments.sizes,
        arguments.json,
        arguments.plot,
        arguments.quiet,
    )
