"""Memories as a system message that fits what is left of a budget."""

from collections.abc import Sequence

from .episodes import Recollection
from .memories import MemoryContext
from .messages import Message
from .relations import Relation
from .window import ContextWindow

__all__ = ["made_context"]

_HEADER = "From earlier conversations:"


def _episode_line(recollection: Recollection) -> str:
    episode = recollection.episode
    return f"- {episode.role}: {episode.text}" if episode.role else f"- {episode.text}"


def _reminder(lines: Sequence[str]) -> Message:
    return Message("system", "\n".join([_HEADER, *lines]), name="memory")


def made_context(
    message: Message,
    window: ContextWindow,
    episodes: Sequence[Recollection],
    connections: Sequence[Relation],
    learnt: tuple[Relation, ...],
    limit: int,
) -> MemoryContext:
    """A context with as much of the connections and episodes as *limit* tokens hold,
    in their order; what is too long is passed over."""
    count = window.counter
    before, working = window.tokens, window.messages()
    sent = before
    if len(working) != len(window) or window.tokens != before:
        # Not all of it can be sent, or another thread is adding.
        sent = sum(map(count, working))
    # Relations are short, and say more a token: they come first.
    lines = [f"- {relation}" for relation in connections]
    lines += map(_episode_line, episodes)
    left = limit - count(_reminder(()))
    kept: list[int] = []
    for n, line in enumerate(lines):
        tokens = count.texts(f"\n{line}")
        if tokens <= left:
            kept.append(n)
            left -= tokens
    tokens, reminder = 0, None
    while kept and reminder is None:
        made = _reminder([lines[n] for n in kept])
        tokens = count(made)
        if tokens <= limit:
            reminder = made
        else:
            kept.pop()  # a text may have more tokens than its lines have
    first = len(connections)
    return MemoryContext(
        message,
        tuple(working),
        tuple(episodes[n - first] for n in kept if n >= first),
        tuple(connections[n] for n in kept if n < first),
        learnt,
        reminder,
        sent + (tokens if reminder else 0),
    )
