"""What an overflow did to a window, and what is left of it."""

from dataclasses import dataclass, field
from typing import Any

from ..stats import _Record
from .messages import Group, Message

__all__ = ["OverflowAction", "OverflowProblem", "OverflowReport", "OverflowResult"]


@dataclass(frozen=True, slots=True)
class OverflowAction(_Record):
    """One change of the window.

    Attributes
    ----------
    strategy : str
        Whose it is.
    removed : tuple of str
        The ids of the messages that went.
    added : tuple of str
        Those of the messages that came in their place.
    before, after : int
        Tokens of the ones and of the others.
    """

    strategy: str
    removed: tuple[str, ...]
    added: tuple[str, ...]
    before: int
    after: int

    @property
    def saved(self) -> int:
        """Tokens."""
        return self.before - self.after


@dataclass(frozen=True, slots=True)
class OverflowProblem(_Record):
    """What went wrong, and was got around.

    Attributes
    ----------
    strategy : str
        Where.
    text : str
        What, and what was done instead.
    """

    strategy: str
    text: str

    def __str__(self) -> str:
        return f"{self.strategy}: {self.text}"


@dataclass(frozen=True, slots=True)
class OverflowReport(_Record):
    """What a chain did, in its order.

    Attributes
    ----------
    budget : int
        Tokens that the window may have.
    before, after : int
        Tokens that it had, and has.
    actions : tuple of OverflowAction
        Every change.
    problems : tuple of OverflowProblem
        Every failure. None of them has lost a message.
    forgotten : tuple of str
        The ids of the messages that the store let go to keep to its size.
    """

    budget: int
    before: int
    after: int
    actions: tuple[OverflowAction, ...] = ()
    problems: tuple[OverflowProblem, ...] = ()
    forgotten: tuple[str, ...] = ()

    @property
    def saved(self) -> int:
        """Tokens, in all."""
        return self.before - self.after

    @property
    def fits(self) -> bool:
        """Whether the window is within its budget now."""
        return self.after <= self.budget

    def saved_by(self) -> dict[str, int]:
        """Tokens by the strategy that saved them."""
        saved: dict[str, int] = {}
        for action in self.actions:
            saved[action.strategy] = saved.get(action.strategy, 0) + action.saved
        return saved

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, with *saved* and *fits*, as JSON can hold them."""
        return {
            "budget": self.budget,
            "before": self.before,
            "after": self.after,
            "saved": self.saved,
            "fits": self.fits,
            "saved_by": self.saved_by(),
            "actions": [
                {
                    **action.as_dict(),
                    "removed": list(action.removed),
                    "added": list(action.added),
                }
                for action in self.actions
            ],
            "problems": [problem.as_dict() for problem in self.problems],
            "forgotten": list(self.forgotten),
        }

    def __str__(self) -> str:
        """A line of the whole, and one for each strategy, problem and loss."""
        lines = [
            f"{self.before:,} -> {self.after:,} tokens of {self.budget:,}, "
            f"{self.saved:,} saved{'' if self.fits else ': still too many'}"
        ]
        for name in self.saved_by():
            some = [action for action in self.actions if action.strategy == name]
            ids = [id for action in some for id in action.removed]
            before = sum(action.before for action in some)
            after = sum(action.after for action in some)
            lines.append(
                f"  {name}: {before:,} -> {after:,} tokens, "
                f"{len(ids):,} message{'s' * (len(ids) != 1)}: "
                f"{', '.join(ids[:3])}{', ...' * (len(ids) > 3)}"
            )
        lines += [f"  ! {problem}" for problem in self.problems]
        if self.forgotten:
            lines.append(f"  the store let go {len(self.forgotten)}, for its size")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class OverflowResult:
    """A window after an overflow.

    Attributes
    ----------
    groups : list of Group
        What it consists of now, in order.
    report : OverflowReport
        What was done.
    removed : list of Message
        Those that were in the window and are no longer, in order: without a store, who
        wants them back has to keep them.
    """

    groups: list[Group]
    report: OverflowReport
    removed: list[Message] = field(default_factory=list)
