"""``ctxpool run``: real files through the pool, the window and the cache."""

import argparse
import json
import sys
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ..sizes import parse_size
from . import memory, output, plot, report, tokenizers, workload
from .errors import UsageError
from .job import Job, collector
from .latency import timer_cost
from .progress import Progress
from .settings import Settings
from .sides import Pooled, Unpooled

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["add_command"]

_DESCRIPTION = """\
Read every file below PATH through pool blocks, tokenize it, stream the tokens
through a token window and serve repeated chunks from a cache. The same work is
done without ctxpool in the same run, in turns, and the results are compared.

Without PATH the input is the Python standard library's own sources.
"""

_DEFAULTS = Settings()
_SHOWN = 20


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(
            f"must be a positive whole number, not {text!r}"
        )
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 100:
        raise argparse.ArgumentTypeError(f"must be a number in 0 to 100, not {text!r}")
    return share


def add_command(commands: "Commands", epilog: str) -> None:
    """Add ``run`` to the program's commands."""
    parser = commands.add_parser(
        "run",
        help="real files through the primitives, against the same work without them",
        description=_DESCRIPTION,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=command)
    parser.add_argument("paths", nargs="*", metavar="PATH", help="a file or a folder")
    _add_output(parser.add_argument_group("output"))
    _add_input(parser.add_argument_group("input"))
    _add_sizes(parser.add_argument_group("the engine"))
    _add_method(parser.add_argument_group("the comparison"))


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--json", metavar="FILE", help="write all figures; - is stdout")
    group.add_argument(
        "--plot",
        metavar="FILE",
        help="draw the latency distributions: .png, .svg or .html",
    )
    group.add_argument("--quiet", action="store_true", help="show no progress")


def _add_input(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--limit", type=_size, metavar="SIZE", help='stop after so much, as in "10MB"'
    )
    group.add_argument(
        "--revisit",
        type=_share,
        default=_DEFAULTS.revisit,
        metavar="N",
        help="later visits per first visit of a file, on average (%(default)s)",
    )
    group.add_argument(
        "--repeat",
        type=_count,
        default=_DEFAULTS.repeat,
        metavar="N",
        help="runs through all files (%(default)s)",
    )
    group.add_argument(
        "--seed",
        type=int,
        default=_DEFAULTS.seed,
        metavar="N",
        help="of the order of later visits (%(default)s)",
    )
    group.add_argument(
        "--tokenizer",
        choices=tokenizers.TOKENIZERS,
        default=_DEFAULTS.tokenizer,
        help='byte-pair (from "ctxpool[bpe]"), built-in words, '
        "or byte-pair where installed (%(default)s)",
    )


def _add_sizes(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--block-size",
        type=_size,
        default=_DEFAULTS.block_size,
        metavar="SIZE",
        help='of a block and so of a chunk, as in "64KiB" (%(default)s)',
    )
    for option, text in (
        ("--blocks", "blocks in the pool"),
        ("--in-flight", "chunks whose buffers are held at once"),
        ("--window", "tokens in the window"),
        ("--step", "tokens added at a time"),
        ("--last", "tokens in the short look back"),
        ("--cache", "chunks whose tokens are kept"),
    ):
        group.add_argument(
            option,
            type=_count,
            default=getattr(_DEFAULTS, option[2:].replace("-", "_")),
            metavar="N",
            help=f"{text} (%(default)s)",
        )
    group.add_argument(
        "--tokens",
        choices=("list", "array"),
        default=_DEFAULTS.tokens,
        help="how tokens are kept, on both sides (%(default)s)",
    )


