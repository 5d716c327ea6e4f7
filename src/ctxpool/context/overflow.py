"""A window that is nearly full: strategies in a row, until it has room again."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

from ..errors import UnstorableMessageError
from . import _calls
from .messages import Group, Message
from .overflow_draft import OverflowDraft, told
from .overflow_report import OverflowResult
from .overflow_strategies import Compress, Evict, Spill, share
from .spill import SpillStore
from .summarise import Summarise

__all__ = ["OverflowChain", "OverflowStrategy"]


@runtime_checkable
class OverflowStrategy(Protocol):
    """One step of a chain. Any object with these is one.

    An ``async def aapply(draft)`` beside them is used by
    :meth:`OverflowChain.areduce`.

    Attributes
    ----------
    name : str
        In the report.
    to : float
        Part of the budget at which there is nothing for it to do.
    """

    name: str
    to: float

    def apply(self, draft: OverflowDraft) -> None:
        """Change *draft* until ``draft.excess`` is not positive, or do what you can."""


class OverflowChain:
    """Makes a window fit by an explicit sequence of strategies.

    Each strategy works while the window has more than *its* part of the budget; the
    first ones change little, the last ones much. When one raises, what it has done so
    far holds, the report says so, and the next one goes on. Pinned groups are never
    touched, a group stays or goes as a whole, and the input is not changed.

    With a :class:`Spill` among the strategies, every original is in its store before it
    leaves the window, and :meth:`restore` gives it back. A message that the store can't
    hold stays in the window, and the report names it.

    Parameters
    ----------
    strategies : iterable of OverflowStrategy, optional
        In their order. By default ``Compress(), Summarise(), Evict()``.
    start : float
        Part of the budget from which on anything is done. A window's *high_water*
        should not be lower: it would ask in vain.

    Notes
    -----
    The defaults: from 90 % of the budget on, compress to 70 %; above 70 % still,
    summarise; above 80 % still, evict to 80 %; above 80 % still, spill.

    With a Spill, or an ``Evict(keep=0)``, the window fits afterwards whenever its
    pinned groups leave room for it. Otherwise ``report.fits`` may be False.

    The result depends on the arguments alone, if the callables' results do.

    **Thread-safety.** Calls share nothing but the store and caches, which are safe:
    any number of threads may use a chain at once. :meth:`areduce` calls the window's
    *count* and the strategies' callables in other threads.

    Examples
    --------
    >>> chain = OverflowChain([Evict(to=0.5, keep=1)])
    >>> told = [Message("user", f"fact {i}", id=f"m{i}") for i in range(4)]
    >>> result = chain.reduce([Group((m,), 30) for m in told], 120, lambda m: 30)
    >>> [message.id for group in result.groups for message in group.messages]
    ['m2', 'm3']
    >>> print(result.report)
    120 -> 60 tokens of 120, 60 saved
      evict: 60 -> 0 tokens, 2 messages: m0, m1
    """

    def __init__(
        self,
        strategies: Iterable[OverflowStrategy] | None = None,
        *,
        start: float = 0.9,
    ) -> None:
        if strategies is None:
            strategies = (Compress(), Summarise(), Evict())
        self.strategies = tuple(strategies)
        for strategy in self.strategies:
            if not isinstance(strategy, OverflowStrategy):
                raise TypeError(f"no strategy, with name, to and apply(): {strategy!r}")
            share(f"to of {strategy!r}", strategy.to)
        self.start = share("start", start)
        stores = [s.store for s in self.strategies if isinstance(s, Spill)]
        if any(store is not stores[0] for store in stores):
            raise ValueError(f"a chain has one store, not {stores!r}")
        self.store: SpillStore | None = stores[0] if stores else None

    def __repr__(self) -> str:
        return f"OverflowChain({list(self.strategies)!r}, start={self.start})"

    def reduce(
        self,
        groups: Sequence[Group],
        budget: int,
        count: Callable[[Message], int],
    ) -> OverflowResult:
        """Make *groups* fit.

        Parameters
        ----------
        groups : sequence of Group
            Of a window, in order.
        budget : int
            Tokens that it may have.
        count : callable
            Tokens of a message. It is called for new messages, and for the neighbours
            of one in its group: let it remember what it counted.

        Raises
        ------
        Exception
            What *count* raises for no strategy. What a strategy raises is reported.
        """
        draft = OverflowDraft(groups, budget, count, self.store)
        if draft.tokens >= self.start * draft.budget:
            for strategy in self.strategies:
                draft.begin(strategy.name, strategy.to)
                while draft.excess > 0:
                    try:
                        strategy.apply(draft)
                        break
                    except Exception as error:
                        if not _again(draft, error):
                            break
        return draft.result()

    async def areduce(
        self,
        groups: Sequence[Group],
        budget: int,
        count: Callable[[Message], int],
    ) -> OverflowResult:
        """The same without holding up the event loop: what computes does so in a
        thread, and a summarizer that is a coroutine function is awaited here.

        When it is cancelled nothing has changed but the store, which may have copies.
        """
        draft = OverflowDraft(groups, budget, count, self.store)
        if draft.tokens >= self.start * draft.budget:
            for strategy in self.strategies:
                draft.begin(strategy.name, strategy.to)
                while draft.excess > 0:
                    try:
                        if inspect.iscoroutinefunction(
                            aapply := getattr(strategy, "aapply", None)
                        ):
                            await aapply(draft)
                        else:
                            await _calls.aside(strategy.apply, draft)
                        break
                    except Exception as error:
                        if not _again(draft, error):
                            break
        return draft.result()

    def restore(self, message: Message, *, partial: bool = False) -> list[Message]:
        """The originals that *message* stands for, in order; of an original, itself.

        Parameters
        ----------
        message : Message
            Out of a window.
        partial : bool
            Leave out those that the store no longer has.

        Raises
        ------
        KeyError
            The store has not all of them; it names those that are missing. Or the chain
            has no store.
        """
        if not message.sources:
            return [message]
        if self.store is None:
            raise KeyError(f"the chain has no store for the sources of {message.id!r}")
        return self.store.originals(message, partial=partial)


def _again(draft: OverflowDraft, error: Exception) -> bool:
    """Report *error*; whether the strategy may try again, without the messages that the
    store can't hold."""
    if isinstance(error, UnstorableMessageError) and (n := draft.hold(error.id)):
        others = f", and {n - 1} others that can't be stored" if n > 1 else ""
        draft.note(f"{error}. It stays{others}")
        return True
    draft.note(told(error))
    return False
