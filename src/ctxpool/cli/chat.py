"""``ctxpool chat``: a long conversation through a memory with a small budget."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import chat_plot, chat_report, output, plot
from .errors import CommandError, UsageError

if TYPE_CHECKING:
    from ..context.messages import Message
    from .conversation import Fact, Turn
    from .memories import Memory
    from .replay import Replay

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["add_command"]

_DESCRIPTION = """\
Replay a conversation through memories that may send no more than a budget of tokens
to a model, and show for each turn what is kept, compressed, evicted, spilled and
recalled. On the way, ask questions whose answers were said before: a fact is
answerable if an accepted answer is in what the memory would send at that moment.
"Everything" has no budget: it is the upper bound, and its price.

Without --replay it is a conversation that comes with ctxpool: a user and an agent
build a small service within three weeks, decide, and change their minds.

A line of FILE is a message in OpenAI's shape, {"role": ..., "content": ...}, with "id"
and "time" where they are known. A line of --questions is {"question": ..., "answers":
[...], "after": ID OF THE LAST MESSAGE SEEN}, with "superseded" and "kind".
"""

MEMORIES = ("truncation", "window", "overflow", "hierarchical")
PERSISTENT = "hierarchical"
_BUDGET = 8_000


def _budget(text: str) -> int:
    digits = text.replace(",", "").replace("_", "")
    if not (digits.isascii() and digits.isdecimal() and int(digits) > 0):
        raise argparse.ArgumentTypeError(
            f"must be a positive whole number, not {text!r}"
        )
    return int(digits)


def _memories(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in MEMORIES:
            listed = ", ".join(MEMORIES)
            raise argparse.ArgumentTypeError(f"must be some of {listed}, not {name!r}")
    return list(dict.fromkeys(names))


def add_command(commands: "Commands", epilog: str) -> None:
    """Add ``chat`` to the program's commands."""
    parser = commands.add_parser(
        "chat",
        help="a long conversation through the context memory, and what it remembers",
        description=_DESCRIPTION,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=command)
    parser.add_argument("--replay", metavar="FILE", help="the conversation, JSON lines")
    parser.add_argument("--questions", metavar="FILE", help="about it, JSON lines")
    parser.add_argument(
        "--budget",
        type=_budget,
        default=_BUDGET,
        metavar="N",
        help=f"tokens that a memory may send ({_BUDGET:,})",
    )
    parser.add_argument(
        "--memory",
        type=_memories,
        metavar="NAME,NAME...",
        help=f"of {', '.join(MEMORIES)}; the turns shown are the last one's (all)",
    )
    parser.add_argument(
        "--tokenizer",
        default="heuristic",
        metavar="NAME",
        help="what counts tokens, as o200k_base with ctxpool[bpe] (%(default)s)",
    )
    parser.add_argument(
        "--path",
        metavar="FOLDER",
        help=f"keep the memory there, and go on where it left off ({PERSISTENT} only)",
    )
    parser.add_argument(
        "--stop", type=_budget, metavar="N", help="stop after so many messages"
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures; - is stdout")
    parser.add_argument("--plot", metavar="FILE", help="draw them: .png, .svg or .html")
    parser.add_argument("--quiet", action="store_true", help="do not show the turns")


def command(arguments: argparse.Namespace) -> int:
    """Check everything that can be wrong, then replay."""
    if arguments.plot is not None:
        plot.check(arguments.plot)
        output.check(arguments.plot, "--plot")
    if arguments.json not in (None, "-"):
        output.check(arguments.json, "--json")
    if arguments.plot is not None and arguments.plot == arguments.json:
        raise UsageError(f"--json and --plot name the same file: {arguments.plot}")
    names = arguments.memory or (
        [PERSISTENT] if arguments.path is not None else list(MEMORIES)
    )
    if arguments.path is not None and names != [PERSISTENT]:
        raise UsageError(f"--path keeps a memory of --memory {PERSISTENT} alone")
    messages, facts = _input(arguments)
    return _replay(arguments, names, messages, facts)


def _input(arguments: argparse.Namespace) -> tuple[list["Message"], list["Fact"]]:
    from . import conversation

    questions = arguments.questions
    if arguments.replay is None and questions is None:
        questions = conversation.FACTS
    messages = conversation.read(arguments.replay or conversation.CONVERSATION)
    facts = [] if questions is None else conversation.read_facts(questions, messages)
    if arguments.stop is not None:
        messages = messages[: arguments.stop]
    return messages, [fact for fact in facts if fact.after <= len(messages)]


def _replay(
    arguments: argparse.Namespace,
    names: Sequence[str],
    messages: Sequence["Message"],
    facts: Sequence["Fact"],
) -> int:
    from ..context import MessageCounter, load_tokenizer
    from . import memories
    from .replay import Replay

    try:
        count = MessageCounter(load_tokenizer(arguments.tokenizer))
    except (ValueError, ModuleNotFoundError) as error:
        raise UsageError(f"--tokenizer {arguments.tokenizer}: {error}") from error
    made: list[Memory] = [] if arguments.path else [memories.Everything()]
    seen = 0
    try:
        try:
            for name in names:
                made.append(
                    memories.make(name, arguments.budget, count, arguments.path)
                )
            if arguments.path is not None:
                seen = _seen(made[-1], messages, arguments.path)
        except ValueError as error:
            raise UsageError(f"--budget {arguments.budget}: {error}") from error
        except OSError as error:
            raise UsageError(f"--path {arguments.path}: {error}") from error
        replay = Replay(messages, [f for f in facts if f.after > seen], made, count)
        _play(replay, arguments, seen)
    finally:
        for memory in made:
            memory.close()
    result = chat_report.build(
        replay.tracks,
        conversation=arguments.replay or "the one that comes with ctxpool",
        questions=arguments.questions,
        messages=len(messages),
        resumed_after=seen,
        tokens=sum(map(count, messages)),
        budget=arguments.budget,
        tokenizer=arguments.tokenizer,
    )
    _output(arguments, result)
    return 0


def _seen(memory: "Memory", messages: Sequence["Message"], path: str) -> int:
    """How many of the messages a memory that was kept has seen."""
    from .memories import Hierarchical

    assert isinstance(memory, Hierarchical)
    seen = memory.seen(messages)
    if memory.size and not seen:
        raise UsageError(f"--path {path}: it remembers another conversation")
    if seen == len(messages):
        raise UsageError(f"--path {path}: it has seen all {seen} messages")
    return seen


def _play(replay: "Replay", arguments: argparse.Namespace, seen: int) -> None:
    shown, stream = replay.tracks[-1], sys.stderr if arguments.json == "-" else None
    if not arguments.quiet:
        print(f"{shown.memory.name}: {shown.memory.about}", file=stream)
        if seen:
            print(
                f"it remembers {seen} messages, and goes on with the next", file=stream
            )
        print(f"{chat_report.LEGEND}\n\n{chat_report.HEADER}", file=stream)

    def tell(turn: "Turn") -> None:
        if not arguments.quiet:
            print(chat_report.line(shown.steps[-1]), file=stream, flush=True)

    try:
        replay.run(seen, tell)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise CommandError(f"--path {arguments.path}: {error}") from error
    if not arguments.quiet:
        print(file=stream)


def _output(arguments: argparse.Namespace, result: dict[str, Any]) -> None:
    """Files first: a reader of stdout may leave early."""
    if arguments.plot is not None:
        output.write(
            arguments.plot, "--plot", lambda path: chat_plot.draw(result, Path(path))
        )
    if arguments.json == "-":
        print(json.dumps(result, indent=1))
    elif arguments.json is not None:
        output.write(
            arguments.json, "--json", lambda path: output.write_json(result, path)
        )
    stream = sys.stderr if arguments.json == "-" else None
    print(chat_report.summary(result), file=stream)