def _add_method(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--unpooled-buffer",
        choices=("bytearray", "numpy"),
        default=_DEFAULTS.unpooled_buffer,
        help="a fresh one per read (%(default)s)",
    )
    group.add_argument(
        "--unpooled-window",
        choices=("deque", "concatenate"),
        default=_DEFAULTS.unpooled_window,
        help="a deque made an array, or an array made anew (%(default)s)",
    )
    group.add_argument(
        "--no-gc",
        dest="gc",
        action="store_false",
        help="switch the garbage collector off while it runs",
    )
    group.add_argument(
        "--no-memory",
        dest="memory",
        action="store_false",
        help="do not measure peak memory, each side in a process of its own",
    )


def _settings(arguments: argparse.Namespace) -> Settings:
    names = _DEFAULTS.as_dict()
    return Settings(**{name: getattr(arguments, name) for name in names})


def command(arguments: argparse.Namespace) -> int:
    """Check everything that can be wrong, then do the job."""
    settings = _settings(arguments)
    if arguments.plot is not None:
        plot.check(arguments.plot)
        output.check(arguments.plot, "--plot")
    if arguments.json not in (None, "-"):
        output.check(arguments.json, "--json")
    if arguments.plot is not None and arguments.plot == arguments.json:
        raise UsageError(f"--json and --plot name the same file: {arguments.plot}")
    sides = [tokenizers.load(settings.tokenizer) for _ in range(2)]
    found = workload.find(arguments.paths)
    if not sum(found.sizes):
        _tell(found.skipped)
        where = ", ".join(arguments.paths) or workload.standard_library()
        raise UsageError(f"nothing to read: no file with content in {where}")
    return _job(arguments, settings, sides, found)


def _tell(skipped: list[workload.Unreadable]) -> None:
    """Name what was skipped, the first few of it."""
    for one in skipped[:_SHOWN]:
        print(f"ctxpool: skipped {one.path}: {one.reason}", file=sys.stderr)
    if len(skipped) > _SHOWN:
        more = len(skipped) - _SHOWN
        print(f"ctxpool: skipped {more:,} more", file=sys.stderr)


def _job(
    arguments: argparse.Namespace,
    settings: Settings,
    encoders: list[tokenizers.Tokenizer],
    found: workload.Found,
) -> int:
    order = workload.revisits(
        len(found.paths), settings.revisit, settings.seed, settings.repeat
    )
    visits = [found.paths[file] for file in order]
    total = sum(found.sizes[file] for file in order)
    if arguments.limit is not None:
        total = min(total, arguments.limit)
    progress = Progress(total, None if arguments.quiet else sys.stderr)
    timer = timer_cost()
    job = Job(Pooled(settings, encoders[0]), Unpooled(settings, encoders[1]))
    start = perf_counter()
    try:
        with collector(settings.gc):
            tally = job.run(visits, arguments.limit, progress.update)
        progress.end(tally.bytes)
    finally:
        progress.close()
    seconds = perf_counter() - start
    skipped = found.skipped + tally.skipped
    _tell(skipped)
    if not tally.chunks:
        raise UsageError("nothing to read: no file could be read")
    peaks = _peaks(settings, visits, total, progress) if arguments.memory else None
    result = report.build(
        job, settings, encoders[0].name, timer, skipped, peaks, seconds
    )
    _output(arguments, result)
    return 0


def _peaks(
    settings: Settings, visits: list[str], total: int, progress: Progress
) -> dict[str, Any]:
    limit = min(total, memory.LIMIT)
    peaks = {}
    for name in ("pooled", "unpooled"):
        progress.say(f"peak memory of the {name} side ...")
        peaks[name] = memory.measure(settings, name, visits, limit)
    progress.close()
    return peaks


def _output(arguments: argparse.Namespace, result: dict[str, Any]) -> None:
    """Files first: a reader of stdout may leave early."""
    if arguments.plot is not None:
        output.write(arguments.plot, "--plot", lambda path: plot.draw(result, path))
    if arguments.json == "-":
        print(json.dumps(result, indent=1))
    elif arguments.json is not None:
        output.write(
            arguments.json, "--json", lambda path: output.write_json(result, path)
        )
    print(report.table(result), file=sys.stderr if arguments.json == "-" else None)
