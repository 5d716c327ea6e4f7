"""The command line: ``ctxpool COMMAND``, or ``python -m ctxpool COMMAND``."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from . import bench, chat, run
from .errors import CommandError

__all__ = ["main"]

_COMMANDS = (run, chat, bench)
_EXIT_CODES = """\
exit codes:
  0    done
  1    the job ran and failed: the two sides differ, or a file could not be written
  2    wrong usage or input: nothing was done
  130  interrupted
  141  the reader of our output went away
"""


class _Version(argparse.Action):
    """Prints the versions; asks the machine for them only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from .._info import version_text

        print(version_text())
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ctxpool",
        description="Fast, predictable memory for real-time Python.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version",
        action=_Version,
        nargs=0,
        help="print version, back end, interpreter, numpy and page sizes",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_command(commands, epilog=_EXIT_CODES)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments, without the program's name; those of the process if None.
    """
    try:
        arguments = _parser().parse_args(argv)
        code: int = arguments.command(arguments)
        if sys.stdout is not None:  # Closed by the shell: ctxpool run >&-
            sys.stdout.flush()
        return code
    except CommandError as error:
        print(f"ctxpool: error: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("\nctxpool: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The interpreter flushes both once more as it leaves: give them a place.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        return 141
