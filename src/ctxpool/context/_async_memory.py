"""A memory from an event loop."""

import asyncio
from types import TracebackType
from typing import Any, Self, SupportsIndex

from .episodes import Consolidation
from .memories import Memory, MemoryContext
from .messages import Message, Role

__all__ = ["AsyncMemory"]


def _calls(memory: Any) -> Any:
    """The memory, whose other calls this half of it knows nothing of."""
    return memory


class AsyncMemory:
    """The calls of a :class:`HierarchicalMemory` that may wait for a disk or a model,
    each in a thread, so that the loop goes on meanwhile."""

    async def aprocess_input(
        self, text: str | Message, role: Role = "user", **options: Any
    ) -> MemoryContext:
        """:meth:`process_input` in a thread, so that the loop goes on meanwhile."""
        found: MemoryContext = await asyncio.to_thread(
            _calls(self).process_input, text, role, **options
        )
        return found

    async def aremember(
        self, text: str | Message, role: Role = "user", **options: Any
    ) -> str:
        """:meth:`remember` in a thread."""
        found: str = await asyncio.to_thread(
            _calls(self).remember, text, role, **options
        )
        return found

    async def arecall(
        self, query: str, k: SupportsIndex = 10, **options: Any
    ) -> list[Memory]:
        """:meth:`recall` in a thread."""
        found: list[Memory] = await asyncio.to_thread(
            _calls(self).recall, query, k, **options
        )
        return found

    async def aforget(self, *ids: str, **options: Any) -> int:
        """:meth:`forget` in a thread."""
        found: int = await asyncio.to_thread(_calls(self).forget, *ids, **options)
        return found

    async def aconsolidate(self, **options: Any) -> Consolidation:
        """:meth:`consolidate` in a thread."""
        found: Consolidation = await asyncio.to_thread(
            _calls(self).consolidate, **options
        )
        return found

    async def aclose(self) -> None:
        """:meth:`close` in a thread."""
        await asyncio.to_thread(_calls(self).close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
