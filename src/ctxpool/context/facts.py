"""Facts that a text states, and how many of them are left in what became of it."""

from collections.abc import Sequence

__all__ = ["Fact", "retention", "states"]

Fact = Sequence[str]
"""Wordings that stand near to one another where the fact is stated."""

_NEAR = 300


def states(text: str, fact: Fact, near: int = _NEAR) -> bool:
    """Whether all wordings of *fact* are in *text*, in one stretch of *near*
    characters (or a longer one, if they are); upper case is lower case.

    Examples
    --------
    >>> states("The build failed: E42 in Parser.", ("failed", "e42"))
    True
    """
    if isinstance(fact, str) or not fact:
        raise TypeError(f"a fact is a sequence of wordings, not {fact!r}")
    folded = text.casefold()
    first, *others = (wording.casefold() for wording in fact)
    reach = max(near, len(first) + sum(map(len, others)) + len(others))
    at = folded.find(first)
    while at >= 0:
        around = folded[max(0, at + len(first) - reach) : at + reach]
        if all(other in around for other in others):
            return True
        at = folded.find(first, at + 1)
    return False


def retention(text: str, facts: Sequence[Fact], near: int = _NEAR) -> float:
    """The share of *facts* that *text* states; 1.0 of none.

    Examples
    --------
    >>> retention("Rolled back at 14:20.", [("rolled back", "14:20"), ("E4031",)])
    0.5
    """
    if not facts:
        return 1.0
    return sum(states(text, fact, near) for fact in facts) / len(facts)
