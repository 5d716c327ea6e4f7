"""A text made shorter: lightly while there is room, hard when there is none."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal

from .. import _arguments
from ..stats import _Record
from .extract import Extract, Span, extract
from .messages import Message
from .scoring import Importance
from .sentences import LONGEST, Piece
from .tokens import HeuristicTokenizer, whole
from .trim import trimmed_pieces

__all__ = ["AdaptiveCompressor", "Compressed", "Summarizer"]

Summarizer = Callable[[Sequence[Message], int], "str | Awaitable[str]"]
Level = Literal["none", "light", "aggressive", "summary"]
_SHORTEST = 24  # characters: no piece is cut to less
_NONE: Level = "none"
_LIGHT: Level = "light"
_AGGRESSIVE: Level = "aggressive"
_SUMMARY: Level = "summary"


@dataclass(frozen=True, slots=True)
class Compressed(_Record):
    """What became of a text.

    Attributes
    ----------
    text : str
        What is left of it, or a summary.
    level : {"none", "light", "aggressive", "summary"}
        What was done: nothing; what carries little left out; the most important pieces
        kept; said in a summarizer's own words.
    lossy : bool
        Whether the original can't be had back from *text*. It can't, unless nothing
        was done.
    spans : tuple of Span
        Where each part of *text* is in the original; of a summary none.
    sources : tuple of str
        The ids that the caller gave for what the text stands for.
    original_length, length : int
        Characters before and after.
    original_tokens, tokens : int
        Tokens before and after.
    error : Exception or None
        Why the summarizer's answer was not taken.
    """

    text: str
    level: Level
    lossy: bool
    spans: tuple[Span, ...]
    sources: tuple[str, ...]
    original_length: int
    length: int
    original_tokens: int
    tokens: int
    error: Exception | None = None

    @property
    def ratio(self) -> float:
        """Tokens after over tokens before; 1.0 of an empty text."""
        return self.tokens / self.original_tokens if self.original_tokens else 1.0


class AdaptiveCompressor:
    """Compresses texts lightly below a threshold of pressure, and hard above it.

    Light: what carries little is left out (:func:`~ctxpool.context.trim.trim`): filler,
    small talk, repetition, decoration, blanks. Hard, or *aggressive*: of the rest the
    statements with the most numbers, identifiers and names in them
    (:func:`~ctxpool.context.extract.extract`), or a summarizer's answer. Whatever was
    left out is said so (``lossy``), and each part that is left points to its place in
    the original (``spans``).

    Parameters
    ----------
    threshold : float
        Pressure from 0 to 1, the used share of a budget, from which on it is hard.
    ratio : float
        Share of a text's tokens to keep at most when it is hard and no budget is given.
    importance : callable, optional
        As for :func:`~ctxpool.context.extract.extract`.
    summarizer : callable, optional
        Given the text as a list of one user's message and a budget in tokens, returns a
        summary, or an awaitable of one (for :meth:`compress_async` only). When it
        raises, or its answer is no text, blank, or larger than the budget, the text
        is compressed without it, and ``error`` says why.
    count : callable, optional
        Gives the tokens of a text; by default as
        :class:`~ctxpool.context.HeuristicTokenizer` does.

    Raises
    ------
    ValueError
        A threshold or a ratio that can't be.
    TypeError
        What should be callable is not.

    Notes
    -----
    About O(len(text)), a few MB/s, without a model or a download; the same text gives
    the same result. An instance is a compressor for whatever takes one: ``compressor(text,
    tokens)`` gives a text.

    **Thread-safety**: has no state; the callables must bear what its callers do.

    Examples
    --------
    >>> compressor = AdaptiveCompressor(threshold=0.8, ratio=0.4)
    >>> text = (
    ...     "Hi all, hope you are well! As you know, the nightly build was red. "
    ...     "The linker ran out of memory at 3.9 GB in stage 7. "
    ...     "I think that nobody really looked at it over the weekend."
    ... )
    >>> compressor.compress(text, pressure=0.5).text
    'the nightly build was red. The linker ran out of memory at 3.9 GB in stage 7. nobody looked at it over the weekend.'
    >>> hard = compressor.compress(text, pressure=0.9)
    >>> hard.text, hard.level, hard.lossy
    ('The linker ran out of memory at 3.9 GB in stage 7.', 'aggressive', True)
    """  # noqa: E501

    __slots__ = ("count", "importance", "ratio", "summarizer", "threshold")

    def __init__(
        self,
        threshold: float = 0.8,
        *,
        ratio: float = 0.3,
        importance: Importance | None = None,
        summarizer: Summarizer | None = None,
        count: Callable[[str], int] | None = None,
    ) -> None:
        self.threshold = _number("threshold", threshold)
        self.ratio = _number("ratio", ratio)
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must be from 0 to 1, not {threshold!r}")
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio must be above 0 and at most 1, not {ratio!r}")
        for name, given in (
            ("importance", importance),
            ("summarizer", summarizer),
            ("count", count),
        ):
            if given is not None and not callable(given):
                raise TypeError(f"{name} must be callable, not {given!r}")
        self.importance = importance
        self.summarizer = summarizer
        self.count = count or HeuristicTokenizer().count

    def __repr__(self) -> str:
        return f"AdaptiveCompressor(threshold={self.threshold}, ratio={self.ratio})"

    def __call__(self, text: str, tokens: int) -> str:
        """*text* in at most *tokens*, compressed no harder than it must be."""
        return self.compress(text, tokens=tokens).text

    def compress(
        self,
        text: str,
        *,
        pressure: float | None = None,
        tokens: int | None = None,
        sources: Sequence[str] = (),
    ) -> Compressed:
        """Compress *text* as far as the pressure, or the budget, asks for.

        Parameters
        ----------
        text : str
            Any text.
        pressure : float, optional
            The used share of a budget; it may be above 1. By default it follows from
            *tokens*: hard if the text does not fit when it is compressed lightly.
        tokens : int, optional
            Tokens that the result has at most; by default, when it is hard, *ratio*
            of the text's.
        sources : sequence of str
            Ids for the result's ``sources``.

        Raises
        ------
        TypeError
            Neither pressure nor tokens is given, or *text* is no text; or the
            summarizer is asynchronous, which needs :meth:`compress_async`.
        """
        task = self._task(text, pressure, tokens, sources)
        if not task.hard or self.summarizer is None:
            return self._extractive(task)
        answer: object
        try:
            answer = self.summarizer([Message("user", text)], task.budget)
        except Exception as error:
            return self._extractive(task, error)
        if inspect.isawaitable(answer):
            if inspect.iscoroutine(answer):
                answer.close()
            raise TypeError(
                f"{self.summarizer!r} is asynchronous: await compress_async instead"
            )
        return self._summarised(task, answer)

    async def compress_async(
        self,
        text: str,
        *,
        pressure: float | None = None,
        tokens: int | None = None,
        sources: Sequence[str] = (),
    ) -> Compressed:
        """As :meth:`compress`, with a summarizer of either kind.

        A cancellation reaches the caller; nothing is left behind.
        """
        task = self._task(text, pressure, tokens, sources)
        if not task.hard or self.summarizer is None:
            return self._extractive(task)
        answer: object
        try:
            answer = self.summarizer([Message("user", text)], task.budget)
            if inspect.isawaitable(answer):
                answer = await answer
        except Exception as error:
            return self._extractive(task, error)
        return self._summarised(task, answer)

    def _count(self, text: str) -> int:
        return whole(self.count(text), "count gave {!r} tokens")

    def _task(
        self,
        text: str,
        pressure: float | None,
        tokens: int | None,
        sources: Sequence[str],
    ) -> "_Task":
        if not isinstance(text, str):
            raise TypeError(f"a text is needed, not {text!r}")
        if pressure is None and tokens is None:
            raise TypeError("pressure or tokens is needed")
        hard = False
        if pressure is not None:
            hard = _number("pressure", pressure) >= self.threshold
        if tokens is not None:
            tokens = _arguments.count("tokens", tokens, 0, 2**62)
        original = self._count(text)
        budget = int(original * self.ratio) if tokens is None else tokens
        light = Extract.whole(text)
        pieces: list[Piece] = []
        if pressure is not None or original > budget:
            share = min(budget / max(original, 1), 1.0)
            limit = max(_SHORTEST, min(LONGEST, int(len(text) * share)))
            light, pieces = trimmed_pieces(text, limit)
            if tokens is not None and not hard:
                hard = self._count(light.text) > tokens
        return _Task(text, light, pieces, hard, budget, original, tuple(sources))

    def _extractive(self, task: "_Task", error: Exception | None = None) -> Compressed:
        left, level = task.light, _LIGHT
        if task.hard:
            level = _AGGRESSIVE
            left = extract(
                left.text,
                tokens=task.budget,
                count=self.count,
                importance=self.importance,
                pieces=task.pieces,
            ).within(left)
        if not left.lossy:
            level = _NONE
        return self._result(task, left.text, level, left.spans, error)

    def _summarised(self, task: "_Task", answer: object) -> Compressed:
        wrong: Exception
        if not isinstance(answer, str):
            wrong = TypeError(f"a summarizer must return text, not {answer!r}")
        elif not answer.strip():
            wrong = ValueError(f"the summary is blank: {answer!r}")
        elif (tokens := self._count(answer)) > task.budget:
            wrong = ValueError(
                f"the summary has {tokens} tokens, more than {task.budget}"
            )
        else:
            return self._result(task, answer, _SUMMARY, ())
        return self._extractive(task, wrong)

    def _result(
        self,
        task: "_Task",
        text: str,
        level: Level,
        spans: tuple[Span, ...],
        error: Exception | None = None,
    ) -> Compressed:
        return Compressed(
            text=text,
            level=level,
            lossy=text != task.text,
            spans=spans,
            sources=task.sources,
            original_length=len(task.text),
            length=len(text),
            original_tokens=task.tokens,
            tokens=self._count(text),
            error=error,
        )


@dataclass(frozen=True, slots=True)
class _Task:
    """What is to be done with a text."""

    text: str
    light: Extract
    pieces: list[Piece]
    hard: bool
    budget: int
    tokens: int
    sources: tuple[str, ...]


def _number(name: str, value: float) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not (number := float(value)) >= 0:
        raise ValueError(f"{name} must be 0 or more, not {value!r}")
    return number
