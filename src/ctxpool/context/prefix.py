"""Blocks of tokens that prompts with the same beginning share.

What a server of language models does with the keys and values of its attention, a
gateway before several of them can follow, to send each prompt where most of it is
cached:

>>> replicas = [PrefixBlockManager(1000, 4) for _ in range(2)]
>>> def send(prompt):
...     cached = [replica.lookup(prompt) for replica in replicas]
...     filled = [replica.stats().cached for replica in replicas]
...     best = max(range(2), key=lambda i: (cached[i], -filled[i]))
...     sequence = replicas[best].allocate(prompt).sequence
...     replicas[best].free(sequence)  # when it is answered: it stays cached
...     return best, cached[best]
>>> system, other = list(range(12)), list(range(100, 112))
>>> send([*system, 1, 2, 3]), send([*other, 4, 5]), send([*system, 6, 7])
((0, 0), (1, 0), (0, 12))
"""

from .._backend import PrefixBlockManager
from .._prefix_support import PrefixAllocation, PrefixEvent, PrefixGrowth

__all__ = ["PrefixAllocation", "PrefixBlockManager", "PrefixEvent", "PrefixGrowth"]
